//! Which images there are, forgetting them, and deleting what nobody needs any more.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ums_model::names::{Bytes, Digest};

use super::error::StoreError;
use super::layers::digest_of_home;
use super::lock::Lock;
use super::name::{Meant, meanings};
use super::place::{Temporary, sync_directory};
use super::{ImageId, ImageName, Store};

/// One image in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSummary {
    /// Its identity.
    pub image: ImageId,
    /// What it is called here; an image can have no name.
    pub names: Vec<ImageName>,
    /// All its blobs together, as stored. Images that share blobs count them both. `None` if the image is damaged:
    /// its manifest or configuration cannot be read.
    pub size: Option<Bytes>,
}

/// What a collection has deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Images that are not listed any more.
    pub images: usize,
    /// Deleted blobs.
    pub blobs: usize,
    /// Their size. Unpacked trees come on top.
    pub blob_bytes: Bytes,
    /// Deleted trees of layers and images.
    pub trees: usize,
}

impl Store {
    /// The images, in the order of their digests.
    pub fn list(&self) -> Result<Vec<ImageSummary>, StoreError> {
        let index = self.inner.read_index()?;
        index
            .images()
            .map(|(image, names)| {
                // One damaged image must not hide the others.
                let size =
                    self.documents(&image).ok().map(|parts| parts.blobs().iter().map(|blob| blob.size).sum());
                Ok(ImageSummary { image, names: names.iter().cloned().collect(), size })
            })
            .collect()
    }

    /// The image that `reference` means: a name (`redis` is `redis:latest`; `docker.io/library/` and the like may be
    /// there or not), a digest, or the beginning of one, at least 6 hex digits. `None` if there is none.
    pub fn resolve(&self, reference: &str) -> Result<Option<ImageId>, StoreError> {
        let index = self.inner.read_index()?;
        for meant in meanings(reference) {
            let found = match meant {
                Meant::Digest(digest) => Some(ImageId(digest)).filter(|image| index.contains(image)),
                Meant::Name(names) => names.iter().find_map(|name| index.named(name)),
                Meant::Beginning(digits) => {
                    let mut fitting = index
                        .images()
                        .map(|(image, _)| image)
                        .filter(|image| image.0.hex().starts_with(&digits));
                    let first = fitting.next();
                    let others = fitting.count();
                    if others > 0 {
                        let reference = reference.to_owned();
                        return Err(StoreError::Ambiguous { reference, matches: others + 1 });
                    }
                    first
                }
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Takes away the name `reference`, or, if it is a digest or the beginning of one, all names of that image. Returns
    /// the image. Nothing is deleted before the next [`gc`](Self::gc).
    pub fn remove(&self, reference: &str) -> Result<ImageId, StoreError> {
        let image = self
            .resolve(reference)?
            .ok_or_else(|| StoreError::NoImage { reference: reference.to_owned() })?;
        self.inner.change_index(|index| {
            let names = meanings(reference).into_iter().filter_map(|meant| match meant {
                Meant::Name(names) => Some(names),
                _ => None,
            });
            match names.flatten().find(|name| index.named(name) == Some(image)) {
                Some(name) => index.unname(&name),
                None => index.unname_all(&image),
            }
            Ok(image)
        })
    }

    /// Deletes images without a name that are not in `keep`, and all blobs and trees that no remaining image needs.
    /// `keep` must have the image of every service at this site: a running one has the trees mounted.
    ///
    /// Fails with [`StoreError::Ingesting`] while images are being imported, received or unpacked: their blobs belong
    /// to no image yet. Safe to repeat; after a crash the next call goes on.
    pub fn gc(&self, keep: &BTreeSet<ImageId>) -> Result<Collected, StoreError> {
        let place = &self.inner.place;
        let alone = Lock::try_exclusive(&place.ingest_lock())?.ok_or(StoreError::Ingesting)?;
        let mut collected = Collected::default();
        // What is needed is found out before anything is forgotten: an unreadable manifest must not cost its layers.
        let mut blobs = BTreeSet::new();
        let mut layers = BTreeSet::new();
        let mut images = keep.clone();
        images.extend(
            self.inner.read_index()?.images().filter(|(_, names)| !names.is_empty()).map(|(image, _)| image),
        );
        for image in &images {
            if !self.inner.has_blob(&image.0) {
                // A service whose image is not of this store.
                continue;
            }
            let documents = self.documents(image)?;
            blobs.extend(documents.blobs().iter().map(|blob| blob.digest));
            layers.extend(documents.layers.iter().map(|layer| layer.diff_id));
        }
        collected.images = self.inner.change_index(|index| {
            let before = index.images().count();
            index.retain(|image, names| !names.is_empty() || keep.contains(image));
            Ok(before - index.images().count())
        })?;

        for (path, digest) in named_by_digest(&place.blobs())? {
            if !blobs.contains(&digest) {
                collected.blob_bytes =
                    collected.blob_bytes + Bytes(path.metadata().map_or(0, |found| found.len()));
                collected.blobs += 1;
                fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
            }
        }
        let images: BTreeSet<Digest> = images.iter().map(|image| image.0).collect();
        let mut condemned = self.condemn(&place.layers(), &layers)?;
        condemned.extend(self.condemn(&place.merged(), &images)?);
        self.forget_root_directories(&images)?;
        // Deleting thousands of files takes its time; from here on nobody has to wait for it.
        drop(alone);
        collected.trees = condemned.len();
        drop(condemned);
        Ok(collected)
    }

    /// Moves the trees in `directory` that are not in `needed` out of it. They are deleted when the result is dropped.
    fn condemn(&self, directory: &Path, needed: &BTreeSet<Digest>) -> Result<Vec<Temporary>, StoreError> {
        let mut condemned = Vec::new();
        for (path, digest) in named_by_digest(directory)? {
            if !needed.contains(&digest) {
                let temporary = self.inner.session.temporary();
                fs::rename(&path, temporary.path()).map_err(StoreError::io("remove", &path))?;
                condemned.push(temporary);
            }
        }
        sync_directory(directory)?;
        Ok(condemned)
    }

    /// Deletes notes about root directories whose image is none of `images`.
    fn forget_root_directories(&self, images: &BTreeSet<Digest>) -> Result<(), StoreError> {
        let directory = self.inner.place.root_directories();
        for entry in fs::read_dir(&directory).map_err(StoreError::io("list", &directory))? {
            let path = entry.map_err(StoreError::io("list", &directory))?.path();
            let image = super::rootdir::remembered_image(&path);
            if !image.is_some_and(|image| images.contains(&image.0)) {
                fs::remove_file(&path).map_err(StoreError::io("remove", path))?;
            }
        }
        Ok(())
    }
}

/// What in `directory` is named by a digest.
fn named_by_digest(directory: &Path) -> Result<Vec<(PathBuf, Digest)>, StoreError> {
    let mut named = Vec::new();
    for entry in fs::read_dir(directory).map_err(StoreError::io("list", directory))? {
        let path = entry.map_err(StoreError::io("list", directory))?.path();
        if let Some(digest) = digest_of_home(&path) {
            named.push((path, digest));
        }
    }
    Ok(named)
}
