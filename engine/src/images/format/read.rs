//! Bytes to images.

use super::{COMMON, Entry, FormatError, Image, Kind, Layout};
use crate::images::schema::{Message, MessageType};

/// Largest message. That of a process with 65,530 mappings, the kernel's limit, has about 4 MiB.
const MAX_MESSAGE: usize = 16 << 20;

impl Image {
    /// Reads a whole file. On `Ok` every byte of it was understood, payloads apart.
    pub(in crate::images) fn read(name: &str, bytes: &[u8]) -> Result<Self, FormatError> {
        let (kind, number) =
            Kind::of(name).ok_or_else(|| FormatError::new("no service of ours has an image of this name"))?;
        let mut image = Self { name: name.to_owned(), kind, number, entries: Vec::new() };
        let mut rest = Rest(bytes);
        let begins = (!kind.common || rest.word() == Some(COMMON)) && rest.word() == Some(kind.magic);
        if !begins {
            return Err(FormatError::new("it does not begin as such an image does"));
        }
        image.entries = entries(kind.layout, &mut rest)?;
        Ok(image)
    }
}

fn entries(layout: Layout, rest: &mut Rest<'_>) -> Result<Vec<Entry>, FormatError> {
    let mut entries = Vec::new();
    match layout {
        Layout::One(of) => {
            entries.push(rest.entry(of)?);
            if !rest.0.is_empty() {
                return Err(FormatError::new("there is more than one message in it"));
            }
        }
        Layout::Many(of) => rest.many(of, &mut entries)?,
        Layout::Headed(head, of) => {
            entries.push(rest.entry(head)?);
            rest.many(of, &mut entries)?;
        }
        Layout::Paid(of, lengths) => {
            while !rest.0.is_empty() {
                let message = rest.message(of)?;
                let length = lengths.iter().map(|name| message.number(name)).sum();
                entries.push(Entry { payload: rest.payload(length, 1)?, message });
            }
        }
        Layout::Ghost => {
            let message = rest.message("ghost_file_entry")?;
            match message.number("chunks") {
                0 => {
                    let length = rest.0.len() as u64;
                    entries.push(Entry { message, payload: rest.payload(length, 1)? });
                }
                _ => {
                    entries.push(Entry { message, payload: Vec::new() });
                    while !rest.0.is_empty() {
                        let message = rest.message("ghost_chunk_entry")?;
                        entries.push(Entry { payload: rest.payload(message.number("len"), 1)?, message });
                    }
                }
            }
        }
        Layout::Queues => {
            while !rest.0.is_empty() {
                let queue = rest.message("ipc_msg_entry")?;
                let count = queue.number("qnum");
                entries.push(Entry { message: queue, payload: Vec::new() });
                for _ in 0..count {
                    let message = rest.message("ipc_msg")?;
                    entries.push(Entry { payload: rest.payload(message.number("msize"), 8)?, message });
                }
            }
        }
        Layout::Semaphores => {
            while !rest.0.is_empty() {
                let message = rest.message("ipc_sem_entry")?;
                entries.push(Entry { payload: rest.payload(message.number("nsems") * 2, 8)?, message });
            }
        }
        Layout::Segments => {
            while !rest.0.is_empty() {
                let message = rest.message("ipc_shm_entry")?;
                let length = if message.number("in_pagemaps") == 1 { 0 } else { message.number("size") };
                entries.push(Entry { payload: rest.payload(length, 4)?, message });
            }
        }
        Layout::Pages | Layout::Archive => {
            return Err(FormatError::new("it has no messages to be read"));
        }
    }
    Ok(entries)
}

/// What is left of a file.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn word(&mut self) -> Option<u32> {
        let (word, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*word))
    }

    fn message(&mut self, of: &str) -> Result<Message, FormatError> {
        let cut = || FormatError::new("it ends in the middle of a message");
        let length = self.word().ok_or_else(cut)? as usize;
        if length > MAX_MESSAGE {
            return Err(FormatError::new(format!("a message of {length} bytes is too long")));
        }
        let (message, rest) = self.0.split_at_checked(length).ok_or_else(cut)?;
        self.0 = rest;
        let decoded = MessageType::named(of).decode(message);
        decoded.map_err(|error| FormatError { field: error.path, reason: error.reason })
    }

    fn entry(&mut self, of: &str) -> Result<Entry, FormatError> {
        Ok(Entry { message: self.message(of)?, payload: Vec::new() })
    }

    fn many(&mut self, of: &str, entries: &mut Vec<Entry>) -> Result<(), FormatError> {
        while !self.0.is_empty() {
            entries.push(self.entry(of)?);
        }
        Ok(())
    }

    /// Bytes, and what fills them up to a multiple of `unit`, which says nothing.
    fn payload(&mut self, length: u64, unit: u64) -> Result<Vec<u8>, FormatError> {
        let cut = || FormatError::new("it ends in the middle of a payload");
        let whole = length.checked_next_multiple_of(unit).and_then(|whole| usize::try_from(whole).ok());
        let (payload, rest) = whole.and_then(|whole| self.0.split_at_checked(whole)).ok_or_else(cut)?;
        self.0 = rest;
        Ok(payload[..usize::try_from(length).map_err(|_| cut())?].to_vec())
    }
}
