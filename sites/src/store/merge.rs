//! Several unpacked layers become one tree, which shows what an overlay of them would show.
//!
//! Files are hard links to the layers' files: they cost no space, and both are read-only. Directories are made anew.
//! This works on trees that the store has made itself, not on archives: their names are as harmless as their depth is
//! bounded, and nobody else writes to them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{Timespec, Timestamps, XattrFlags, fgetxattr, fsetxattr, futimens};
use rustix::io::Errno;

use super::error::StoreError;
use super::layers::UnpackedLayer;
use super::{tree, xattr};

/// Fills the empty directory `into` with the content of `layers`, bottom first.
pub(super) fn merge(layers: &[UnpackedLayer], into: &Path) -> Result<(), StoreError> {
    let unnamed: Vec<_> = layers
        .iter()
        .map(|layer| layer.record.unnamed.iter().map(|name| PathBuf::from(OsStr::from_bytes(name))).collect())
        .collect();
    // From here on topmost first: that is the order in which layers decide.
    let mut sources = Vec::new();
    for (layer, unnamed) in layers.iter().zip(&unnamed).rev() {
        sources.push(Source { tree: &layer.tree, unnamed });
        if layer.record.opaque_root {
            break;
        }
    }
    merge_directory(&sources, Path::new(""), into)
}

/// One layer's contribution to a directory.
#[derive(Clone, Copy)]
struct Source<'a> {
    tree: &'a Path,
    /// Directories whose attributes the layer does not know.
    unnamed: &'a BTreeSet<PathBuf>,
}

/// What one layer has under a name.
pub(super) enum Found {
    Whiteout,
    Directory { opaque: bool },
    Other,
}

fn merge_directory(sources: &[Source<'_>], below: &Path, into: &Path) -> Result<(), StoreError> {
    let mut names: BTreeMap<OsString, Vec<Source<'_>>> = BTreeMap::new();
    for source in sources {
        let directory = source.tree.join(below);
        for entry in fs::read_dir(&directory).map_err(StoreError::io("list", &directory))? {
            let entry = entry.map_err(StoreError::io("list", &directory))?;
            names.entry(entry.file_name()).or_default().push(*source);
        }
    }
    for (name, holders) in names {
        merge_name(&holders, &below.join(name), into)?;
    }
    dress(sources, below, &into.join(below))
}

/// Makes what the `holders`, topmost first, together have at `path`.
fn merge_name(holders: &[Source<'_>], path: &Path, into: &Path) -> Result<(), StoreError> {
    let mut directories = Vec::new();
    for holder in holders {
        match look(&holder.tree.join(path))? {
            Some(Found::Directory { opaque }) => {
                directories.push(*holder);
                if opaque {
                    break;
                }
            }
            // Below a directory they only say that nothing further down counts.
            Some(Found::Whiteout | Found::Other) if !directories.is_empty() => break,
            Some(Found::Whiteout) | None => return Ok(()),
            Some(Found::Other) => {
                let (from, to) = (holder.tree.join(path), into.join(path));
                return fs::hard_link(&from, &to).map_err(StoreError::io("link", to));
            }
        }
    }
    let made = into.join(path);
    DirBuilder::new().mode(0o700).create(&made).map_err(StoreError::io("create", &made))?;
    merge_directory(&directories, path, into)
}

/// What there is at `path` in a layer's tree, if anything.
pub(super) fn look(path: &Path) -> Result<Option<Found>, StoreError> {
    let found = match path.symlink_metadata() {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StoreError::io("look at", path)(source)),
    };
    if found.file_type().is_char_device() && found.rdev() == 0 {
        return Ok(Some(Found::Whiteout));
    }
    if !found.is_dir() {
        return Ok(Some(Found::Other));
    }
    let opened = File::open(path).map_err(StoreError::io("open", path))?;
    match fgetxattr(&opened, tree::OPAQUE, &mut [0_u8; 1][..]) {
        Ok(_) => Ok(Some(Found::Directory { opaque: true })),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(Some(Found::Directory { opaque: false })),
        Err(errno) => Err(StoreError::io("read an attribute of", path)(errno)),
    }
}

/// Gives the directory `made` the attributes that the topmost layer that knows them has at `below`. Called when its
/// content is complete, because that changes its time.
fn dress(sources: &[Source<'_>], below: &Path, made: &Path) -> Result<(), StoreError> {
    let knows = |source: &&Source<'_>| !source.unnamed.contains(below);
    let Some(source) = sources.iter().find(knows).or(sources.first()) else { return Ok(()) };
    let model = source.tree.join(below);
    let opened = File::open(&model).map_err(StoreError::io("open", &model))?;
    let attributes = opened.metadata().map_err(StoreError::io("look at", &model))?;
    let xattrs = xattr::read(&opened).map_err(StoreError::io("read attributes of", &model))?;
    let time = Timespec { tv_sec: attributes.mtime(), tv_nsec: attributes.mtime_nsec() };
    let target = File::open(made).map_err(StoreError::io("open", made))?;
    let set = || -> io::Result<()> {
        fchown(&target, Some(attributes.uid()), Some(attributes.gid()))?;
        target.set_permissions(Permissions::from_mode(attributes.mode() & 0o7777))?;
        for (name, value) in &xattrs {
            fsetxattr(&target, OsStr::from_bytes(name), value, XattrFlags::empty())?;
        }
        Ok(futimens(&target, &Timestamps { last_access: time, last_modification: time })?)
    };
    set().map_err(StoreError::io("set attributes of", made))
}
