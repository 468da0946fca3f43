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
//! | `twice` | the deed of this step is done two times, once: what is safe to repeat shows it |
//! | `again` | the message of this step is sent two times, once |
//! | `jump:SECONDS` | this process's wall clock jumps, once; a minus sign is a jump back |
//!
//! `from:FOLDER` instead of all that lets a daemon be told while it runs: at each step `FOLDER/STEP` is looked for. Such a
//! file contains an action, and is removed when that is done; `pause` needs no file of its own there, it lasts as long
//! as `FOLDER/STEP` exists, and creates `FOLDER/STEP.reached`.
//!
//! An optimised build refuses to start with this variable set: a site in service must not fail on purpose.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ums_model::error::{ErrorCode, WireError};

use crate::clock;
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
    /// Do the deed of the step two times, once.
    Twice,
    /// Send the message of the step two times, once.
    Again,
    /// Let the wall clock of this process jump by so many seconds, once.
    Jump(i64),
}

/// The failures that a site makes on purpose. Clones share what has happened already.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    planned: Arc<[Planned]>,
    /// Where more of them may be laid out at any time.
    folder: Option<Arc<Path>>,
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
        Self { planned: planned.collect(), folder: None }
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
        if let Some(folder) = text.strip_prefix("from:").filter(|folder| !folder.is_empty()) {
            return Ok(Self { folder: Some(Path::new(folder).into()), ..Self::default() });
        }
        let one = |text: &str| {
            let (step, act) = text.split_once(':').ok_or_else(|| format!("{text:?} is not STEP:ACTION"))?;
            let found = Step::ALL.iter().find(|known| known.as_str() == step);
            let step = *found.ok_or_else(|| format!("there is no step {step:?}"))?;
            let act = match act.split_once(':') {
                Some(("pause", file)) if !file.is_empty() => Act::Pause(file.into()),
                _ => Act::parse(act).ok_or_else(|| format!("there is no action {act:?}"))?,
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
        let name = step.as_str();
        for planned in self.planned.iter().filter(|planned| planned.step == step) {
            match &planned.act {
                Act::Pause(file) => pause(name, file).await?,
                Act::Kill => die().await,
                Act::Fail if planned.is_due() => return Err(failed(name)),
                Act::Jump(seconds) if planned.is_due() => clock::jump(*seconds),
                Act::Fail | Act::Jump(_) | Act::Twice | Act::Again => {}
            }
        }
        match self.laid_out(step).as_ref().map(|(file, act)| (file, act.trim())) {
            None => Ok(()),
            Some((file, "pause")) => pause(name, file).await,
            Some((file, text)) => match Act::parse(text) {
                Some(Act::Kill) => {
                    take(name, file)?;
                    die().await
                }
                Some(Act::Fail) => take(name, file).and(Err(failed(name))),
                Some(Act::Jump(seconds)) => {
                    take(name, file)?;
                    clock::jump(seconds);
                    Ok(())
                }
                // Asked for where the deed is done, or the message sent.
                Some(Act::Twice | Act::Again) => Ok(()),
                Some(Act::Pause(_)) | None => {
                    Err(WireError::new(ErrorCode::Internal, format!("step {name}: no action {text:?}")))
                }
            },
        }
    }

    /// Whether the deed of `step` is to be done two times. Only the first who asks hears yes.
    pub(crate) fn twice(&self, step: Step) -> bool {
        self.doubles(step, &Act::Twice)
    }

    /// Whether the message of `step` is to be sent two times. Only the first who asks hears yes.
    pub(crate) fn again(&self, step: Step) -> bool {
        self.doubles(step, &Act::Again)
    }

    fn doubles(&self, step: Step, act: &Act) -> bool {
        if !cfg!(debug_assertions) {
            return false;
        }
        let mut planned = self.planned.iter().filter(|planned| planned.step == step && planned.act == *act);
        let laid_out = self.laid_out(step).filter(|(_, text)| Act::parse(text.trim()).as_ref() == Some(act));
        planned.any(Planned::is_due) || laid_out.is_some_and(|(file, _)| take(step.as_str(), &file).is_ok())
    }

    fn laid_out(&self, step: Step) -> Option<(PathBuf, String)> {
        let file = self.folder.as_ref()?.join(step.as_str());
        let text = std::fs::read_to_string(&file).ok()?;
        Some((file, text))
    }
}

