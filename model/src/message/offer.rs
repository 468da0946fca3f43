//! What a destination must know before it says yes.

use serde::{Deserialize, Serialize};

use crate::names::{Bytes, Digest};
use crate::phase::{Approach, Mode};
use crate::spec::{PortPublish, ServiceSpec};

/// A service that asks to be taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    /// What it is. To be checked ([`ServiceSpec::check`]) before anything else.
    pub spec: ServiceSpec,
    /// How its state will travel.
    pub mode: Mode,
    /// On which level the source does its half.
    pub approach: Approach,
    /// Its image, with everything that may have to be sent.
    pub image: ImageOffer,
    /// How large it is now; it may grow until it is frozen.
    pub sizes: Sizes,
    /// What the destination has to promise.
    pub needs: Needs,
    /// What the restore has to connect to.
    pub restore: RestoreRequirements,
}

/// An image and its parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageOffer {
    /// Digest of its manifest, the same as in the spec.
    pub digest: Digest,
    /// Manifest, configuration and layers.
    pub blobs: Vec<BlobInfo>,
}

/// One stored blob of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobInfo {
    /// Digest of its bytes.
    pub digest: Digest,
    /// How many they are.
    pub size: Bytes,
}

/// How large a service is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// Memory of all its processes.
    pub memory: Bytes,
    /// Its changed files and its volumes.
    pub files: Bytes,
}

/// What a destination has to promise for the length of the lease.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// Ports of the site that must be free.
    pub ports: Vec<PortPublish>,
    /// Memory that must be available, headroom included.
    pub memory: Bytes,
    /// Disk space that must be available, headroom and missing blobs included.
    pub disk: Bytes,
}

/// What a restored tree has to be connected to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreRequirements {
    /// How the dump names the pipes of standard input, output and error; `None` where the service has closed one or
    /// put something of its own there. The destination puts its own pipes in their places.
    pub stdio_pipes: [Option<String>; 3],
    /// Tasks when the offer was made, for the size of what must be reserved.
    pub tasks: u32,
}
