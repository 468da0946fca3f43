//! What a service of a test is: which image, which command, which ports, and how it proves that it is well.

use std::time::Duration;

use ums_model::names::Bytes;

use crate::probe::Question;
use crate::rootfs::{WITNESS, WORKLOAD};

/// Where the memhog answers questions about its memory, inside.
const MEMHOG_PORT: u16 = 7000;
/// Where the memhog and the echo send back bytes, inside.
const ECHO_PORT: u16 = 7001;
const REDIS_PORT: u16 = 6379;
const POSTGRES_PORT: u16 = 5432;

/// Counts to the witness in `$ARGV[0]`, one append per number; for images that have no `ums-workload`.
const TICK: &str = r#"
    my $run = sprintf("%08x%08x", int(rand(2**32)), $$);
    for (my $number = 1; ; $number++) {
        open(my $witness, ">>", $ARGV[0]) or die "witness: $!";
        syswrite($witness, "$run $number
");
        close($witness);
        select(undef, undef, undef, 0.02);
    }
"#;

/// Makes a cluster where none is, and serves it. Nothing is looser than the default but for the sizes; statements of
/// clients that are gone end by themselves.
const POSTGRES: &str = "\
D=/var/lib/postgresql/data
if [ ! -e $D/PG_VERSION ]; then
    initdb --pgdata=$D --username=postgres --auth=trust --encoding=UTF8 --locale=C
    echo 'host all all all trust' >> $D/pg_hba.conf
fi
exec postgres -D $D -c listen_addresses='*' -c unix_socket_directories= -c max_connections=40 \
    -c shared_buffers=16MB -c jit=off -c idle_in_transaction_session_timeout=5s -c lock_timeout=10s \
    -c client_connection_check_interval=1s";

/// A service for a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Workload {
    /// Counts to its witness.
    Counter {
        /// Time between two numbers.
        interval: Duration,
    },
    /// Holds memory and checks it; also echoes, and counts to its witness.
    Memhog(Memhog),
    /// Echoes bytes.
    TcpEcho,
    /// Holds an io_uring, which cannot be dumped.
    IoUring,
    /// Ends by itself.
    Exit {
        /// With this exit code.
        code: u8,
        /// After this long.
        after: Duration,
    },
    /// Prints SIGTERM and SIGHUP.
    Signals {
        /// Ends on SIGTERM with this code; `None` does not end.
        exit_code: Option<u8>,
    },
    /// A stock Redis that keeps everything in memory.
    Redis,
    /// A database beside which a process counts to the witness.
    Witnessed(Database),
}

/// Which database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Database {
    /// The Redis of [`Workload::Redis`].
    Redis,
    /// A PostgreSQL that writes to its disk before it acknowledges. Its user is `postgres`, without a password.
    Postgres,
}

/// A memhog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memhog {
    /// Incompressible memory, all processes together.
    pub size: Bytes,
    /// Processes.
    pub processes: u32,
    /// Threads with memory of their own in each process, besides its main thread.
    pub threads: u32,
    /// Memory written per second, all processes together.
    pub dirty_per_second: Bytes,
}

/// Which root directory a workload runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Image {
    /// Only the workload program: [`crate::rootfs::static_rootfs`].
    Static,
    /// Debian with Redis: [`crate::rootfs::redis_rootfs`].
    Redis,
    /// Debian with PostgreSQL: [`crate::rootfs::postgres_rootfs`].
    Postgres,
}

impl Workload {
    /// A counter at 10 ms.
    pub fn counter() -> Self {
        Self::Counter { interval: Duration::from_millis(10) }
    }

    /// A memhog with one process, one thread, and memory that nobody writes.
    pub fn memhog(size: Bytes) -> Self {
        Self::Memhog(Memhog { size, processes: 1, threads: 1, dirty_per_second: Bytes::ZERO })
    }

    /// The image.
    pub fn image(&self) -> Image {
        match self {
            Self::Redis | Self::Witnessed(Database::Redis) => Image::Redis,
            Self::Witnessed(Database::Postgres) => Image::Postgres,
            _ => Image::Static,
        }
    }

    /// Whether it appends to `/witness/NAME`.
    pub fn has_witness(&self) -> bool {
        matches!(self, Self::Counter { .. } | Self::Memhog(_) | Self::Witnessed(_))
    }

