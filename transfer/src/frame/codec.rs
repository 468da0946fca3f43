//! The pure half: bytes to frames and back. No I/O, never panics, never allocates for a length it has not checked.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::de::DeserializeOwned;

use super::FrameError;

/// Length of a frame's header in bytes.
pub const HEADER_LEN: usize = 8;
/// Longest payload of one [`Kind::Data`] frame in bytes. Long enough that headers cost nothing at 1 GB/s, short
/// enough that another channel, or a keep-alive, waits less than a millisecond at 10 Gbit/s.
pub const MAX_DATA: usize = 256 * 1024;
/// Longest payload of one [`Kind::Control`] frame in bytes: the longest message is a plan with all its findings.
pub const MAX_CONTROL: usize = 1024 * 1024;
/// Longest payload of one [`Kind::Open`] frame in bytes: a path and a few attributes.
pub const MAX_OPEN: usize = 64 * 1024;
/// Longest reason in a [`Kind::Abort`] frame in bytes; a longer one is cut.
pub const MAX_REASON: usize = 8 * 1024;

/// What a frame is. The numbers are the wire's and never change meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A message in JSON, of a type that the two sides agree on.
    Control = 1,
    /// Raw bytes on a channel.
    Data = 2,
    /// Nothing, said to be heard. Swallowed by [`super::FrameReader`].
    KeepAlive = 3,
    /// Archive: an item starts on a channel.
    Open = 4,
    /// Archive: the item on a channel is complete.
    Close = 5,
    /// Archive: all items were sent.
    End = 6,
    /// Archive: the sender gives up; the payload says why. The stream stays usable for frames after it.
    Abort = 7,
}

impl Kind {
    fn from_wire(kind: u8) -> Option<Self> {
        Some(match kind {
            1 => Self::Control,
            2 => Self::Data,
            3 => Self::KeepAlive,
            4 => Self::Open,
            5 => Self::Close,
            6 => Self::End,
            7 => Self::Abort,
            _ => return None,
        })
    }

    /// Longest payload of this kind in bytes.
    #[must_use]
    pub const fn limit(self) -> usize {
        match self {
            Self::Control => MAX_CONTROL,
            Self::Data => MAX_DATA,
            Self::KeepAlive => 0,
            Self::Open => MAX_OPEN,
            // Fixed layouts of a few dozen bytes; the archive checks the exact length.
            Self::Close | Self::End => 64,
            Self::Abort => MAX_REASON,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Control => "control",
            Self::Data => "data",
            Self::KeepAlive => "keep-alive",
            Self::Open => "open",
            Self::Close => "close",
            Self::End => "end",
            Self::Abort => "abort",
        })
    }
}

/// Which of several interleaved byte streams a frame belongs to. [`Channel::MAIN`] is for everything that belongs
/// to none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel(pub u16);

