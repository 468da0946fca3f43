//! All that can be set about one site's Coordinator: one struct, filled from a file and from the command line.
//!
//! [`Settings`] is what a file or a command line *says*, every part of it optional; [`Config`] is what *holds*.

mod deadlines;
mod limits;
mod sockets;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use ums_model::names::SiteName;

pub use deadlines::Deadlines;
pub use limits::Limits;
pub use sockets::GroupSocket;

use crate::fault::Faults;

/// The port on which sites listen unless told otherwise.
pub const DEFAULT_PORT: u16 = 7443;

/// The configuration of a site's Coordinator.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the site keeps what must survive: identity, journal, socket. Created with mode 0700 if it is missing.
    pub state_dir: PathBuf,
    /// What the site calls itself.
    pub name: SiteName,
    /// Where the one TLS port listens. Port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// Where other sites can dial this one, `host:port`, best first. Empty: where it listens; an unspecified host
    /// then stands for the address at which the other site sees this one.
    pub advertise: Vec<String>,
    /// Whether this site takes services of other sites at all.
    pub incoming: bool,
    /// Whether to start also where the journal would not survive a restart of the machine. A site that forgets its
    /// decisions may let two copies run, so by default it does not start there; plans warn of such a site in any case.
    pub allow_volatile: bool,
    /// Whether to begin a new journal at a site that has services and none. Services that never migrated are then at
    /// home here; of any other it is not known who may run it. By default such a site does not start.
    pub new_journal: bool,
    /// How long anything is waited for.
    pub deadlines: Deadlines,
    /// How much is done at once.
    pub limits: Limits,
    /// More Unix sockets of the API, for users who are not root. By default there are none.
    pub sockets: Vec<GroupSocket>,
    /// Failures to be made on purpose. Always empty in a release build.
    pub faults: Faults,
}

/// What a configuration file or a command line says.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// See [`Config::state_dir`].
    pub state_dir: Option<PathBuf>,
    /// See [`Config::name`].
    pub name: Option<SiteName>,
    /// See [`Config::listen`].
    pub listen: Option<SocketAddr>,
    /// See [`Config::advertise`].
    pub advertise: Vec<String>,
    /// See [`Config::incoming`]; by default it does.
    pub incoming: Option<bool>,
    /// See [`Config::allow_volatile`]; by default it does not start there.
    pub allow_volatile: Option<bool>,
    /// See [`Config::new_journal`]; never in a file, because it is meant for one start.
    #[serde(skip)]
    pub new_journal: bool,
    /// See [`Config::deadlines`]; all in seconds.
    pub deadlines: Deadlines,
    /// See [`Config::limits`].
    pub limits: Limits,
    /// See [`Config::sockets`].
    pub sockets: Vec<GroupSocket>,
}

/// A configuration that does not hold together.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are what the messages say")]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// The file is not what it should be.
    #[error("cannot understand the configuration {}", path.display())]
    Parse { path: PathBuf, source: Box<toml::de::Error> },
    /// Something that has no default was not said.
    #[error("the configuration says nothing about `{key}`")]
    Missing { key: &'static str },
    /// The environment asks for failures on purpose, and this build cannot make any, or not these.
    #[error("cannot follow UMS_FAULT={given}: {why}")]
    Fault { given: String, why: String },
}

impl Config {
    /// A configuration in which everything but these two has its default. Looks at no file and at no environment.
    #[must_use]
    pub fn new(state_dir: PathBuf, name: SiteName) -> Self {
        Self {
            state_dir,
            name,
            listen: default_listen(),
            advertise: Vec::new(),
            incoming: true,
            allow_volatile: false,
            new_journal: false,
            deadlines: Deadlines::default(),
            limits: Limits::default(),
            sockets: Vec::new(),
            faults: Faults::default(),
        }
    }

    /// What holds if `settings` are all that was said. Reads the environment variable `UMS_FAULT`, which an
    /// optimised build refuses.
    pub fn resolve(settings: Settings) -> Result<Self, ConfigError> {
        Ok(Self {
            state_dir: settings.state_dir.ok_or(ConfigError::Missing { key: "state_dir" })?,
            name: settings.name.ok_or(ConfigError::Missing { key: "name" })?,
            listen: settings.listen.unwrap_or_else(default_listen),
            advertise: settings.advertise,
            incoming: settings.incoming.unwrap_or(true),
            allow_volatile: settings.allow_volatile.unwrap_or(false),
            new_journal: settings.new_journal,
            deadlines: settings.deadlines,
            limits: settings.limits,
            sockets: settings.sockets,
            faults: Faults::from_environment()?,
        })
    }

