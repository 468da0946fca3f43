//! Ctrl-C: whatever this program left on the machine goes before it goes.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, thread};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::{sweep, tag};

/// What a shell says of a program that SIGINT ended.
const EXIT_CODE: i32 = 130;
/// Removing is tried so often: the rest of the program goes on while its surroundings vanish, and may make
/// something new before it notices.
const TRIES: u32 = 3;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on SIGINT, SIGTERM and SIGHUP remove everything that this process made for its labs, and then end it.
pub fn clean_up_on_signals() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot wait for signals")?;
    let wait = async move {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        Ok::<_, std::io::Error>(())
    };
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if let Err(error) = runtime.block_on(wait) {
            eprintln!("cannot wait for signals: {error}");
            return;
        }
        INTERRUPTED.store(true, Ordering::Relaxed);
        eprintln!("interrupted: cleaning up");
        remove_everything();
        std::process::exit(EXIT_CODE);
    })?;
    Ok(())
}

/// Whether a signal came. The program is about to end: errors from now on are only its echo.
///
/// Does not return if so: the thread that cleans up ends the process.
pub fn stop_here_if_interrupted() {
    while INTERRUPTED.load(Ordering::Relaxed) {
        thread::park();
    }
}

/// Ends this program at once, which hangs: says why, removes everything that it made for its labs, and exits with 1.
pub(crate) fn give_up(why: &str) -> ! {
    eprintln!("{why}: cleaning up");
    remove_everything();
    std::process::exit(1);
}

fn remove_everything() {
    for attempt in 1..=TRIES {
        let tags = own_tags();
        for tag in &tags {
            if let Err(error) = sweep::remove(tag)
                && attempt == TRIES
            {
                eprintln!("{error:#}");
            }
        }
        if tags.is_empty() {
            return;
        }
    }
}

/// Tags of this process that something carries: every lab has a directory or at least namespaces.
fn own_tags() -> BTreeSet<String> {
    let own = |name: &String| tag::owner(name) == Some(std::process::id());
    let names = |directory: std::path::PathBuf| {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect::<Vec<_>>()
    };
    let mut all = names(std::env::temp_dir());
    all.extend(names("/run/netns".into()));
    all.iter().filter(|name| own(name)).filter_map(|name| tag::of(name)).map(str::to_owned).collect()
}
