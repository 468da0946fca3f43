//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Live-migrate running containerized services between sites that share nothing but a link.
#[derive(Debug, Parser)]
#[command(name = "ums", version, arg_required_else_help = true, propagate_version = true)]
pub(crate) struct Cli {
    /// Unix socket of the site's daemon.
    #[arg(long, global = true, env = "UMS_SOCKET", default_value = "/var/lib/ums/site/site.sock")]
    pub(crate) socket: PathBuf,
    /// A remote site's API instead of the socket, HOST:PORT; needs --fingerprint and a token in UMS_TOKEN.
    #[arg(long, global = true, env = "UMS_URL")]
    pub(crate) url: Option<String>,
    /// Fingerprint of the remote site (`ums sites` there shows it).
    #[arg(long, global = true, env = "UMS_FINGERPRINT")]
    pub(crate) fingerprint: Option<String>,
    /// One JSON object per line on stdout and nothing else there.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run this host's site daemon.
    Site(SiteArgs),
    /// Introduce two sites to each other, once.
    #[command(subcommand)]
    Pair(PairCommand),
    /// List this site and the sites that it is paired with; see and change what they may do.
    Sites {
        #[command(subcommand)]
        command: Option<SitesCommand>,
    },
    /// Forget a paired site.
    Unpair {
        /// The other site.
        site: String,
    },
    /// Start a service.
    Run(Box<RunArgs>),
    /// List services.
    Ps,
    /// Start a stopped service again.
    Start {
        /// The service.
        name: String,
    },
    /// Stop a service: SIGTERM, then SIGKILL.
    Stop {
        /// The service.
        name: String,
        /// Seconds before SIGKILL.
        #[arg(long, short = 't', default_value_t = 10)]
        time: u64,
    },
    /// Send a signal to a service's first process.
    Kill {
        /// The service.
        name: String,
        /// Number of the signal.
        #[arg(long, short, default_value_t = 15)]
        signal: i32,
    },
    /// Remove a stopped service with its files; volumes stay.
    Rm {
        /// The service.
        name: String,
        /// Also if it runs.
        #[arg(long, short)]
        force: bool,
    },
    /// Print what a service wrote to stdout and stderr.
    Logs {
        /// The service.
        name: String,
        /// Go on printing.
        #[arg(long, short)]
        follow: bool,
    },
    /// Run a command inside a service.
    Exec {
        /// Additional environment, NAME=VALUE.
        #[arg(long = "env", short = 'e')]
        env: Vec<String>,
        /// Working directory inside.
        #[arg(long, short)]
        workdir: Option<String>,
        /// The service.
        name: String,
        /// Command and arguments.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Say whether and at what cost a service can move; touches nothing.
    Plan {
        /// The service.
        name: String,
        /// The destination.
        #[arg(long)]
        to: String,
    },
    /// Move a running service to another site.
    Migrate {
        /// The service.
        name: String,
        /// The destination.
        #[arg(long)]
        to: String,
        /// Return at once; follow with `ums watch`.
        #[arg(long)]
        detach: bool,
    },
    /// Follow a migration.
    Watch {
        /// A service or the id of a migration.
        what: String,
    },
    /// Move all running services of a site to another one, and say how each of them fared.
    Drain {
        /// The site to be emptied: the one that this command talks to.
        site: String,
        /// Where they go.
        #[arg(long)]
        to: String,
        /// How many move at once; the site's own limit holds as well.
        #[arg(long, default_value = "2", value_parser = clap::value_parser!(u16).range(1..))]
        parallel: u16,
        /// Only say what would happen.
        #[arg(long)]
        plan: bool,
    },
    /// Give up a migration that is not committed yet.
    Abort {
        /// The service.
        name: String,
    },
    /// Decide about a service that no rule can decide about, because the other site will never answer.
    Resolve {
        /// The service.
        name: String,
        /// Let the copy here run. The copy at the other site must be certainly dead: if it is not, two will run.
        #[arg(long, required_unless_present = "discard")]
        run_here: bool,
        /// Give the copy here up: it never runs again.
        #[arg(long, conflicts_with = "run_here")]
        discard: bool,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Show one service, or everything of this site.
    Status {
        /// The service.
        name: Option<String>,
    },
    /// List past and running migrations.
    History {
        /// Only of this service.
        name: Option<String>,
        /// How many at most, the newest first; no more than 1000.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// What was moved, by whom, and how it ended: a chain of records of which none can be changed unnoticed.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Check whether this host can do its part.
    Doctor,
    /// Tokens for the API over TLS.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Started by a site: a service's life line.
    #[command(hide = true)]
    Keeper {
        #[arg(long)]
        dir: PathBuf,
        #[arg(long)]
        program: PathBuf,
    },
    /// Started by a keeper: owns a service.
    #[command(hide = true)]
    Nest {
        #[arg(long)]
        dir: PathBuf,
        #[arg(long, value_delimiter = ',')]
        stdio: Vec<i32>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SiteArgs {
    /// Start also where --state does not survive a restart of the machine. A site that forgets its decisions may let two
    /// copies of a service run.
    #[arg(long)]
    pub(crate) allow_volatile: bool,
    /// Begin a new journal although this site has services and none. For one start, when the old one is lost for good:
    /// services that never migrated go on, of any other it is not known who may run it.
    #[arg(long)]
    pub(crate) new_journal: bool,
    /// Name of this site.
    #[arg(long)]
    pub(crate) name: String,
    /// Directory for everything, on storage that survives a restart.
    #[arg(long, default_value = "/var/lib/ums/site")]
    pub(crate) state: PathBuf,
    /// Address for other sites, IP:PORT.
    #[arg(long, default_value = "0.0.0.0:7443")]
    pub(crate) listen: String,
    /// Address at which other sites reach this one, if it is another.
    #[arg(long)]
    pub(crate) advertise: Option<String>,
    /// What a site mount name means here; repeatable.
    #[arg(long = "site-mount", value_name = "NAME=DIR")]
    pub(crate) site_mounts: Vec<String>,
    /// Name server for services; the host's by default.
    #[arg(long)]
    pub(crate) resolver: Option<std::net::Ipv4Addr>,
    /// Configuration file (TOML).
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PairCommand {
    /// Print a one-time token for the other site.
    Invite,
    /// Give this site a new key and tell every paired site of it.
    Rotate {
        /// Do not wait for sites that do not answer; they have to be paired anew.
        #[arg(long)]
        forget: bool,
    },
    /// The same as `ums sites revoke`.
    Revoke {
        /// The paired site.
        site: String,
    },
    /// Use a token that the other site printed.
    Accept {
        /// The token.
        token: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SitesCommand {
    /// Show what a paired site may do here; with options, change it first. Services that are here stay.
    Policy(Box<PolicyArgs>),
    /// Put a paired site out, at once. Migrations that are committed go on to their end.
    Revoke {
        /// The paired site.
        site: String,
    },
}

/// Lists have commas between their entries; an empty one, '', allows nothing.
#[derive(Debug, Args)]
pub(crate) struct PolicyArgs {
    /// The paired site.
    pub(crate) site: String,
    /// Names of services that may come from there, for example 'web-*,db'.
    #[arg(long, value_name = "GLOBS")]
    pub(crate) incoming: Option<String>,
    /// Names of services that may go there.
    #[arg(long, value_name = "GLOBS")]
    pub(crate) outgoing: Option<String>,
    /// Services from there at once.
    #[arg(long, value_name = "N")]
    pub(crate) max_services: Option<u32>,
    /// Services on their way here from there at once; more are asked to wait.
    #[arg(long, value_name = "N")]
    pub(crate) max_migrations: Option<u32>,
    /// Memory of all services from there together, for example 8g; 'none' for what the site has left.
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_memory: Option<String>,
    /// Disk space of all services from there together; 'none' for what the site has left.
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_disk: Option<String>,
    /// Ports of this site that they may publish, for example '80,1024-65535'.
    #[arg(long, value_name = "RANGES")]
    pub(crate) ports: Option<String>,
    /// Site mounts of this site that they may use.
    #[arg(long, value_name = "GLOBS")]
    pub(crate) site_mounts: Option<String>,
    /// Whether they may run without a user namespace of their own: their root is then root on this host.
    #[arg(long, value_name = "yes|no", num_args = 0..=1, default_missing_value = "yes", value_parser = ["yes", "no"])]
    pub(crate) allow_no_user_namespace: Option<String>,
    /// Whether those without a user namespace may bring set-uid programs and file capabilities; others always may.
    #[arg(long, value_name = "yes|no", num_args = 0..=1, default_missing_value = "yes", value_parser = ["yes", "no"])]
    pub(crate) allow_set_uid: Option<String>,
    /// Whether they may bring device nodes.
    #[arg(long, value_name = "yes|no", num_args = 0..=1, default_missing_value = "yes", value_parser = ["yes", "no"])]
    pub(crate) allow_devices: Option<String>,
    /// Begin with the defaults; other options are applied to them.
    #[arg(long)]
    pub(crate) reset: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// List all records, oldest first.
    List {
        /// journal.db of a site that does not run, instead of the daemon.
        #[arg(long)]
        journal: Option<PathBuf>,
    },
    /// Walk along the whole chain. Exit code 1 if a record is not what was written.
    Verify {
        /// journal.db of a site that does not run, instead of the daemon.
        #[arg(long)]
        journal: Option<PathBuf>,
        /// Hash of a record that was kept elsewhere: it must still be in the chain. Tells of records that were cut off.
        #[arg(long)]
        head: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token; it is shown once.
    New {
        /// What it is for.
        name: String,
        /// viewer (look), operator (also run and move services) or admin (everything).
        #[arg(long, default_value = "admin", value_parser = ["viewer", "operator", "admin"])]
        role: String,
        /// The same as --role viewer.
        #[arg(long, conflicts_with = "role")]
        read: bool,
        /// For how long it opens anything: 90s, 45m, 12h or 30d. For ever if it is not said.
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
    },
    /// List tokens.
    Ls,
    /// Revoke a token.
    Rm {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Name of the service, the same at every site.
    #[arg(long)]
    pub(crate) name: String,
    /// A stored image, or a path to an OCI layout or a `docker save` archive on the site's host.
    #[arg(long, conflicts_with = "rootfs", required_unless_present = "rootfs")]
    pub(crate) image: Option<String>,
    /// A plain root directory on the site's host.
    #[arg(long)]
    pub(crate) rootfs: Option<PathBuf>,
    /// Publish a port, `HOST:CONTAINER[/udp]`; repeatable.
    #[arg(long = "publish", short = 'p')]
    pub(crate) ports: Vec<String>,
    /// Environment, NAME=VALUE; repeatable.
    #[arg(long = "env", short = 'e')]
    pub(crate) env: Vec<String>,
    /// A volume that travels with the service, `NAME:/path[:ro]`; repeatable.
    #[arg(long = "volume", short = 'v')]
    pub(crate) volumes: Vec<String>,
    /// Something of the site, `NAME:/path[:ro]`; repeatable.
    #[arg(long = "site-mount")]
    pub(crate) site_mounts: Vec<String>,
    /// Memory limit, for example 512m or 2g.
    #[arg(long)]
    pub(crate) memory: Option<String>,
    /// CPU limit, for example 1.5.
    #[arg(long)]
    pub(crate) cpus: Option<String>,
    /// no, on-failure or always: whether it is started again when it ends by itself, when its keeper is killed, and after a
    /// reboot of the host, which both count as failures. What a user has stopped stays stopped.
    #[arg(long, default_value = "no")]
    pub(crate) restart: String,
    /// Working directory inside.
    #[arg(long, short)]
    pub(crate) workdir: Option<String>,
    /// User inside: name, uid, name:group.
    #[arg(long, short)]
    pub(crate) user: Option<String>,
    /// Host name inside; the service's name by default.
    #[arg(long)]
    pub(crate) hostname: Option<String>,
    /// Give it no user namespace of its own: its root is then root on the host, within its capabilities. Only for
    /// software that needs it.
    #[arg(long)]
    pub(crate) no_user_namespace: bool,
    /// Accepted for habit: services always run detached.
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// Command and arguments; what the image says if absent.
    #[arg(last = true)]
    pub(crate) command: Vec<String>,
}