impl Act {
    /// Reads those that need no file.
    fn parse(text: &str) -> Option<Self> {
        match text.split_once(':') {
            None if text == "kill" => Some(Self::Kill),
            None if text == "fail" => Some(Self::Fail),
            None if text == "twice" => Some(Self::Twice),
            None if text == "again" => Some(Self::Again),
            Some(("jump", seconds)) => seconds.parse().ok().map(Self::Jump),
            _ => None,
        }
    }
}

impl Planned {
    /// Whether it has not happened yet; from now on it has.
    fn is_due(&self) -> bool {
        !self.done.swap(true, Ordering::SeqCst)
    }
}

async fn die() -> ! {
    let own = rustix::process::getpid();
    // It cannot fail for the own process, and what comes after it does not happen.
    let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
    std::future::pending().await
}

fn failed(name: &str) -> WireError {
    WireError::new(ErrorCode::Internal, format!("step {name} failed because {VARIABLE} says so"))
}

/// Removes the file that says what is to happen: it happens once.
fn take(name: &str, file: &Path) -> Result<(), WireError> {
    std::fs::remove_file(file)
        .map_err(|error| WireError::new(ErrorCode::Internal, format!("step {name}: {error}")))
}

async fn pause(name: &str, file: &Path) -> Result<(), WireError> {
    let mut reached = file.as_os_str().to_owned();
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
        let bad = ["", "freeze", "freeze:melt", "thaw:kill", "freeze:pause", "freeze:pause:", "freeze:kill,"];
        for bad in bad.into_iter().chain(["from:", "freeze:jump:", "freeze:jump:soon", "freeze:twice:2"]) {
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

    #[tokio::test]
    async fn what_is_laid_out_in_a_folder_happens_once() {
        let home = tempfile::tempdir().unwrap();
        let faults = Faults::parse(&format!("from:{}", home.path().display())).unwrap();
        let lay = |text: &str| std::fs::write(home.path().join("arm"), text).unwrap();
        faults.at(Step::Arm).await.unwrap();
        lay("fail");
        faults.at(Step::Image).await.unwrap();
        faults.at(Step::Arm).await.unwrap_err();
        faults.at(Step::Arm).await.unwrap();
        lay("melt");
        faults.at(Step::Arm).await.unwrap_err();
        for (text, twice, again) in [("twice", true, false), ("again", false, true)] {
            lay(text);
            faults.at(Step::Arm).await.unwrap();
            assert!(!faults.twice(Step::Image) && !faults.again(Step::Image));
            assert_eq!((faults.twice(Step::Arm), faults.again(Step::Arm)), (twice, again), "{text}");
            assert!(!faults.twice(Step::Arm) && !faults.again(Step::Arm), "only once");
        }
        lay("pause");
        let open = async {
            while !home.path().join("arm.reached").exists() {
                tokio::task::yield_now().await;
            }
            std::fs::remove_file(home.path().join("arm")).unwrap();
        };
        tokio::join!(faults.at(Step::Arm), open).0.unwrap();
    }

    #[tokio::test]
    async fn a_jump_of_the_clock_is_seen() {
        let before = clock::unix_ms();
        let faults = Faults::parse("arm:jump:100000,image:jump:-100000").unwrap();
        faults.at(Step::Arm).await.unwrap();
        faults.at(Step::Arm).await.unwrap();
        let jumped = clock::unix_ms() - before;
        faults.at(Step::Image).await.unwrap();
        assert!((100_000_000..200_000_000).contains(&jumped), "{jumped}");
    }
}
