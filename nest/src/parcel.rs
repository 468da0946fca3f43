//! What travels in a dump: each archive item says in its meta what it is.
//!
//! ```text
//! images       CRIU's images, under their file names; the large ones while they grow
//! upper        what the service wrote over its image
//! shm          /dev/shm
//! volume/NAME  a volume
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use ums_engine::files::TreeEntry;
use ums_model::names::VolumeName;

use crate::layout::{merged, shm};
use crate::recipe::Recipe;

/// Meta of an archive item.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Item {
    /// A CRIU image; the item's name is its file name.
    Image,
    /// An entry of a file tree; its content, if it is a file, is the item's.
    File {
        /// Which tree.
        tree: Tree,
        /// What it is.
        entry: TreeEntry,
    },
}

/// A file tree of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Tree {
    /// The overlay's upper directory at the source, the merged root at the destination.
    Upper,
    /// `/dev/shm`.
    Shm,
    /// A volume.
    Volume(VolumeName),
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upper => f.write_str("its root"),
            Self::Shm => f.write_str("/dev/shm"),
            Self::Volume(name) => write!(f, "volume {name}"),
        }
    }
}

impl Tree {
    /// All trees that travel with a service, with their directories at the source.
    pub(crate) fn of_source(recipe: &Recipe, upper: PathBuf) -> Vec<(Self, PathBuf)> {
        // One that is mounted twice travels once.
        let volumes: BTreeMap<_, _> =
            recipe.volumes.iter().map(|bind| (Self::Volume(bind.name.clone()), bind.host.clone())).collect();
        [(Self::Upper, upper), (Self::Shm, shm())].into_iter().chain(volumes).collect()
    }

    /// Whether its owners are those of the service's user namespace on the disk. A volume keeps the ids of the inside.
    pub(crate) fn is_shifted(&self) -> bool {
        matches!(self, Self::Upper | Self::Shm)
    }

    /// All trees that may arrive, with their directories at the destination. Whatever else a source names is refused.
    pub(crate) fn of_destination(recipe: &Recipe) -> Vec<(Self, PathBuf)> {
        Self::of_source(recipe, merged())
    }
}
