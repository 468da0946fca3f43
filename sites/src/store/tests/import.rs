//! The forms in which images come, and finding them by name.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use super::{Layout, Tar, digest_of, gzip, listing, store, zstd};
use crate::store::policy::UnpackPolicy;
use crate::store::{ExposedPort, ImageId, ImageName, ImageSource, Store, StoreError};

fn layers() -> Vec<Vec<u8>> {
    vec![Tar::default().file("f", "one").end(), Tar::default().file(".wh.f", "").file("g", "two").end()]
}

/// What `docker save` wrote before version 25: a layer that an image shares is a symbolic link.
fn docker_archive() -> Vec<u8> {
    let layers = layers();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": { "Cmd": ["serve"], "User": "" }, "id": "whatever",
        "rootfs": { "type": "layers", "diff_ids": layers.iter().map(|l| digest_of(l).to_string()).collect::<Vec<_>>() },
    });
    let manifest = json!([{
        "Config": "cfg.json", "RepoTags": ["shop:2", "registry.example:5000/shop:latest"],
        "Layers": ["one/layer.tar", "two/layer.tar"],
    }]);
    Tar::default()
        .directory("one")
        .symlink("one/layer.tar", "../base/layer.tar")
        .header("two/layer.tar", b'0', "", &layers[1], |_| {})
        .header("base/layer.tar", b'0', "", &layers[0], |_| {})
        .file("cfg.json", &config.to_string())
        .file("manifest.json", &manifest.to_string())
        .end()
}

/// Writes `content` to a file and imports it, by detection.
fn import(
    content: &[u8],
    reference: Option<&str>,
) -> Result<(Store, ImageId, tempfile::TempDir), StoreError> {
    let (directory, store) = store();
    let path = directory.path().join("image.tar");
    fs::write(&path, content).expect("write");
    let source = store.detect(&path, reference)?;
    let image = store.import(&source, None)?;
    Ok((store, image, directory))
}

fn shows_both_layers(store: &Store, image: &ImageId) {
    let rootfs = store.rootfs(image, UnpackPolicy::LOCAL).expect("unpacks");
    let top: Vec<_> = listing(&rootfs.lower[0]).into_keys().collect();
    assert_eq!((rootfs.lower.len(), top), (2, vec![PathBuf::from("f"), PathBuf::from("g")]));
}

#[test]
fn a_layout_keeps_its_digest_in_every_wrapping() {
    let layout = Layout::of(&layers(), "web:1");
    let (directory, store) = store();
    let path = directory.path().join("layout");
    layout.write(&path);
    let source = store.detect(&path, None).expect("detects");
    assert!(matches!(source, ImageSource::OciLayout { .. }));
    let image = store.import(&source, None).expect("imports");
    shows_both_layers(&store, &image);
    let archive = layout.archive();
    for content in [archive.clone(), gzip(&archive), zstd(&archive)] {
        let (other, same, _directory) = import(&content, None).expect("imports");
        assert_eq!(same, image);
        shows_both_layers(&other, &same);
        assert_eq!(other.resolve("web:1").expect("reads"), Some(image));
    }
}

#[test]
fn configuration_is_understood() {
    let (store, image, _directory) =
        import(&Layout::of(&layers(), "web:1").archive(), None).expect("imports");
    let config = store.config(&image).expect("config");
    assert_eq!((config.entrypoint, config.cmd), (vec!["/init".to_owned()], vec!["--serve".to_owned()]));
    assert_eq!(config.env, ["A=1", "B="]);
    assert_eq!((config.workdir.as_deref(), config.user.as_deref()), (Some("/srv"), Some("99:7")));
    assert_eq!(config.stop_signal.as_deref(), Some("SIGQUIT"));
    assert_eq!(config.volumes, ["/cache", "/data"]);
    let port = |first, last, protocol: &str| ExposedPort { first, last, protocol: protocol.to_owned() };
    assert_eq!(config.exposed_ports, [port(80, 80, "tcp"), port(443, 443, "tcp"), port(5000, 5010, "udp")]);
    assert_eq!(config.architecture, "amd64");
}

