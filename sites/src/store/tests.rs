//! Tests of the store as a whole, and what they build images with.
//!
//! Everything here makes its own archives with its own small writer, so that it can also make those that no honest
//! writer makes. Archives name the user who runs the tests as owner, so most tests need no privilege.

mod crash;
mod hostile;
mod import;
mod layers;
mod privilege;
mod rootdir;
mod travel;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;
use ums_model::names::Digest;

use super::hash::digest_of;
use super::*;

/// Archive under construction; every call appends.
#[derive(Default, Clone)]
struct Tar(Vec<u8>);

impl Tar {
    fn header(
        mut self,
        path: &str,
        flag: u8,
        link: &str,
        body: &[u8],
        change: impl FnOnce(&mut tar::Header),
    ) -> Self {
        let mut header = tar::Header::new_ustar();
        let plain = header.as_old_mut();
        plain.name[..path.len()].copy_from_slice(path.as_bytes());
        plain.linkname[..link.len()].copy_from_slice(link.as_bytes());
        plain.linkflag = [flag];
        header.set_mode(if flag == b'5' { 0o755 } else { 0o644 });
        header.set_uid(u64::from(rustix::process::geteuid().as_raw()));
        header.set_gid(u64::from(rustix::process::getegid().as_raw()));
        header.set_mtime(1_000_000);
        header.set_size(body.len() as u64);
        change(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(body);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, body: &str) -> Self {
        self.header(path, b'0', "", body.as_bytes(), |_| {})
    }

    fn mode(self, path: &str, flag: u8, mode: u32) -> Self {
        self.header(path, flag, "", b"", |header| header.set_mode(mode))
    }

    fn directory(self, path: &str) -> Self {
        self.header(path, b'5', "", b"", |_| {})
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.header(path, b'2', target, b"", |_| {})
    }

    fn hard_link(self, path: &str, target: &str) -> Self {
        self.header(path, b'1', target, b"", |_| {})
    }

    fn device(self, path: &str, major: u32, minor: u32) -> Self {
        self.header(path, b'3', "", b"", |header| {
            header.set_device_major(major).expect("ustar");
            header.set_device_minor(minor).expect("ustar");
        })
    }

    /// An extended header for the next entry.
    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length =
                (1..).map(|digits| rest + digits).find(|length| length.to_string().len() + rest == *length);
            write!(body, "{} {key}=", length.expect("some length fits")).expect("to memory");
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.header("pax", b'x', "", &body, |_| {})
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).expect("to memory");
    encoder.finish().expect("to memory")
}

fn zstd(content: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(content, 1).expect("to memory")
}

fn store() -> (TempDir, Store) {
    let directory = TempDir::new().expect("temporary directory");
    let store = Store::open(&directory.path().join("store")).expect("store opens");
    (directory, store)
}

/// An image layout in memory: file names and contents.
#[derive(Default, Clone)]
struct Layout(BTreeMap<String, Vec<u8>>);

impl Layout {
    /// A layout with one image of `layers` (bottom first), which is called `reference`.
    fn of(layers: &[Vec<u8>], reference: &str) -> Self {
        let mut layout = Self::default();
        layout.0.insert("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
        let manifest = layout.image(layers);
        layout.index(&[(manifest, reference)]);
        layout
    }

    fn blob(&mut self, content: &[u8]) -> serde_json::Value {
        let digest = digest_of(content);
        self.0.insert(format!("blobs/sha256/{}", digest.hex()), content.to_vec());
        json!({ "digest": digest.to_string(), "size": content.len() })
    }

    /// Adds an image, whose layers are compressed in all ways in turn; returns the descriptor of its manifest.
    fn image(&mut self, layers: &[Vec<u8>]) -> serde_json::Value {
        let diff_ids: Vec<String> = layers.iter().map(|layer| digest_of(layer).to_string()).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "config": {
                "Entrypoint": ["/init"], "Cmd": ["--serve"], "Env": ["A=1", "B="], "WorkingDir": "/srv", "User": "99:7",
                "StopSignal": "SIGQUIT", "ExposedPorts": { "80/tcp": {}, "5000-5010/udp": {}, "443": {} },
                "Volumes": { "/data": {}, "/cache": {} }, "Labels": { "x": "y" }, "OnBuild": null,
            },
        });
        let mut config = self.blob(config.to_string().as_bytes());
        config["mediaType"] = json!("application/vnd.oci.image.config.v1+json");
        let layers: Vec<_> = layers
            .iter()
            .enumerate()
            .map(|(number, layer)| {
                let (stored, ending) = match number % 3 {
                    0 => (gzip(layer), "+gzip"),
                    1 => (zstd(layer), "+zstd"),
                    _ => (layer.clone(), ""),
                };
                let mut layer = self.blob(&stored);
                layer["mediaType"] = json!(format!("application/vnd.oci.image.layer.v1.tar{ending}"));
                layer
            })
            .collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": layers,
        });
        let mut descriptor = self.blob(manifest.to_string().as_bytes());
        descriptor["mediaType"] = json!("application/vnd.oci.image.manifest.v1+json");
        descriptor
    }

    fn index(&mut self, images: &[(serde_json::Value, &str)]) {
        let entries: Vec<_> = images
            .iter()
            .map(|(descriptor, reference)| {
                let mut descriptor = descriptor.clone();
                descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": reference });
                descriptor
            })
            .collect();
        let index = json!({ "schemaVersion": 2, "manifests": entries });
        self.0.insert("index.json".into(), index.to_string().into_bytes());
    }

    fn write(&self, directory: &Path) {
        for (name, content) in &self.0 {
            let path = directory.join(name);
            fs::create_dir_all(path.parent().expect("below the directory")).expect("create");
            fs::write(path, content).expect("write");
        }
    }

    fn archive(&self) -> Vec<u8> {
        let tar = self
            .0
            .iter()
            .fold(Tar::default(), |tar, (name, content)| tar.header(name, b'0', "", content, |_| {}));
        tar.end()
    }
}

/// Imports an image with these layers, bottom first.
fn image_of(store: &Store, at: &Path, layers: &[Vec<u8>]) -> ImageId {
    let path = at.join(format!("layout-{}", digest_of(&layers.concat()).hex()));
    Layout::of(layers, "web:1").write(&path);
    store.import(&ImageSource::OciLayout { path, reference: None }, None).expect("the image is imported")
}

/// Everything below `directory` as `path -> type, mode, content or link target`.
fn listing(directory: &Path) -> BTreeMap<PathBuf, String> {
    fn walk(root: &Path, at: &Path, found: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(at).expect("list") {
            let path = entry.expect("entry").path();
            let stat = path.symlink_metadata().expect("stat");
            let mode = stat.permissions().mode() & 0o7777;
            let what = if stat.is_symlink() {
                format!("link {}", fs::read_link(&path).expect("link").display())
            } else if stat.is_dir() {
                walk(root, &path, found);
                format!("directory {mode:o}")
            } else if stat.is_file() {
                format!("file {mode:o} {}", String::from_utf8_lossy(&fs::read(&path).expect("read")))
            } else {
                format!("node {mode:o} {}", stat.rdev())
            };
            found.insert(path.strip_prefix(root).expect("below").to_owned(), what);
        }
    }
    let mut found = BTreeMap::new();
    walk(directory, directory, &mut found);
    found
}

fn digest(text: &str) -> Digest {
    digest_of(text.as_bytes())
}

/// Fails where the test cannot mean anything.
fn needs_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test needs root: it makes overlay attributes or mounts"
    );
}
