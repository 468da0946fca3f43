//! Whether a spec makes sense as a whole. It may come from another site, so sizes are bounded as well.

use std::collections::BTreeSet;

use thiserror::Error;

use super::{InnerPath, Protocol, ServiceSpec};

/// Most entries of one list (arguments, variables, ports, mounts): far above any real service, and small enough that
/// a spec from a stranger cannot fill memory.
const MAX_ENTRIES: usize = 1024;
/// Longest single argument or variable in bytes: what Linux accepts for one string of execve.
const MAX_STRING: usize = 128 * 1024;

/// Why a spec cannot be right, in words for its owner.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidSpec {
    /// A list is longer than any real one.
    #[error("too many {what}: {count}, at most {limit} are allowed")]
    TooMany {
        /// Which list.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// An argument or a variable contains a NUL byte or is too long for Linux.
    #[error("{what} number {index} contains a NUL byte or is longer than 128 KiB")]
    BadString {
        /// `argument` or `environment variable`.
        what: &'static str,
        /// Its place in the list, from 0.
        index: usize,
    },
    /// The name of a variable is empty or contains `=`.
    #[error("environment variable number {index} has a name that is empty or contains \"=\"")]
    BadEnvName {
        /// Its place in the list, from 0.
        index: usize,
    },
    /// Two publications of the same port of the site.
    #[error("port {port}/{protocol} of the site is published twice")]
    PortTwice {
        /// The port at the site.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
    },
    /// A port number is 0.
    #[error("port 0 cannot be published")]
    PortZero,
    /// Two mounts at the same path.
    #[error("two mounts at {path}")]
    PathTwice {
        /// The path inside the service.
        path: InnerPath,
    },
    /// A mount at a place that the nest itself fills.
    #[error("nothing can be mounted at {path}: the root, /proc, /sys and /dev belong to the nest")]
    PathReserved {
        /// The path inside the service.
        path: InnerPath,
    },
    /// The host name is not a valid one.
    #[error("invalid host name {hostname:?}: allowed are labels of letters, digits and -, joined by dots")]
    BadHostname {
        /// What was given.
        hostname: String,
    },
    /// The user is not of the form `USER[:GROUP]`.
    #[error("invalid user {user:?}: allowed is USER, UID, USER:GROUP or UID:GID")]
    BadUser {
        /// What was given.
        user: String,
    },
    /// The inner network does not fit together.
    #[error(
        "the inner network does not fit together: address and gateway must differ and share their prefix"
    )]
    BadNetwork,
}

impl ServiceSpec {
    /// Checks what the types alone cannot: `Ok` means that a nest can try to start it.
    pub fn check(&self) -> Result<(), InvalidSpec> {
        self.check_sizes()?;
        self.check_strings()?;
        self.check_ports()?;
        self.check_mounts()?;
        if let Some(hostname) = self.hostname.as_ref().filter(|name| !is_hostname(name)) {
            return Err(InvalidSpec::BadHostname { hostname: hostname.clone() });
        }
        if let Some(user) = self.user.as_ref().filter(|user| !is_user(user)) {
            return Err(InvalidSpec::BadUser { user: user.clone() });
        }
        if !self.network.is_consistent() {
            return Err(InvalidSpec::BadNetwork);
        }
        Ok(())
    }

    fn check_sizes(&self) -> Result<(), InvalidSpec> {
        let lists = [
            ("arguments", self.command.len()),
            ("environment variables", self.env.len()),
            ("ports", self.ports.len()),
            ("volumes", self.volumes.len()),
            ("site mounts", self.site_mounts.len()),
        ];
        match lists.into_iter().find(|(_, count)| *count > MAX_ENTRIES) {
            Some((what, count)) => Err(InvalidSpec::TooMany { what, count, limit: MAX_ENTRIES }),
            None => Ok(()),
        }
    }

    fn check_strings(&self) -> Result<(), InvalidSpec> {
        let bad = |text: &str| text.contains('\0') || text.len() > MAX_STRING;
        if let Some(index) = self.command.iter().position(|argument| bad(argument)) {
            return Err(InvalidSpec::BadString { what: "argument", index });
        }
        if let Some(index) = self.env.iter().position(|(key, _)| !is_env_key(key)) {
            return Err(InvalidSpec::BadEnvName { index });
        }
        match self.env.iter().position(|(key, value)| bad(value) || key.len() + value.len() + 1 > MAX_STRING)
        {
            Some(index) => Err(InvalidSpec::BadString { what: "environment variable", index }),
            None => Ok(()),
        }
    }

    fn check_ports(&self) -> Result<(), InvalidSpec> {
        let mut seen = BTreeSet::new();
        for port in &self.ports {
            if port.host == 0 || port.container == 0 {
                return Err(InvalidSpec::PortZero);
            }
            if !seen.insert((port.host, port.protocol)) {
                return Err(InvalidSpec::PortTwice { port: port.host, protocol: port.protocol });
            }
        }
        Ok(())
    }

    fn check_mounts(&self) -> Result<(), InvalidSpec> {
        let volumes = self.volumes.iter().map(|mount| &mount.path);
        let mut seen = BTreeSet::new();
        for path in volumes.chain(self.site_mounts.iter().map(|mount| &mount.path)) {
            let reserved = path.as_str() == "/"
                || path.as_str() == "/dev"
                || path.is_within("/proc")
                || path.is_within("/sys");
            if reserved {
                return Err(InvalidSpec::PathReserved { path: path.clone() });
            }
            if !seen.insert(path) {
                return Err(InvalidSpec::PathTwice { path: path.clone() });
            }
        }
        Ok(())
    }
}

pub(super) fn is_env_key(key: &str) -> bool {
    !key.is_empty() && !key.contains(['=', '\0'])
}

fn is_hostname(text: &str) -> bool {
    let label = |part: &str| {
        !part.is_empty()
            && part.len() <= 63
            && !part.starts_with('-')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    // 64 is what Linux keeps as a host name.
    text.len() <= 64 && text.split('.').all(label)
}

fn is_user(text: &str) -> bool {
    let part = |name: &str| {
        !name.is_empty()
            && name.len() <= 64
            && !name.starts_with('-')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'$'))
    };
    match text.split_once(':') {
        Some((user, group)) => part(user) && part(group),
        None => part(text),
    }
}
