//! Blobs: immutable files that are called by the digest of their content.

use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use ums_model::names::{Bytes, Digest};

use super::error::StoreError;
use super::hash::{Hashing, digest_of};
use super::place::Temporary;
use super::{Ingest, Inner, Store};

impl Store {
    /// Those of `digests` that are not here, in their order, each once.
    pub fn missing(&self, digests: &[Digest]) -> Vec<Digest> {
        let mut missing = Vec::new();
        for digest in digests {
            if !missing.contains(digest) && !self.inner.has_blob(digest) {
                missing.push(*digest);
            }
        }
        missing
    }

    /// Opens a blob for reading. Its content was checked when it was written; the file's length is the blob's size.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, StoreError> {
        let path = self.inner.place.blob(digest);
        File::open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => StoreError::NoBlob { digest: *digest },
            _ => StoreError::io("open", path)(source),
        })
    }

    /// Begins to receive the blob `digest` of `size` bytes. Space for it is reserved, so a full disk shows here.
    ///
    /// Safe to repeat, also at the same time: whoever commits last replaces equal content by equal content.
    pub fn blob_writer(&self, digest: Digest, size: Bytes) -> Result<BlobWriter, StoreError> {
        let limit = self.inner.limits.blob;
        if size > limit {
            return Err(StoreError::BlobTooLarge { digest, size, limit });
        }
        let ingest = self.ingest()?;
        let sink = BlobSink::create(&self.inner, size)?;
        match fallocate(sink.file.get_ref(), FallocateFlags::KEEP_SIZE, 0, size.get().max(1)) {
            // The second and third: not every file system can. A full disk then shows while writing.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(errno) => return Err(StoreError::io("reserve space for", sink.temporary.path())(errno)),
        }
        Ok(BlobWriter { sink, digest, size, _ingest: ingest })
    }
}

/// A blob that is arriving. Dropped before [`commit`](Self::commit), it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    sink: BlobSink,
    digest: Digest,
    size: Bytes,
    _ingest: Ingest,
}

impl BlobWriter {
    /// Appends `chunk`. After an error the writer is of no use any more.
    pub fn write(&mut self, chunk: &[u8]) -> Result<(), StoreError> {
        let arrived = self.sink.file.amount() + Bytes(chunk.len() as u64);
        if arrived > self.size {
            return Err(self.wrong(digest_of(chunk), arrived));
        }
        let path = self.sink.temporary.path();
        self.sink.file.write_all(chunk).map_err(StoreError::io("write", path))
    }

    /// Ends the blob. On `Ok` it is in the store, durable and with the content that its digest promises. On `Err`
    /// nothing of it is.
    pub fn commit(self) -> Result<(), StoreError> {
        let Self { sink, digest, size, _ingest } = self;
        sink.commit(Some((digest, size))).map(drop)
    }

    fn wrong(&self, got: Digest, got_size: Bytes) -> StoreError {
        StoreError::WrongContent {
            expected: self.digest,
            expected_size: self.size.get(),
            got,
            got_size: got_size.get(),
        }
    }
}

/// A file without a name that is going to be a blob.
#[derive(Debug)]
pub(super) struct BlobSink {
    inner: Arc<Inner>,
    file: Hashing<File>,
    temporary: Temporary,
}

impl BlobSink {
    pub(super) fn create(inner: &Arc<Inner>, limit: Bytes) -> Result<Self, StoreError> {
        let temporary = inner.session.temporary();
        let path = temporary.path();
        let file = File::create_new(path).map_err(StoreError::io("create", path))?;
        Ok(Self { inner: Arc::clone(inner), file: Hashing::new(file, limit), temporary })
    }

    /// Makes it the blob of its own digest, durably. If `expected` is given, only if it is that.
    pub(super) fn commit(self, expected: Option<(Digest, Bytes)>) -> Result<(Digest, Bytes), StoreError> {
        let Self { inner, file, temporary } = self;
        let (file, digest, size) = file.finish();
        if let Some((expected, expected_size)) = expected
            && (expected, expected_size) != (digest, size)
        {
            return Err(StoreError::WrongContent {
                expected,
                expected_size: expected_size.get(),
                got: digest,
                got_size: size.get(),
            });
        }
        let path = temporary.path();
        // Whatever was reserved beyond the end goes back.
        file.set_len(size.get()).map_err(StoreError::io("truncate", path))?;
        file.set_permissions(Permissions::from_mode(0o400))
            .map_err(StoreError::io("set the mode of", path))?;
        file.sync_all().map_err(StoreError::io("sync", path))?;
        temporary.publish(&inner.place.blob(&digest))?;
        Ok((digest, size))
    }
}

impl Write for BlobSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Inner {
    pub(super) fn has_blob(&self, digest: &Digest) -> bool {
        self.place.blob(digest).is_file()
    }

    /// Size of a blob, if it is here.
    pub(super) fn blob_size(&self, digest: &Digest) -> Option<Bytes> {
        let found = self.place.blob(digest).metadata().ok()?;
        found.is_file().then_some(Bytes(found.len()))
    }
}

impl Store {
    /// Copies `content`, which is announced as `digest` and `size`, into the store; does nothing if it is here.
    pub(super) fn adopt_blob(
        &self,
        digest: &Digest,
        size: Bytes,
        mut content: impl Read,
    ) -> Result<(), StoreError> {
        if self.inner.blob_size(digest) == Some(size) {
            return Ok(());
        }
        let mut writer = self.blob_writer(*digest, size)?;
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            match content.read(&mut buffer) {
                Ok(0) => return writer.commit(),
                Ok(read) => writer.write(&buffer[..read])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(StoreError::io("read the content of", digest.to_string())(source)),
            }
        }
    }

    /// Puts a document into the store.
    pub(super) fn put_blob(&self, content: &[u8]) -> Result<(Digest, Bytes), StoreError> {
        let (digest, size) = (digest_of(content), Bytes(content.len() as u64));
        self.adopt_blob(&digest, size, content)?;
        Ok((digest, size))
    }

    /// Reads a document. Its content is checked again: a manifest that a failing disk changed would name other blobs.
    pub(super) fn read_document(&self, digest: &Digest, what: &str) -> Result<Vec<u8>, StoreError> {
        let limit = self.inner.limits.document;
        let file = self.open_blob(digest)?;
        let path = self.inner.place.blob(digest);
        let size = Bytes(file.metadata().map_err(StoreError::io("look at", &path))?.len());
        if size > limit {
            return Err(StoreError::DocumentTooLarge { what: format!("{what} {digest}"), size, limit });
        }
        let mut content = Vec::new();
        file.take(limit.get()).read_to_end(&mut content).map_err(StoreError::io("read", path))?;
        let got = digest_of(&content);
        if got != *digest {
            return Err(StoreError::WrongContent {
                expected: *digest,
                expected_size: size.get(),
                got,
                got_size: content.len() as u64,
            });
        }
        Ok(content)
    }
}

/// Content is copied in pieces of this size.
const COPY_BYTES: usize = 256 << 10;
