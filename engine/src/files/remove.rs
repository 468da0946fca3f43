//! Taking away what is in the way, with everything in it, and nothing else.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;

use super::error::failed;
use super::walk::{DIRECTORY, cannot_open, names, open_below};
use super::{FilesError, TreePath};

/// Removes `name`, the last part of `path`, from a directory, with everything in it. Whether there was something:
/// nothing there is no error.
///
/// Neither follows a symbolic link nor enters another file system: one that is mounted somewhere below is an error,
/// with a part of the tree gone.
pub(super) fn remove(parent: impl AsFd, name: &OsStr, path: &TreePath) -> Result<bool, FilesError> {
    match unlinkat(&parent, name, AtFlags::empty()) {
        Ok(()) => return Ok(true),
        Err(Errno::NOENT) => return Ok(false),
        Err(Errno::ISDIR) => {}
        Err(errno) => return Err(failed("replace", path)(errno)),
    }
    let directory = match open_below(&parent, name, DIRECTORY) {
        Ok(directory) => directory,
        Err(errno) => return Err(cannot_open(path, errno)),
    };
    empty(directory, path)?;
    unlinkat(&parent, name, AtFlags::REMOVEDIR).map_err(failed("replace the directory", path))?;
    Ok(true)
}

/// A directory that is being emptied.
struct Level {
    /// Its name in the one above.
    name: OsString,
    directory: OwnedFd,
    names: VecDeque<Vec<u8>>,
}

impl Level {
    fn new(name: &OsStr, directory: OwnedFd) -> Result<Self, Errno> {
        let names = names(&directory)?.into();
        Ok(Self { name: name.to_owned(), directory, names })
    }
}

/// Removes everything in the directory that `path` stands for; see [`remove`].
pub(super) fn empty(directory: OwnedFd, path: &TreePath) -> Result<(), FilesError> {
    let broken = |errno| failed("empty the directory", path)(errno);
    let mut levels = vec![Level::new(OsStr::new(""), directory).map_err(broken)?];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.names.pop_front() {
            let name = OsString::from_vec(name);
            match unlinkat(&level.directory, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR) => {
                    let below = open_below(&level.directory, &name, DIRECTORY);
                    let below =
                        below.map_err(|errno| cannot_open(&below_path(path, &levels, &name), errno))?;
                    levels.push(Level::new(&name, below).map_err(broken)?);
                }
                Err(errno) => return Err(broken(errno)),
            }
            continue;
        }
        let Some(done) = levels.pop() else { break };
        if let Some(above) = levels.last() {
            unlinkat(&above.directory, &done.name, AtFlags::REMOVEDIR).map_err(broken)?;
        }
    }
    Ok(())
}

/// What an error shall name; as near as a path can get.
fn below_path(path: &TreePath, levels: &[Level], name: &OsStr) -> TreePath {
    let names = levels.iter().skip(1).map(|level| level.name.as_os_str()).chain([name]);
    names.fold(path.clone(), |path, name| path.join(name.as_bytes()).unwrap_or(path))
}
