//! Where the files of one nest are. Durable things are in the nest's directory at the site; everything else is in
//! `/run/ums` of the keeper's mount namespace, a tmpfs that vanishes with the keeper.

use std::path::{Path, PathBuf};

/// Root of the volatile part, inside the keeper's mount namespace.
const RUN: &str = "/run/ums";

/// The durable directory of one nest (`STATE/services/NAME`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NestDir(PathBuf);

impl NestDir {
    /// Names the directory; creates nothing.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What the service is and what it is built from here ([`crate::recipe::Recipe`]).
    pub fn recipe(&self) -> PathBuf {
        self.0.join("recipe.json")
    }

    /// The nest's durable record ([`ums_model::nest::Record`]).
    pub fn right(&self) -> PathBuf {
        self.0.join("right.json")
    }

    /// How long the nest may wait for anything ([`crate::deadlines::Deadlines`]).
    pub fn deadlines(&self) -> PathBuf {
        self.0.join("deadlines.json")
    }

    /// How the service ended ([`crate::keeper::Exit`]); absent while it has not.
    pub fn exit(&self) -> PathBuf {
        self.0.join("exit.json")
    }

    /// Exists while the service is stopped by its user ([`crate::stopped`]).
    pub fn stopped(&self) -> PathBuf {
        self.0.join("stopped")
    }

    /// The keeper's pid and start time in the site's pid namespace ([`crate::keeper::KeeperId`]).
    pub fn keeper(&self) -> PathBuf {
        self.0.join("keeper.json")
    }

    /// What the keeper and the nest say when something goes wrong.
    pub fn diagnosis(&self) -> PathBuf {
        self.0.join("nest.log")
    }

    /// The nest's socket.
    pub fn socket(&self) -> PathBuf {
        self.0.join("nest.sock")
    }

    /// Standard output and error of the service.
    pub fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    /// The log before the last rotation.
    pub fn old_log(&self) -> PathBuf {
        self.0.join("log.1")
    }

    /// Upper directory of the service's overlay: what it wrote over its image.
    pub fn upper(&self) -> PathBuf {
        self.0.join("upper")
    }

    /// Work directory of the overlay.
    pub fn work(&self) -> PathBuf {
        self.0.join("work")
    }
}

/// Mount point of the merged root file system.
pub fn merged() -> PathBuf {
    Path::new(RUN).join("merged")
}

/// CRIU's images: a tmpfs of its own, mounted for one dump or restore.
pub fn images() -> PathBuf {
    Path::new(RUN).join("images")
}

/// Content of `/dev/shm` of the service.
pub fn shm() -> PathBuf {
    Path::new(RUN).join("shm")
}

/// `resolv.conf`, `hosts` and `hostname` of the service.
pub fn etc() -> PathBuf {
    Path::new(RUN).join("etc")
}

/// File that stands for the service's user namespace, if it has one.
pub fn user_namespace() -> PathBuf {
    Path::new(RUN).join("user-namespace")
}

/// Where the layers of the image appear with the owners that the service sees, by their place in the stack.
pub fn lower(index: usize) -> PathBuf {
    Path::new(RUN).join("lower").join(index.to_string())
}

/// Where a volume appears with the owners that the service sees.
pub fn volume(name: &str) -> PathBuf {
    Path::new(RUN).join("volumes").join(name)
}

/// Where a mount of the site appears with the owners that the service sees.
pub fn site_mount(name: &str) -> PathBuf {
    Path::new(RUN).join("site-mounts").join(name)
}

/// What a service with a user namespace sees as `/sys/fs/cgroup` on a host with version 1: a directory for each of its
/// own cgroups.
pub fn cgroups() -> PathBuf {
    Path::new(RUN).join("cgroups")
}

/// The OCI bundle.
pub fn bundle() -> PathBuf {
    Path::new(RUN).join("bundle")
}

/// runc's state.
pub fn runc_root() -> PathBuf {
    Path::new(RUN).join("runc")
}

/// Directory first in runc's PATH at a restore: its `criu` is our proxy.
pub fn proxy_path() -> PathBuf {
    Path::new(RUN).join("bin")
}

/// Where the proxy finds the nest.
pub fn proxy_socket() -> PathBuf {
    Path::new(RUN).join("proxy.sock")
}

/// How the service ended, for the nest: written before [`NestDir::exit`], and also when the disk is full.
pub fn exit() -> PathBuf {
    Path::new(RUN).join("exit.json")
}

/// When the service was started or resumed, for a nest that starts later.
pub fn since() -> PathBuf {
    Path::new(RUN).join("since.json")
}

/// Why the running copy must not be thawed: a dump harmed it.
pub fn harm() -> PathBuf {
    Path::new(RUN).join("harm.json")
}

/// Pid of the service's first process, in the keeper's pid namespace, written by runc; taken away by the keeper once
/// it was reaped and its exit written down.
pub fn service_pid() -> PathBuf {
    Path::new(RUN).join("service.pid")
}
