//! Failures on purpose, at named points, in builds for development only.
//!
//! `UMS_FAULT=STEP:ACTION[,STEP:ACTION...]` in the environment of the daemon. The steps are those of [`Step`]; the
//! actions are
//!
//! | action | what happens when the step begins |
//! | --- | --- |
//! | `kill` | the process ends itself by SIGKILL: nothing is cleaned up |
//! | `fail` | the step fails, once |
//! | `pause:FILE` | if `FILE` exists, `FILE.reached` is created, and the step waits until `FILE` is gone |
//!
//! An optimised build refuses to start with this variable set: a site in service must not fail on purpose.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ums_model::error::{ErrorCode, WireError};

use crate::config::ConfigError;

const VARIABLE: &str = "UMS_FAULT";
/// How often a paused step looks for its file.
const LOOK: Duration = Duration::from_millis(5);

macro_rules! steps {
    ($($(#[$meta:meta])* $variant:ident = $word:literal,)+) => {
        /// A point at which a failure can be made.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Step { $($(#[$meta])* $variant,)+ }

        impl Step {
            /// Every step: first the source's in their order, then the destination's.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// As it is called in `UMS_FAULT`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    };
}

steps! {
    /// Source: the reservation at the destination.
    Reserve = "reserve",
    /// Source: sending what the destination lacks of the image.
    Image = "image",
    /// Source: having the destination prepare.
    Arm = "arm",
    /// Source: before the freeze is recorded.
    Freeze = "freeze",
    /// Source: the freeze is recorded, nothing is stopped yet.
    Dump = "dump",
    /// Source: the service is stopped, nothing of it was sent yet.
    Transfer = "transfer",
    /// Source: everything was sent, HELD is awaited.
    Restore = "restore",
    /// Source: HELD arrived, COMMIT is not recorded.
    Commit = "commit",
    /// Source: COMMIT is durable and was not told.
    Committed = "committed",
    /// Source: COMMIT was told, the answer is awaited.
    Resume = "resume",
    /// Source: RUNNING arrived, the original is not released.
    Release = "release",
    /// Destination: an offer arrived.
    DestinationReserve = "d-reserve",
    /// Destination: blobs of the image are awaited.
    DestinationImage = "d-image",
    /// Destination: before anything is prepared.
    DestinationArm = "d-arm",
    /// Destination: before the restore begins.
    DestinationRestore = "d-restore",
    /// Destination: the copy is held, HELD is not recorded.
    DestinationHeld = "d-held",
    /// Destination: GRANTED is durable, nothing is thawed.
    DestinationGranted = "d-granted",
    /// Destination: the copy is thawed, RUNNING is not recorded.
    DestinationResumed = "d-resumed",
    /// Destination: RUNNING is durable, the fence is closed.
    DestinationRunning = "d-running",
}

/// What is to happen at one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// End this process at once.
    Kill,
    /// Let the step fail, once.
    Fail,
    /// Wait while this file exists; `FILE.reached` says that the step is waiting.
    Pause(PathBuf),
}

/// The failures that a site makes on purpose. Clones share what has happened already.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    planned: Arc<[Planned]>,
}

#[derive(Debug)]
struct Planned {
    step: Step,
    act: Act,
    done: AtomicBool,
}

impl Faults {
    /// These failures. In an optimised build they are ignored.
    #[must_use]
    pub fn new(faults: impl IntoIterator<Item = (Step, Act)>) -> Self {
        let planned =
            faults.into_iter().map(|(step, act)| Planned { step, act, done: AtomicBool::new(false) });
        Self { planned: planned.collect() }
    }

    /// What the environment says. An optimised build takes any word of it for an error.
    pub(crate) fn from_environment() -> Result<Self, ConfigError> {
        match std::env::var_os(VARIABLE) {
            None => Ok(Self::default()),
            Some(given) => {
                let given = given.to_string_lossy().into_owned();
                Self::parse(&given).map_err(|why| ConfigError::Fault { given, why })
            }
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        if !cfg!(debug_assertions) {
            return Err("this is an optimised build, it makes no failures on purpose".to_owned());
        }
        let one = |text: &str| {
            let (step, act) = text.split_once(':').ok_or_else(|| format!("{text:?} is not STEP:ACTION"))?;
            let found = Step::ALL.iter().find(|known| known.as_str() == step);
            let step = *found.ok_or_else(|| format!("there is no step {step:?}"))?;
            let act = match act.split_once(':') {
                None if act == "kill" => Act::Kill,
                None if act == "fail" => Act::Fail,
                Some(("pause", file)) if !file.is_empty() => Act::Pause(file.into()),
                _ => return Err(format!("there is no action {act:?}")),
            };
            Ok((step, act))
        };
        Ok(Self::new(text.split(',').map(one).collect::<Result<Vec<_>, String>>()?))
    }

    /// The point `step`. `Err` if it is to fail here; does not return if the process is to end here.
    pub(crate) async fn at(&self, step: Step) -> Result<(), WireError> {
        if !cfg!(debug_assertions) {
            return Ok(());
        }
        for planned in self.planned.iter().filter(|planned| planned.step == step) {
            planned.happen().await?;
        }
        Ok(())
    }
}

impl Planned {
    async fn happen(&self) -> Result<(), WireError> {
        let name = self.step.as_str();
        match &self.act {
            Act::Kill => {
                let own = rustix::process::getpid();
                // It cannot fail for the own process, and what comes after it does not happen.
                let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
                std::future::pending().await
            }
            Act::Fail if self.done.swap(true, Ordering::SeqCst) => Ok(()),
            Act::Fail => Err(WireError::new(
                ErrorCode::Internal,
                format!("step {name} failed because {VARIABLE} says so"),
            )),
            Act::Pause(file) => {
                let mut reached = file.clone().into_os_string();
                reached.push(".reached");
                let failed = |error: std::io::Error| {
                    WireError::new(ErrorCode::Internal, format!("cannot pause in step {name}: {error}"))
                };
                while tokio::fs::try_exists(file).await.map_err(failed)? {
                    tokio::fs::write(&reached, name).await.map_err(failed)?;
                    tokio::time::sleep(LOOK).await;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_is_read_whole_or_refused() {
        let faults = Faults::parse("freeze:kill,d-held:pause:/tmp/x:y,commit:fail").unwrap();
        let read: Vec<_> = faults.planned.iter().map(|planned| (planned.step, planned.act.clone())).collect();
        let pause = Act::Pause("/tmp/x:y".into());
        assert_eq!(
            read,
            [(Step::Freeze, Act::Kill), (Step::DestinationHeld, pause), (Step::Commit, Act::Fail)]
        );
        for bad in ["", "freeze", "freeze:melt", "thaw:kill", "freeze:pause", "freeze:pause:", "freeze:kill,"]
        {
            assert!(Faults::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_failure_happens_once_and_a_pause_ends() {
        let home = tempfile::tempdir().unwrap();
        let gate = home.path().join("gate");
        std::fs::write(&gate, "").unwrap();
        let faults = Faults::new([(Step::Arm, Act::Fail), (Step::Image, Act::Pause(gate.clone()))]);
        assert!(faults.at(Step::Arm).await.is_err());
        assert!(faults.clone().at(Step::Arm).await.is_ok());
        let open = async {
            while !home.path().join("gate.reached").exists() {
                tokio::task::yield_now().await;
            }
            std::fs::remove_file(&gate).unwrap();
        };
        let (passed, ()) = tokio::join!(faults.at(Step::Image), open);
        passed.unwrap();
        faults.at(Step::Image).await.unwrap();
    }
}
