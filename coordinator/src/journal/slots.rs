//! Space for decisions that are due when the disk is full: a file of fixed size beside the database.
//!
//! ```text
//! page 0, 1   header, in turns: journal, generation, mark, how many slots are taken
//! page 2 ...  slots, each one group of records
//! ```
//! Every page is written by itself and carries a checksum. All of it was written and synced when the file was made, so
//! no later write asks the file system for anything. A group is durable when its slot and then the header that counts
//! it are synced. So three things can be told apart: a slot that is counted and does not read is *damage*; one that is
//! not counted and does not read was *torn* before anybody was told that it holds; one that is not counted and does
//! read holds, as any write may whose end nobody heard of.
//!
//! The *mark* is the newest record that was surely in the database when the header was written. A database that does
//! not have it any more lost something. Slots are given back by a header with a new mark that counts none.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, IFlags, fallocate, ioctl_setflags};

use super::JournalError;
use super::chain::{Hash, Head};

/// A page of every disk that is in use: no write of one touches its neighbour.
pub(super) const PAGE: usize = 4096;

/// Groups of records that are kept while the disk is full. No migration begins in that time, and one that is under way
/// writes at most [`GROUPS_PER_MIGRATION`], so this is room for 85 migrations: more than run and wait at once by default.
pub(super) const SLOTS: usize = 1024;

/// Groups of records that one migration writes at most, from its first to its end: a rollback behind a refusal, and an
/// operator's word behind that, are ten.
pub(super) const GROUPS_PER_MIGRATION: usize = 12;

const HEADERS: usize = 2;
pub(super) const FILE_SIZE: usize = (HEADERS + SLOTS) * PAGE;

const HEADER_MAGIC: [u8; 8] = *b"UMSdecs1";
const SLOT_MAGIC: [u8; 8] = *b"UMSslot1";
/// Magic, checksum, length.
const PREFIX: usize = 8 + 32 + 4;
/// What a slot can hold.
pub(super) const SLOT_BYTES: usize = PAGE - PREFIX;

/// The open file.
#[derive(Debug)]
pub(super) struct Slots {
    file: File,
    path: PathBuf,
    header: Header,
}

/// What the file held when it was opened: the groups that count, in order, and perhaps one more behind them of which
/// nobody was told that it holds.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) counted: Vec<Vec<u8>>,
    pub(super) uncounted: Option<Vec<u8>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    journal: [u8; 16],
    generation: u64,
    mark: Head,
    taken: u32,
}

impl Slots {
    /// Makes the file for the journal with this id. `Ok`: it is there, whole and synced. `Err`: it is not there. Safe
    /// to repeat.
    pub(super) fn create(path: &Path, journal: [u8; 16], mark: Head) -> Result<Self, JournalError> {
        let failed = |source| JournalError::File {
            action: "make the space for decisions of",
            path: path.to_owned(),
            source,
        };
        let draft = path.with_extension("decisions.new");
        let make = || -> io::Result<(File, Header)> {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(true);
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let file = options.open(&draft)?;
            // Where every write goes to a new place, a full disk would take none; not known elsewhere.
            let _ = ioctl_setflags(&file, IFlags::NOCOW);
            // Not everywhere, and what counts is that all of it is written.
            let _ = fallocate(&file, FallocateFlags::empty(), 0, FILE_SIZE as u64);
            write_at(&file, &vec![0; FILE_SIZE], 0)?;
            let header = Header { journal, generation: 1, mark, taken: 0 };
            write_at(&file, &header.page(), PAGE)?;
            file.sync_all()?;
            fs::rename(&draft, path)?;
            if let Some(dir) = path.parent() {
                File::open(dir)?.sync_all()?;
            }
            Ok((file, header))
        };
        match make() {
            Ok((file, header)) => Ok(Self { file, path: path.to_owned(), header }),
            Err(error) => {
                let _ = fs::remove_file(&draft);
                Err(failed(error))
            }
        }
    }

    /// Opens the file of the journal with this id, and reads what it holds. Changes nothing.
    pub(super) fn open(path: &Path, journal: [u8; 16]) -> Result<(Self, Found), JournalError> {
        let failed =
            |source| JournalError::File { action: "read the decisions of", path: path.to_owned(), source };
        let file = File::options().read(true).write(true).open(path).map_err(failed)?;
        let damage = |found: String| JournalError::damage(path, found);
        let size = file.metadata().map_err(failed)?.len();
        if size != FILE_SIZE as u64 {
            return Err(damage(format!("the file has {size} bytes instead of {FILE_SIZE}")));
        }
        let pages = read_all(&file).map_err(failed)?;
        let page = |number: usize| &pages[number * PAGE..(number + 1) * PAGE];
        let headers = (0..HEADERS).filter_map(|number| Header::read(page(number)));
        let header = headers
            .max_by_key(|header| header.generation)
            .ok_or_else(|| damage("neither of its two headers can be read".to_owned()))?;
        if header.journal != journal {
            return Err(damage("the file belongs to another journal.db than the one beside it".to_owned()));
        }
        let taken = header.taken as usize;
        let slot = |number: usize| unseal(SLOT_MAGIC, page(HEADERS + number)).map(<[u8]>::to_vec);
        let counted = (0..taken.min(SLOTS))
            .map(|number| {
                let why = || damage(format!("slot {number} of {taken} that hold decisions cannot be read"));
                slot(number).ok_or_else(why)
            })
            .collect::<Result<_, _>>()?;
        let uncounted = (taken < SLOTS).then(|| slot(taken)).flatten();
        Ok((Self { file, path: path.to_owned(), header }, Found { counted, uncounted }))
    }

