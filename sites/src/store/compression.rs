//! What layers and archives are compressed with, told by their first bytes and not by what they call themselves.

use std::io::{self, BufRead, BufReader, Read};

/// Read from the disk in pieces of this size.
const READ_BYTES: usize = 256 << 10;

/// Largest window, as a power of two, that a zstd stream may ask memory for: what `zstd` uses without `--long`.
const WINDOW_LOG: u32 = 27;

/// Compression of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    fn of(beginning: &[u8]) -> Self {
        match beginning {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // The second is a frame that decoders skip; some writers put their notes there.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// The content of `stream`, and what it was compressed with.
pub(super) fn decompressed<'a>(stream: impl Read + 'a) -> io::Result<(Box<dyn Read + 'a>, Compression)> {
    let mut stream = BufReader::with_capacity(READ_BYTES, stream);
    let compression = Compression::of(stream.fill_buf()?);
    let content: Box<dyn Read + 'a> = match compression {
        Compression::None => Box::new(stream),
        // "Multi": pigz and others write several members one after the other.
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(stream)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(stream)?;
            decoder.window_log_max(WINDOW_LOG)?;
            Box::new(decoder)
        }
    };
    Ok((content, compression))
}
