//! From bytes to entries.

use std::io::{self, Read, Seek, SeekFrom};

use tar::Header;

use super::pax::Extended;
use super::{ArchiveError, Attributes, BLOCK, Entry, Kind, Moment, Refusal};
use crate::store::policy::Limits;

/// Larger sizes are no sizes; below, sums of a few of them do not overflow.
const LARGEST_BODY: u64 = 1 << 62;

/// Reads one archive from front to back, in bounded memory.
///
/// Each call of [`next_entry`](Self::next_entry) skips what is left of the body before it. The end is the first zero
/// block, or the end of the bytes between two entries.
pub(in crate::store) struct ArchiveReader<'a, R> {
    reader: R,
    limits: &'a Limits,
    skip: fn(&mut R, u64) -> io::Result<()>,
    /// Bytes consumed so far.
    offset: u64,
    /// Bytes of the current body that were not read yet.
    body_left: u64,
    /// Bytes between that body and the next header.
    padding: u64,
    entries: u64,
}

impl<'a, R: Read> ArchiveReader<'a, R> {
    /// Reads over bodies that nobody asks for.
    pub(in crate::store) fn new(reader: R, limits: &'a Limits) -> Self {
        Self { reader, limits, skip: read_over, offset: 0, body_left: 0, padding: 0, entries: 0 }
    }

    /// Seeks over bodies that nobody asks for. A body that ends too early is noticed by whoever reads it.
    pub(in crate::store) fn seeking(reader: R, limits: &'a Limits) -> Self
    where
        R: Seek,
    {
        Self { skip: seek_over, ..Self::new(reader, limits) }
    }

    /// The next entry, or `None` at the end of the archive.
    pub(in crate::store) fn next_entry(&mut self) -> Result<Option<Entry>, ArchiveError> {
        self.skip_body()?;
        let mut extended = Extended::default();
        let mut extended_seen = false;
        loop {
            let Some(block) = self.block()? else {
                return if extended_seen {
                    Err(self.malformed("extended header without entry"))
                } else {
                    Ok(None)
                };
            };
            self.entries += 1;
            if self.entries > self.limits.entries {
                let reason = Refusal::TooMany { limit: self.limits.entries };
                return Err(ArchiveError::refused(&block[..100], reason));
            }
            let header = Header::from_byte_slice(&block);
            self.check_sum(header)?;
            match header.entry_type().as_byte() {
                b'x' | b'X' => {
                    let records = self.extended_header(header)?;
                    extended.read(&records).map_err(|what| self.malformed(what))?;
                }
                // Defaults for the whole archive. Docker and containerd ignore them as well.
                b'g' => drop(self.extended_header(header)?),
                b'L' => extended.path = Some(self.long_name(header)?),
                b'K' => extended.link = Some(self.long_name(header)?),
                _ => {
                    let entry = entry(header, extended)?;
                    self.body_left = entry.size;
                    self.padding = padding(entry.size);
                    return Ok(Some(entry));
                }
            }
            extended_seen = true;
        }
    }

    /// The bytes of the entry returned last.
    pub(in crate::store) fn body(&mut self) -> Body<'_, 'a, R> {
        Body { archive: self }
    }

    /// Where the body of the entry returned last begins, if nothing of it was read yet.
    pub(in crate::store) fn body_offset(&self) -> u64 {
        self.offset
    }

    /// Gives the source of the bytes back, standing behind the last header or body that was read.
    pub(in crate::store) fn into_inner(self) -> R {
        self.reader
    }

    fn skip_body(&mut self) -> Result<(), ArchiveError> {
        let left = self.body_left + self.padding;
        if left > 0 {
            (self.skip)(&mut self.reader, left).map_err(|source| ArchiveError::Read { source })?;
            self.offset += left;
            (self.body_left, self.padding) = (0, 0);
        }
        Ok(())
    }

    /// The next header, or `None` at the end.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, ArchiveError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.reader.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(self.malformed("ends inside a header")),
                Ok(read) => filled += read,
                Err(source) if source.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(ArchiveError::Read { source }),
            }
        }
        self.offset += BLOCK as u64;
        Ok(block.iter().any(|byte| *byte != 0).then_some(block))
    }

    fn check_sum(&self, header: &Header) -> Result<(), ArchiveError> {
        let stated = header.cksum().map_err(|_| self.malformed("not a tar header"))?;
        let bytes = header.as_bytes();
        let sum = |range: &[u8]| range.iter().map(|byte| u32::from(*byte)).sum::<u32>();
        // The checksum counts its own eight bytes as spaces.
        if stated == sum(&bytes[..148]) + 8 * u32::from(b' ') + sum(&bytes[156..]) {
            Ok(())
        } else {
            Err(self.malformed("header checksum is wrong"))
        }
    }

    /// The body of an extended header, in memory.
    fn extended_header(&mut self, header: &Header) -> Result<Vec<u8>, ArchiveError> {
        let limit = self.limits.header;
        let size = header.entry_size().map_err(|_| self.malformed("size of an extended header"))?;
        if size > limit.get() {
            return Err(ArchiveError::refused(&header.path_bytes(), Refusal::Header { limit }));
        }
        let mut body = Vec::new();
        let whole = size + padding(size);
        let read = (&mut self.reader).take(whole).read_to_end(&mut body);
        read.map_err(|source| ArchiveError::Read { source })?;
        if body.len() as u64 != whole {
            return Err(self.malformed("ends inside an extended header"));
        }
        self.offset += whole;
        body.truncate(usize::try_from(size).unwrap_or(usize::MAX));
        Ok(body)
    }

    /// A name in GNU tar's own way: the body, up to its first zero byte.
    fn long_name(&mut self, header: &Header) -> Result<Vec<u8>, ArchiveError> {
        let mut name = self.extended_header(header)?;
        if let Some(end) = name.iter().position(|byte| *byte == 0) {
            name.truncate(end);
        }
        Ok(name)
    }

    fn malformed(&self, what: &'static str) -> ArchiveError {
        ArchiveError::Malformed { offset: self.offset, what }
    }
}

