//! The thread that watches the witness files of all sites.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ums_model::names::Epoch;

use super::{Line, Record, Verdict, Violation, check};
use crate::clock::Boottime;
use crate::net::SiteIndex;

/// How often the files are looked at: the error of a record's time.
const POLL: Duration = Duration::from_millis(1);
/// How much is read at once.
const BUFFER: usize = 64 * 1024;

/// Records what is appended to the witness files of one service. Dropping it ends the recording; the files stay.
#[derive(Debug)]
pub struct Recorder {
    shared: Arc<Mutex<Shared>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    records: Vec<Record>,
    garbage: Vec<Violation>,
    epoch: Epoch,
    stop: bool,
}

struct Tail {
    site: SiteIndex,
    file: File,
    offset: u64,
    /// The begin of a line whose end was not there yet.
    rest: Vec<u8>,
}

impl Recorder {
    /// Creates the files, writable for everybody (a service's root is nobody in particular here), and records what
    /// is appended to them from now on.
    pub fn start(files: &[(SiteIndex, PathBuf)]) -> Result<Self> {
        let open = |(site, path): &(SiteIndex, PathBuf)| {
            let file = File::options().create(true).append(true).read(true).open(path);
            let file = file.with_context(|| format!("cannot create witness {}", path.display()))?;
            fs::set_permissions(path, Permissions::from_mode(0o666))
                .with_context(|| format!("cannot open witness {} to everybody", path.display()))?;
            let offset = file.metadata().context("cannot see the size of a witness")?.len();
            Ok(Tail { site: *site, file, offset, rest: Vec::new() })
        };
        let mut tails = files.iter().map(open).collect::<Result<Vec<_>>>()?;
        let shared = Arc::new(Mutex::new(Shared {
            records: Vec::new(),
            garbage: Vec::new(),
            epoch: Epoch(0),
            stop: false,
        }));
        let thread = thread::Builder::new().name("witness".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || {
                let mut buffer = vec![0; BUFFER];
                while !lock(&shared).stop {
                    tails.iter_mut().for_each(|tail| tail.follow(&mut buffer, &shared));
                    thread::sleep(POLL);
                }
            }
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Later records belong to this epoch.
    pub fn set_epoch(&self, epoch: Epoch) {
        lock(&self.shared).epoch = epoch;
    }

    /// All records so far, in order of arrival.
    pub fn records(&self) -> Vec<Record> {
        lock(&self.shared).records.clone()
    }

    /// Waits until `site` writes a line that was not recorded when the call began.
    pub fn wait_for_life(&self, site: SiteIndex, deadline: Duration) -> Result<Record> {
        self.wait_for(|record| record.site == site, deadline)
            .with_context(|| format!("site {site} shows no life"))
    }

    /// Waits until any site writes a line that was not recorded when the call began.
    pub fn wait_for_any_life(&self, deadline: Duration) -> Result<Record> {
        self.wait_for(|_| true, deadline).context("no site shows life")
    }

    fn wait_for(&self, wanted: impl Fn(&Record) -> bool, deadline: Duration) -> Result<Record> {
        let known = lock(&self.shared).records.len();
        let end = Instant::now() + deadline;
        loop {
            let fresh = lock(&self.shared).records[known..].iter().find(|record| wanted(record)).copied();
            if let Some(record) = fresh {
                return Ok(record);
            }
            if Instant::now() >= end {
                let last = self.records().last().map_or("none".to_owned(), Record::to_string);
                bail!("nothing new in the witness within {deadline:?}; the last line of all is {last}");
            }
            thread::sleep(POLL);
        }
    }

    /// Proves that there was one service, at the sites of `path` one after the other; see [`check()`](super::check()).
    pub fn check(&self, path: &[SiteIndex]) -> Result<Verdict, Vec<Violation>> {
        let shared = lock(&self.shared);
        let verdict = check(&shared.records, path);
        if shared.garbage.is_empty() {
            return verdict;
        }
        Err(shared.garbage.iter().cloned().chain(verdict.err().into_iter().flatten()).collect())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        lock(&self.shared).stop = true;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Tail {
    fn follow(&mut self, buffer: &mut [u8], shared: &Mutex<Shared>) {
        loop {
            // A file that cannot be read is silent, and silence fails every check.
            let read = self.file.read_at(buffer, self.offset).unwrap_or(0);
            if read == 0 {
                return;
            }
            let at = Boottime::now();
            self.offset += read as u64;
            self.rest.extend(&buffer[..read]);
            let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { continue };
            let whole: Vec<u8> = self.rest.drain(..=end).collect();
            let mut shared = lock(shared);
            let epoch = shared.epoch;
            for text in String::from_utf8_lossy(&whole).lines() {
                match Line::parse(text) {
                    Some(line) => shared.records.push(Record { site: self.site, epoch, at, line }),
                    None => {
                        let garbage = Violation::Garbage { site: self.site, text: text.to_owned() };
                        shared.garbage.push(garbage);
                    }
                }
            }
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::net::{A, B};

    const PATIENCE: Duration = Duration::from_secs(10);

    fn append(path: &PathBuf, text: &str) {
        File::options().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn lines_of_all_sites_are_recorded_with_site_and_epoch() {
        let directory = tempfile::tempdir().unwrap();
        let (at_a, at_b) = (directory.path().join("a"), directory.path().join("b"));
        let recorder = Recorder::start(&[(A, at_a.clone()), (B, at_b.clone())]).unwrap();
        thread::scope(|scope| {
            let life = scope.spawn(|| recorder.wait_for_life(A, PATIENCE).unwrap());
            while !life.is_finished() {
                let number = recorder.records().len() + 1;
                append(&at_a, &format!("0a {number}\n"));
                let end = Instant::now() + PATIENCE;
                while recorder.records().len() < number && Instant::now() < end {}
            }
        });
        let last = *recorder.records().last().unwrap();
        recorder.set_epoch(Epoch(1));
        let number = last.line.number + 1;
        append(&at_b, &format!("0a {number}\n"));
        let end = Instant::now() + PATIENCE;
        while recorder.records().last() == Some(&last) && Instant::now() < end {}

        let record = *recorder.records().last().unwrap();
        assert_eq!((record.site, record.epoch, record.line), (B, Epoch(1), Line { run: 10, number }));
        assert!(record.at >= last.at);
        assert_eq!(recorder.check(&[A, B]), Ok(Verdict { numbers: number, moves: 1 }));
    }

    #[test]
    fn garbage_is_a_violation() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let recorder = Recorder::start(&[(A, path.clone())]).unwrap();
        append(&path, "0a 1\nnonsense\n0a 2\n");
        let end = Instant::now() + PATIENCE;
        while recorder.records().len() < 2 && Instant::now() < end {}
        let violations = recorder.check(&[A]).unwrap_err();
        assert_eq!(violations, [Violation::Garbage { site: A, text: "nonsense".to_owned() }]);
    }
}
