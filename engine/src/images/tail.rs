//! Reading images out while CRIU writes them.
//!
//! Nearly all bytes are in the `pages-N.img` files, and CRIU only ever appends to those. So they can travel from the
//! first page on, and what has been read is punched out: a dump needs memory for what the wire has not taken yet,
//! not for a second copy of the service. Everything else is small, is changed until the end, and follows then.
//!
//! A service has as many page files as processes, and some more images for each. CRIU writes one page file after the other,
//! so only the newest one grows, and each is passed on to its end before the next is begun: nobody needs more than one open.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::fs::{FallocateFlags, fallocate};
use tokio::sync::watch;

use super::sink::is_image;
use super::{CHUNK, Totals};

/// How the names of the files begin that are only appended to.
const PAGES: &str = "pages-";

/// Time between two looks at files that have not grown. A look costs microseconds.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Images that are being written, in the order in which they can be read.
#[derive(Debug)]
pub struct Tail {
    directory: PathBuf,
    complete: watch::Receiver<bool>,
    /// Names of page files that have not been passed on to their end, by their numbers.
    pages: BTreeMap<u32, String>,
    /// Those that have, and how long each was then.
    passed: BTreeMap<String, u64>,
    /// What is left when CRIU is done, in reverse; `None` before.
    rest: Option<Vec<String>>,
    /// The one image that is being read.
    reading: Option<Growing>,
    totals: Totals,
}

/// The word that no image changes any more. Dropped without it, [`Tail`] ends with an error.
#[derive(Debug)]
pub struct Complete(watch::Sender<bool>);

/// A piece of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Name of the image.
    pub name: Arc<str>,
    /// The bytes that follow those of the piece before; none in the last piece.
    pub bytes: Bytes,
    /// Whether the image ends here.
    pub last: bool,
}

/// Images cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// A file or the directory cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What was passed on as a whole image was none.
    #[error("{path} was written to after a later image had begun")]
    Late {
        /// Which.
        path: PathBuf,
    },
    /// The dump has failed, or was called off.
    #[error("the images in {path} will not be completed")]
    Incomplete {
        /// Their directory.
        path: PathBuf,
    },
}

#[derive(Debug)]
struct Growing {
    name: Arc<str>,
    file: File,
    read: u64,
}

impl Complete {
    /// CRIU has ended with success.
    pub fn finish(self) {
        self.0.send_replace(true);
    }
}

impl Tail {
    /// Starts with a directory in which CRIU will write, or writes already.
    pub fn of(directory: &Path) -> (Self, Complete) {
        let (sender, complete) = watch::channel(false);
        let tail = Self {
            directory: directory.to_owned(),
            complete,
            pages: BTreeMap::new(),
            passed: BTreeMap::new(),
            rest: None,
            reading: None,
            totals: Totals::default(),
        };
        (tail, Complete(sender))
    }

    /// The next piece; `None` when all images have been read. What a piece held is gone from its file, for page
    /// files.
    ///
    /// Waits for CRIU as long as it takes: the deadline is that of the dump, whose end ends this. May be dropped
    /// while it waits.
    pub async fn next(&mut self) -> Result<Option<Chunk>, TailError> {
        loop {
            // In this order: once the sender is gone, the word is the last one.
            let silent = self.complete.has_changed().is_err();
            // Asked before the files are looked at, so that a look after the word finds everything.
            let complete = *self.complete.borrow();
            if silent && !complete {
                return Err(TailError::Incomplete { path: self.directory.clone() });
            }
            // As long as what is known grows nothing else is looked for.
            if let Some(chunk) = self.grown(false)? {
                return Ok(Some(chunk));
            }
            if self.rest.is_none() {
                self.find_pages()?;
            }
            if let Some(chunk) = self.grown(complete)? {
                return Ok(Some(chunk));
            }
            if complete {
                return self.next_of_rest();
            }
            // An early word wakes it, also that of a dump that failed.
            let _ = tokio::time::timeout(LOOK_EVERY, self.complete.changed()).await;
        }
    }

