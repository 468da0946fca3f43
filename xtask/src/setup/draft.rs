//! Folders and files that appear whole or not at all: they are made beside their place and moved there at the end.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

/// Something under construction. Dropped before [`Draft::publish`], it disappears.
///
/// The name of the draft is fixed, so that one left behind by a killed run is found and replaced; the caller must
/// hold the lock of the place.
#[derive(Debug)]
pub(crate) struct Draft {
    place: PathBuf,
    draft: PathBuf,
}

impl Draft {
    /// Begins an empty folder that is to become `place`.
    pub(crate) fn folder(place: &Path) -> Result<Self> {
        let this = Self::file(place)?;
        fs::create_dir(&this.draft)
            .with_context(|| format!("cannot make the folder {}", this.draft.display()))?;
        Ok(this)
    }

    /// Begins a file that is to become `place`; writing it is the caller's part.
    pub(crate) fn file(place: &Path) -> Result<Self> {
        let draft = beside(place, "new")?;
        remove(&draft)?;
        let folder = place.parent().unwrap_or(place);
        fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        Ok(Self { place: place.to_owned(), draft })
    }

    /// Where to build.
    pub(crate) fn path(&self) -> &Path {
        &self.draft
    }

    /// Moves the draft to its place. What was there before is removed; programs that run from it go on.
    pub(crate) fn publish(self) -> Result<()> {
        let old = beside(&self.place, "old")?;
        remove(&old)?;
        let moved = |from: &Path, to: &Path| {
            fs::rename(from, to)
                .with_context(|| format!("cannot move {} to {}", from.display(), to.display()))
        };
        if self.place.symlink_metadata().is_ok() {
            moved(&self.place, &old)?;
        }
        moved(&self.draft, &self.place)?;
        remove(&old)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After `publish` there is nothing left to remove; before it a failure is met again by the next draft.
        let _ = remove(&self.draft);
    }
}

/// Removes a file or a folder with all that is in it; what is not there is no error.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let done = match path.symlink_metadata() {
        Ok(facts) if facts.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match done {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// `.NAME.SUFFIX` in the same folder, hence on the same file system, where a rename is one step.
pub(crate) fn beside(place: &Path, suffix: &str) -> Result<PathBuf> {
    let name =
        place.file_name().ok_or_else(|| anyhow!("{} has no name to put a draft beside", place.display()))?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(".");
    hidden.push(suffix);
    Ok(place.with_file_name(hidden))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("xtask-{}-{name}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_published_draft_replaces_what_was_there() {
        let folder = Folder::new("publish");
        let place = folder.0.join("deep/place");
        for content in ["first", "second"] {
            let draft = Draft::folder(&place).unwrap();
            fs::write(draft.path().join("file"), content).unwrap();
            draft.publish().unwrap();
            assert_eq!(fs::read_to_string(place.join("file")).unwrap(), content);
        }
        assert_eq!(fs::read_dir(folder.0.join("deep")).unwrap().count(), 1);
    }

    #[test]
    fn an_abandoned_draft_leaves_the_old_one_and_no_trace() {
        let folder = Folder::new("abandon");
        let place = folder.0.join("place");
        fs::write(&place, "old").unwrap();
        let draft = Draft::file(&place).unwrap();
        fs::write(draft.path(), "half").unwrap();
        drop(draft);
        assert_eq!(fs::read_to_string(&place).unwrap(), "old");
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
    }

    #[test]
    fn a_draft_of_a_killed_run_is_replaced() {
        let folder = Folder::new("killed");
        let place = folder.0.join("place");
        std::mem::forget(Draft::folder(&place).unwrap());
        Draft::folder(&place).unwrap().publish().unwrap();
        assert!(place.is_dir());
    }
}
