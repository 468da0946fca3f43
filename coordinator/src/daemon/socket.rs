//! The Unix sockets: the site's own, for root; and those of the configuration, each for one group and one role.
//!
//! Who may connect is the kernel's to check, by owner and mode of the socket. On the site's own the credentials of the
//! client are looked at as well: a mode that somebody changed by mistake makes nobody an administrator.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::os::unix::net;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use ums_sites::adapter::SiteAdapter;

use super::StartError;
use crate::api;
use crate::config::GroupSocket;
use crate::core::Core;
use crate::view::TokenRole;

/// Pause after a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 128;
/// Where groups have their numbers.
const GROUPS: &str = "/etc/group";

/// Through which socket a client comes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Door {
    /// The site's own: root, and whoever the daemon runs as.
    Own,
    /// One for a group.
    Group(TokenRole),
}

impl Door {
    /// What a client may do; `None`: it should not be here.
    fn role(self, client: &UnixStream) -> io::Result<Option<TokenRole>> {
        match self {
            Self::Group(role) => Ok(Some(role)),
            Self::Own => {
                let uid = client.peer_cred()?.uid();
                let own = rustix::process::geteuid().as_raw();
                Ok((uid == 0 || uid == own).then_some(TokenRole::Admin))
            }
        }
    }
}

/// Opens the site's own socket, for its owner. The caller holds the lock of the directory, so one that is there is a
/// leftover.
pub(super) fn bind(path: &Path) -> Result<UnixListener, StartError> {
    listen(path, 0o600, None)
}

/// Opens a socket for a group.
pub(super) fn bind_for_group(socket: &GroupSocket) -> Result<UnixListener, StartError> {
    let GroupSocket { path, group, .. } = socket;
    let failed = |source| StartError::File { action: "read", path: GROUPS.into(), source };
    let id = match group.parse() {
        Ok(id) => Some(id),
        Err(_) => group_id(&fs::read_to_string(GROUPS).map_err(failed)?, group),
    };
    let id = id.ok_or_else(|| StartError::NoGroup { path: path.clone(), group: group.clone() })?;
    listen(path, 0o660, Some(id))
}

/// The number of a group, as `/etc/group` has it.
fn group_id(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

/// Owner and mode are set before anybody can connect: a socket that does not listen yet refuses everybody.
fn listen(path: &Path, mode: u32, group: Option<u32>) -> Result<UnixListener, StartError> {
    let failed = |action| move |source| StartError::File { action, path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(StartError::NoSocket { path: path.to_owned() });
        }
        Ok(_) => fs::remove_file(path).map_err(failed("remove"))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("look at")(error)),
    }
    let bound = || -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(socket)
    };
    let socket = bound().map_err(failed("listen on"))?;
    if group.is_some() {
        chown(path, None, group).map_err(failed("give to its group"))?;
    }
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed("close to others"))?;
    rustix::net::listen(&socket, BACKLOG).map_err(|error| failed("listen on")(error.into()))?;
    UnixListener::from_std(net::UnixListener::from(socket)).map_err(failed("listen on"))
}

/// Removes the socket, so that a client sees at once that nobody is there.
pub(super) fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::debug!(path = %path.display(), %error, "cannot remove the socket");
    }
}

/// Serves a socket until the daemon stops.
pub(super) async fn serve<S: SiteAdapter>(core: Arc<Core<S>>, listener: UnixListener, door: Door) {
    let places = Arc::new(Semaphore::new(core.config.limits.local_connections.get()));
    loop {
        let accepted = tokio::select! {
            biased;
            () = core.stopping.cancelled() => return,
            accepted = accept(&listener, &places) => accepted,
        };
        let admitted = accepted.and_then(|(place, stream)| Ok((place, door.role(&stream)?, stream)));
        let (place, role, stream) = match admitted {
            Ok((place, Some(role), stream)) => (place, role, stream),
            Ok((_, None, _)) => {
                tracing::warn!("a user who is not root was turned away from the site's own socket");
                continue;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection on a socket");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let router = api::local(Arc::clone(&core), role);
        let (head, stopping) = (core.config.deadlines.request, core.stopping.clone());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_numbers() {
        let groups = "root:x:0:\nums-viewers:x:990:alice,bob\nbroken\n";
        assert_eq!(group_id(groups, "ums-viewers"), Some(990));
        assert_eq!(group_id(groups, "ums"), None);
        assert_eq!(group_id(groups, "broken"), None);
    }
}
