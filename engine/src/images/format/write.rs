//! Images to bytes.

use super::{COMMON, Image, Layout};

impl Image {
    /// The file, as CRIU reads it.
    pub(in crate::images) fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let words = [self.kind.common.then_some(COMMON), Some(self.kind.magic)];
        words.into_iter().flatten().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
        let unit = match self.kind.layout {
            Layout::Queues | Layout::Semaphores => 8,
            Layout::Segments => 4,
            _ => 1,
        };
        for entry in &self.entries {
            let message = entry.message.encode();
            let length = u32::try_from(message.len()).expect("messages are bounded when they are read");
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(&message);
            bytes.extend_from_slice(&entry.payload);
            let filled = entry.payload.len().next_multiple_of(unit);
            bytes.resize(bytes.len() + filled - entry.payload.len(), 0);
        }
        bytes
    }
}
