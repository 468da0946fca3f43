//! Importing what `docker save` writes: `manifest.json`, a configuration, layers as plain tar files.
//!
//! Such an archive has no manifest in OCI's sense, so one is made; the configuration stays as it is. Layers are
//! checked against it while they are compressed for the store.

use serde::Deserialize;
use ums_model::names::Digest;

use super::compression::decompressed;
use super::document::parse_config;
use super::error::StoreError;
use super::files::Files;
use super::hash::digest_of;
use super::pack::{LayerSink, assemble};
use super::{ImageId, ImageName, Store, name};

/// File by which such an archive is known.
pub(super) const MARK: &str = "manifest.json";

/// One image of the archive.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

impl Saved {
    fn tags(&self) -> &[String] {
        self.repo_tags.as_deref().unwrap_or_default()
    }
}

/// Copies the image `wanted` (or the only one) of the archive `files` into the store. Returns it with its names there.
pub(super) fn import(
    store: &Store,
    files: &Files,
    wanted: Option<&str>,
) -> Result<(ImageId, Vec<ImageName>), StoreError> {
    let limits = &store.inner.limits;
    let path = || files.path().to_owned();
    let content = files
        .document(MARK, limits)?
        .ok_or_else(|| StoreError::NotAnImage { path: path(), reason: "it has no manifest.json" })?;
    let saved: Vec<Saved> = serde_json::from_slice(&content)
        .map_err(|source| StoreError::BadDocument { what: format!("{}/{MARK}", path().display()), source })?;
    let saved = choose(saved, files, wanted)?;
    let names: Vec<ImageName> = saved.tags().iter().filter_map(|tag| tag.parse().ok()).collect();

    let no_file = |name: &str| StoreError::BadImage {
        what: path().display().to_string(),
        reason: format!("its file {name:?} is missing"),
    };
    let config = files.document(&saved.config, limits)?.ok_or_else(|| no_file(&saved.config))?;
    let config_digest = digest_of(&config);
    let diff_ids = parse_config(&config, &config_digest)?.rootfs().diff_ids().clone();
    let archives = saved.layers.unwrap_or_default();
    if archives.len() != diff_ids.len() || archives.len() > limits.layers {
        let reason = format!("{} layers, and {} in its configuration", archives.len(), diff_ids.len());
        return Err(StoreError::BadImage { what: path().display().to_string(), reason });
    }
    let mut layers = Vec::new();
    for (archive, stated) in archives.iter().zip(&diff_ids) {
        let file = files.file(archive, limits)?.ok_or_else(|| no_file(archive))?;
        let (mut content, _) =
            decompressed(file.content).map_err(StoreError::io("read", path().join(archive)))?;
        let mut sink = LayerSink::create(&store.inner)?;
        std::io::copy(&mut content, &mut sink).map_err(StoreError::io("copy", path().join(archive)))?;
        let layer = sink.finish()?;
        if *stated != layer.diff_id.to_string() {
            let expected: Digest = stated.parse().map_err(|_| StoreError::BadImage {
                what: format!("image configuration {config_digest}"),
                reason: format!("{stated:?} is no SHA-256 digest"),
            })?;
            return Err(StoreError::WrongLayer { blob: layer.blob.digest, expected, got: layer.diff_id });
        }
        layers.push(layer.blob);
    }
    Ok((assemble(store, &config, &layers)?, names))
}

fn choose(saved: Vec<Saved>, files: &Files, wanted: Option<&str>) -> Result<Saved, StoreError> {
    let available: Vec<String> = saved.iter().flat_map(|saved| saved.tags().to_vec()).collect();
    let mut matching = saved
        .into_iter()
        .filter(|saved| wanted.is_none_or(|wanted| saved.tags().iter().any(|tag| name::same(wanted, tag))));
    match (matching.next(), matching.next()) {
        (Some(only), None) => Ok(only),
        _ => Err(StoreError::WhichImage {
            path: files.path().to_owned(),
            wanted: wanted.unwrap_or_default().to_owned(),
            available,
        }),
    }
}
