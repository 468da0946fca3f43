//! Taking images in from this machine: which form something has, and which name it gets.

use std::path::{Path, PathBuf};

use super::document::Documents;
use super::error::StoreError;
use super::files::Files;
use super::{ImageId, ImageName, Store, docker, oci, rootdir};

/// What images must be made for, as they say it themselves.
const PLATFORM: &str = "linux/amd64";

/// An image outside of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// An OCI image layout: a directory, or a tar archive of one (compressed or not), as skopeo, buildah, umoci and
    /// new versions of `docker save` make them.
    OciLayout {
        /// The directory or archive.
        path: PathBuf,
        /// Which image: its name, its tag or its digest. `None` if it has only one.
        reference: Option<String>,
    },
    /// What `docker save` and `podman save` make, compressed or not.
    DockerArchive {
        /// The archive.
        path: PathBuf,
        /// Which image: its name with or without tag. `None` if it has only one.
        reference: Option<String>,
    },
    /// A directory with a root file system in it, as debootstrap makes it.
    RootDir {
        /// The directory.
        path: PathBuf,
    },
}

impl Store {
    /// Tells by its content which form the image at `path` has: a directory with a file `oci-layout`, an archive with
    /// `oci-layout` or `manifest.json`, any other directory. Nothing is changed.
    pub fn detect(&self, path: &Path, reference: Option<&str>) -> Result<ImageSource, StoreError> {
        let limits = &self.inner.limits;
        let files = Files::open(path, &self.inner.session, limits)?;
        let (path, reference) = (path.to_owned(), reference.map(str::to_owned));
        let has = |mark| files.file(mark, limits).map(|file| file.is_some());
        // First: new versions of Docker write both, and only here the image keeps its digest.
        if has(oci::MARK)? {
            return Ok(ImageSource::OciLayout { path, reference });
        }
        if path.is_dir() {
            return Ok(ImageSource::RootDir { path });
        }
        if has(docker::MARK)? {
            return Ok(ImageSource::DockerArchive { path, reference });
        }
        let reason = "an archive with oci-layout or manifest.json was expected";
        Err(StoreError::NotAnImage { path, reason })
    }

    /// Copies an image into the store, under `name` or else under the names that it brings along; a root directory
    /// brings none.
    ///
    /// On `Ok` the image is complete and durable. On `Err` it is not listed; blobs of it may be there until the next
    /// [`gc`](Self::gc). Safe to repeat: what is there already is not written again.
    pub fn import(&self, source: &ImageSource, name: Option<&ImageName>) -> Result<ImageId, StoreError> {
        let _ingest = self.ingest()?;
        let limits = &self.inner.limits;
        let open = |path: &Path| Files::open(path, &self.inner.session, limits);
        let (image, brought) = match source {
            ImageSource::OciLayout { path, reference } => {
                oci::import(self, &open(path)?, reference.as_deref())?
            }
            ImageSource::DockerArchive { path, reference } => {
                docker::import(self, &open(path)?, reference.as_deref())?
            }
            ImageSource::RootDir { path } => (rootdir::import(self, path)?, Vec::new()),
        };
        let names = name.map_or(brought, |name| vec![name.clone()]);
        self.list_image(image, &names)?;
        Ok(image)
    }

    /// Lists an image whose blobs have arrived, under `name` if one is given.
    ///
    /// On `Ok` it is complete: manifest, configuration and layers are here, with the sizes that the manifest says, and
    /// fit each other. On `Err` it is not listed. Safe to repeat.
    pub fn register(&self, name: Option<&ImageName>, image: ImageId) -> Result<(), StoreError> {
        let _ingest = self.ingest()?;
        self.list_image(image, name.map(std::slice::from_ref).unwrap_or_default())
    }

    fn list_image(&self, image: ImageId, names: &[ImageName]) -> Result<(), StoreError> {
        let platform = self.complete(&image)?.platform;
        if platform != PLATFORM {
            let reason = format!("it is for {platform}, and this is {PLATFORM}");
            return Err(StoreError::BadImage { what: format!("image {image}"), reason });
        }
        self.inner.change_index(|index| {
            index.add(image, names);
            Ok(())
        })
    }

    /// Checks that all of `image` is here.
    pub(super) fn complete(&self, image: &ImageId) -> Result<Documents, StoreError> {
        let documents = self.documents(image)?;
        let blobs = documents.blobs();
        let mut missing = blobs.iter().filter(|blob| self.inner.blob_size(&blob.digest) != Some(blob.size));
        match missing.next() {
            None => Ok(documents),
            Some(first) => {
                let (first, missing) = (first.digest, 1 + missing.count());
                Err(StoreError::Incomplete { image: image.0, missing, first })
            }
        }
    }
}
