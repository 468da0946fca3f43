//! Importing a plain root directory: it becomes an image of one layer.
//!
//! The same content gives the same image, wherever and whenever it is imported: names in byte order, owners as
//! numbers, nothing of the host in it. Modification times are content. Only a new version of the compressor may give
//! the same content another digest; it would then travel once more, and nothing else.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use oci_spec::image::{Arch, ConfigBuilder, ImageConfigurationBuilder, Os, RootFsBuilder};
use rustix::fs::{Mode, OFlags, fstat, open, openat2, readlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use ums_model::names::Digest;

use super::archive::{ArchiveWriter, Attributes, Entry, Kind, Moment};
use super::document::LayerBlob;
use super::error::StoreError;
use super::hash::digest_of;
use super::pack::{LayerSink, assemble};
use super::scan::{Node, Scan, node};
use super::tree::BELOW;
use super::{ImageId, Store, xattr};

/// Coarsest clock of a file system that is worth expecting, and one second for luck. A directory that changed more
/// recently is read again the next time.
const TICK_SECONDS: i64 = 3;

/// Remembers which image a directory became.
#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    path: PathBuf,
    fingerprint: Digest,
    image: ImageId,
}

/// Makes the directory `path` an image and puts it into the store. Cheap when the directory has not changed since the
/// last time: then it is only looked at.
///
/// Fails if the directory changes meanwhile: what was read would be neither its old nor its new state.
pub(super) fn import(store: &Store, path: &Path) -> Result<ImageId, StoreError> {
    import_with(store, path, TICK_SECONDS)
}

pub(super) fn import_with(store: &Store, path: &Path, tick_seconds: i64) -> Result<ImageId, StoreError> {
    let path = path.canonicalize().map_err(StoreError::io("open", path))?;
    let limits = &store.inner.limits;
    let started = now();
    let scan = Scan::of(&path, limits)?;
    let fingerprint = scan.fingerprint();
    let notes = store.inner.place.root_directories();
    let note = notes.join(format!("{}.json", digest_of(path.as_os_str().as_bytes()).hex()));
    if let Some(image) = recall(&note, &path, fingerprint)
        && store.complete(&image).is_ok()
    {
        return Ok(image);
    }
    let layer = pack(store, &path, &scan)?;
    if let Some(changed) = scan.first_difference(&Scan::of(&path, limits)?) {
        return Err(StoreError::Changed { path: path.join(OsStr::from_bytes(changed)) });
    }
    let image = assemble(store, &configuration(&layer.diff_id)?, &[layer.blob])?;
    if scan.is_settled(started, tick_seconds) {
        let remembered = Remembered { path, fingerprint, image };
        let content = serde_json::to_vec(&remembered)
            .map_err(|source| StoreError::BadDocument { what: note.display().to_string(), source })?;
        store.inner.session.write_file(&note, &content)?;
    }
    Ok(image)
}

/// The image that `note` is about.
pub(super) fn remembered_image(note: &Path) -> Option<ImageId> {
    read_note(note).map(|remembered| remembered.image)
}

/// A note that cannot be read costs time, nothing else.
fn read_note(note: &Path) -> Option<Remembered> {
    serde_json::from_slice(&fs::read(note).ok()?).ok()
}

/// What the directory became the last time, if it has not changed since.
fn recall(note: &Path, path: &Path, fingerprint: Digest) -> Option<ImageId> {
    let remembered = read_note(note)?;
    (remembered.path == path && remembered.fingerprint == fingerprint).then_some(remembered.image)
}

fn now() -> Moment {
    // Before 1970 nothing is settled, which is the safe side.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment { seconds: since.as_secs().cast_signed(), nanoseconds: since.subsec_nanos() }
}

/// Says nothing but what the layer is: a directory knows no command.
fn configuration(diff_id: &Digest) -> Result<Vec<u8>, StoreError> {
    let bad = |error: &dyn std::fmt::Display| StoreError::BadImage {
        what: "new configuration".to_owned(),
        reason: error.to_string(),
    };
    let configuration = ImageConfigurationBuilder::default()
        .architecture(Arch::Amd64)
        .os(Os::Linux)
        .config(ConfigBuilder::default().build().map_err(|error| bad(&error))?)
        .rootfs(
            RootFsBuilder::default()
                .typ("layers")
                .diff_ids(vec![diff_id.to_string()])
                .build()
                .map_err(|error| bad(&error))?,
        )
        .build()
        .map_err(|error| bad(&error))?;
    serde_json::to_vec(&configuration).map_err(|error| bad(&error))
}