#[test]
fn a_docker_archive_is_imported_under_all_its_names() {
    for content in [docker_archive(), gzip(&docker_archive())] {
        let (store, image, _directory) = import(&content, None).expect("imports");
        shows_both_layers(&store, &image);
        for name in ["shop:2", "registry.example:5000/shop", "docker.io/library/shop:2", "localhost/shop:2"] {
            assert_eq!(store.resolve(name).expect("reads"), Some(image), "{name}");
        }
        assert_eq!(store.resolve("shop").expect("reads"), None, "that would be its tag `latest`");
        let config = store.config(&image).expect("config");
        assert_eq!((config.cmd, config.user), (vec!["serve".to_owned()], None));
        let types: Vec<_> =
            store.blobs_of(&image).expect("blobs").into_iter().map(|blob| blob.media_type).collect();
        assert!(types[2].ends_with("tar+zstd"), "{types:?}");
    }
    assert_eq!(
        import(&docker_archive(), None).expect("imports").1,
        import(&docker_archive(), None).expect("imports").1
    );
}

#[test]
fn a_docker_archive_with_a_wrong_layer_is_refused() {
    let mut content = docker_archive();
    let place =
        content.windows(3).position(|window| window == b"two").expect("the layer's file name or content");
    let body = content[place..].windows(3).rposition(|window| window == b"two").expect("content") + place;
    content[body] = b'T';
    let error = import(&content, None).map(drop).expect_err("another layer");
    assert!(matches!(error, StoreError::WrongLayer { .. } | StoreError::BadImage { .. }), "{error}");
}

#[test]
fn several_images_need_a_word_which() {
    let mut layout = Layout::of(&layers(), "unused");
    let one = layout.image(&layers()[..1]);
    let two = layout.image(&layers());
    layout.index(&[(one.clone(), "1"), (two.clone(), "registry.example/web:2")]);
    let archive = layout.archive();
    match import(&archive, None).map(drop) {
        Err(StoreError::WhichImage { available, .. }) => {
            assert_eq!(available, ["image:1", "registry.example/web:2"]);
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(import(&archive, Some("3")).map(drop), Err(StoreError::WhichImage { .. })));
    let digest_in =
        |descriptor: &serde_json::Value| descriptor["digest"].as_str().expect("digest").to_owned();
    for (reference, expected) in
        [("1", &one), ("image:1", &one), ("registry.example/web:2", &two), (digest_in(&two).as_str(), &two)]
    {
        let (_store, image, _directory) = import(&archive, Some(reference)).expect(reference);
        assert_eq!(image.to_string(), digest_in(expected), "{reference}");
    }
}

#[test]
fn an_index_for_several_platforms_gives_this_one() {
    let mut layout = Layout::of(&layers(), "unused");
    let mut entries = Vec::new();
    for (architecture, layers) in [("arm64", &layers()[..1]), ("amd64", &layers()[..])] {
        let mut manifest = layout.image(layers);
        manifest["platform"] = json!({ "os": "linux", "architecture": architecture });
        entries.push(manifest);
    }
    let mut attestation = layout.blob(b"{}");
    attestation["mediaType"] = json!("application/vnd.oci.image.manifest.v1+json");
    attestation["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest" });
    attestation["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
    let amd64 = entries[1]["digest"].clone();
    entries.insert(0, attestation);
    let index = json!({ "schemaVersion": 2, "manifests": entries });
    let mut index = layout.blob(index.to_string().as_bytes());
    index["mediaType"] = json!("application/vnd.oci.image.index.v1+json");
    layout.index(&[(index, "web:1")]);
    let (_store, image, _directory) = import(&layout.archive(), None).expect("imports");
    assert_eq!(image.to_string(), amd64.as_str().expect("digest"));
}

#[test]
fn an_image_for_another_machine_is_refused() {
    let config =
        json!({ "architecture": "arm64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": [] } });
    let manifest = json!([{ "Config": "cfg.json", "RepoTags": ["arm:1"], "Layers": [] }]);
    let archive =
        Tar::default().file("cfg.json", &config.to_string()).file("manifest.json", &manifest.to_string());
    let error = import(&archive.end(), None).map(drop).expect_err("for another machine");
    assert!(error.to_string().ends_with("it is for linux/arm64, and this is linux/amd64"), "{error}");
}

