//! What a nest must know to build its service at this site. Written by the site before the keeper starts, read by
//! keeper and nest, never sent to another site: paths differ there.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use ums_engine::userns::IdRange;
use ums_frontman::layout::PlaceLayout;
use ums_model::names::{MountName, VolumeName};
use ums_model::policy::FilePolicy;
use ums_model::spec::ServiceSpec;

use crate::state::{FileError, read_json, write_json};

/// The recipe of one service at one site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// The service, the same at every site.
    pub spec: ServiceSpec,
    /// Lower directories of the overlay, topmost first.
    pub lower: Vec<PathBuf>,
    /// What to run, after image and spec were merged. Never empty.
    pub args: Vec<String>,
    /// Environment, `NAME=value`, after image and spec were merged.
    pub env: Vec<String>,
    /// Working directory inside.
    pub workdir: String,
    /// User as image or spec give it (`name`, `uid`, `name:group`, ...); empty means root.
    pub user: String,
    /// Volumes with their host directories.
    pub volumes: Vec<Bind<VolumeName>>,
    /// Mounts that belong to the site and do not travel.
    pub site_mounts: Vec<Bind<MountName>>,
    /// cgroup path of the service, relative to each controller's root.
    pub cgroup: String,
    /// Its place on the network.
    pub place: PlaceLayout,
    /// The ids that are its own on this host, if it has a user namespace.
    #[serde(default)]
    pub ids: Option<IdRange>,
    /// What may be among the files that another site sends of it. Not written by an older site: nothing special then.
    #[serde(default)]
    pub files: FilePolicy,
}

/// A host directory that appears inside the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind<N> {
    /// Its name at every site.
    pub name: N,
    /// Where it is on this host.
    pub host: PathBuf,
    /// Where it appears inside.
    pub inside: String,
    /// Whether the service may only read it.
    pub read_only: bool,
}

impl Recipe {
    /// Reads the recipe; fails if it is missing or malformed.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        read_json(path)
    }

    /// Writes it durably: after Ok it survives a crash of the host, after Err the old one is still there.
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        write_json(path, self)
    }
}
