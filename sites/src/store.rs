//! Images, kept by the digest of their content.
//!
//! An image arrives in one of two ways: [`Store::import`] takes it from this machine (OCI layout, `docker save`
//! archive, plain root directory), or it travels from another site, blob by blob: the source lists [`Store::blobs_of`], the
//! destination answers [`Store::missing`], the bytes flow from [`Store::open_blob`] into [`Store::blob_writer`], and
//! [`Store::register`] ends it. [`Store::rootfs`] unpacks an image into the lower directories of an overlay mount.
//!
//! Everything here blocks: plain `std::fs` calls, some of which write hundreds of megabytes and sync them. Async code
//! calls it from `spawn_blocking`. A [`Store`] is cheap to clone; its methods may be called at the same time, also by
//! several processes on one directory.
//!
//! What holds at any time, also after a crash or a power failure: whatever has a name in the store (a blob, a layer's
//! tree, an image in the index) is complete, and a blob is what its digest says.
//!
//! Nothing that an image contains is believed. Digests are checked while blobs are written and again while layers are
//! unpacked; sizes are bounded by [`Limits`]; archives cannot reach outside the directory that they are unpacked into;
//! set-uid bits, file capabilities and device nodes are a matter of [`UnpackPolicy`].
//!
//! Read in this order: `place` (what is on the disk), `blobs`, `index`, `document` (manifest and configuration),
//! `import` and the three forms `oci`, `docker` and `rootdir`, then `layers`, `unpack`, `tree` and `merge`.
//!
//! What it must never know: services, sites and migrations; where blobs come from or go to; how a root file system is
//! mounted.

mod archive;
mod blobs;
mod compression;
mod docker;
mod document;
mod error;
mod files;
#[doc(hidden)]
pub mod fuzz;
mod gc;
mod hash;
mod import;
mod index;
mod layers;
mod lock;
mod merge;
mod name;
mod oci;
mod pack;
mod place;
mod policy;
mod rootdir;
mod scan;
mod stack;
mod tree;
mod unpack;
mod xattr;

use std::path::Path;
use std::sync::Arc;

pub use archive::{ArchiveError, Refusal};
pub use blobs::BlobWriter;
pub use document::{BlobInfo, ExposedPort, ImageConfig};
pub use error::StoreError;
pub use gc::{Collected, ImageSummary};
pub use import::ImageSource;
pub use layers::Rootfs;
pub use name::{ImageId, ImageName};
pub use policy::{Devices, Limits, Trust, UnpackPolicy};

/// The image store of one site. See the [module](self).
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    place: place::Place,
    session: place::Session,
    limits: Limits,
    /// Trees that this process is unpacking, by the names that they will have.
    unpacking: lock::Keyed<String>,
}

impl Store {
    /// Opens the store in `directory`, making it if need be, and throws away what crashed processes left half done.
    ///
    /// The path must be absolute and without `:`, `,` and `\`, because it becomes a part of overlay mount options. The
    /// file system must be able to carry an overlay's lower layers, with extended attributes; it should have room for
    /// every image twice, compressed and unpacked.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        Self::open_with(directory, Limits::default())
    }

    /// Like [`open`](Self::open), with other limits.
    pub fn open_with(directory: &Path, limits: Limits) -> Result<Self, StoreError> {
        let place = place::Place::create(directory)?;
        let session = place::Session::open(&place, limits.lock_wait)?;
        let inner = Inner { place, session, limits, unpacking: lock::Keyed::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Where the store is.
    pub fn directory(&self) -> &Path {
        self.inner.place.root()
    }

    /// Keeps [`gc`](Self::gc) from deleting blobs that no image needs *yet*. Hold it from before the first blob of an
    /// image arrives until [`register`](Self::register) has listed it. Single calls hold one for themselves.
    pub fn ingest(&self) -> Result<Ingest, StoreError> {
        let lock = lock::Lock::shared(&self.inner.place.ingest_lock(), self.inner.limits.lock_wait)?;
        Ok(Ingest { _lock: lock })
    }
}

/// See [`Store::ingest`]. Any number of them can be held at the same time.
#[derive(Debug)]
#[must_use = "it protects arriving blobs only as long as it is held"]
pub struct Ingest {
    _lock: lock::Lock,
}

#[cfg(test)]
mod tests;