    /// What has been read so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    fn find_pages(&mut self) -> Result<(), TailError> {
        for name in self.names()? {
            let Some(number) = number_of_pages(&name) else { continue };
            if !self.passed.contains_key(&name) {
                self.pages.entry(number).or_insert(name);
            }
        }
        Ok(())
    }

    fn open(&self, name: &str) -> Result<Growing, TailError> {
        let path = self.directory.join(name);
        // Writable, for the holes.
        let file = File::options().read(true).write(true).open(&path);
        let file = file.map_err(|source| TailError::Read { path, source })?;
        Ok(Growing { name: name.into(), file, read: 0 })
    }

    /// All images that are there, in order.
    fn names(&self) -> Result<BTreeSet<String>, TailError> {
        let failed = |source| TailError::Read { path: self.directory.clone(), source };
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            names.extend(name.to_str().filter(|name| is_image(name)).map(str::to_owned));
        }
        Ok(names)
    }

    /// The next piece of a page file, if one has grown, or was followed by another: then it does not grow any more.
    fn grown(&mut self, complete: bool) -> Result<Option<Chunk>, TailError> {
        // Found before it is read: so a later one was there before the end of an earlier one is seen.
        let Some(name) = self.pages.values().next() else { return Ok(None) };
        if self.reading.is_none() {
            self.reading = Some(self.open(name)?);
        }
        let piece = self.read_on()?;
        if piece.is_some() || (self.pages.len() == 1 && !complete) {
            return Ok(piece);
        }
        self.pages.pop_first();
        if let Some(ended) = &self.reading {
            self.passed.insert(ended.name.to_string(), ended.read);
        }
        Ok(self.end())
    }

    /// The next piece of what is left at the end.
    fn next_of_rest(&mut self) -> Result<Option<Chunk>, TailError> {
        if self.rest.is_none() {
            self.confirm_passed()?;
            let names = self.names()?.into_iter().rev();
            self.rest = Some(names.filter(|name| !self.passed.contains_key(name)).collect());
        }
        if self.reading.is_none() {
            let next = self.rest.as_mut().and_then(Vec::pop);
            self.reading = next.map(|name| self.open(&name)).transpose()?;
        }
        Ok(self.read_on()?.or_else(|| self.end()))
    }

    /// The next piece of the image that is being read, if there is more of it.
    fn read_on(&mut self) -> Result<Option<Chunk>, TailError> {
        let Some(reading) = &mut self.reading else { return Ok(None) };
        reading.next(&self.directory, &mut self.totals)
    }

    /// The image that was being read ends here.
    fn end(&mut self) -> Option<Chunk> {
        let Growing { name, .. } = self.reading.take()?;
        self.totals.files += 1;
        Some(Chunk { name, bytes: Bytes::new(), last: true })
    }

    /// Makes sure that nothing was added to a page file after it had been passed on.
    fn confirm_passed(&self) -> Result<(), TailError> {
        for (name, length) in &self.passed {
            let path = self.directory.join(name);
            match fs::metadata(&path) {
                Ok(metadata) if metadata.len() == *length => {}
                Ok(_) => return Err(TailError::Late { path }),
                Err(source) => return Err(TailError::Read { path, source }),
            }
        }
        Ok(())
    }
}

/// The number in the name of a page file.
fn number_of_pages(name: &str) -> Option<u32> {
    name.strip_prefix(PAGES)?.strip_suffix(".img")?.parse().ok()
}

