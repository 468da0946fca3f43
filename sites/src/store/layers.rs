//! From an image to the directories that an overlay mount shows as its root file system.
//!
//! Each layer is unpacked once, into a directory of its own, and shared by all images that have it: a base image costs
//! its disk space and its page cache once. An overlay stacks them. Where it cannot, the layers' trees are merged into
//! one tree of hard links; `stack` says when, `merge` how.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::syncfs;
use ums_model::names::{Bytes, Digest};

use super::archive::ArchiveError;
use super::compression::decompressed;
use super::document::LayerBlob;
use super::error::StoreError;
use super::hash::Hashing;
use super::place::Temporary;
use super::policy::UnpackPolicy;
use super::unpack::{LayerRecord, unpack};
use super::{ImageId, Store, merge, stack};

/// Name of the tree inside a layer's directory.
const TREE: &str = "fs";
const RECORD: &str = "layer.json";

/// An image's root file system, read-only: the lower directories of an overlay mount.
///
/// The trees stay until [`Store::gc`] is called without their image. Never write to them: other services may have them
/// mounted as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootfs {
    /// Lower directories, topmost first, as overlay lists them.
    pub lower: Vec<PathBuf>,
    /// Mode of the root directory. An overlay shows the mode and owner of its *upper* directory as the root's: make
    /// that directory with these.
    pub mode: u32,
    /// User that owns the root directory.
    pub uid: u32,
    /// Group that owns the root directory.
    pub gid: u32,
}

impl Rootfs {
    /// The value of overlay's `lowerdir=` option. Needs no escapes: the store refuses directories that would.
    pub fn lowerdir(&self) -> OsString {
        let mut option = OsString::new();
        for (index, directory) in self.lower.iter().enumerate() {
            if index > 0 {
                option.push(":");
            }
            option.push(directory);
        }
        option
    }
}

/// A layer that is on the disk.
pub(super) struct UnpackedLayer {
    pub(super) tree: PathBuf,
    pub(super) record: LayerRecord,
}

impl Store {
    /// The root file system of `image`, unpacking what was not unpacked yet. This takes as long as writing the image's
    /// content to the disk takes.
    ///
    /// On `Ok` all of it is there, durable, and was checked against the image's configuration while it was unpacked.
    /// On `Err` some layers may be there, each complete. Safe to repeat and to call at the same time.
    pub fn rootfs(&self, image: &ImageId, policy: UnpackPolicy) -> Result<Rootfs, StoreError> {
        // What is unpacked for an image that is being removed must not be collected half-way.
        let _ingest = self.ingest()?;
        let documents = self.documents(image)?;
        let mut left = self.inner.limits.unpacked;
        let mut layers = Vec::with_capacity(documents.layers.len());
        for layer in &documents.layers {
            let unpacked = self.unpacked_layer(layer, policy, left)?;
            left = Bytes(left.get().saturating_sub(unpacked.record.bytes));
            layers.push(unpacked);
        }
        if layers.is_empty() {
            let reason = "it has no layers".to_owned();
            return Err(StoreError::BadImage { what: format!("image {image}"), reason });
        }
        let layers = without_repeats(layers);
        let root = layers.iter().rev().find_map(|layer| layer.record.root);
        let (mode, uid, gid) = root.unwrap_or((0o755, 0, 0));
        let lower = if stack::shows_the_image(&layers)? {
            layers.into_iter().rev().map(|layer| layer.tree).collect()
        } else {
            vec![self.merged(image, policy, &layers)?]
        };
        Ok(Rootfs { lower, mode, uid, gid })
    }

    /// The tree of one layer, which may unpack to at most `limit`.
    fn unpacked_layer(
        &self,
        layer: &LayerBlob,
        policy: UnpackPolicy,
        limit: Bytes,
    ) -> Result<UnpackedLayer, StoreError> {
        let name = format!("{}{}", layer.diff_id.hex(), policy.suffix());
        let home = self.inner.place.layers().join(&name);
        self.inner.unpacking.alone(&name, || {
            if let Some(record) = read_record(&home)? {
                return Ok(UnpackedLayer { tree: home.join(TREE), record });
            }
            let temporary = self.inner.session.temporary();
            let tree = make_home(&temporary)?;
            let record = self.unpack_into(&tree, layer, policy, limit)?;
            let path = temporary.path().join(RECORD);
            let text = serde_json::to_vec(&record).map_err(|source| StoreError::BadDocument {
                what: path.display().to_string(),
                source,
            })?;
            fs::write(&path, text).map_err(StoreError::io("write", &path))?;
            sync_all_of(temporary.path())?;
            temporary.publish(&home)?;
            tracing::info!(
                layer = %layer.diff_id, entries = record.entries, bytes = record.bytes, stripped = record.stripped,
                omitted = record.omitted, "layer unpacked"
            );
            Ok(UnpackedLayer { tree: home.join(TREE), record })
        })
    }

