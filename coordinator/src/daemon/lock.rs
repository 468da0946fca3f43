//! One daemon per state directory, and nobody else in it.

use std::fs::{DirBuilder, File, Permissions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::StartError;

/// How often a lock that is taken is tried again.
const TRY: Duration = Duration::from_millis(20);

/// The right to be the daemon of a state directory; given back when it is dropped or the process ends.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

/// Makes `dir`, if it is missing, and closes it to everybody else.
pub(super) fn private_dir(dir: &Path) -> Result<(), StartError> {
    let failed = |action| move |source| StartError::File { action, path: dir.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("create"))?;
    std::fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(failed("close to others"))
}

/// Takes the lock, for at most `patience`: a daemon that was told to end needs a moment.
pub(super) async fn take(path: PathBuf, patience: Duration) -> Result<Lock, StartError> {
    let failed = |action| {
        let path = path.clone();
        move |source| StartError::File { action, path, source }
    };
    let file =
        File::options().write(true).create(true).truncate(false).open(&path).map_err(failed("open"))?;
    let wait = async {
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) => tokio::time::sleep(TRY).await,
                Err(TryLockError::Error(source)) => return Err(failed("lock")(source)),
            }
        }
    };
    match tokio::time::timeout(patience, wait).await {
        Ok(locked) => locked.map(|()| Lock { _file: file }),
        Err(_) => Err(StartError::Running { path }),
    }
}
