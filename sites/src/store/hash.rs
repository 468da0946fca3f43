//! Counting and hashing what flows by, with an upper bound.

use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};
use ums_model::names::{Bytes, Digest};

/// The digest of `bytes`.
pub(super) fn digest_of(bytes: &[u8]) -> Digest {
    Digest::sha256(Sha256::digest(bytes).into())
}

/// A reader or writer that knows the digest and the amount of what went through it, and fails beyond a limit.
#[derive(Debug)]
pub(super) struct Hashing<T> {
    inner: T,
    hash: Sha256,
    bytes: u64,
    limit: Bytes,
}

impl<T> Hashing<T> {
    pub(super) fn new(inner: T, limit: Bytes) -> Self {
        Self { inner, hash: Sha256::new(), bytes: 0, limit }
    }

    pub(super) fn get_ref(&self) -> &T {
        &self.inner
    }

    /// What went through so far.
    pub(super) fn amount(&self) -> Bytes {
        Bytes(self.bytes)
    }

    pub(super) fn finish(self) -> (T, Digest, Bytes) {
        (self.inner, Digest::sha256(self.hash.finalize().into()), Bytes(self.bytes))
    }

    fn count(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.limit.get() {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {}", self.limit)));
        }
        self.hash.update(bytes);
        Ok(())
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count(&buffer[..read])?;
        Ok(read)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.count(&bytes[..written])?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
