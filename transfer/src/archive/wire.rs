//! Layout of the payloads of `Open`, `Close` and `End`. Pure.
//!
//! ```text
//! Open   name length u16 | name, UTF-8 | meta, JSON
//! Close  size u64 | blake3 of the content, 32 bytes
//! End    items u64 | bytes u64 | blake3 over all Open and Close, 32 bytes
//! Abort  reason, UTF-8
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{ArchiveError, Closed, Totals};
use crate::frame::{Channel, Frame, Kind, MAX_OPEN, MAX_REASON};

/// Longest name of an item in bytes: the kernel's longest path.
pub const MAX_NAME: usize = 4096;
/// Longest meta in bytes.
const MAX_META: usize = MAX_OPEN - 2 - MAX_NAME;
const HASH_LEN: usize = blake3::OUT_LEN;

/// What the sender said about an item: JSON that only the two ends understand. At most 60 KiB; not validated yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta(Bytes);

impl Meta {
    /// Reads the meta as a `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, ArchiveError> {
        serde_json::from_slice(&self.0).map_err(|source| ArchiveError::DecodeMeta { source })
    }

    /// The JSON as it arrived.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

pub(super) fn encode_open<M: Serialize>(name: &str, meta: &M) -> Result<Bytes, ArchiveError> {
    let length = u16::try_from(name.len()).ok().filter(|length| usize::from(*length) <= MAX_NAME);
    let length = length.ok_or(ArchiveError::TooLong { what: "name", length: name.len(), limit: MAX_NAME })?;
    let meta = serde_json::to_vec(meta)
        .map_err(|source| ArchiveError::EncodeMeta { name: name.to_owned(), source })?;
    if meta.len() > MAX_META {
        return Err(ArchiveError::TooLong { what: "meta", length: meta.len(), limit: MAX_META });
    }
    let mut out = BytesMut::with_capacity(2 + name.len() + meta.len());
    out.put_u16(length);
    out.put_slice(name.as_bytes());
    out.put_slice(&meta);
    Ok(out.freeze())
}

pub(super) fn decode_open(frame: &Frame) -> Result<(String, Meta), ArchiveError> {
    let malformed = || ArchiveError::Malformed { kind: Kind::Open, channel: frame.channel };
    let mut payload = frame.payload.clone();
    let length = usize::from(payload.try_get_u16().map_err(|_| malformed())?);
    if length > MAX_NAME || length > payload.len() {
        return Err(malformed());
    }
    let name = payload.split_to(length);
    let name = std::str::from_utf8(&name).map_err(|_| malformed())?.to_owned();
    // Copied, because it is small and may be kept for the item's whole life: it must not pin the read buffer.
    Ok((name, Meta(Bytes::copy_from_slice(&payload))))
}

pub(super) fn encode_close(closed: &Closed) -> Bytes {
    let mut out = BytesMut::with_capacity(8 + HASH_LEN);
    out.put_u64(closed.size);
    out.put_slice(closed.hash.as_bytes());
    out.freeze()
}

pub(super) fn decode_close(frame: &Frame) -> Result<Closed, ArchiveError> {
    let malformed = ArchiveError::Malformed { kind: Kind::Close, channel: frame.channel };
    let mut payload = &frame.payload[..];
    if payload.len() != 8 + HASH_LEN {
        return Err(malformed);
    }
    Ok(Closed { size: payload.get_u64(), hash: blake3::Hash::from_slice(payload).map_err(|_| malformed)? })
}

pub(super) fn encode_end(totals: &Totals) -> Bytes {
    let mut out = BytesMut::with_capacity(16 + HASH_LEN);
    out.put_u64(totals.items);
    out.put_u64(totals.bytes);
    out.put_slice(totals.digest.as_bytes());
    out.freeze()
}

pub(super) fn decode_end(frame: &Frame) -> Result<Totals, ArchiveError> {
    let malformed = ArchiveError::Malformed { kind: Kind::End, channel: frame.channel };
    let mut payload = &frame.payload[..];
    if payload.len() != 16 + HASH_LEN || frame.channel != Channel::MAIN {
        return Err(malformed);
    }
    let (items, bytes) = (payload.get_u64(), payload.get_u64());
    Ok(Totals { items, bytes, digest: blake3::Hash::from_slice(payload).map_err(|_| malformed)? })
}

pub(super) fn encode_abort(reason: &str) -> Bytes {
    Bytes::copy_from_slice(&reason.as_bytes()[..reason.floor_char_boundary(MAX_REASON)])
}

pub(super) fn decode_abort(frame: &Frame) -> ArchiveError {
    if frame.channel != Channel::MAIN {
        return ArchiveError::Malformed { kind: Kind::Abort, channel: frame.channel };
    }
    ArchiveError::Aborted { reason: String::from_utf8_lossy(&frame.payload).into_owned() }
}

/// Adds an `Open` or `Close` frame to the archive's digest, delimited so that no two sequences give the same input.
pub(super) fn add_to_digest(digest: &mut blake3::Hasher, frame: &Frame) {
    let mut header = [0_u8; 7];
    header[0] = frame.kind as u8;
    header[1..3].copy_from_slice(&frame.channel.0.to_be_bytes());
    header[3..].copy_from_slice(&(frame.payload.len() as u32).to_be_bytes());
    digest.update(&header).update(&frame.payload);
}
