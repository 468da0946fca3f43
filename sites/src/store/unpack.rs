//! One layer's archive becomes one tree.
//!
//! Whiteouts are turned into overlayfs's own form, so a layer is unpacked once, without knowing what lies below it,
//! and shared by all images that contain it. Within a layer they hide only what is below, never what the layer itself
//! brings, in whichever order the archive lists the two.

use std::collections::HashSet;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::FileType;
use serde::{Deserialize, Serialize};

use super::archive::{ArchiveError, ArchiveReader, Attributes, Entry, Kind, Name, Refusal, printable};
use super::policy::{Devices, Limits, UnpackPolicy};
use super::tree::{Finished, Tree};
use super::xattr;

/// Beginning of a whiteout's last component; the rest is the name that it hides.
const WHITEOUT: &[u8] = b".wh.";
/// Beginning of names by which aufs kept its own notes. All but the next mean nothing to anybody else.
const NOTE: &[u8] = b".wh..wh.";
/// Hides everything that lower layers have in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;

/// What is worth knowing about an unpacked layer; kept beside its tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LayerRecord {
    /// Entries of the archive.
    pub(super) entries: u64,
    /// Bytes of the archive, uncompressed.
    pub(super) bytes: u64,
    /// Files that lost set-uid bits or capabilities by policy.
    pub(super) stripped: u64,
    /// Device nodes below `/dev` that were left out.
    pub(super) omitted: u64,
    /// Directories that no entry names, only something below them. Empty in layers made by image builders.
    pub(super) unnamed: Vec<Vec<u8>>,
    /// Names that it hides in lower layers.
    pub(super) whiteouts: Vec<Vec<u8>>,
    /// The layer hides all of the lower ones.
    pub(super) opaque_root: bool,
    /// Mode, user and group that the layer gives to the image's root directory, if it does.
    pub(super) root: Option<(u32, u32, u32)>,
}

/// Fills the empty directory `at` with the content of `archive`, and gives the reader back behind the archive's end.
///
/// On `Err` the directory holds a part of the tree and must be thrown away. Nothing outside of it was touched.
pub(super) fn unpack<R: Read>(
    archive: R,
    at: &Path,
    policy: UnpackPolicy,
    limits: &Limits,
) -> Result<(LayerRecord, R), ArchiveError> {
    let failed =
        |source: io::Error| ArchiveError::Write { action: "open", entry: at.display().to_string(), source };
    let tree = Tree::new(at, limits).map_err(failed)?;
    let mut layer = Layer { tree, policy, limits, omitted: HashSet::new(), stripped: 0, root: None };
    let mut archive = ArchiveReader::new(archive, limits);
    let mut entries = 0;
    while let Some(entry) = archive.next_entry()? {
        entries += 1;
        layer.apply(entry, &mut archive)?;
    }
    let Layer { tree, omitted, stripped, root, .. } = layer;
    let Finished { unnamed, opaque_root, whiteouts } = tree.finish()?;
    let bytes = |name: &Name| name.bytes().to_vec();
    let record = LayerRecord {
        entries,
        bytes: 0,
        stripped,
        omitted: omitted.len() as u64,
        unnamed: unnamed.iter().filter(|name| !name.is_root()).map(bytes).collect(),
        whiteouts: whiteouts.iter().map(bytes).collect(),
        opaque_root,
        root,
    };
    Ok((record, archive.into_inner()))
}

struct Layer<'a> {
    tree: Tree,
    policy: UnpackPolicy,
    limits: &'a Limits,
    /// Device nodes that were left out; a hard link to one is left out as well.
    omitted: HashSet<Name>,
    stripped: u64,
    root: Option<(u32, u32, u32)>,
}

