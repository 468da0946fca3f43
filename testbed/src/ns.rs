//! One network namespace, entered by a thread and not by a wrapper program.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread;

use anyhow::{Context, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::command::{SETUP_DEADLINE, succeed};

/// A named network namespace that somebody else creates and removes.
#[derive(Debug, Clone)]
pub struct Ns {
    name: String,
}

impl Ns {
    /// The namespace called `name` in `/run/netns`.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    /// Its name, as `ip netns` prints it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` on a thread inside the namespace. Sockets made and programs started there belong to the
    /// namespace for good.
    ///
    /// On `Err` the namespace could not be entered and `work` did not run.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let file = self.open()?;
        let outcome = thread::scope(|scope| {
            let worker = scope.spawn(move || {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok::<_, rustix::io::Errno>(work())
            });
            worker.join()
        });
        outcome
            .map_err(|_| anyhow!("a thread in network namespace {} panicked", self.name))?
            .with_context(|| format!("cannot enter network namespace {}", self.name))
    }

    /// Moves the calling thread into the namespace, for the rest of the thread's life.
    pub fn enter(&self) -> Result<()> {
        move_into_link_name_space(self.open()?.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("cannot enter network namespace {}", self.name))
    }

    /// Starts a program inside the namespace.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        self.run(|| command.spawn())?
            .with_context(|| format!("cannot start {} in {}", command.get_program().display(), self.name))
    }

    /// Runs a set-up command inside the namespace to its successful end; see [`succeed`].
    pub fn command(&self, program: &str, args: &[&str], input: &str) -> Result<String> {
        self.run(|| {
            let mut command = Command::new(program);
            command.args(args);
            succeed(command, input, SETUP_DEADLINE)
        })?
        .with_context(|| format!("in network namespace {}", self.name))
    }

    fn open(&self) -> Result<File> {
        let path = PathBuf::from("/run/netns").join(&self.name);
        File::open(&path).with_context(|| format!("cannot open network namespace {}", path.display()))
    }
}
