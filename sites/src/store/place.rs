//! Where everything is in the store's directory, and how it gets there without ever being there half.
//!
//! ```text
//! STORE/
//!   images.json            which images there are, and their names
//!   blobs/sha256/HEX       manifests, configurations, layers: read-only, content checked while it was written
//!   layers/HEX[.SUFFIX]/   one unpacked layer: fs/ is its tree, layer.json what is known about it
//!   rootfs/HEX/            all layers of one image as one tree (fs/), where an overlay of the layers will not do
//!   rootdirs/HEX.json      which image a root directory became, as long as it does not change
//!   tmp/N/                 what one open store is writing; locked by it, swept by the next one after a crash
//!   lock                   held while images.json changes or temporary directories come and go
//!   ingest.lock            held shared while images arrive, exclusively while unused ones are collected
//! ```
//!
//! Files and directories are made in `tmp/N`, synced, and renamed to their name. A name therefore stands for all of
//! its content, also after a power failure.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ums_model::names::Digest;

use super::error::StoreError;
use super::lock::Lock;

/// The store's directory: paths, and nothing but paths.
#[derive(Debug, Clone)]
pub(super) struct Place {
    root: PathBuf,
}

impl Place {
    /// Makes what is missing of the directory. Nobody but its owner can look inside: unpacked images contain set-uid
    /// programs that are not this host's.
    pub(super) fn create(root: &Path) -> Result<Self, StoreError> {
        let bad = || StoreError::BadDirectory { path: root.to_owned() };
        let text = root.to_str().ok_or_else(bad)?;
        if !root.is_absolute() || text.contains([':', ',', '\\']) {
            return Err(bad());
        }
        let place = Self { root: root.to_owned() };
        for directory in [
            place.root.clone(),
            place.blobs(),
            place.layers(),
            place.merged(),
            place.root_directories(),
            place.temporary(),
        ] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&directory)
                .map_err(StoreError::io("create", &directory))?;
        }
        Ok(place)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn index(&self) -> PathBuf {
        self.root.join("images.json")
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    pub(super) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub(super) fn merged(&self) -> PathBuf {
        self.root.join("rootfs")
    }

    pub(super) fn root_directories(&self) -> PathBuf {
        self.root.join("rootdirs")
    }

    pub(super) fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(super) fn ingest_lock(&self) -> PathBuf {
        self.root.join("ingest.lock")
    }
}

/// The directory in which one open store writes what has no name yet.
#[derive(Debug)]
pub(super) struct Session {
    directory: PathBuf,
    next: AtomicU64,
    /// Held for as long as the process lives; whoever can lock the directory knows that its owner is gone.
    _lock: Lock,
}

impl Session {
    /// Throws away what crashed processes left, then makes a directory for this one.
    pub(super) fn open(place: &Place, wait: Duration) -> Result<Self, StoreError> {
        // Between making the directory and locking it, another process would take it for a leftover.
        let _registry = Lock::exclusive(&place.lock(), wait)?;
        sweep(&place.temporary())?;
        for number in 0_u64.. {
            let directory = place.temporary().join(number.to_string());
            match DirBuilder::new().mode(0o700).create(&directory) {
                Ok(()) => {
                    let lock = Lock::exclusive_directory(&directory)?;
                    return Ok(Self { directory, next: AtomicU64::new(0), _lock: lock });
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(StoreError::io("create", directory)(source)),
            }
        }
        unreachable!("there are more numbers than directories")
    }

    /// A path that nothing has yet. What will be there disappears with the returned value, unless it is published.
    pub(super) fn temporary(&self) -> Temporary {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Temporary { path: self.directory.join(number.to_string()), published: false }
    }

    /// Writes `content` to the file `at`, whole or not at all.
    pub(super) fn write_file(&self, at: &Path, content: &[u8]) -> Result<(), StoreError> {
        let temporary = self.temporary();
        let path = temporary.path();
        let mut file = File::create_new(path).map_err(StoreError::io("create", path))?;
        file.set_permissions(Permissions::from_mode(0o600))
            .map_err(StoreError::io("set the mode of", path))?;
        file.write_all(content).map_err(StoreError::io("write", path))?;
        file.sync_all().map_err(StoreError::io("sync", path))?;
        temporary.publish(at)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            // The next store that opens sweeps it.
            tracing::debug!(directory = %self.directory.display(), %error, "temporary directory stays");
        }
    }
}

/// A file or directory without a name of its own yet.
#[derive(Debug)]
pub(super) struct Temporary {
    path: PathBuf,
    published: bool,
}

impl Temporary {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it its name, durably. Its content must be synced already.
    ///
    /// A file replaces the one of that name. A directory does not: if there is one already, somebody else made the
    /// same, and this one is thrown away.
    pub(super) fn publish(mut self, name: &Path) -> Result<(), StoreError> {
        match fs::rename(&self.path, name) {
            Ok(()) => self.published = true,
            Err(_) if name.is_dir() => return Ok(()),
            Err(source) => return Err(StoreError::io("rename to", name)(source)),
        }
        sync_directory(name.parent().unwrap_or(name))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.published {
            return;
        }
        let gone = match self.path.symlink_metadata() {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&self.path),
            Ok(_) => fs::remove_file(&self.path),
            Err(_) => Ok(()),
        };
        if let Err(error) = gone {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a temporary file");
        }
    }
}

/// Makes the names in `directory` durable.
pub(super) fn sync_directory(directory: &Path) -> Result<(), StoreError> {
    File::open(directory).and_then(|opened| opened.sync_all()).map_err(StoreError::io("sync", directory))
}

/// Removes the temporary directories of processes that are gone.
fn sweep(temporary: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(temporary).map_err(StoreError::io("list", temporary))? {
        let path = entry.map_err(StoreError::io("list", temporary))?.path();
        let Some(_abandoned) = Lock::try_exclusive_directory(&path)? else { continue };
        match fs::remove_dir_all(&path) {
            Ok(()) => tracing::info!(path = %path.display(), "removed what a crash left"),
            Err(error) => tracing::warn!(path = %path.display(), %error, "cannot remove what a crash left"),
        }
    }
    Ok(())
}
