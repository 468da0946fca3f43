//! Space for decisions that are due when the disk is full.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

/// A megabyte: hundreds of records, and whatever else the database adds around them.
const SIZE: u64 = 1024 * 1024;

/// A file that only takes up space, until it is given up for a record.
pub(super) struct Reserve {
    path: PathBuf,
}

impl Reserve {
    /// The reserve of the journal at `journal`.
    pub(super) fn beside(journal: &Path) -> Self {
        Self { path: journal.with_extension("reserve") }
    }

    /// Takes the space, if it can be had. A site without a reserve works all the same.
    pub(super) fn fill(&self) {
        let fill = || -> io::Result<()> {
            let file = File::options().write(true).create(true).truncate(false).open(&self.path)?;
            Ok(fallocate(&file, FallocateFlags::empty(), 0, SIZE)?)
        };
        if let Err(error) = fill() {
            tracing::warn!(path = %self.path.display(), %error, "cannot keep space in reserve for the journal");
        }
    }

    /// Gives the space back to the file system. `false`: there was none.
    pub(super) fn spend(&self) -> bool {
        let spent = fs::remove_file(&self.path).is_ok();
        if spent {
            tracing::error!("the disk is full: the journal now lives on its reserve, make room");
        }
        spent
    }
}
