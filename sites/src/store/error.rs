//! Everything that can go wrong in the store.

use std::io;
use std::path::PathBuf;

use thiserror::Error;
use ums_model::names::{Bytes, Digest};

use super::archive::ArchiveError;

/// Why the store did not do what it was asked for. What it was asked for is then not done at all: no half image, no
/// half layer, no half blob stays under a name by which it could be found.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The store's path cannot be part of an overlay mount's options.
    #[error("store directory {path:?} must be absolute and without ':', ',' and '\\'")]
    BadDirectory {
        /// The path.
        path: PathBuf,
    },
    /// Another process kept the index to itself for too long.
    #[error("another process is changing the store: {} stays locked", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// Images are being imported or received, so nothing can be collected now. Try again later.
    #[error("images are being imported or received; nothing was collected")]
    Ingesting,
    /// The index is not what this version writes.
    #[error("cannot understand the index of images {}", path.display())]
    BadIndex {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The index was written by a newer version.
    #[error("the index of images {} has format {found}; this version knows {known}", path.display())]
    NewerIndex {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// No such blob here.
    #[error("blob {digest} is not in the store")]
    NoBlob {
        /// The blob.
        digest: Digest,
    },
    /// The bytes are not those that were announced.
    #[error("wrong content: expected {expected} with {expected_size} bytes, got {got} with {got_size} bytes")]
    WrongContent {
        /// What was announced.
        expected: Digest,
        /// How many bytes were announced.
        expected_size: u64,
        /// What came; of too long a content, the digest of its beginning.
        got: Digest,
        /// How many bytes came at least.
        got_size: u64,
    },
    /// A blob is larger than the limit.
    #[error("blob {digest} has {size}, more than the {limit} allowed")]
    BlobTooLarge {
        /// The blob.
        digest: Digest,
        /// Its size.
        size: Bytes,
        /// The limit.
        limit: Bytes,
    },
    /// A manifest, index or configuration is larger than the limit.
    #[error("{what} has {size}, more than the {limit} allowed")]
    DocumentTooLarge {
        /// Which document.
        what: String,
        /// Its size.
        size: Bytes,
        /// The limit.
        limit: Bytes,
    },
    /// A manifest, index or configuration cannot be parsed.
    #[error("cannot understand {what}")]
    BadDocument {
        /// Which document.
        what: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A manifest, index or configuration contradicts itself or asks for what the store does not do.
    #[error("{what} cannot be used: {reason}")]
    BadImage {
        /// Which document or image.
        what: String,
        /// Why not.
        reason: String,
    },
    /// Parts of an image are not here.
    #[error("image {image} is not complete: {missing} of its blobs are missing, first {first}")]
    Incomplete {
        /// The image's manifest.
        image: Digest,
        /// How many.
        missing: usize,
        /// One of them.
        first: Digest,
    },
    /// A layer's archive was refused or could not be unpacked.
    #[error("cannot unpack layer {layer}")]
    Layer {
        /// The layer's digest, uncompressed.
        layer: Digest,
        /// Why not.
        source: ArchiveError,
    },
    /// A layer is not what the image's configuration says.
    #[error("layer {blob} unpacks to {got}, the image's configuration says {expected}")]
    WrongLayer {
        /// The layer as stored.
        blob: Digest,
        /// What the configuration says.
        expected: Digest,
        /// What it is.
        got: Digest,
    },
    /// An archive given to import was refused or could not be read.
    #[error("cannot read the archive {}", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: ArchiveError,
    },
    /// What was given to import is no image in a form that the store knows.
    #[error("{} is no image: {reason}", path.display())]
    NotAnImage {
        /// What was given.
        path: PathBuf,
        /// What was looked for.
        reason: &'static str,
    },
    /// The image given to import holds several, and it was not said which one; or the one asked for is not there.
    #[error("{} has no image {wanted:?}; it has {available:?}", path.display())]
    WhichImage {
        /// What was given.
        path: PathBuf,
        /// What was asked for; empty if nothing was.
        wanted: String,
        /// What there is.
        available: Vec<String>,
    },
    /// A root directory cannot be made an image.
    #[error("cannot make an image of {}: {reason}", path.display())]
    BadRoot {
        /// The file or directory that is in the way.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// A root directory was changed while it was read.
    #[error("{} was changed while it was read; stop what writes to it and try again", path.display())]
    Changed {
        /// One of the files that changed.
        path: PathBuf,
    },
    /// A name that cannot be given to an image.
    #[error("invalid image name {name:?}: {reason}")]
    BadName {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A beginning of a digest that fits several images.
    #[error("{reference:?} is the beginning of {matches} image digests")]
    Ambiguous {
        /// What was asked for.
        reference: String,
        /// How many images it fits.
        matches: usize,
    },
    /// No such image here.
    #[error("image {reference:?} is not in the store")]
    NoImage {
        /// What was asked for.
        reference: String,
    },
}

impl StoreError {
    /// For `map_err`: the file system refused `action` on `path`.
    pub(super) fn io<E: Into<io::Error>>(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source: source.into() }
    }
}
