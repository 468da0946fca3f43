//! An image goes from one store to another, blob by blob.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;

use ums_model::names::Bytes;

use super::{Layout, Tar, digest, image_of, listing, store};
use crate::store::policy::{Limits, UnpackPolicy};
use crate::store::{ImageId, ImageName, ImageSource, Store, StoreError};

fn name(text: &str) -> ImageName {
    text.parse().expect("a name")
}

fn layers() -> Vec<Vec<u8>> {
    vec![Tar::default().file("f", "one").end(), Tar::default().file("g", "two").end()]
}

/// Moves what is missing, in pieces.
fn travel(source: &Store, destination: &Store, image: &ImageId) -> usize {
    let blobs = source.blobs_of(image).expect("listed");
    let wanted = destination.missing(&blobs.iter().map(|blob| blob.digest).collect::<Vec<_>>());
    for blob in blobs.iter().filter(|blob| wanted.contains(&blob.digest)) {
        let mut content = Vec::new();
        source.open_blob(&blob.digest).expect("opens").read_to_end(&mut content).expect("reads");
        let mut writer = destination.blob_writer(blob.digest, blob.size).expect("begins");
        for piece in content.chunks(7) {
            writer.write(piece).expect("writes");
        }
        writer.commit().expect("is what it should be");
    }
    wanted.len()
}

#[test]
fn an_image_travels_and_is_the_same() {
    let ((here, source), (_there, destination)) = (store(), store());
    let image = image_of(&source, here.path(), &layers());
    assert_eq!(travel(&source, &destination, &image), 4);
    destination.register(Some(&name("web")), image).expect("complete");
    assert_eq!(destination.resolve("web").expect("reads"), Some(image));
    assert_eq!(source.blobs_of(&image).expect("listed"), destination.blobs_of(&image).expect("listed"));
    assert_eq!(source.config(&image).expect("config"), destination.config(&image).expect("config"));
    let listings = |store: &Store| {
        let rootfs = store.rootfs(&image, UnpackPolicy::STRANGER).expect("unpacks");
        rootfs.lower.iter().map(|tree| listing(tree)).collect::<Vec<_>>()
    };
    assert_eq!(listings(&source), listings(&destination));
    assert_eq!(travel(&source, &destination, &image), 0, "nothing travels twice");
}

#[test]
fn only_what_is_missing_travels() {
    let ((here, source), (there, destination)) = (store(), store());
    image_of(&destination, there.path(), &layers()[..1]);
    let image = image_of(&source, here.path(), &layers());
    assert_eq!(travel(&source, &destination, &image), 3, "not the shared layer");
}

#[test]
fn wrong_content_leaves_nothing() {
    let (_directory, store) = store();
    let expected = digest("hello");
    let write = |size, content: &[u8]| {
        let mut writer = store.blob_writer(expected, Bytes(size))?;
        writer.write(content)?;
        writer.commit()
    };
    assert!(matches!(write(5, b"hellO"), Err(StoreError::WrongContent { .. })), "other content");
    assert!(matches!(write(5, b"hell"), Err(StoreError::WrongContent { .. })), "too short");
    assert!(matches!(write(5, b"hello!"), Err(StoreError::WrongContent { .. })), "too long");
    assert!(matches!(write(6, b"hello"), Err(StoreError::WrongContent { .. })), "wrong size announced");
    let mut dropped = store.blob_writer(expected, Bytes(5)).expect("begins");
    dropped.write(b"hello").expect("writes");
    drop(dropped);
    assert_eq!(store.missing(&[expected, expected]), [expected]);
    assert!(matches!(store.open_blob(&expected), Err(StoreError::NoBlob { .. })));
    let left: Vec<_> =
        listing(store.directory()).into_iter().filter(|(_, what)| what.starts_with("file")).collect();
    assert!(left.iter().all(|(path, _)| path.ends_with("lock") || path.ends_with("ingest.lock")), "{left:?}");
    write(5, b"hello").expect("the right content");
    write(5, b"hello").expect("and once more");
    assert_eq!(store.missing(&[expected]), []);
}

#[test]
fn announced_sizes_are_bounded() {
    let (_directory, store) = store();
    let small = Limits { blob: Bytes(10), ..Limits::default() };
    let guarded = Store::open_with(store.directory(), small).expect("opens");
    assert!(matches!(guarded.blob_writer(digest("x"), Bytes(11)), Err(StoreError::BlobTooLarge { .. })));
}

#[test]
fn an_incomplete_image_is_not_listed() {
    let ((here, source), (_there, destination)) = (store(), store());
    let image = image_of(&source, here.path(), &layers());
    assert!(
        matches!(destination.register(None, image), Err(StoreError::NoBlob { .. })),
        "not even a manifest"
    );
    travel(&source, &destination, &image);
    let layer = source.blobs_of(&image).expect("listed")[3].digest;
    fs::remove_file(destination.directory().join("blobs/sha256").join(layer.hex())).expect("remove");
    match destination.register(None, image) {
        Err(StoreError::Incomplete { missing: 1, first, .. }) => assert_eq!(first, layer),
        other => panic!("{other:?}"),
    }
    assert_eq!(destination.list().expect("reads"), []);
    assert_eq!(destination.resolve(&image.to_string()).expect("reads"), None);
}