/// The bytes of one entry. Ends with an error, not silently, where the archive is shorter than it said.
pub(in crate::store) struct Body<'b, 'a, R> {
    archive: &'b mut ArchiveReader<'a, R>,
}

impl<R: Read> Read for Body<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.archive.body_left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.archive.reader.read(&mut buffer[..wanted])?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "archive ends inside an entry"));
        }
        self.archive.body_left -= read as u64;
        self.archive.offset += read as u64;
        Ok(read)
    }
}

fn entry(header: &Header, extended: Extended) -> Result<Entry, ArchiveError> {
    let path = extended.path.unwrap_or_else(|| header.path_bytes().into_owned());
    let refused = |reason| ArchiveError::refused(&path, reason);
    let field = |field| ArchiveError::refused(&path, Refusal::Field { field });
    if extended.sparse {
        return Err(refused(Refusal::Type { kind: 'S' }));
    }
    let kind = match header.entry_type().as_byte() {
        // Archives older than the type for directories mark them by a slash at the end.
        0 | b'0' | b'7' if path.ends_with(b"/") => Kind::Directory,
        0 | b'0' | b'7' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::Character,
        b'4' => Kind::Block,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        other => return Err(refused(Refusal::Type { kind: char::from(other) })),
    };
    let plain = header.as_old();
    let number = |name, bytes: &[u8], decoded: io::Result<u64>| match decoded {
        Ok(number) => Ok(number),
        // Some writers leave a field empty where they mean zero.
        Err(_) if bytes.iter().all(|byte| matches!(byte, 0 | b' ')) => Ok(0),
        Err(_) => Err(field(name)),
    };
    let size = match extended.size {
        Some(size) => size,
        None => number("size", &plain.size, header.entry_size())?,
    };
    if size > LARGEST_BODY {
        return Err(field("size"));
    }
    let modified = match extended.modified {
        Some(modified) => modified,
        None => {
            let seconds = number("modification time", &plain.mtime, header.mtime())?;
            // In base 256 the field is signed, which the header's type does not show.
            Moment { seconds: seconds.cast_signed(), nanoseconds: 0 }
        }
    };
    let owner = |number: u64| match u32::try_from(number) {
        // The highest number means "leave as it is" to chown(2).
        Ok(valid) if valid != u32::MAX => Ok(valid),
        _ => Err(refused(Refusal::Owner { owner: number })),
    };
    let uid = owner(extended.uid.map_or_else(|| number("user", &plain.uid, header.uid()), Ok)?)?;
    let gid = owner(extended.gid.map_or_else(|| number("group", &plain.gid, header.gid()), Ok)?)?;
    let half =
        |half: io::Result<Option<u32>>| half.map(Option::unwrap_or_default).map_err(|_| field("device"));
    let device = match kind {
        Kind::Character | Kind::Block => (half(header.device_major())?, half(header.device_minor())?),
        _ => (0, 0),
    };
    let link = match kind {
        Kind::HardLink | Kind::Symlink => match extended.link {
            Some(link) => link,
            None => header.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default(),
        },
        _ => Vec::new(),
    };
    let mode = number("mode", &plain.mode, header.mode().map(u64::from))? as u32 & 0o7777;
    Ok(Entry {
        link,
        kind,
        attributes: Attributes { mode, uid, gid, modified, xattrs: extended.xattrs },
        size: if kind == Kind::File { size } else { 0 },
        device,
        path,
    })
}

/// What fills a body of `size` bytes up to whole blocks.
pub(super) fn padding(size: u64) -> u64 {
    let block = BLOCK as u64;
    (block - size % block) % block
}

fn read_over<R: Read>(reader: &mut R, bytes: u64) -> io::Result<()> {
    let skipped = io::copy(&mut reader.take(bytes), &mut io::sink())?;
    if skipped == bytes {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "archive ends inside an entry"))
    }
}

fn seek_over<R: Seek>(reader: &mut R, bytes: u64) -> io::Result<()> {
    let distance = i64::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    reader.seek(SeekFrom::Current(distance)).map(drop)
}
