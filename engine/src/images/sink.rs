//! Writing images at the destination. Names and sizes come from another site and are not believed.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open, openat};

use super::Totals;

/// Most files in one set of images. A process has about six, so this is far beyond any service.
const MAX_FILES: u64 = 300_000;

/// How all image files end; the log and other things in their directory stay where they are.
const SUFFIX: &str = ".img";

/// Longest name of an image; CRIU's have at most about 40 characters.
const MAX_NAME: usize = 100;

/// Image files that are being written.
#[derive(Debug)]
pub struct Sink {
    directory: OwnedFd,
    path: PathBuf,
    open: HashMap<String, File>,
    limit: u64,
    totals: Totals,
}

/// Images cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The directory cannot be opened.
    #[error("cannot open the image directory {path}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The name is none of an image.
    #[error("{name:?} is not the name of an image")]
    Name {
        /// The name, shortened.
        name: String,
    },
    /// A file cannot be created or written.
    #[error("cannot write {name} in {path}")]
    Write {
        /// The image.
        name: String,
        /// Its directory.
        path: PathBuf,
        /// Why; a file that exists already is an error.
        #[source]
        source: io::Error,
    },
    /// There are more than can be right.
    #[error("there are more than {limit} {what} of images")]
    TooMuch {
        /// The bound.
        limit: u64,
        /// Of what.
        what: &'static str,
    },
}

impl Sink {
    /// Opens an empty directory for at most `limit` bytes of images.
    pub fn open(path: &Path, limit: u64) -> Result<Self, SinkError> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let directory = open(path, flags, Mode::empty())
            .map_err(|errno| SinkError::Directory { path: path.to_owned(), source: errno.into() })?;
        Ok(Self { directory, path: path.to_owned(), open: HashMap::new(), limit, totals: Totals::default() })
    }

    /// Appends to an image; the first piece, which may be empty, creates it.
    ///
    /// On `Err` the set is of no use any more.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), SinkError> {
        self.totals.bytes += bytes.len() as u64;
        if self.totals.bytes > self.limit {
            return Err(SinkError::TooMuch { limit: self.limit, what: "bytes" });
        }
        let failed = |source| SinkError::Write { name: name.to_owned(), path: self.path.clone(), source };
        if let Some(file) = self.open.get_mut(name) {
            return file.write_all(bytes).map_err(failed);
        }
        if !is_image(name) {
            return Err(SinkError::Name { name: name.chars().take(MAX_NAME).collect() });
        }
        if self.totals.files >= MAX_FILES {
            return Err(SinkError::TooMuch { limit: MAX_FILES, what: "files" });
        }
        // Neither over something that is there nor through a link.
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
        // CRIU also opens them as the root of a service's user namespace, who is nobody here. Nobody else can come to
        // the directory.
        let file = openat(&self.directory, name, flags, Mode::from_raw_mode(0o644))
            .map_err(|errno| failed(errno.into()))?;
        let mut file = File::from(file);
        file.write_all(bytes).map_err(failed)?;
        self.open.insert(name.to_owned(), file);
        self.totals.files += 1;
        Ok(())
    }

    /// Closes an image, to which nothing may be added any more. One that was not begun is none.
    pub fn end(&mut self, name: &str) {
        self.open.remove(name);
    }

    /// Closes all files and tells what was written, to be compared with what the source read.
    pub fn finish(self) -> Totals {
        self.totals
    }
}

/// A plain file name as CRIU makes them.
pub(super) fn is_image(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    name.len() <= MAX_NAME
        && name.bytes().all(plain)
        && !name.starts_with('.')
        && name.strip_suffix(SUFFIX).is_some_and(|stem| !stem.is_empty())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn pieces_become_files_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = Sink::open(folder.path(), 1000).unwrap();
        sink.write("pages-1.img", b"one").unwrap();
        sink.write("core-1.img", b"").unwrap();
        sink.write("pages-1.img", b"two").unwrap();
        sink.end("pages-1.img");
        assert!(matches!(sink.write("pages-1.img", b"x"), Err(SinkError::Write { .. })));
        assert_eq!(sink.finish(), Totals { files: 2, bytes: 7 });
        assert_eq!(fs::read(folder.path().join("pages-1.img")).unwrap(), b"onetwo");
        assert_eq!(fs::read(folder.path().join("core-1.img")).unwrap(), b"");
    }

    #[test]
    fn foreign_names_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = Sink::open(folder.path(), 1000).unwrap();
        for name in
            ["../x.img", "a/b.img", ".img", "..img", "x.sh", "", "descriptors.json", "a\0.img", "ä.img"]
        {
            assert!(matches!(sink.write(name, b"x"), Err(SinkError::Name { .. })), "{name:?}");
        }
        let long = format!("{}.img", "x".repeat(MAX_NAME));
        assert!(sink.write(&long, b"x").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn nothing_that_exists_is_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let outside = folder.path().join("outside");
        fs::write(&outside, "untouched").unwrap();
        let images = folder.path().join("images");
        fs::create_dir(&images).unwrap();
        symlink(&outside, images.join("link-1.img")).unwrap();
        fs::write(images.join("core-1.img"), "old").unwrap();
        let mut sink = Sink::open(&images, 1000).unwrap();
        assert!(matches!(sink.write("link-1.img", b"x"), Err(SinkError::Write { .. })));
        assert!(matches!(sink.write("core-1.img", b"x"), Err(SinkError::Write { .. })));
        assert_eq!(fs::read_to_string(&outside).unwrap(), "untouched");
    }

    #[test]
    fn more_bytes_than_agreed_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = Sink::open(folder.path(), 10).unwrap();
        sink.write("pages-1.img", &[0; 10]).unwrap();
        assert!(matches!(sink.write("pages-1.img", b"x"), Err(SinkError::TooMuch { what: "bytes", .. })));
    }
}