/// Writes everything in `scan` as one layer.
fn pack(store: &Store, path: &Path, scan: &Scan) -> Result<LayerBlob, StoreError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(path, flags, Mode::empty()).map_err(StoreError::io("open", path))?;
    let source = Source { path, root };
    let mut archive = ArchiveWriter::new(LayerSink::create(&store.inner)?);
    let mut first_names: HashMap<(u64, u64), &[u8]> = HashMap::new();
    for node in &scan.nodes {
        let shared = node.links > 1 && node.kind != Kind::Directory;
        let known = if shared { first_names.get(&(node.device, node.inode)).copied() } else { None };
        if shared && known.is_none() {
            first_names.insert((node.device, node.inode), &node.path);
        }
        let (entry, content) = match known {
            Some(first) => (hard_link(node, first), None),
            None => source.read(node)?,
        };
        let written = match content {
            Some(mut file) => archive.append(&entry, &mut file),
            None => archive.append(&entry, io::empty()),
        };
        written.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => StoreError::Changed { path: source.at(node) },
            _ => StoreError::io("copy", source.at(node))(error),
        })?;
    }
    archive.finish().map_err(StoreError::io("copy", path))?.finish()
}

struct Source<'a> {
    path: &'a Path,
    root: OwnedFd,
}

impl Source<'_> {
    /// The archive's entry for `node`, and the file if it has content.
    fn read(&self, node: &Node) -> Result<(Entry, Option<File>), StoreError> {
        let mut entry = bare_entry(node);
        match node.kind {
            Kind::File | Kind::Directory => {
                let file = self.open(node)?;
                entry.attributes.xattrs =
                    xattr::read(&file).map_err(StoreError::io("read attributes of", self.at(node)))?;
                Ok((entry, (node.kind == Kind::File).then_some(file)))
            }
            Kind::Symlink => {
                // The scan has seen no symbolic link on the way, and a change since then is found out at the end.
                let target = readlinkat(&self.root, OsStr::from_bytes(&node.path), Vec::new());
                entry.link = target.map_err(|errno| self.failed("read", node, errno))?.into_bytes();
                Ok((entry, None))
            }
            _ => Ok((entry, None)),
        }
    }

    /// Opens what `node` describes, and nothing else that has taken its place.
    fn open(&self, found: &Node) -> Result<File, StoreError> {
        let path = if found.path.is_empty() { OsStr::new(".") } else { OsStr::from_bytes(&found.path) };
        // Not to wait for a writer, should it have become a fifo.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = openat2(&self.root, path, flags, Mode::empty(), BELOW)
            .map_err(|errno| self.failed("open", found, errno))?;
        let stat = fstat(&fd).map_err(StoreError::io("look at", self.at(found)))?;
        if node(found.path.clone(), found.kind, &stat) == *found {
            Ok(File::from(fd))
        } else {
            Err(StoreError::Changed { path: self.at(found) })
        }
    }

    fn failed(&self, action: &'static str, node: &Node, errno: Errno) -> StoreError {
        match errno {
            Errno::XDEV => StoreError::BadRoot {
                path: self.at(node),
                reason: "a file system is mounted there; unmount it first",
            },
            Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::INVAL => {
                StoreError::Changed { path: self.at(node) }
            }
            errno => StoreError::io(action, self.at(node))(errno),
        }
    }

    fn at(&self, node: &Node) -> PathBuf {
        self.path.join(OsStr::from_bytes(&node.path))
    }
}

fn bare_entry(node: &Node) -> Entry {
    let mut path = if node.path.is_empty() { b".".to_vec() } else { node.path.clone() };
    if node.kind == Kind::Directory {
        path.push(b'/');
    }
    Entry {
        path,
        link: Vec::new(),
        kind: node.kind,
        attributes: Attributes {
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            modified: node.modified,
            xattrs: Vec::new(),
        },
        size: node.size,
        device: (rustix::fs::major(node.number), rustix::fs::minor(node.number)),
    }
}

fn hard_link(node: &Node, first: &[u8]) -> Entry {
    Entry { link: first.to_vec(), kind: Kind::HardLink, size: 0, device: (0, 0), ..bare_entry(node) }
}
