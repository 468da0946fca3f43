//! Following a migration from outside, event by event.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ums_model::event::{EventKind, MigrationEvent};
use ums_model::phase::Phase;

use crate::tag::{MARKER, Tag};

const POLL: Duration = Duration::from_millis(1);

/// A running `ums watch`. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    process: Child,
    events: Arc<Mutex<Vec<MigrationEvent>>>,
}

impl Watch {
    pub(crate) fn start(program: &Path, socket: &Path, tag: &Tag, service: &str) -> Result<Self> {
        let mut process = Command::new(program)
            .arg("--socket")
            .arg(socket)
            .args(["--json", "watch", service])
            .env(MARKER, tag.as_str())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start `ums watch`")?;
        let stdout = process.stdout.take().context("a program without stdout")?;
        let events = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&events);
        thread::Builder::new().name("watch".to_owned()).spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Ok(event) = serde_json::from_str(&line) {
                    lock(&sink).push(event);
                }
            }
        })?;
        Ok(Self { process, events })
    }

    /// All events so far.
    pub fn events(&self) -> Vec<MigrationEvent> {
        lock(&self.events).clone()
    }

    /// Waits until a phase has begun.
    pub fn wait_for_phase(&self, phase: Phase, deadline: Duration) -> Result<()> {
        let begun = |event: &MigrationEvent| matches!(&event.kind, EventKind::PhaseStarted { phase: begun } if *begun == phase);
        let end = Instant::now() + deadline;
        while !self.events().iter().any(begun) {
            if Instant::now() >= end {
                bail!("phase {phase} did not begin within {deadline:?}; events so far: {:?}", self.events());
            }
            thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Fails only if it has ended, which is the aim.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn lock(events: &Mutex<Vec<MigrationEvent>>) -> MutexGuard<'_, Vec<MigrationEvent>> {
    events.lock().unwrap_or_else(PoisonError::into_inner)
}
