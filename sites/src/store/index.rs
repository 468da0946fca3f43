//! Which images there are, and what they are called: one small JSON file, replaced as a whole.
//!
//! It is read from the disk each time, so that several processes can have the store open.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;

use serde::{Deserialize, Serialize};
use ums_model::names::Digest;

use super::error::StoreError;
use super::lock::Lock;
use super::{ImageId, ImageName, Inner};

/// Format of the file. Raise it when an older version would misunderstand a newer file.
const FORMAT: u32 = 1;

/// Content of the file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Index {
    format: u32,
    /// By the digest of their manifest.
    images: BTreeMap<Digest, Listed>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Listed {
    names: BTreeSet<ImageName>,
}

impl Default for Index {
    fn default() -> Self {
        Self { format: FORMAT, images: BTreeMap::new() }
    }
}

impl Index {
    pub(super) fn images(&self) -> impl Iterator<Item = (ImageId, &BTreeSet<ImageName>)> {
        self.images.iter().map(|(digest, listed)| (ImageId(*digest), &listed.names))
    }

    pub(super) fn contains(&self, image: &ImageId) -> bool {
        self.images.contains_key(&image.0)
    }

    pub(super) fn named(&self, name: &ImageName) -> Option<ImageId> {
        self.images().find(|(_, names)| names.contains(name)).map(|(image, _)| image)
    }

    /// Lists `image`. The `names` are its from now on, and no other image's any more.
    pub(super) fn add(&mut self, image: ImageId, names: &[ImageName]) {
        for listed in self.images.values_mut() {
            listed.names.retain(|name| !names.contains(name));
        }
        self.images.entry(image.0).or_default().names.extend(names.iter().cloned());
    }

    /// Takes `name` from the image that has it.
    pub(super) fn unname(&mut self, name: &ImageName) {
        for listed in self.images.values_mut() {
            listed.names.remove(name);
        }
    }

    /// Takes all names from `image`.
    pub(super) fn unname_all(&mut self, image: &ImageId) {
        if let Some(listed) = self.images.get_mut(&image.0) {
            listed.names.clear();
        }
    }

    /// Lists only the images that `keep` wants.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&ImageId, &BTreeSet<ImageName>) -> bool) {
        self.images.retain(|digest, listed| keep(&ImageId(*digest), &listed.names));
    }
}

impl Inner {
    /// The index as it is now.
    pub(super) fn read_index(&self) -> Result<Index, StoreError> {
        let path = self.place.index();
        let content = match fs::read(&path) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Index::default()),
            Err(source) => return Err(StoreError::io("read", path)(source)),
        };
        // Never start over from an empty index: the next collection would delete every image.
        let index: Index = serde_json::from_slice(&content)
            .map_err(|source| StoreError::BadIndex { path: path.clone(), source })?;
        if index.format > FORMAT {
            return Err(StoreError::NewerIndex { path, found: index.format, known: FORMAT });
        }
        Ok(index)
    }

    /// Changes the index. On `Ok` the change is durable; on `Err` there is none.
    pub(super) fn change_index<T>(
        &self,
        change: impl FnOnce(&mut Index) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let _alone = Lock::exclusive(&self.place.lock(), self.limits.lock_wait)?;
        let mut index = self.read_index()?;
        let changed = change(&mut index)?;
        let path = self.place.index();
        let content = serde_json::to_vec_pretty(&index)
            .map_err(|source| StoreError::BadIndex { path: path.clone(), source })?;
        self.session.write_file(&path, &content)?;
        Ok(changed)
    }
}