#[test]
fn a_manifest_must_fit_its_configuration() {
    let (directory, store) = store();
    let mut layout = Layout::of(&layers(), "web:1");
    // A configuration that knows of fewer layers than the manifest.
    let lying = layout.image(&layers()[..1]);
    let honest = layout.image(&layers());
    let blob = |descriptor: &serde_json::Value| {
        let hex = descriptor["digest"].as_str().expect("digest").trim_start_matches("sha256:").to_owned();
        serde_json::from_slice::<serde_json::Value>(&layout.0[&format!("blobs/sha256/{hex}")]).expect("json")
    };
    let (mut manifest, other) = (blob(&honest), blob(&lying));
    manifest["config"] = other["config"].clone();
    let descriptor = layout.blob(manifest.to_string().as_bytes());
    let mut descriptor = descriptor;
    descriptor["mediaType"] = "application/vnd.oci.image.manifest.v1+json".into();
    layout.index(&[(descriptor, "web:1")]);
    let path = directory.path().join("layout");
    layout.write(&path);
    let error =
        store.import(&ImageSource::OciLayout { path, reference: None }, None).expect_err("contradiction");
    assert!(matches!(error, StoreError::BadImage { .. }), "{error}");
}

#[test]
fn a_layer_that_is_not_what_the_configuration_says_is_not_unpacked() {
    let (directory, store) = store();
    let mut layout = Layout::default();
    layout.0.insert("oci-layout".into(), b"{}".to_vec());
    let honest = layout.image(&layers());
    let text = String::from_utf8(
        layout.0.values().find(|blob| blob.starts_with(b"{\"arch")).expect("config").clone(),
    );
    let swapped = text
        .expect("text")
        .replace(&super::digest_of(&layers()[1]).to_string(), &digest("other").to_string());
    let mut config = layout.blob(swapped.as_bytes());
    config["mediaType"] = "application/vnd.oci.image.config.v1+json".into();
    let hex = honest["digest"].as_str().expect("digest").trim_start_matches("sha256:");
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&layout.0[&format!("blobs/sha256/{hex}")]).expect("json");
    manifest["config"] = config;
    let mut descriptor = layout.blob(manifest.to_string().as_bytes());
    descriptor["mediaType"] = "application/vnd.oci.image.manifest.v1+json".into();
    layout.index(&[(descriptor, "web:1")]);
    let path = directory.path().join("layout");
    layout.write(&path);
    let image =
        store.import(&ImageSource::OciLayout { path, reference: None }, None).expect("looks complete");
    let error = store.rootfs(&image, UnpackPolicy::LOCAL).expect_err("the content differs");
    assert!(matches!(error, StoreError::WrongLayer { .. }), "{error}");
    assert_eq!(crate::store::layers::layer_homes(&store).len(), 1, "the honest layer below it may stay");
}

#[test]
fn collection_deletes_what_nobody_needs() {
    let (directory, store) = store();
    let keep_nothing = BTreeSet::new();
    let shared = image_of(&store, directory.path(), &layers()[..1]);
    let image = image_of(&store, directory.path(), &layers());
    store.register(Some(&name("base")), shared).expect("named");
    store.rootfs(&image, UnpackPolicy::LOCAL).expect("unpacks");

    assert_eq!(store.gc(&keep_nothing).expect("collects").blobs, 0, "everything has a name");
    assert_eq!(store.remove("web:1").expect("removes"), image);
    assert_eq!(store.resolve("web:1").expect("reads"), None);
    assert_eq!(store.gc(&BTreeSet::from([image])).expect("collects").blobs, 0, "a service runs it");

    let arriving = store.ingest().expect("lock");
    assert!(matches!(store.gc(&keep_nothing), Err(StoreError::Ingesting)));
    drop(arriving);

    let collected = store.gc(&keep_nothing).expect("collects");
    assert_eq!((collected.images, collected.blobs, collected.trees), (1, 3, 1), "the shared layer stays");
    assert!(collected.blob_bytes > Bytes::ZERO);
    assert_eq!(store.list().expect("reads").len(), 1);
    let rootfs = store.rootfs(&shared, UnpackPolicy::LOCAL).expect("is complete");
    assert_eq!(listing(&rootfs.lower[0]).len(), 1);
    assert_eq!(store.gc(&keep_nothing).expect("collects").blobs, 0);
}

#[test]
fn an_arriving_image_survives_a_collection() {
    let ((here, source), (_there, destination)) = (store(), store());
    let image = image_of(&source, here.path(), &layers());
    let blob = &source.blobs_of(&image).expect("listed")[0];
    let writer = destination.blob_writer(blob.digest, blob.size).expect("begins");
    assert!(matches!(destination.gc(&BTreeSet::new()), Err(StoreError::Ingesting)), "a blob is half here");
    drop(writer);
    destination.gc(&BTreeSet::new()).expect("collects");
}
