//! What is open and how much there was: the rules that the receiver and every relay apply. Pure.

use std::collections::HashMap;

use super::ArchiveError;
use crate::frame::Channel;

/// How much an archive may hold. A receiver that knows more (the announced size of a service, the free memory)
/// sets its own numbers; the defaults only stop nonsense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most items in all. Default 16 Mi: a large file tree.
    pub items: u64,
    /// Most items open at the same time. Default 256.
    pub open: u16,
    /// Most bytes in one item. Default 1 TiB.
    pub item_bytes: u64,
    /// Most bytes in all. Default 4 TiB.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { items: 1 << 24, open: 256, item_bytes: 1 << 40, bytes: 1 << 42 }
    }
}

/// The open items with what the owner keeps about each (`T`), and the sums.
#[derive(Debug)]
pub(super) struct Ledger<T> {
    limits: Limits,
    open: HashMap<Channel, (u64, T)>,
    items: u64,
    bytes: u64,
}

impl<T> Ledger<T> {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, open: HashMap::new(), items: 0, bytes: 0 }
    }

    pub(super) fn open(&mut self, channel: Channel, about: T) -> Result<(), ArchiveError> {
        if channel == Channel::MAIN || self.open.contains_key(&channel) {
            return Err(ArchiveError::ChannelTaken { channel });
        }
        if self.open.len() >= usize::from(self.limits.open) {
            return Err(ArchiveError::OverLimit { what: "open items", limit: u64::from(self.limits.open) });
        }
        if self.items >= self.limits.items {
            return Err(ArchiveError::OverLimit { what: "items", limit: self.limits.items });
        }
        self.items += 1;
        self.open.insert(channel, (0, about));
        Ok(())
    }

    pub(super) fn data(&mut self, channel: Channel, length: usize) -> Result<&mut T, ArchiveError> {
        let (size, about) = self.open.get_mut(&channel).ok_or(ArchiveError::NotOpen { channel })?;
        let length = length as u64;
        // The sums cannot overflow: they stay below the limits, and a frame is short.
        if size.saturating_add(length) > self.limits.item_bytes {
            return Err(ArchiveError::OverLimit { what: "bytes in one item", limit: self.limits.item_bytes });
        }
        if self.bytes.saturating_add(length) > self.limits.bytes {
            return Err(ArchiveError::OverLimit { what: "bytes", limit: self.limits.bytes });
        }
        *size += length;
        self.bytes += length;
        Ok(about)
    }

    /// Closes the item and returns its size with what was kept about it.
    pub(super) fn close(&mut self, channel: Channel) -> Result<(u64, T), ArchiveError> {
        self.open.remove(&channel).ok_or(ArchiveError::NotOpen { channel })
    }

    pub(super) fn end(&self) -> Result<(), ArchiveError> {
        if self.open.is_empty() { Ok(()) } else { Err(ArchiveError::StillOpen { open: self.open.len() }) }
    }

    pub(super) fn is_open(&self, channel: Channel) -> bool {
        self.open.contains_key(&channel)
    }

    pub(super) fn items(&self) -> u64 {
        self.items
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn cut(&self) -> ArchiveError {
        ArchiveError::Cut { items: self.items, bytes: self.bytes }
    }
}