impl Channel {
    /// The connection as a whole; control frames travel here, archive items never do.
    pub const MAIN: Self = Self(0);
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One frame. The payload shares the read buffer: holding it pins that buffer (see [`super::FrameReader`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// The stream it belongs to.
    pub channel: Channel,
    /// At most [`Kind::limit`] bytes.
    pub payload: Bytes,
}

impl Frame {
    /// This frame's payload as a control message of type `T`.
    pub fn control<T: DeserializeOwned>(&self) -> Result<T, FrameError> {
        if self.kind != Kind::Control {
            return Err(FrameError::Unexpected { expected: Kind::Control, got: self.kind });
        }
        serde_json::from_slice(&self.payload).map_err(|source| FrameError::Decode { source })
    }
}

/// Takes the first whole frame off the front of `buffer`.
///
/// `Ok(None)`: more bytes are needed, `buffer` is unchanged. `Err`: the bytes are no frame; `buffer` is unchanged
/// and of no further use, because where the next frame would start is unknown. Pure, and never panics.
pub fn decode(buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
    let Some(header) = Header::parse(buffer)? else { return Ok(None) };
    if buffer.len() < HEADER_LEN + header.length {
        return Ok(None);
    }
    buffer.advance(HEADER_LEN);
    let payload = buffer.split_to(header.length).freeze();
    Ok(Some(Frame { kind: header.kind, channel: header.channel, payload }))
}

/// How many bytes are missing at least until `buffer` starts with a whole frame. Called after [`decode`] asked for
/// more, so a malformed header cannot occur here.
pub(super) fn missing(buffer: &BytesMut) -> usize {
    let whole = match Header::parse(buffer) {
        Ok(Some(header)) => HEADER_LEN + header.length,
        Ok(None) | Err(_) => HEADER_LEN,
    };
    whole.saturating_sub(buffer.len())
}

/// Appends a frame's header. The caller has checked the length against the kind's limit.
pub(super) fn put_header(out: &mut impl BufMut, kind: Kind, channel: Channel, length: usize) {
    out.put_u8(kind as u8);
    out.put_u8(0);
    out.put_u16(channel.0);
    out.put_u32(u32::try_from(length).expect("limits of all kinds fit in 32 bits"));
}

struct Header {
    kind: Kind,
    channel: Channel,
    length: usize,
}

impl Header {
    fn parse(buffer: &[u8]) -> Result<Option<Self>, FrameError> {
        let Some(mut header) = buffer.get(..HEADER_LEN) else { return Ok(None) };
        let kind = header.get_u8();
        let kind = Kind::from_wire(kind).ok_or(FrameError::UnknownKind { kind })?;
        let flags = header.get_u8();
        if flags != 0 {
            return Err(FrameError::UnknownFlags { kind, flags });
        }
        let channel = Channel(header.get_u16());
        // On every platform that UMS runs on a usize holds 32 bits.
        let length = header.get_u32() as usize;
        if length > kind.limit() {
            return Err(FrameError::TooLong { kind, length, limit: kind.limit() });
        }
        Ok(Some(Self { kind, channel, length }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The fuzz entry: whatever the bytes are, decoding ends, without a panic.
    fn decode_all(bytes: &[u8]) -> (Vec<Frame>, bool) {
        let mut buffer = BytesMut::from(bytes);
        let mut frames = Vec::new();
        loop {
            match decode(&mut buffer) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return (frames, true),
                Err(_) => return (frames, false),
            }
        }
    }

    fn encode(frames: &[Frame]) -> Vec<u8> {
        let mut out = Vec::new();
        for frame in frames {
            put_header(&mut out, frame.kind, frame.channel, frame.payload.len());
            out.extend_from_slice(&frame.payload);
        }
        out
    }

    fn any_frame() -> impl Strategy<Value = Frame> {
        let kind = prop_oneof![
            Just(Kind::Control),
            Just(Kind::Data),
            Just(Kind::KeepAlive),
            Just(Kind::Open),
            Just(Kind::Close),
            Just(Kind::End),
            Just(Kind::Abort),
        ];
        (kind, any::<u16>(), proptest::collection::vec(any::<u8>(), 0..300)).prop_map(
            |(kind, channel, mut payload)| {
                payload.truncate(kind.limit());
                Frame { kind, channel: Channel(channel), payload: payload.into() }
            },
        )
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
            decode_all(&bytes);
        }

        #[test]
        fn nearly_valid_bytes_never_panic(
            frames in proptest::collection::vec(any_frame(), 1..8), at in any::<prop::sample::Index>(), with in any::<u8>(),
        ) {
            let mut bytes = encode(&frames);
            let at = at.index(bytes.len());
            bytes[at] = with;
            decode_all(&bytes);
        }

        #[test]
        fn any_split_gives_the_same_frames(
            frames in proptest::collection::vec(any_frame(), 0..8), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let bytes = encode(&frames);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.push(bytes.len());
            cuts.sort_unstable();
            let (mut buffer, mut got, mut from) = (BytesMut::new(), Vec::new(), 0);
            for to in cuts {
                buffer.extend_from_slice(&bytes[from..to]);
                from = to;
                while let Some(frame) = decode(&mut buffer).unwrap() {
                    got.push(frame);
                }
                prop_assert!(missing(&buffer) > 0, "a whole frame was left in the buffer");
            }
            prop_assert_eq!(got, frames);
            prop_assert!(buffer.is_empty());
        }
    }

    #[test]
    fn zeros_are_no_frames() {
        let error = decode(&mut BytesMut::zeroed(64)).unwrap_err();
        assert!(matches!(error, FrameError::UnknownKind { kind: 0 }), "{error:?}");
    }

    #[test]
    fn a_length_is_refused_before_its_payload_arrives() {
        for kind in
            [Kind::Control, Kind::Data, Kind::KeepAlive, Kind::Open, Kind::Close, Kind::End, Kind::Abort]
        {
            let mut buffer = BytesMut::new();
            put_header(&mut buffer, kind, Channel(7), kind.limit() + 1);
            assert!(matches!(decode(&mut buffer), Err(FrameError::TooLong { .. })), "{kind}");
        }
    }

    #[test]
    fn an_unknown_flag_is_refused() {
        let mut buffer = BytesMut::from(&[2, 1, 0, 0, 0, 0, 0, 0][..]);
        assert!(matches!(decode(&mut buffer), Err(FrameError::UnknownFlags { kind: Kind::Data, flags: 1 })));
    }
}