    /// The Unix socket of the local API.
    #[must_use]
    pub fn socket_path(&self) -> PathBuf {
        self.state_dir.join("site.sock")
    }

    pub(crate) fn journal_path(&self) -> PathBuf {
        self.state_dir.join("journal.db")
    }

    /// Where the site's identity is kept.
    #[must_use]
    pub fn identity_dir(&self) -> PathBuf {
        self.state_dir.join("identity")
    }

    pub(crate) fn lock_path(&self) -> PathBuf {
        self.state_dir.join("site.lock")
    }
}

impl Settings {
    /// Reads a TOML file. A key that is not known is an error: a mistyped deadline must not be a silent default.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })
    }

    /// What `self` says, except where `over` (a command line, say) says something. Deadlines, limits and
    /// sockets are `self`'s: they have no place on a command line.
    #[must_use]
    pub fn overridden_by(self, over: Self) -> Self {
        Self {
            state_dir: over.state_dir.or(self.state_dir),
            name: over.name.or(self.name),
            listen: over.listen.or(self.listen),
            advertise: if over.advertise.is_empty() { self.advertise } else { over.advertise },
            incoming: over.incoming.or(self.incoming),
            allow_volatile: over.allow_volatile.or(self.allow_volatile),
            new_journal: over.new_journal || self.new_journal,
            deadlines: self.deadlines,
            limits: self.limits,
            sockets: self.sockets,
        }
    }
}

fn default_listen() -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, DEFAULT_PORT).into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn settings(text: &str) -> Result<Settings, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn the_command_line_wins() {
        let file = "name = \"edge\"\nlisten = \"127.0.0.1:1\"\nadvertise = [\"edge.example:1\"]\n[deadlines]\nheld = 0.5";
        let line = Settings {
            state_dir: Some("/state".into()),
            listen: Some("127.0.0.1:2".parse().unwrap()),
            ..Settings::default()
        };
        let config = Config::resolve(settings(file).unwrap().overridden_by(line)).unwrap();
        assert_eq!((config.name.as_str(), config.listen.port()), ("edge", 2));
        assert_eq!(config.advertise, ["edge.example:1"]);
        assert_eq!(config.deadlines.held, Duration::from_millis(500));
        assert_eq!(config.deadlines.arm, Deadlines::default().arm);
    }

    #[test]
    fn site_and_nest_wait_as_they_are_told() {
        let said = "[deadlines.site]\nkeeper_end = 3\n[deadlines.nest]\nkill = 4\n[deadlines.nest.dump]\nstep = 0.25\n\
                    [deadlines.nest.restore]\narm = 6\n[deadlines.nest.network]\ntool = 7";
        let Deadlines { site, nest, .. } = settings(said).unwrap().deadlines;
        let seconds = [site.keeper_end, nest.kill, nest.dump.step, nest.restore.arm, nest.network.tool];
        assert_eq!(seconds.map(|deadline| deadline.as_secs_f64()), [3.0, 4.0, 0.25, 6.0, 7.0]);
        assert_eq!(nest.dump.arm, Deadlines::default().nest.dump.arm);
    }

    #[test]
    fn what_is_mistyped_is_not_ignored() {
        assert!(settings("nmae = \"edge\"").is_err());
        assert!(settings("[deadlines]\nheld = \"soon\"").is_err());
        assert!(settings("[deadlines]\nheld = -1").is_err());
        assert!(settings("[deadlines]\nheld = 1e30").is_err());
        assert!(settings("[deadlines.site]\npatience = 1").is_err());
        assert!(settings("[deadlines.nest]\npatience = 1").is_err());
        assert!(settings("[deadlines.nest.dump]\nstep = \"soon\"").is_err());
        assert!(settings("[limits]\nmigrations = 0").is_err());
        assert!(matches!(
            Config::resolve(Settings::default()),
            Err(ConfigError::Missing { key: "state_dir" })
        ));
    }
}
