//! Named faults at named moments of a migration.
//!
//! The moment is exact because the daemon itself stops there: builds with debug assertions read `UMS_FAULT=STEP:ACTION`
//! at their start. `kill` has the daemon kill itself at the begin of the step; `pause:FILE` has it create
//! `FILE.reached` and wait until `FILE` is gone. In between the fault happens.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Environment variable of the daemon.
pub const VARIABLE: &str = "UMS_FAULT";
const POLL: Duration = Duration::from_millis(1);

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// SIGKILL to the daemon of the source.
    KillSourceDaemon,
    /// SIGKILL to the daemon of the destination.
    KillDestinationDaemon,
    /// SIGKILL to the service's nest at the source.
    KillSourceNest,
    /// SIGKILL to the service's nest at the destination.
    KillDestinationNest,
    /// SIGKILL to the service's keeper at the source, and with it to the copy.
    KillSourceKeeper,
    /// SIGKILL to the service's keeper at the destination, and with it to the copy.
    KillDestinationKeeper,
    /// The link becomes a black hole.
    CutBoth,
    /// Packets towards the destination vanish.
    CutToDestination,
    /// Packets towards the source vanish.
    CutToSource,
    /// A user says `ums abort`.
    Abort,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::KillSourceDaemon,
        Self::KillDestinationDaemon,
        Self::KillSourceNest,
        Self::KillDestinationNest,
        Self::KillSourceKeeper,
        Self::KillDestinationKeeper,
        Self::CutBoth,
        Self::CutToDestination,
        Self::CutToSource,
        Self::Abort,
    ];
}

/// Which of the two sites of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Where the service comes from.
    Source,
    /// Where it goes.
    Destination,
}

/// A moment: the begin of a step in one of the two daemons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// The source asks for a reservation.
    Reserve,
    /// The source sends what the destination lacks of the image.
    Image,
    /// The source has the destination prepare.
    Arm,
    /// The source freezes the service.
    Freeze,
    /// The source dumps it.
    Dump,
    /// The source sends the rest.
    Transfer,
    /// The source waits for HELD.
    Restore,
    /// The source is about to write COMMIT.
    Commit,
    /// COMMIT is durable and not told yet.
    Committed,
    /// The source has told COMMIT and waits for RUNNING.
    Resume,
    /// The source is about to release.
    Release,
    /// The destination has an offer.
    DestinationReserve,
    /// The destination receives what it lacks of the image.
    DestinationImage,
    /// The destination prepares nest, fence and restore.
    DestinationArm,
    /// The destination restores.
    DestinationRestore,
    /// The destination is about to say HELD.
    DestinationHeld,
    /// The destination is about to write GRANTED.
    DestinationGranted,
    /// The destination has thawed and is about to write RUNNING.
    DestinationResumed,
    /// RUNNING is durable, the fence not open yet.
    DestinationRunning,
}

impl Step {
    /// All of them, those of the source first, each side in order of time.
    pub const ALL: [Self; 19] = [
        Self::Reserve,
        Self::Image,
        Self::Arm,
        Self::Freeze,
        Self::Dump,
        Self::Transfer,
        Self::Restore,
        Self::Commit,
        Self::Committed,
        Self::Resume,
        Self::Release,
        Self::DestinationReserve,
        Self::DestinationImage,
        Self::DestinationArm,
        Self::DestinationRestore,
        Self::DestinationHeld,
        Self::DestinationGranted,
        Self::DestinationResumed,
        Self::DestinationRunning,
    ];

    /// The word for it in [`VARIABLE`].
    pub fn word(self) -> &'static str {
        match self {
            Self::Reserve => "reserve",
            Self::Image => "image",
            Self::Arm => "arm",
            Self::Freeze => "freeze",
            Self::Dump => "dump",
            Self::Transfer => "transfer",
            Self::Restore => "restore",
            Self::Commit => "commit",
            Self::Committed => "committed",
            Self::Resume => "resume",
            Self::Release => "release",
            Self::DestinationReserve => "d-reserve",
            Self::DestinationImage => "d-image",
            Self::DestinationArm => "d-arm",
            Self::DestinationRestore => "d-restore",
            Self::DestinationHeld => "d-held",
            Self::DestinationGranted => "d-granted",
            Self::DestinationResumed => "d-resumed",
            Self::DestinationRunning => "d-running",
        }
    }

    /// Whose daemon stops there.
    pub fn role(self) -> Role {
        if self.word().starts_with("d-") { Role::Destination } else { Role::Source }
    }
}

/// When a fault happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct At(pub Step);

/// A daemon that will wait at a step. Dropping it lets the daemon go on.
#[derive(Debug)]
pub struct Pause {
    step: Step,
    file: PathBuf,
}

impl Pause {
    /// Lays out the file that keeps a daemon at `step`; `file` must not be in use by another pause.
    pub fn prepare(step: Step, file: PathBuf) -> Result<Self> {
        let pause = Self { step, file };
        // What an earlier pause left would look like a daemon that has come here.
        let _ = fs::remove_file(pause.reached());
        fs::write(&pause.file, "").with_context(|| format!("cannot create {}", pause.file.display()))?;
        Ok(pause)
    }

    /// What the daemon's environment must say.
    pub fn environment(&self) -> (&'static str, String) {
        (VARIABLE, format!("{}:pause:{}", self.step.word(), self.file.display()))
    }

    /// Waits until the daemon is there. `is_over` says that it will not come any more.
    pub fn wait(&self, deadline: Duration, is_over: impl Fn() -> bool) -> Result<()> {
        let end = Instant::now() + deadline;
        while !self.reached().exists() {
            if is_over() && !self.reached().exists() {
                bail!("the migration ended before step {}", self.step.word());
            }
            if Instant::now() >= end {
                bail!("the daemon did not come to step {} within {deadline:?}", self.step.word());
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    fn reached(&self) -> PathBuf {
        let mut name = self.file.clone().into_os_string();
        name.push(".reached");
        name.into()
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        // Gone already if the lab's directory is.
        let _ = fs::remove_file(&self.file);
    }
}

/// What a daemon's environment must say so that it kills itself at `step`.
pub fn kill_at(step: Step) -> (&'static str, String) {
    (VARIABLE, format!("{}:kill", step.word()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_step_has_a_word_of_its_own() {
        let words: HashSet<_> = Step::ALL.iter().map(|step| step.word()).collect();
        assert_eq!(words.len(), Step::ALL.len());
        assert_eq!(Step::ALL.iter().filter(|step| step.role() == Role::Destination).count(), 8);
    }

    #[test]
    fn a_pause_is_seen_and_ended() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("trap");
        let pause = Pause::prepare(Step::Dump, file.clone()).unwrap();
        assert_eq!(pause.environment().1, format!("dump:pause:{}", file.display()));
        let error = pause.wait(Duration::from_secs(20), || true).unwrap_err().to_string();
        assert!(error.contains("ended before step dump"), "{error}");
        fs::write(directory.path().join("trap.reached"), "").unwrap();
        pause.wait(Duration::ZERO, || true).unwrap();
        assert!(file.exists());
        drop(pause);
        assert!(!file.exists());
    }
}
