//! File trees in a neutral form: read at the source, applied at the destination.
//!
//! What a service changed in its files lies in the upper directory of an overlay, in a form that only the kernel's
//! overlay understands and that differs between privileged and unprivileged mounts. Here it becomes a sequence of
//! [`TreeEntry`]: a file, a name that hides what the image has (whiteout), a directory that hides everything the image
//! has in it (opaque). The same form carries volumes and the content of a tmpfs.
//!
//! ```text
//! upper directory, volume ─ read_tree ─► TreeEntry + content ─ ... ─► TreeWriter ─► merged directory, volume
//! ```
//!
//! The writing end works through the *merged* directory of the mounted overlay, so that the kernel itself writes its
//! own notes into the upper directory. It believes nothing that it is told: names are resolved below the root only,
//! without symbolic links and mounts in between, and everything else is measured against a [`WritePolicy`].
//!
//! Entries come in one order, a directory before its content and names in the order of their bytes; the writer insists
//! on it. That is what makes a name appear once, lets a directory's attributes be set when nothing changes in it any
//! more, and bounds what either end has to remember to the depth of the tree.
//!
//! Read it in this order: `path` and `entry` (what travels), `walk` and `read` (the source's end), `write` with `place`
//! and `remove` (the destination's end).

mod text;

mod entry;
mod error;
mod layout;
mod path;
mod policy;

mod form;
mod walk;
mod xattr;

mod read;
mod shift;
mod size;

mod content;
mod place;
mod remove;
mod write;

pub use content::FileWriter;
pub use entry::{Attributes, EntryKind, Modified, TreeEntry, Xattr};
pub use error::{FilesError, Refusal};
pub use form::TreeForm;
pub use layout::{Hole, InvalidLayout, MAX_HOLES};
pub use path::{InvalidTreePath, TreePath};
pub use policy::{Limits, WritePolicy};
pub use read::{FileContent, ReadOptions, TreeItem, TreeReader, open_root, read_tree};
pub use size::{TreeSize, tree_size};
pub use write::{TreeWriter, Written};

#[cfg(test)]
mod tests;
