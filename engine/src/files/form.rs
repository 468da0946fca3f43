//! What overlay's own attributes on a file mean.

use rustix::fs::{FileType, Stat};

use super::{FilesError, Refusal, TreePath, Xattr};

/// What a directory is that a tree is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TreeForm {
    /// Just files: a volume, a tmpfs, or a merged directory.
    Plain,
    /// The upper directory of an overlay, mounted with privileges (attributes `trusted.overlay.*`).
    Overlay,
    /// The upper directory of an overlay that was mounted with `userxattr` (attributes `user.overlay.*`).
    UserOverlay,
}

/// What the overlay says about a file or a directory by its attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notes {
    /// Nothing, or only what it keeps for itself.
    Nothing,
    /// A directory that hides what is below it.
    Opaque,
    /// A file that stands for nothing.
    Whiteout,
}

impl TreeForm {
    /// Whether this is the usual whiteout: a character device 0:0.
    pub(super) fn is_whiteout(self, stat: &Stat) -> bool {
        self != Self::Plain
            && FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && stat.st_rdev == 0
    }

    /// Reads the overlay's notes among all of a file's attributes.
    ///
    /// An error if they say that content lies elsewhere, which happens with features that UMS mounts without.
    pub(super) fn notes(self, path: &TreePath, xattrs: &[Xattr]) -> Result<Notes, FilesError> {
        let prefix: &[u8] = match self {
            Self::Plain => return Ok(Notes::Nothing),
            Self::Overlay => b"trusted.overlay.",
            Self::UserOverlay => b"user.overlay.",
        };
        let mut notes = Notes::Nothing;
        for xattr in xattrs {
            let Some(note) = xattr.name.strip_prefix(prefix) else { continue };
            match note {
                b"opaque" if xattr.value == b"y" => notes = Notes::Opaque,
                b"whiteout" => notes = Notes::Whiteout,
                b"redirect" => {
                    return Err(FilesError::refused(path, Refusal::OverlayFeature { feature: "a redirect" }));
                }
                b"metacopy" => {
                    return Err(FilesError::refused(path, Refusal::OverlayFeature { feature: "a metacopy" }));
                }
                // origin, impure, nlink, uuid and the like mean something only in this upper directory.
                _ => {}
            }
        }
        Ok(notes)
    }
}