    /// The user inside, if it is not root.
    pub fn user(&self) -> Option<&'static str> {
        (*self == Self::Witnessed(Database::Postgres)).then_some("postgres")
    }

    /// The ports it listens on inside. The probe asks at the last.
    pub fn ports(&self) -> &'static [u16] {
        match self {
            Self::Memhog(_) => &[MEMHOG_PORT, ECHO_PORT],
            Self::TcpEcho => &[ECHO_PORT],
            Self::Redis | Self::Witnessed(Database::Redis) => &[REDIS_PORT],
            Self::Witnessed(Database::Postgres) => &[POSTGRES_PORT],
            Self::Counter { .. } | Self::IoUring | Self::Exit { .. } | Self::Signals { .. } => &[],
        }
    }

    /// How a probe asks for a sign of life; `None` if there is no port.
    pub fn question(&self) -> Option<Question> {
        match self {
            Self::Memhog(_) | Self::TcpEcho => Some(Question::Echo),
            Self::Redis | Self::Witnessed(Database::Redis) => Some(Question::RedisPing),
            Self::Witnessed(Database::Postgres) => None,
            Self::Counter { .. } | Self::IoUring | Self::Exit { .. } | Self::Signals { .. } => None,
        }
    }

    /// The command, for a service called `name`.
    pub fn command(&self, name: &str) -> Vec<String> {
        let witness = format!("{WITNESS}/{name}");
        let workload = |options: &[(&str, &dyn std::fmt::Display)], command: &str| {
            let options =
                options.iter().flat_map(|(option, value)| [format!("--{option}"), value.to_string()]);
            [WORKLOAD.to_owned(), command.to_owned()].into_iter().chain(options).collect()
        };
        match self {
            Self::Counter { interval } => {
                workload(&[("interval-ms", &interval.as_millis()), ("witness", &witness)], "counter")
            }
            Self::Memhog(hog) => workload(
                &[
                    ("mib", &(hog.size.get() >> 20)),
                    ("processes", &hog.processes),
                    ("threads", &hog.threads),
                    ("dirty-mib-s", &(hog.dirty_per_second.get() >> 20)),
                    ("port", &MEMHOG_PORT),
                    ("echo-port", &ECHO_PORT),
                    ("witness", &witness),
                ],
                "memhog",
            ),
            Self::TcpEcho => workload(&[("port", &ECHO_PORT)], "tcp-echo"),
            Self::IoUring => workload(&[], "io-uring"),
            Self::Exit { code, after } => {
                workload(&[("code", code), ("after-ms", &after.as_millis())], "exit")
            }
            Self::Signals { exit_code: Some(code) } => workload(&[("exit-code", code)], "signals"),
            Self::Signals { exit_code: None } => workload(&[], "signals"),
            Self::Redis => {
                let words = "/usr/bin/redis-server --port 6379 --bind 0.0.0.0 --protected-mode no --appendonly no --save";
                words.split(' ').map(str::to_owned).chain([String::new()]).collect()
            }
            Self::Witnessed(database) => {
                let server = match database {
                    Database::Redis => format!("exec {}''", Self::Redis.command(name).join(" ")),
                    Database::Postgres => POSTGRES.to_owned(),
                };
                let script = format!("perl -e '{TICK}' {witness} &\n{server}");
                ["/bin/sh", "-e", "-c", &script].map(str::to_owned).to_vec()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_as_the_programs_take_them() {
        let hog = Memhog { size: Bytes::mib(64), processes: 2, threads: 3, dirty_per_second: Bytes::mib(5) };
        let command = Workload::Memhog(hog).command("hog").join(" ");
        assert_eq!(
            command,
            "/ums-workload memhog --mib 64 --processes 2 --threads 3 --dirty-mib-s 5 --port 7000 --echo-port 7001 \
             --witness /witness/hog"
        );
        assert_eq!(
            Workload::Redis.command("db").last().unwrap(),
            "",
            "an empty --save keeps Redis from the disk"
        );
        let witnessed = Workload::Witnessed(Database::Redis).command("db");
        let script = witnessed.last().unwrap();
        assert!(
            script.ends_with("--appendonly no --save ''") && script.contains("/witness/db &"),
            "{script}"
        );
    }
}
