//! How long a nest waits for anything: every wait of it on the world stands here.
//!
//! A user sets them in the site's configuration. The site writes them into the directory of every nest: when it makes
//! one, and whenever its daemon starts. A nest outlives many daemons, so it looks there whenever it is about to wait:
//! what is changed holds for services that run, too.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use ums_engine::criu::dump::DumpDeadlines;
use ums_engine::criu::restore::RestoreDeadlines;
use ums_model::error::chain;
use ums_model::seconds;

use crate::layout::NestDir;
use crate::state::{FileError, read_json, write_json};

/// Every wait of a nest. In a file each is a number of seconds. No safety rule depends on one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Deadlines {
    /// For the service, behind its fence, to accept connections that wait for it; then the freeze comes anyway. A live
    /// one needs microseconds. Default 0.5 s.
    #[serde(with = "seconds")]
    pub accept: Duration,
    /// For commands that run inside to end after they were killed, before a freeze. Default 10 s.
    #[serde(with = "seconds")]
    pub sessions: Duration,
    /// For the output of a command inside that has ended: only what it left running can still hold it open. Default 1 s.
    #[serde(with = "seconds")]
    pub linger: Duration,
    /// For a caller to hear why its command was ended. Default 1 s.
    #[serde(with = "seconds")]
    pub last_word: Duration,
    /// One call of runc other than a restore. Default 60 s.
    #[serde(with = "seconds")]
    pub runc: Duration,
    /// For a restore of runc's that was refused to clean up; then it is killed. Default 10 s.
    #[serde(with = "seconds")]
    pub runc_end: Duration,
    /// For a dump or a restore to begin whose result is asked for already: the two connections race. Default 5 s.
    #[serde(with = "seconds")]
    pub begin: Duration,
    /// For a CRIU that an earlier nest had started to undo its dump. Default 60 s.
    #[serde(with = "seconds")]
    pub orphan: Duration,
    /// For a copy without a right to stand still. Default 10 s.
    #[serde(with = "seconds")]
    pub stand_still: Duration,
    /// For a copy that was broken off while it was restored to freeze, before it is killed. Default 2 s.
    #[serde(with = "seconds")]
    pub break_off: Duration,
    /// From SIGKILL to the end of every task; only one stuck in the kernel needs long. Default 20 s.
    #[serde(with = "seconds")]
    pub kill: Duration,
    /// For the keeper to reap the service and to write down its exit. Default 2 s.
    #[serde(with = "seconds")]
    pub reap: Duration,
    /// CRIU's first look at the kernel, when the nest starts. Default 30 s.
    #[serde(with = "seconds")]
    pub warm_up: Duration,
    /// For the kernel to tell one piece of its list of unix sockets. Default 2 s.
    #[serde(with = "seconds")]
    pub sockets: Duration,
    /// The network: the nest's side of it, and the site's.
    pub network: ums_frontman::Deadlines,
    /// CRIU's dump.
    pub dump: DumpDeadlines,
    /// CRIU's restore.
    pub restore: RestoreDeadlines,
}

impl Default for Deadlines {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self {
            accept: Duration::from_millis(500),
            sessions: s(10),
            linger: s(1),
            last_word: s(1),
            runc: s(60),
            runc_end: s(10),
            begin: s(5),
            orphan: s(60),
            stand_still: s(10),
            break_off: s(2),
            kill: s(20),
            reap: s(2),
            warm_up: s(30),
            sockets: s(2),
            network: ums_frontman::Deadlines::default(),
            dump: DumpDeadlines::default(),
            restore: RestoreDeadlines::default(),
        }
    }
}

/// The file of a nest's directory in which its site says how long it may wait.
#[derive(Debug, Clone)]
pub struct DeadlinesFile(PathBuf);

impl DeadlinesFile {
    /// That of the nest in `dir`.
    pub fn of(dir: &NestDir) -> Self {
        Self(dir.deadlines())
    }

    /// Says it durably, from now on. Ok also if it was said already.
    pub fn write(&self, deadlines: &Deadlines) -> Result<(), FileError> {
        if read_json::<Deadlines>(&self.0).is_ok_and(|said| said == *deadlines) {
            return Ok(());
        }
        write_json(&self.0, deadlines)
    }

    /// What holds now: the defaults where nothing can be read, and where an older site has said nothing. What a newer
    /// site says beyond what is known here is passed over.
    pub fn read(&self) -> Deadlines {
        let known = |mut said: Value| {
            if let Ok(defaults) = serde_json::to_value(Deadlines::default()) {
                keep_known(&mut said, &defaults);
            }
            serde_json::from_value(said).map_err(|source| FileError::Parse { path: self.0.clone(), source })
        };
        match read_json::<Value>(&self.0).and_then(known) {
            Ok(deadlines) => deadlines,
            Err(FileError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => {
                Deadlines::default()
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the default deadlines hold");
                Deadlines::default()
            }
        }
    }
}

/// Drops every key that `known` does not have.
fn keep_known(said: &mut Value, known: &Value) {
    if let (Value::Object(said), Value::Object(known)) = (said, known) {
        said.retain(|key, _| known.contains_key(key));
        for (key, value) in said {
            keep_known(value, &known[key]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> (tempfile::TempDir, DeadlinesFile) {
        let dir = tempfile::tempdir().unwrap();
        let file = DeadlinesFile::of(&NestDir::new(dir.path()));
        (dir, file)
    }

    #[test]
    fn a_nest_without_the_file_has_the_defaults_and_learns_of_every_change() {
        let (_dir, file) = kept();
        assert_eq!(file.read(), Deadlines::default());
        let mut wanted = Deadlines { accept: Duration::from_millis(1), ..Deadlines::default() };
        wanted.dump.step = Duration::from_millis(2500);
        file.write(&wanted).unwrap();
        assert_eq!(file.read(), wanted);
        file.write(&Deadlines::default()).unwrap();
        assert_eq!(file.read(), Deadlines::default());
    }

    #[test]
    fn what_an_older_or_a_newer_site_says_is_understood() {
        let (_dir, file) = kept();
        let said = r#"{"kill": 7, "patience": 1, "dump": {"step": 0.5, "rounds": {"most": 3}}}"#;
        std::fs::write(&file.0, said).unwrap();
        let mut wanted = Deadlines { kill: Duration::from_secs(7), ..Deadlines::default() };
        wanted.dump.step = Duration::from_millis(500);
        assert_eq!(file.read(), wanted);
        std::fs::write(&file.0, "{").unwrap();
        assert_eq!(file.read(), Deadlines::default());
    }
}