#[test]
fn what_follows_the_archive_belongs_to_the_layer() {
    let mut padded = layers().remove(0);
    padded.resize(padded.len() + 20 * 512, 0);
    let (store, image, _directory) =
        import(&Layout::of(&[padded], "web:1").archive(), None).expect("imports");
    store.rootfs(&image, UnpackPolicy::LOCAL).expect("has the digest of all its bytes");
}

#[test]
fn what_is_no_image_is_said_to_be_none() {
    for content in [Tar::default().file("README", "hello").end(), Vec::new()] {
        assert!(matches!(import(&content, None).map(drop), Err(StoreError::NotAnImage { .. })));
    }
    assert!(matches!(import(b"plain text", None).map(drop), Err(StoreError::Archive { .. })));
    let (_directory, store) = store();
    let missing = store.detect("/nonexistent/image".as_ref(), None).map(drop);
    assert!(matches!(missing, Err(StoreError::Io { .. })));
    assert!(matches!(store.detect("/dev/null".as_ref(), None).map(drop), Err(StoreError::NotAnImage { .. })));
}

#[test]
fn a_document_cannot_name_files_outside() {
    let manifest = json!([{ "Config": "../../etc/passwd", "RepoTags": null, "Layers": [] }]);
    let error = import(&Tar::default().file("manifest.json", &manifest.to_string()).end(), None).map(drop);
    assert!(matches!(error, Err(StoreError::BadImage { .. })), "{error:?}");
}

#[test]
fn names_move_and_digests_can_be_short() {
    let (directory, store) = store();
    let name: ImageName = "team/app".parse().expect("a name");
    let one = super::image_of(&store, directory.path(), &layers()[..1]);
    let two = super::image_of(&store, directory.path(), &layers());
    assert_eq!(store.resolve("web:1").expect("reads"), Some(two), "the name moved");
    store.register(Some(&name), one).expect("named");
    assert_eq!(store.resolve("team/app:latest").expect("reads"), Some(one));
    for reference in
        [one.to_string(), one.0.hex(), one.0.hex()[..12].to_owned(), one.to_string()[..20].to_owned()]
    {
        assert_eq!(store.resolve(&reference).expect("reads"), Some(one), "{reference}");
    }
    assert_eq!(store.resolve(&one.0.hex()[..5]).expect("reads"), None, "too short to mean anything");
    store.remove(&one.0.hex()[..12]).expect("takes all names");
    assert_eq!(store.resolve("team/app").expect("reads"), None);
    assert!(matches!(store.remove("team/app"), Err(StoreError::NoImage { .. })));
    let summaries = store.list().expect("reads");
    assert_eq!(summaries.iter().map(|summary| summary.names.len()).sum::<usize>(), 1);
}

#[test]
fn bad_names_are_not_taken() {
    for bad in ["", "a b", "a//b", "/a", "a/", "a:", ":tag", "sha256:12", "ä", &"x".repeat(301)] {
        assert!(bad.parse::<ImageName>().is_err(), "{bad:?}");
    }
    for (good, full) in
        [("a", "a:latest"), ("host:5000/a", "host:5000/a:latest"), ("h/a:1.2-x_y", "h/a:1.2-x_y")]
    {
        assert_eq!(good.parse::<ImageName>().expect(good).as_str(), full);
    }
}