    /// The newest record that was surely in the database.
    pub(super) fn mark(&self) -> Head {
        self.header.mark
    }

    /// Groups that can still be taken.
    pub(super) fn left(&self) -> usize {
        SLOTS - self.header.taken as usize
    }

    /// Keeps a group. `Ok`: it is durable. `Err`: it may be there or not, and the next one takes its place.
    pub(super) fn put(&mut self, group: &[u8]) -> io::Result<()> {
        if self.left() == 0 {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                format!("all {SLOTS} slots of {} are taken", self.path.display()),
            ));
        }
        let page = seal(SLOT_MAGIC, group).ok_or_else(|| {
            let message = format!("{} bytes of records are more than a slot of {SLOT_BYTES}", group.len());
            io::Error::new(io::ErrorKind::InvalidInput, message)
        })?;
        write_at(&self.file, &page, (HEADERS + self.header.taken as usize) * PAGE)?;
        self.file.sync_data()?;
        self.turn(Header { taken: self.header.taken + 1, ..self.header })
    }

    /// Counts the slot that was found written and not counted.
    pub(super) fn count_found(&mut self) -> io::Result<()> {
        self.turn(Header { taken: self.header.taken + 1, ..self.header })
    }

    /// Gives all slots back: everything up to `mark` is in the database. Safe to repeat; on `Err` they stay taken.
    pub(super) fn release(&mut self, mark: Head) -> io::Result<()> {
        if (mark, 0) == (self.header.mark, self.header.taken) {
            return Ok(());
        }
        self.turn(Header { mark, taken: 0, ..self.header })
    }

    /// Writes a new header over the older of the two.
    fn turn(&mut self, header: Header) -> io::Result<()> {
        let header = Header { generation: self.header.generation + 1, ..header };
        write_at(&self.file, &header.page(), (header.generation % HEADERS as u64) as usize * PAGE)?;
        self.file.sync_data()?;
        self.header = header;
        Ok(())
    }
}

impl Header {
    fn page(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(SLOT_BYTES);
        body.extend_from_slice(&self.journal);
        body.extend_from_slice(&self.generation.to_le_bytes());
        body.extend_from_slice(&self.mark.seq.to_le_bytes());
        body.extend_from_slice(&self.mark.hash.0);
        body.extend_from_slice(&self.taken.to_le_bytes());
        seal(HEADER_MAGIC, &body).expect("a header is smaller than a page")
    }

    fn read(page: &[u8]) -> Option<Self> {
        let mut rest = unseal(HEADER_MAGIC, page)?;
        let mut next = |bytes: usize| {
            let (field, left) = rest.split_at_checked(bytes)?;
            rest = left;
            Some(field)
        };
        Some(Self {
            journal: next(16)?.try_into().ok()?,
            generation: u64::from_le_bytes(next(8)?.try_into().ok()?),
            mark: Head {
                seq: u64::from_le_bytes(next(8)?.try_into().ok()?),
                hash: Hash(next(32)?.try_into().ok()?),
            },
            taken: u32::from_le_bytes(next(4)?.try_into().ok()?),
        })
    }
}

/// A page around `body`; `None` if it is too large.
fn seal(magic: [u8; 8], body: &[u8]) -> Option<Vec<u8>> {
    let mut page = vec![0; PAGE];
    page.get_mut(PREFIX..PREFIX + body.len())?.copy_from_slice(body);
    page[..8].copy_from_slice(&magic);
    page[40..PREFIX].copy_from_slice(&u32::try_from(body.len()).ok()?.to_le_bytes());
    let sum = blake3::hash(&page[40..]);
    page[8..40].copy_from_slice(sum.as_bytes());
    Some(page)
}

/// What is in a page; `None` if it is not one that [`seal`] has made.
fn unseal(magic: [u8; 8], page: &[u8]) -> Option<&[u8]> {
    if page[..8] != magic || page[8..40] != *blake3::hash(&page[40..]).as_bytes() {
        return None;
    }
    let length = u32::from_le_bytes(page[40..PREFIX].try_into().ok()?) as usize;
    page.get(PREFIX..PREFIX + length)
}

fn write_at(file: &File, bytes: &[u8], offset: usize) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset as u64)
}

fn read_all(file: &File) -> io::Result<Vec<u8>> {
    let mut pages = vec![0; FILE_SIZE];
    std::os::unix::fs::FileExt::read_exact_at(file, &mut pages, 0)?;
    Ok(pages)
}
