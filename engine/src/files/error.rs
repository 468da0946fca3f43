//! What can go wrong with a tree.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

use super::TreePath;

/// Reading, measuring or writing a tree failed.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The root of a tree cannot be opened.
    #[error("cannot open the directory {path}")]
    Root {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The system refused something.
    #[error("cannot {action} {path}")]
    Failed {
        /// What was tried.
        action: &'static str,
        /// On what, relative to the tree's root.
        path: TreePath,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The tree, or an entry of it, is not accepted.
    #[error("refused {path}: {reason}")]
    Refused {
        /// The entry.
        path: TreePath,
        /// Why.
        reason: Refusal,
    },
}

/// Why an entry is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Of this name or one behind it there was an entry before.
    #[error("it comes after {after}, against the order of a tree")]
    OutOfOrder {
        /// The entry before it.
        after: TreePath,
    },
    /// What contains it is no directory of this tree.
    #[error("its directory did not come before it")]
    NoDirectory,
    /// The root can only be a directory.
    #[error("the root of a tree can only be a directory")]
    Root,
    /// Too many entries.
    #[error("the tree has more than {limit} entries")]
    TooManyEntries {
        /// The bound.
        limit: u64,
    },
    /// Too much data.
    #[error("the files of the tree have more than {limit}")]
    TooLarge {
        /// The bound.
        limit: ums_model::names::Bytes,
    },
    /// Too many directories within each other, or a path that is too long.
    #[error("it lies more than {limit} directories deep, or its path is too long")]
    TooDeep {
        /// The bound.
        limit: usize,
    },
    /// Extended attributes that do not fit into an entry.
    #[error("its extended attributes are larger than {limit} bytes as text")]
    LargeXattrs {
        /// The bound.
        limit: usize,
    },
    /// An extended attribute that belongs to the machine and not to the file.
    #[error("the extended attribute {name} is not one that may travel")]
    ForeignXattr {
        /// Its name.
        name: String,
    },
    /// A device, against the policy.
    #[error("it is the device {major}:{minor}, and devices are not accepted from there")]
    Device {
        /// Driver.
        major: u32,
        /// Device of that driver.
        minor: u32,
    },
    /// More rights for whoever runs it, against the policy.
    #[error("it is set-uid, set-gid or has file capabilities, which are not accepted from there")]
    Privileged,
    /// An attribute with a value that no file can have.
    #[error("its {attribute} is invalid")]
    InvalidAttribute {
        /// Which.
        attribute: &'static str,
    },
    /// Holes that cannot be.
    #[error("it has {0}")]
    Layout(super::InvalidLayout),
    /// A symbolic link that points nowhere.
    #[error("its target is empty, too long or contains NUL")]
    LinkTarget,
    /// A hard link to something that is not there.
    #[error("it is another name of {first}, which is nothing that came before it")]
    HardLink {
        /// The name that it gave.
        first: TreePath,
    },
    /// Something is mounted there.
    #[error("another file system is mounted on it")]
    Mounted,
    /// The overlay used a feature that cannot be translated.
    #[error("the overlay has {feature} on it; mount it with redirect_dir=off,metacopy=off,index=off")]
    OverlayFeature {
        /// Which.
        feature: &'static str,
    },
    /// The content is not as long as was said.
    #[error("its content is {side} than the {expected} bytes that were announced")]
    WrongLength {
        /// `shorter` or `longer`.
        side: &'static str,
        /// What was announced.
        expected: u64,
    },
    /// Somebody changed the tree while it was read.
    #[error("it became something else while it was read")]
    Changed,
    /// The end came before the end of a file.
    #[error("{files} of the tree's files are incomplete")]
    Incomplete {
        /// How many.
        files: usize,
    },
}

impl FilesError {
    pub(super) fn refused(path: &TreePath, reason: Refusal) -> Self {
        Self::Refused { path: path.clone(), reason }
    }
}

/// The error of a system call: what was tried, on what.
pub(super) fn failed(action: &'static str, path: &TreePath) -> impl Fn(Errno) -> FilesError {
    move |errno| FilesError::Failed { action, path: path.clone(), source: errno.into() }
}
