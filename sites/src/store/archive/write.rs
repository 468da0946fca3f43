//! From entries to bytes, the same bytes for the same entries.

use std::io::{self, Read, Write};

use tar::{EntryType, Header};

use super::{Attributes, BLOCK, Entry, Kind, pax, read};

/// Largest number that an owner field of a header holds in octal.
const LARGEST_OCTAL_OWNER: u32 = 0o7_777_777;
/// The same for sizes and times.
const LARGEST_OCTAL_SIZE: u64 = 0o77_777_777_777;
const NAME_BYTES: usize = 100;

/// Writes one archive: ustar headers, and a pax header before those entries that do not fit in one.
///
/// Nothing that changes from run to run goes in: no names of users, no access times, no process numbers.
pub(in crate::store) struct ArchiveWriter<W> {
    writer: W,
}

impl<W: Write> ArchiveWriter<W> {
    pub(in crate::store) fn new(writer: W) -> Self {
        Self { writer }
    }

    /// Appends `entry` with the first `entry.size` bytes of `body`. A shorter body is an error, and leaves the archive
    /// unusable.
    pub(in crate::store) fn append(&mut self, entry: &Entry, body: impl Read) -> io::Result<()> {
        let mut records = Vec::new();
        let mut header = ustar(entry, &mut records);
        if !records.is_empty() {
            self.extended(&records)?;
        }
        header.set_cksum();
        self.writer.write_all(header.as_bytes())?;
        let copied = io::copy(&mut body.take(entry.size), &mut self.writer)?;
        if copied != entry.size {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "file is shorter than it was"));
        }
        self.pad(copied)
    }

    /// Ends the archive and gives the writer back.
    pub(in crate::store) fn finish(mut self) -> io::Result<W> {
        self.writer.write_all(&[0; 2 * BLOCK])?;
        Ok(self.writer)
    }

    fn extended(&mut self, records: &[u8]) -> io::Result<()> {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..4].copy_from_slice(b"pax/");
        header.set_entry_type(EntryType::XHeader);
        header.set_mode(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(records.len() as u64);
        header.set_cksum();
        self.writer.write_all(header.as_bytes())?;
        self.writer.write_all(records)?;
        self.pad(records.len() as u64)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let zeros = [0; BLOCK];
        let padding = usize::try_from(read::padding(size)).unwrap_or(0);
        self.writer.write_all(&zeros[..padding])
    }
}

/// The header of `entry`; what does not fit in it is appended to `records`.
fn ustar(entry: &Entry, records: &mut Vec<u8>) -> Header {
    let Attributes { mode, uid, gid, modified, xattrs } = &entry.attributes;
    let mut header = Header::new_ustar();
    header.set_entry_type(match entry.kind {
        Kind::File => EntryType::Regular,
        Kind::HardLink => EntryType::Link,
        Kind::Symlink => EntryType::Symlink,
        Kind::Directory => EntryType::Directory,
        Kind::Fifo => EntryType::Fifo,
        Kind::Character => EntryType::Char,
        Kind::Block => EntryType::Block,
    });
    let plain = header.as_old_mut();
    fit(&mut plain.name, &entry.path, b"path", records);
    fit(&mut plain.linkname, &entry.link, b"linkpath", records);
    header.set_mode(*mode);
    header.set_uid(u64::from(owner(*uid, b"uid", records)));
    header.set_gid(u64::from(owner(*gid, b"gid", records)));
    if entry.size > LARGEST_OCTAL_SIZE {
        pax::append(records, b"size", entry.size.to_string().as_bytes());
        header.set_size(0);
    } else {
        header.set_size(entry.size);
    }
    match u64::try_from(modified.seconds) {
        Ok(seconds) if seconds <= LARGEST_OCTAL_SIZE => {
            header.set_mtime(seconds);
            if modified.nanoseconds != 0 {
                pax::append_modified(records, *modified);
            }
        }
        _ => pax::append_modified(records, *modified),
    }
    if let Some(ustar) = header.as_ustar_mut() {
        ustar.set_device_major(entry.device.0);
        ustar.set_device_minor(entry.device.1);
    }
    for (name, value) in xattrs {
        pax::append_xattr(records, name, value);
    }
    header
}

/// Puts `text` into `field`; if it is too long, its beginning, and all of it into `records`.
fn fit(field: &mut [u8; NAME_BYTES], text: &[u8], key: &[u8], records: &mut Vec<u8>) {
    let fitting = text.len().min(NAME_BYTES);
    field[..fitting].copy_from_slice(&text[..fitting]);
    if fitting < text.len() {
        pax::append(records, key, text);
    }
}

fn owner(number: u32, key: &[u8], records: &mut Vec<u8>) -> u32 {
    if number <= LARGEST_OCTAL_OWNER {
        return number;
    }
    pax::append(records, key, number.to_string().as_bytes());
    0
}
