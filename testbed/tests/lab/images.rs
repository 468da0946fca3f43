//! Where images come from: an OCI layout and a `docker save` archive, made here by hand from the static workload.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use ums_testbed::command::{SETUP_DEADLINE, succeed};
use ums_testbed::net::{A, B};
use ums_testbed::rootfs::{WITNESS, WORKLOAD, static_rootfs};

use crate::rig::Rig;
use crate::script::Script;

/// An image under construction in a directory.
struct Draft {
    directory: PathBuf,
    layer: PathBuf,
    layer_digest: String,
}

impl Draft {
    fn new(directory: PathBuf) -> Result<Self> {
        let root = directory.join("root");
        static_rootfs(&root)?;
        let layer = directory.join("layer.tar");
        tar(&layer, &root, ".")?;
        let layer_digest = sha256(&layer)?;
        Ok(Self { directory, layer, layer_digest })
    }

    /// What the image says about itself: it counts to the witness of its own accord.
    fn config(&self, name: &str) -> Value {
        let witness = format!("{WITNESS}/{name}");
        json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "Env": ["ORIGIN=image", "COLOUR=green"],
                "WorkingDir": "/tmp",
                "Entrypoint": [WORKLOAD, "counter"],
                "Cmd": ["--witness", witness, "--interval-ms", "10"],
            },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", self.layer_digest)] },
        })
    }

    /// As `docker save` writes it.
    fn docker_archive(&self, name: &str) -> Result<PathBuf> {
        let inside = self.directory.join("docker");
        fs::create_dir_all(inside.join("layers"))?;
        fs::copy(&self.layer, inside.join("layers/layer.tar"))?;
        let config = self.config(name).to_string();
        fs::write(inside.join("config.json"), config)?;
        let tag = format!("{name}:1");
        let manifest =
            json!([{ "Config": "config.json", "RepoTags": [tag], "Layers": ["layers/layer.tar"] }]);
        fs::write(inside.join("manifest.json"), manifest.to_string())?;
        let archive = self.directory.join("docker.tar");
        tar(&archive, &inside, ".")?;
        Ok(archive)
    }

    fn oci_layout(&self, name: &str) -> Result<PathBuf> {
        let layout = self.directory.join("oci");
        let blobs = layout.join("blobs/sha256");
        fs::create_dir_all(&blobs)?;
        let blob = |kind: &str, bytes: &[u8]| -> Result<Value> {
            let draft = blobs.join("draft");
            fs::write(&draft, bytes)?;
            let digest = sha256(&draft)?;
            fs::rename(&draft, blobs.join(&digest))?;
            let media_type = format!("application/vnd.oci.image.{kind}");
            Ok(json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len() }))
        };
        let layer = blob("layer.v1.tar", &fs::read(&self.layer)?)?;
        let config = blob("config.v1+json", self.config(name).to_string().as_bytes())?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": [layer],
        });
        let manifest = blob("manifest.v1+json", manifest.to_string().as_bytes())?;
        let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
        fs::write(layout.join("index.json"), index.to_string())?;
        fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(layout)
    }
}

fn tar(archive: &Path, directory: &Path, what: &str) -> Result<()> {
    let mut command = Command::new("tar");
    command.arg("--create").arg("--file").arg(archive).arg("--directory").arg(directory).arg(what);
    succeed(command, "", SETUP_DEADLINE).map(drop)
}

fn sha256(file: &Path) -> Result<String> {
    let mut command = Command::new("sha256sum");
    command.arg(file);
    let said = succeed(command, "", SETUP_DEADLINE)?;
    said.split(' ').next().map(str::to_owned).context("sha256sum says nothing")
}

#[test]
fn an_image_says_what_runs_and_travels_to_a_site_that_never_saw_it() {
    let rig = &Rig::new().unwrap();
    for name in ["oci", "docker"] {
        let draft = Draft::new(rig.net().tag().directory().join(format!("draft-{name}"))).unwrap();
        let image = match name {
            "oci" => draft.oci_layout(name),
            _ => draft.docker_archive(name),
        };
        let image = image.unwrap().display().to_string();
        let options = ["--image", &image, "-e", "COLOUR=blue"];
        let service = Script::run(rig, A, name, &options, &[]).unwrap();
        // What the image says holds, except where the user says something else.
        let environment = |site: &ums_testbed::site::Site| {
            let pid = site.service_pid(name).unwrap();
            let text = fs::read(format!("/proc/{pid}/environ")).unwrap();
            let text = String::from_utf8_lossy(&text).replace('\0', "\n");
            assert!(text.contains("ORIGIN=image\n") && text.contains("COLOUR=blue\n"), "{text}");
            assert!(!text.contains("green"), "{text}");
            assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/tmp"));
        };
        environment(rig.a());
        // The file from which the image came is not needed any more.
        fs::remove_dir_all(&draft.directory).unwrap();
        service.migrate(B).unwrap();
        environment(rig.b());
        service.migrate(A).unwrap();
        assert_eq!(service.check().unwrap().moves, 2);
    }
}
