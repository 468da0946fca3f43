//! An image as it is given to import: a directory of files, or a tar archive of the same files.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ums_model::names::Bytes;

use super::archive::{ArchiveError, ArchiveReader, Kind, Name};
use super::compression::{Compression, decompressed};
use super::error::StoreError;
use super::place::Session;
use super::policy::Limits;

/// Most symbolic links in an archive that are followed for one file. Old versions of `docker save` use one.
const MOST_LINKS: usize = 4;

/// See the module's documentation.
pub(super) struct Files {
    path: PathBuf,
    form: Form,
}

enum Form {
    Directory,
    Archive { file: File, members: HashMap<Name, Member> },
}

enum Member {
    File {
        offset: u64,
        size: u64,
    },
    /// A symbolic or hard link to another member.
    Link(Option<Name>),
}

/// One file of them.
pub(super) struct OpenedFile {
    pub(super) content: Box<dyn Read>,
    pub(super) size: Bytes,
}

impl Files {
    /// The files in the directory or archive `path`. A compressed archive is unpacked first, to a temporary file of
    /// `session`, because it has to be read in another order than it was written.
    pub(super) fn open(path: &Path, session: &Session, limits: &Limits) -> Result<Self, StoreError> {
        let found = path.metadata().map_err(StoreError::io("open", path))?;
        if found.is_dir() {
            return Ok(Self { path: path.to_owned(), form: Form::Directory });
        }
        if !found.is_file() {
            return Err(StoreError::NotAnImage {
                path: path.to_owned(),
                reason: "it is no file and no directory",
            });
        }
        let file = File::open(path).map_err(StoreError::io("open", path))?;
        let file = plain(file, path, session, limits)?;
        let members =
            list(&file, limits).map_err(|source| StoreError::Archive { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), form: Form::Archive { file, members } })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file `name`, or `None` if there is none. `name` comes from a document of the image, so it must be one that
    /// stays inside.
    pub(super) fn file(&self, name: &str, limits: &Limits) -> Result<Option<OpenedFile>, StoreError> {
        let Ok(wanted) = Name::parse(name.as_bytes(), limits) else {
            let reason = format!("it refers to the file {name:?}");
            return Err(StoreError::BadImage { what: self.path.display().to_string(), reason });
        };
        match &self.form {
            Form::Directory => open_in(&self.path, name),
            Form::Archive { file, members } => {
                let Some((offset, size)) = member(members, wanted) else { return Ok(None) };
                let file = file.try_clone().map_err(StoreError::io("open", &self.path))?;
                let content = Box::new(BufReader::new(Slice { file, offset, left: size }));
                Ok(Some(OpenedFile { content, size: Bytes(size) }))
            }
        }
    }

    /// The whole content of the document `name`, or `None` if there is none.
    pub(super) fn document(&self, name: &str, limits: &Limits) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(OpenedFile { content, size }) = self.file(name, limits)? else { return Ok(None) };
        let limit = limits.document;
        if size > limit {
            return Err(StoreError::DocumentTooLarge { what: name.to_owned(), size, limit });
        }
        let mut document = Vec::new();
        content
            .take(limit.get())
            .read_to_end(&mut document)
            .map_err(StoreError::io("read", self.path.join(name)))?;
        Ok(Some(document))
    }
}

fn open_in(directory: &Path, name: &str) -> Result<Option<OpenedFile>, StoreError> {
    let path = directory.join(name);
    match path.metadata() {
        Ok(found) if found.is_file() => {}
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StoreError::io("open", path)(source)),
    }
    let file = File::open(&path).map_err(StoreError::io("open", &path))?;
    let size = Bytes(file.metadata().map_err(StoreError::io("look at", &path))?.len());
    Ok(Some(OpenedFile { content: Box::new(file), size }))
}

/// `file` itself, or its decompressed content in a file that has no name.
fn plain(file: File, path: &Path, session: &Session, limits: &Limits) -> Result<File, StoreError> {
    let failed =
        |source| StoreError::Archive { path: path.to_owned(), source: ArchiveError::Read { source } };
    let copy = file.try_clone().map_err(StoreError::io("open", path))?;
    let (content, compression) = decompressed(copy).map_err(failed)?;
    if compression == Compression::None {
        return Ok(file);
    }
    let temporary = session.temporary();
    let mut unpacked = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(temporary.path())
        .map_err(StoreError::io("create", temporary.path()))?;
    // Dropping `temporary` takes the name away and leaves the file for as long as it is open.
    let limit = limits.unpacked;
    let copied = io::copy(&mut content.take(limit.get().saturating_add(1)), &mut unpacked).map_err(failed)?;
    if copied > limit.get() {
        let source = io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {limit}"));
        return Err(failed(source));
    }
    Ok(unpacked)
}

/// Where each member of the archive `file` is.
fn list(file: &File, limits: &Limits) -> Result<HashMap<Name, Member>, ArchiveError> {
    let read = |source| ArchiveError::Read { source };
    let mut file = file.try_clone().map_err(read)?;
    file.seek(SeekFrom::Start(0)).map_err(read)?;
    let mut archive = ArchiveReader::seeking(file, limits);
    let mut members = HashMap::new();
    while let Some(entry) = archive.next_entry()? {
        // Members with other names cannot be meant by any document of an image.
        let Ok(name) = Name::parse(&entry.path, limits) else { continue };
        let member = match entry.kind {
            Kind::File => Member::File { offset: archive.body_offset(), size: entry.size },
            Kind::Symlink => Member::Link(beside(&name, &entry.link, limits)),
            Kind::HardLink => Member::Link(Name::parse(&entry.link, limits).ok()),
            _ => continue,
        };
        members.insert(name, member);
    }
    Ok(members)
}

/// Offset and size of the member `wanted`.
fn member(members: &HashMap<Name, Member>, wanted: Name) -> Option<(u64, u64)> {
    let mut name = wanted;
    for _ in 0..=MOST_LINKS {
        match members.get(&name)? {
            Member::File { offset, size } => return Some((*offset, *size)),
            Member::Link(next) => name = next.clone()?,
        }
    }
    None
}

/// What the symbolic link `name` means by `target`: `../x/layer.tar` beside `y/layer.tar` is `x/layer.tar`.
fn beside(name: &Name, target: &[u8], limits: &Limits) -> Option<Name> {
    let (parent, _) = name.split()?;
    let mut components: Vec<&[u8]> = parent.components().collect();
    for component in target.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => drop(components.pop()?),
            other => components.push(other),
        }
    }
    Name::parse(&components.join(&b'/'), limits).ok()
}

/// A part of a file, read without moving the file's position, which all its descriptors share.
struct Slice {
    file: File,
    offset: u64,
    left: u64,
}

impl Read for Slice {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.file.read_at(&mut buffer[..wanted], self.offset)?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "archive ends inside a file"));
        }
        self.offset += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}
