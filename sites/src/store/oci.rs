//! Importing an OCI image layout: `oci-layout`, `index.json`, `blobs/`. Everything is kept as it is, so the image has
//! the same digest here as in the registry it came from.

use std::collections::BTreeSet;
use std::path::Path;

use oci_spec::image::{Arch, Descriptor, ImageIndex, MediaType, Os};
use ums_model::names::Digest;

use super::document::{blob_info, parse_manifest};
use super::error::StoreError;
use super::files::Files;
use super::hash::digest_of;
use super::{ImageId, ImageName, Store, name};

/// File by which a layout is known.
pub(super) const MARK: &str = "oci-layout";

/// Most indexes that lead to an image: the layout's own, an image's for several platforms, and one to spare.
const MOST_INDEXES: usize = 3;

/// Annotation with the full name, written by containerd and Docker.
const FULL_NAME: &str = "io.containerd.image.name";
/// Annotation with a name or only a tag, from the specification.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation of entries that say something about another one, such as how it was built.
const ABOUT: &str = "vnd.docker.reference.type";

const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Copies the image `wanted` (or the only one) of the layout `files` into the store. Returns it with its names there.
pub(super) fn import(
    store: &Store,
    files: &Files,
    wanted: Option<&str>,
) -> Result<(ImageId, Vec<ImageName>), StoreError> {
    let limits = &store.inner.limits;
    let no_index =
        || StoreError::NotAnImage { path: files.path().to_owned(), reason: "it has no index.json" };
    let content = files.document("index.json", limits)?.ok_or_else(no_index)?;
    let chosen = choose(&parse_index(&content, "index.json")?, files.path(), wanted)?;
    let names = names(&chosen, files.path());
    let image = ImageId(manifest_digest(store, files, &chosen)?);
    copy_image(store, files, &image)?;
    Ok((image, names))
}

/// The entry that is meant, at the top of the layout.
fn choose(index: &ImageIndex, path: &Path, wanted: Option<&str>) -> Result<Descriptor, StoreError> {
    let candidates: Vec<_> = index.manifests().iter().filter(|entry| is_usable(entry)).cloned().collect();
    let labels = |entry: &Descriptor| -> Vec<String> {
        let names = names(entry, path).iter().map(ToString::to_string).collect::<Vec<_>>();
        [annotation(entry, FULL_NAME), annotation(entry, REF_NAME)]
            .into_iter()
            .flatten()
            .chain(names)
            .collect()
    };
    let is_wanted = |entry: &&Descriptor| {
        wanted.is_none_or(|wanted| {
            entry.digest().to_string() == wanted
                || labels(entry).iter().any(|label| name::same(wanted, label))
        })
    };
    let matching: Vec<_> = candidates.iter().filter(is_wanted).collect();
    let different: BTreeSet<_> = matching.iter().map(|entry| entry.digest().to_string()).collect();
    match matching.first() {
        Some(only) if different.len() == 1 => Ok((*only).clone()),
        _ => {
            let label =
                |entry: &Descriptor| labels(entry).pop().unwrap_or_else(|| entry.digest().to_string());
            Err(StoreError::WhichImage {
                path: path.to_owned(),
                wanted: wanted.unwrap_or_default().to_owned(),
                available: candidates.iter().map(label).collect(),
            })
        }
    }
}

/// Follows indexes from `entry` to the manifest for this machine.
fn manifest_digest(store: &Store, files: &Files, entry: &Descriptor) -> Result<Digest, StoreError> {
    let mut entry = entry.clone();
    for _ in 0..MOST_INDEXES {
        let digest = blob_info(&entry)?.digest;
        if !is_index(&entry) {
            return Ok(digest);
        }
        let what = format!("index {digest}");
        let name = format!("blobs/sha256/{}", digest.hex());
        let content = files.document(&name, &store.inner.limits)?.ok_or(StoreError::NoBlob { digest })?;
        let got = digest_of(&content);
        if got != digest {
            return Err(StoreError::WrongContent {
                expected: digest,
                expected_size: entry.size(),
                got,
                got_size: content.len() as u64,
            });
        }
        let fitting =
            parse_index(&content, &what)?.manifests().iter().find(|entry| is_usable(entry)).cloned();
        let reason = "it has nothing for linux/amd64".to_owned();
        entry = fitting.ok_or(StoreError::BadImage { what, reason })?;
    }
    let reason = format!("more than {MOST_INDEXES} indexes lead to it");
    Err(StoreError::BadImage { what: files.path().display().to_string(), reason })
}

/// Copies manifest, configuration and layers. What is in the store already is not read.
fn copy_image(store: &Store, files: &Files, image: &ImageId) -> Result<(), StoreError> {
    let limits = &store.inner.limits;
    let name = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    let missing = |digest: Digest| StoreError::NoBlob { digest };
    let content = files.document(&name(&image.0), limits)?.ok_or_else(|| missing(image.0))?;
    let manifest = parse_manifest(&content, &image.0)?;
    let size = ums_model::names::Bytes(content.len() as u64);
    for descriptor in std::iter::once(manifest.config()).chain(manifest.layers()) {
        let blob = blob_info(descriptor)?;
        let file = files.file(&name(&blob.digest), limits)?.ok_or_else(|| missing(blob.digest))?;
        store.adopt_blob(&blob.digest, blob.size, file.content)?;
    }
    store.adopt_blob(&image.0, size, &content[..])
}

pub(super) fn parse_index(content: &[u8], what: &str) -> Result<ImageIndex, StoreError> {
    serde_json::from_slice(content)
        .map_err(|source| StoreError::BadDocument { what: what.to_owned(), source })
}

fn is_index(entry: &Descriptor) -> bool {
    match entry.media_type() {
        MediaType::ImageIndex => true,
        MediaType::Other(other) => other == DOCKER_LIST,
        _ => false,
    }
}

/// Whether `entry` can be an image for this machine.
fn is_usable(entry: &Descriptor) -> bool {
    let is_image = match entry.media_type() {
        MediaType::ImageManifest => true,
        MediaType::Other(other) => other == DOCKER_MANIFEST,
        _ => is_index(entry),
    };
    let fits = entry
        .platform()
        .as_ref()
        .is_none_or(|platform| *platform.architecture() == Arch::Amd64 && *platform.os() == Os::Linux);
    is_image && fits && annotation(entry, ABOUT).is_none()
}

/// Names for the image that `entry` describes. A bare tag becomes `LAYOUT:TAG`.
fn names(entry: &Descriptor, path: &Path) -> Vec<ImageName> {
    if let Some(full) = annotation(entry, FULL_NAME) {
        return full.parse().into_iter().collect();
    }
    let Some(reference) = annotation(entry, REF_NAME) else { return Vec::new() };
    if reference.contains(['/', ':']) {
        return reference.parse().into_iter().collect();
    }
    let mut base = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    for ending in [".gz", ".zst", ".tgz", ".tar"] {
        base = base.strip_suffix(ending).unwrap_or(base);
    }
    ImageName::tagged(base, &reference).into_iter().collect()
}

fn annotation(entry: &Descriptor, key: &str) -> Option<String> {
    entry.annotations().as_ref()?.get(key).cloned()
}
