//! The Unix socket: the API for whoever may open it, which is the owner of the site.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use ums_sites::adapter::SiteAdapter;

use super::StartError;
use crate::api;
use crate::core::Core;

/// Pause after a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// Opens the socket. The caller holds the lock of the directory, so one that is there is a leftover; the directory is
/// closed to others, so nobody can come in between the two steps.
pub(super) fn bind(path: &Path) -> Result<UnixListener, StartError> {
    let failed = |action| move |source| StartError::File { action, path: path.to_owned(), source };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove")(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed("listen on"))?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed("close to others"))?;
    Ok(listener)
}

/// Removes the socket, so that a client sees at once that nobody is there.
pub(super) fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::debug!(path = %path.display(), %error, "cannot remove the socket");
    }
}

/// Serves the socket until the daemon stops.
pub(super) async fn serve<S: SiteAdapter>(core: Arc<Core<S>>, listener: UnixListener) {
    let places = Arc::new(Semaphore::new(core.config.limits.local_connections.get()));
    let router = api::local(Arc::clone(&core));
    loop {
        let accepted = tokio::select! {
            biased;
            () = core.stopping.cancelled() => return,
            accepted = accept(&listener, &places) => accepted,
        };
        let (place, stream) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection on the socket");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (router, head, stopping) = (router.clone(), core.config.deadlines.request, core.stopping.clone());
        core.tasks.spawn(async move {
            let _place = place;
            api::serve(router, stream, head, stopping).await;
        });
    }
}

async fn accept(
    listener: &UnixListener,
    places: &Arc<Semaphore>,
) -> io::Result<(OwnedSemaphorePermit, UnixStream)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((place, stream))
}