impl Layer<'_> {
    fn apply<R: Read>(
        &mut self,
        entry: Entry,
        archive: &mut ArchiveReader<'_, R>,
    ) -> Result<(), ArchiveError> {
        let name = Name::parse(&entry.path, self.limits)
            .map_err(|reason| ArchiveError::refused(&entry.path, reason))?;
        match Meaning::of(&name) {
            Meaning::Entry => self.entry(&name, entry, archive),
            Meaning::Note => Ok(()),
            Meaning::Whiteout(hidden) => self.tree.whiteout(&hidden),
            Meaning::Opaque(directory) => self.tree.opaque(&directory),
            Meaning::Nonsense => Err(ArchiveError::refused(name.bytes(), Refusal::Whiteout)),
        }
    }

    fn entry<R: Read>(
        &mut self,
        name: &Name,
        entry: Entry,
        archive: &mut ArchiveReader<'_, R>,
    ) -> Result<(), ArchiveError> {
        let Entry { kind, link, size, device, .. } = entry;
        let attributes = self.believed(kind, entry.attributes);
        match kind {
            Kind::File => self.tree.file(name, &attributes, size, archive.body()),
            Kind::Directory => {
                if name.is_root() {
                    self.root = Some((attributes.mode, attributes.uid, attributes.gid));
                }
                self.tree.directory(name, attributes)
            }
            Kind::Symlink => self.tree.symlink(name, &link, &attributes),
            Kind::HardLink => {
                let target = Name::parse(&link, self.limits).map_err(|_| {
                    ArchiveError::refused(name.bytes(), Refusal::LinkTarget { target: printable(&link) })
                })?;
                if self.omitted.contains(&target) {
                    self.omitted.insert(name.clone());
                    return Ok(());
                }
                self.tree.hard_link(name, &target)
            }
            Kind::Fifo => self.tree.node(name, FileType::Fifo, (0, 0), &attributes),
            Kind::Character => self.device(name, FileType::CharacterDevice, device, &attributes),
            Kind::Block => self.device(name, FileType::BlockDevice, device, &attributes),
        }
    }

    fn device(
        &mut self,
        name: &Name,
        kind: FileType,
        device: (u32, u32),
        attributes: &Attributes,
    ) -> Result<(), ArchiveError> {
        // 0:0 is no device but overlayfs's whiteout, which an archive has its own way to ask for.
        let allowed = device != (0, 0);
        match self.policy.devices {
            Devices::Allow if allowed => self.tree.node(name, kind, device, attributes),
            Devices::Refuse if allowed && name.bytes().starts_with(b"dev/") => {
                self.omitted.insert(name.clone());
                Ok(())
            }
            _ => {
                let (major, minor) = device;
                Err(ArchiveError::refused(name.bytes(), Refusal::Device { major, minor }))
            }
        }
    }

    /// `attributes` without what the policy does not believe and what only means something on the host it came from.
    fn believed(&mut self, kind: Kind, mut attributes: Attributes) -> Attributes {
        let privileged_bits = match kind {
            // Set-gid on a directory only says which group new files get.
            Kind::Directory => SET_UID,
            _ => SET_UID | SET_GID,
        };
        let keeps = self.policy.keeps_privilege();
        let privileged = attributes.mode & privileged_bits != 0
            || attributes.xattrs.iter().any(|(name, _)| name == xattr::CAPABILITY);
        if privileged && !keeps {
            self.stripped += u64::from(kind == Kind::File);
            attributes.mode &= !privileged_bits;
        }
        attributes.xattrs.retain(|(name, _)| xattr::travels(name) && (keeps || name != xattr::CAPABILITY));
        attributes
    }
}

/// What a name in a layer stands for.
enum Meaning {
    Entry,
    Whiteout(Name),
    Opaque(Name),
    Note,
    Nonsense,
}

impl Meaning {
    fn of(name: &Name) -> Self {
        let Some((parent, last)) = name.split() else { return Self::Entry };
        if parent.components().any(|component| component.starts_with(NOTE)) {
            return Self::Note;
        }
        if parent.components().any(|component| component.starts_with(WHITEOUT)) {
            return Self::Nonsense;
        }
        if last == OPAQUE {
            return Self::Opaque(parent);
        }
        if last.starts_with(NOTE) {
            return Self::Note;
        }
        match last.strip_prefix(WHITEOUT) {
            None => Self::Entry,
            Some(b"" | b"." | b"..") => Self::Nonsense,
            Some(hidden) => Self::Whiteout(name.with_last(hidden)),
        }
    }
}

/// Whether a file of this name can be in a layer at all: whiteouts took these names for themselves.
pub(super) fn is_reserved(last: &[u8]) -> bool {
    last.starts_with(WHITEOUT)
}
