//! What a service is: the same description at every site, so that it can be started, restored and checked anywhere.
//!
//! Nothing here names a path of a host: what belongs to a site (where volumes lie, what a site mount means, which
//! address is published) is resolved by that site.

mod check;
mod image;
mod limits;
mod mount;
mod network;
mod path;
mod port;

use serde::{Deserialize, Serialize};

use crate::names::{InvalidName, ServiceName};

pub use check::InvalidSpec;
pub use image::ImageRef;
pub use limits::{Limits, MilliCpus};
pub use mount::{SiteMount, VolumeMount};
pub use network::InnerNetwork;
pub use path::InnerPath;
pub use port::{PortPublish, Protocol};

words! {
    /// What happens when the service's first process ends by itself.
    pub enum RestartPolicy ("restart policy") {
        /// It stays ended.
        No = "no",
        /// It is started again unless it ended with exit code 0.
        OnFailure = "on-failure",
        /// It is started again.
        Always = "always",
    }
}

/// One service, as its owner described it.
///
/// Comes from users and from other sites: call [`ServiceSpec::check`] on one that was read from outside before acting
/// on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Its name, the same at every site.
    pub name: ServiceName,
    /// The image below its file system.
    pub image: ImageRef,
    /// What to run; empty means what the image says.
    #[serde(default)]
    pub command: Vec<String>,
    /// Environment variables in the order given; they win over the image's.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// Working directory; `None` means what the image says.
    #[serde(default)]
    pub workdir: Option<InnerPath>,
    /// `USER`, `UID`, `USER:GROUP` or `UID:GID`; `None` means what the image says.
    #[serde(default)]
    pub user: Option<String>,
    /// Volumes: they travel with the service.
    #[serde(default)]
    pub volumes: Vec<VolumeMount>,
    /// Ports that the site publishes for it.
    #[serde(default)]
    pub ports: Vec<PortPublish>,
    /// What it may use at most.
    #[serde(default)]
    pub limits: Limits,
    /// What happens when it ends by itself.
    #[serde(default = "no_restart")]
    pub restart: RestartPolicy,
    /// Things of the site that are mounted into it and do not travel.
    #[serde(default)]
    pub site_mounts: Vec<SiteMount>,
    /// Host name inside; `None` means the service's name.
    #[serde(default)]
    pub hostname: Option<String>,
    /// Its inner network, the same at every site and never changed afterwards: its sockets are bound to it.
    #[serde(default)]
    pub network: InnerNetwork,
    /// Whether it lives in a user namespace of its own, in which its root is nobody on the host. Fixed when it is
    /// created. A spec that says nothing is of a service that was created without.
    #[serde(default)]
    pub user_namespace: bool,
}

fn no_restart() -> RestartPolicy {
    RestartPolicy::No
}

impl ServiceSpec {
    /// A service with nothing but a name and an image; everything else as the image or the default says.
    pub fn new(name: ServiceName, image: ImageRef) -> Self {
        Self {
            name,
            image,
            command: Vec::new(),
            env: Vec::new(),
            workdir: None,
            user: None,
            volumes: Vec::new(),
            ports: Vec::new(),
            limits: Limits::default(),
            restart: RestartPolicy::No,
            site_mounts: Vec::new(),
            hostname: None,
            network: InnerNetwork::default(),
            user_namespace: true,
        }
    }

    /// The host name inside the service.
    pub fn hostname(&self) -> &str {
        self.hostname.as_deref().unwrap_or(self.name.as_str())
    }

    /// Whether something outside of the service's own state is mounted writable: a copy that ran may have left traces
    /// there that a second run would meet (see [`crate::destination`]).
    pub fn writes_outside(&self) -> bool {
        self.site_mounts.iter().any(|mount| !mount.read_only)
    }
}

/// Reads `KEY=VALUE` as the CLI takes it for `-e`. The value may be empty and may contain `=`.
pub fn parse_env(text: &str) -> Result<(String, String), InvalidName> {
    let wrong = || InvalidName::new("environment variable", text, "KEY=VALUE, without NUL");
    let (key, value) = text.split_once('=').ok_or_else(wrong)?;
    if check::is_env_key(key) && !value.contains('\0') {
        Ok((key.to_owned(), value.to_owned()))
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
mod tests;
