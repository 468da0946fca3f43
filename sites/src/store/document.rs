//! The two documents that make an image: its manifest (which blobs) and its configuration (what to start).

use std::collections::BTreeSet;

use oci_spec::image::{Arch, Descriptor, ImageConfiguration, ImageManifest, MediaType};
use serde::{Deserialize, Serialize};
use ums_model::names::{Bytes, Digest};

use super::error::StoreError;
use super::{ImageId, Store};

/// One blob of an image, as its manifest has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobInfo {
    /// Digest of the blob as it is stored and travels.
    pub digest: Digest,
    /// Its size.
    pub size: Bytes,
    /// What it is, as the manifest says. Not believed: compression is told by the content.
    pub media_type: String,
}

/// What an image says about how to run it. Everything in it is a proposal by whoever built the image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// Program and first arguments.
    pub entrypoint: Vec<String>,
    /// Further arguments, or program and arguments where there is no entrypoint.
    pub cmd: Vec<String>,
    /// Environment, `KEY=VALUE`.
    pub env: Vec<String>,
    /// Working directory; `None` is `/`.
    pub workdir: Option<String>,
    /// `user`, `uid`, `user:group`, `uid:gid`; names are to be looked up in the image. `None` is root.
    pub user: Option<String>,
    /// Signal that asks it to stop, `SIGQUIT` or `3`. `None` is SIGTERM.
    pub stop_signal: Option<String>,
    /// Ports that it listens on, in order.
    pub exposed_ports: Vec<ExposedPort>,
    /// Directories that it wants on volumes, in order.
    pub volumes: Vec<String>,
    /// What it was built for, as Go calls it: `amd64`.
    pub architecture: String,
}

/// A port, or a range of them, that an image listens on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExposedPort {
    /// First port.
    pub first: u16,
    /// Last port; the same for a single one.
    pub last: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

/// A manifest and its configuration, checked against each other.
#[derive(Debug)]
pub(super) struct Documents {
    pub(super) manifest: BlobInfo,
    pub(super) config: BlobInfo,
    /// Bottom first.
    pub(super) layers: Vec<LayerBlob>,
    pub(super) run: ImageConfig,
    /// Operating system and architecture, `linux/amd64`.
    pub(super) platform: String,
}

#[derive(Debug)]
pub(super) struct LayerBlob {
    pub(super) blob: BlobInfo,
    /// Digest of the uncompressed archive.
    pub(super) diff_id: Digest,
}

impl Documents {
    /// All blobs, each once: manifest, configuration, layers from the bottom.
    pub(super) fn blobs(&self) -> Vec<BlobInfo> {
        let mut seen = BTreeSet::new();
        [&self.manifest, &self.config]
            .into_iter()
            .chain(self.layers.iter().map(|layer| &layer.blob))
            .filter(|blob| seen.insert(blob.digest))
            .cloned()
            .collect()
    }
}

impl Store {
    /// All blobs that make `image`, each once: its manifest first, then its configuration, then its layers from the
    /// bottom. These are what has to be at another site for [`register`](Store::register) to succeed there.
    pub fn blobs_of(&self, image: &ImageId) -> Result<Vec<BlobInfo>, StoreError> {
        Ok(self.documents(image)?.blobs())
    }

    /// How `image` wants to be run.
    pub fn config(&self, image: &ImageId) -> Result<ImageConfig, StoreError> {
        Ok(self.documents(image)?.run)
    }

    /// Reads and checks the documents of `image`.
    pub(super) fn documents(&self, image: &ImageId) -> Result<Documents, StoreError> {
        let content = self.read_document(&image.0, "manifest")?;
        let media_type = manifest_media_type(&content);
        let manifest = BlobInfo {
            digest: image.0,
            size: Bytes(content.len() as u64),
            media_type: media_type.to_string(),
        };
        let parsed = parse_manifest(&content, &image.0)?;
        let config = blob_info(parsed.config())?;
        let document = self.read_document(&config.digest, "image configuration")?;
        let configuration = parse_config(&document, &config.digest)?;
        let layers = self.pair_layers(image, &parsed, &configuration)?;
        let run = run_config(&configuration, &config.digest)?;
        let platform = format!("{}/{}", configuration.os(), run.architecture);
        Ok(Documents { manifest, config, layers, run, platform })
    }