    fn unpack_into(
        &self,
        tree: &Path,
        layer: &LayerBlob,
        policy: UnpackPolicy,
        limit: Bytes,
    ) -> Result<LayerRecord, StoreError> {
        let digest = layer.diff_id;
        let read = |source| StoreError::Layer { layer: digest, source: ArchiveError::Read { source } };
        let blob = self.open_blob(&layer.blob.digest)?;
        let (content, _) = decompressed(blob).map_err(read)?;
        let content = Hashing::new(content, limit);
        let limits = &self.inner.limits;
        let (mut record, mut content) = unpack(content, tree, policy, limits)
            .map_err(|source| StoreError::Layer { layer: digest, source })?;
        // The digest covers what follows the archive's end as well.
        io::copy(&mut content, &mut io::sink()).map_err(read)?;
        let (_, got, bytes) = content.finish();
        if got != digest {
            return Err(StoreError::WrongLayer { blob: layer.blob.digest, expected: digest, got });
        }
        record.bytes = bytes.get();
        Ok(record)
    }

    /// All `layers` (bottom first) as one tree.
    fn merged(
        &self,
        image: &ImageId,
        policy: UnpackPolicy,
        layers: &[UnpackedLayer],
    ) -> Result<PathBuf, StoreError> {
        let name = format!("{}{}", image.0.hex(), policy.suffix());
        let home = self.inner.place.merged().join(&name);
        self.inner.unpacking.alone(&format!("merged {name}"), || {
            let tree = home.join(TREE);
            if tree.is_dir() {
                return Ok(tree);
            }
            let temporary = self.inner.session.temporary();
            let made = make_home(&temporary)?;
            merge::merge(layers, &made)?;
            sync_all_of(temporary.path())?;
            temporary.publish(&home)?;
            Ok(tree)
        })
    }
}

/// Makes the directory `home` with an empty tree in it.
fn make_home(home: &Temporary) -> Result<PathBuf, StoreError> {
    let tree = home.path().join(TREE);
    DirBuilder::new().recursive(true).mode(0o700).create(&tree).map_err(StoreError::io("create", &tree))?;
    Ok(tree)
}

/// Makes durable what was written below `directory`: one call for its file system, because one call for each of
/// thousands of files takes many times as long.
fn sync_all_of(directory: &Path) -> Result<(), StoreError> {
    let opened = File::open(directory).map_err(StoreError::io("open", directory))?;
    syncfs(&opened).map_err(StoreError::io("sync the file system of", directory))
}

fn read_record(home: &Path) -> Result<Option<LayerRecord>, StoreError> {
    let path = home.join(RECORD);
    match fs::read(&path) {
        Ok(content) => serde_json::from_slice(&content)
            .map(Some)
            .map_err(|source| StoreError::BadDocument { what: path.display().to_string(), source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StoreError::io("read", path)(source)),
    }
}

/// `layers` (bottom first) with each only in its topmost place. What is missing then was hidden there anyway, by the
/// same content further up; overlayfs refuses to mount a directory twice.
fn without_repeats(layers: Vec<UnpackedLayer>) -> Vec<UnpackedLayer> {
    let mut seen = BTreeSet::new();
    let mut kept: Vec<_> = layers.into_iter().rev().filter(|layer| seen.insert(layer.tree.clone())).collect();
    kept.reverse();
    kept
}

#[cfg(test)]
pub(super) fn layer_homes(store: &Store) -> Vec<PathBuf> {
    let mut homes: Vec<_> = fs::read_dir(store.inner.place.layers())
        .expect("layers")
        .map(|entry| entry.expect("entry").path())
        .collect();
    homes.sort();
    homes
}

/// Digest in the name of a directory below `layers` or `rootfs`.
pub(super) fn digest_of_home(home: &Path) -> Option<Digest> {
    let name = home.file_name()?.to_str()?;
    let hex = name.split('.').next()?;
    format!("sha256:{hex}").parse().ok()
}