impl Growing {
    fn next(&mut self, directory: &Path, totals: &mut Totals) -> Result<Option<Chunk>, TailError> {
        let mut bytes = vec![0; CHUNK];
        let length = self
            .file
            .read_at(&mut bytes, self.read)
            .map_err(|source| TailError::Read { path: directory.join(&*self.name), source })?;
        if length == 0 {
            return Ok(None);
        }
        bytes.truncate(length);
        // Only memory is lost where the file system cannot do it.
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let _ = fallocate(&self.file, hole, self.read, length as u64);
        totals.bytes += length as u64;
        self.read += length as u64;
        Ok(Some(Chunk { name: self.name.clone(), bytes: bytes.into(), last: false }))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[tokio::test]
    async fn pages_come_while_they_grow_and_the_rest_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| File::create_new(folder.path().join(name)).unwrap();
        let (mut tail, complete) = Tail::of(folder.path());
        let mut pages = file("pages-1.img");
        file("dump.log").write_all(b"not an image").unwrap();
        let mut core = file("core-1.img");
        core.write_all(b"first").unwrap();

        pages.write_all(&[1; 5000]).unwrap();
        let chunk = tail.next().await.unwrap().unwrap();
        assert_eq!((&*chunk.name, chunk.bytes.len()), ("pages-1.img", 5000));

        let mut found: BTreeMap<String, Vec<u8>> =
            BTreeMap::from([("pages-1.img".into(), chunk.bytes.into())]);
        let reader = async {
            while let Some(chunk) = tail.next().await.unwrap() {
                found.entry(chunk.name.to_string()).or_default().extend(&chunk.bytes);
            }
        };
        let writer = async {
            for _ in 0..3 {
                tokio::task::yield_now().await;
                pages.write_all(&vec![2; CHUNK + 1]).unwrap();
            }
            file("pages-2.img");
            core.write_all(b" and last").unwrap();
            complete.finish();
        };
        tokio::join!(reader, writer);

        assert_eq!(found.keys().collect::<Vec<_>>(), ["core-1.img", "pages-1.img", "pages-2.img"]);
        assert_eq!(found["core-1.img"], b"first and last");
        assert_eq!(found["pages-1.img"].len(), 5000 + 3 * (CHUNK + 1));
        assert!(found["pages-1.img"][5000..].iter().all(|byte| *byte == 2));
        let bytes = found.values().map(|bytes| bytes.len() as u64).sum();
        assert_eq!(tail.totals(), Totals { files: 3, bytes });
    }

    #[tokio::test]
    async fn each_page_file_ends_before_the_next_one_is_passed_on() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |number: u32| fs::write(folder.path().join(format!("pages-{number}.img")), [7; 100]).unwrap();
        // In the order of numbers, not of names.
        (9..=11).for_each(write);
        let (mut tail, complete) = Tail::of(folder.path());
        let mut next = async || {
            let chunk = tail.next().await.unwrap().unwrap();
            (chunk.name.to_string(), chunk.bytes.len(), chunk.last)
        };
        for number in [9, 10] {
            let name = format!("pages-{number}.img");
            assert_eq!(next().await, (name.clone(), 100, false));
            assert_eq!(next().await, (name, 0, true));
        }
        assert_eq!(next().await, ("pages-11.img".to_owned(), 100, false));
        // The newest may still grow.
        assert!(tokio::time::timeout(3 * LOOK_EVERY, next()).await.is_err());
        complete.finish();
        assert_eq!(next().await, ("pages-11.img".to_owned(), 0, true));
        assert_eq!(tail.next().await.unwrap(), None);
        assert_eq!(tail.totals(), Totals { files: 3, bytes: 300 });
    }

    #[tokio::test]
    async fn an_image_that_grows_after_its_end_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pages-1.img");
        fs::write(&path, [7; 100]).unwrap();
        fs::write(folder.path().join("pages-2.img"), [7; 100]).unwrap();
        let (mut tail, complete) = Tail::of(folder.path());
        while !tail.next().await.unwrap().unwrap().last {}
        File::options().append(true).open(&path).unwrap().write_all(b"late").unwrap();
        complete.finish();
        let error = loop {
            match tail.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("nobody noticed"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, TailError::Late { path: found } if found == path));
    }

    #[tokio::test]
    async fn what_was_read_needs_no_memory_any_more() {
        // A tmpfs, as in use; it is there on every Linux.
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = folder.path().join("pages-1.img");
        fs::write(&path, vec![7; 4 * CHUNK]).unwrap();
        let (mut tail, complete) = Tail::of(folder.path());
        complete.finish();
        while tail.next().await.unwrap().is_some() {}
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.size(), metadata.blocks()), (4 * CHUNK as u64, 0));
    }

    #[tokio::test]
    async fn a_dump_that_fails_ends_it() {
        let folder = tempfile::tempdir().unwrap();
        let (mut tail, complete) = Tail::of(folder.path());
        let (found, ()) = tokio::join!(tail.next(), async { drop(complete) });
        assert!(matches!(found, Err(TailError::Incomplete { .. })));
    }
}