    /// Puts each layer of the manifest together with its uncompressed digest from the configuration.
    fn pair_layers(
        &self,
        image: &ImageId,
        manifest: &ImageManifest,
        configuration: &ImageConfiguration,
    ) -> Result<Vec<LayerBlob>, StoreError> {
        let bad = |reason: String| StoreError::BadImage { what: format!("image {image}"), reason };
        let diff_ids = configuration.rootfs().diff_ids();
        let (layers, limit) = (manifest.layers(), self.inner.limits.layers);
        if layers.len() != diff_ids.len() {
            let reason =
                format!("its manifest has {} layers, its configuration {}", layers.len(), diff_ids.len());
            return Err(bad(reason));
        }
        if layers.len() > limit {
            return Err(bad(format!("it has {} layers, more than the {limit} allowed", layers.len())));
        }
        let pair = |(descriptor, diff_id): (&Descriptor, &String)| {
            let blob = blob_info(descriptor)?;
            if !is_layer(descriptor.media_type()) {
                return Err(bad(format!("its layer {} is of type {}", blob.digest, blob.media_type)));
            }
            let diff_id =
                diff_id.parse().map_err(|error| bad(format!("its configuration has an {error}")))?;
            Ok(LayerBlob { blob, diff_id })
        };
        layers.iter().zip(diff_ids).map(pair).collect()
    }
}

pub(super) fn parse_manifest(content: &[u8], digest: &Digest) -> Result<ImageManifest, StoreError> {
    serde_json::from_slice(content)
        .map_err(|source| StoreError::BadDocument { what: format!("manifest {digest}"), source })
}

pub(super) fn parse_config(content: &[u8], digest: &Digest) -> Result<ImageConfiguration, StoreError> {
    serde_json::from_slice(content)
        .map_err(|source| StoreError::BadDocument { what: format!("image configuration {digest}"), source })
}

/// The blob that `descriptor` describes.
pub(super) fn blob_info(descriptor: &Descriptor) -> Result<BlobInfo, StoreError> {
    let stated = descriptor.digest().to_string();
    let digest = stated.parse().map_err(|_| StoreError::BadImage {
        what: format!("blob {stated}"),
        reason: "only SHA-256 digests are supported".to_owned(),
    })?;
    let media_type = descriptor.media_type().to_string();
    Ok(BlobInfo { digest, size: Bytes(descriptor.size()), media_type })
}

/// Type of a manifest, as it says itself. Docker's and OCI's are read alike.
pub(super) fn manifest_media_type(content: &[u8]) -> MediaType {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Stated {
        media_type: Option<MediaType>,
    }
    serde_json::from_slice::<Stated>(content)
        .ok()
        .and_then(|stated| stated.media_type)
        .unwrap_or(MediaType::ImageManifest)
}

/// Whether a blob of this type is a tar archive, compressed or not. Others exist: encrypted layers, file system images,
/// signatures, models.
fn is_layer(media_type: &MediaType) -> bool {
    const DOCKER: [&str; 2] =
        ["application/vnd.docker.image.rootfs.diff.", "application/vnd.docker.image.rootfs.foreign."];
    match media_type {
        MediaType::ImageLayer
        | MediaType::ImageLayerGzip
        | MediaType::ImageLayerZstd
        | MediaType::ImageLayerNonDistributable
        | MediaType::ImageLayerNonDistributableGzip
        | MediaType::ImageLayerNonDistributableZstd => true,
        MediaType::Other(other) => DOCKER.iter().any(|docker| other.starts_with(docker)),
        _ => false,
    }
}

fn run_config(configuration: &ImageConfiguration, digest: &Digest) -> Result<ImageConfig, StoreError> {
    let architecture = match configuration.architecture() {
        Arch::Other(other) => other.clone(),
        known => known.to_string(),
    };
    let Some(config) = configuration.config() else {
        return Ok(ImageConfig { architecture, ..ImageConfig::default() });
    };
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    // Docker writes an empty string where it means nothing.
    let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let mut volumes = list(config.volumes());
    volumes.sort();
    let mut exposed_ports = Vec::new();
    for port in list(config.exposed_ports()) {
        exposed_ports.push(parse_port(&port).ok_or_else(|| StoreError::BadImage {
            what: format!("image configuration {digest}"),
            reason: format!("{port:?} is no port"),
        })?);
    }
    exposed_ports.sort();
    Ok(ImageConfig {
        entrypoint: list(config.entrypoint()),
        cmd: list(config.cmd()),
        env: list(config.env()),
        workdir: text(config.working_dir()),
        user: text(config.user()),
        stop_signal: text(config.stop_signal()),
        exposed_ports,
        volumes,
        architecture,
    })
}

/// `80`, `80/tcp`, `8000-8010/udp`.
fn parse_port(text: &str) -> Option<ExposedPort> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    let protocol = protocol.to_ascii_lowercase();
    let known = matches!(protocol.as_str(), "tcp" | "udp" | "sctp");
    (known && first > 0 && first <= last).then_some(ExposedPort { first, last, protocol })
}
