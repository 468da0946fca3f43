//! The TLS port: other sites, sites that come with an invite, and users from other machines.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use ums_model::error::{ErrorCode, WireError};
use ums_model::names::Fingerprint;
use ums_sites::adapter::SiteAdapter;
use ums_transfer::link::{self, Link, Purpose};
use ums_transfer::tls::{Accepted, Alpn, ServerTls, TlsStream, server_config};

use super::StartError;
use crate::core::Core;
use crate::{api, control, destination, failure, pairing, rotation};

/// Pause after a connection could not be accepted, which is when the process has too many files open.
const PAUSE: Duration = Duration::from_millis(100);

/// A paired site may have one of so many of the port's places.
const SHARE: usize = 4;

/// Opens the port.
pub(super) async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })
}

/// What is spoken on it, and who may.
pub(super) fn tls<S: SiteAdapter>(core: &Arc<Core<S>>) -> Result<ServerTls, StartError> {
    let peers = core.peers.clone();
    Ok(server_config(&core.identity(), Arc::new(move |fingerprint| peers.trusts(fingerprint)))?)
}

/// Serves the port until the daemon stops.
pub(super) async fn serve<S: SiteAdapter>(core: Arc<Core<S>>, listener: TcpListener, mut tls: ServerTls) {
    let mut key = core.identity().fingerprint();
    let places = Arc::new(Semaphore::new(core.config.limits.connections.get()));
    let remote = api::remote(Arc::clone(&core));
    loop {
        let accepted = tokio::select! {
            biased;
            () = core.stopping.cancelled() => return,
            accepted = accept(&listener, &places) => accepted,
        };
        let (place, tcp) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        if core.identity().fingerprint() != key {
            match self::tls(&core) {
                Ok(new) => (tls, key) = (new, core.identity().fingerprint()),
                Err(error) => tracing::error!(error = failure::chain(&error), "cannot use the new key"),
            }
        }
        let (core, tls, remote) = (Arc::clone(&core), tls.clone(), remote.clone());
        core.tasks.clone().spawn(async move {
            let _place = place;
            let served = match introduced(&core, tcp, &tls).await {
                Some(Caller::User(stream)) => {
                    api::serve(remote, stream, core.config.deadlines.request, core.stopping.clone()).await;
                    Ok(())
                }
                Some(Caller::Site(link)) => serve_site(&core, link).await,
                Some(Caller::Stranger(accepted)) => {
                    until_stopped(&core, pairing::serve(&core, accepted)).await
                }
                None => Ok(()),
            };
            if let Err(error) = served {
                tracing::info!(%error, "a connection ended");
            }
        });
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(tokio::sync::OwnedSemaphorePermit, TcpStream)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (tcp, _) = listener.accept().await?;
    Ok((place, tcp))
}

/// Who comes, and what for.
enum Caller {
    /// A program with a token, or without.
    User(TlsStream),
    /// A paired site, or one that was revoked and is still to be heard about a migration.
    Site(Link),
    /// A site with an invite.
    Stranger(Accepted),
}

/// Waits until the caller has said who it is and what it wants. `None`: it did not, or it wanted nothing else.
async fn introduced<S: SiteAdapter>(core: &Core<S>, tcp: TcpStream, tls: &ServerTls) -> Option<Caller> {
    let deadlines = core.config.deadlines.link();
    let introduce = async {
        let accepted = tls.accept(tcp, &deadlines).await.map_err(|error| failure::chain(&error))?;
        match accepted.alpn {
            Alpn::Api => return Ok(Some(Caller::User(accepted.stream))),
            Alpn::Pairing => return Ok(Some(Caller::Stranger(accepted))),
            Alpn::Link => {}
        }
        let link = link::accept(accepted, &core.greeting, &deadlines)
            .await
            .map_err(|error| failure::chain(&error))?;
        Ok(Some(Caller::Site(link)))
    };
    tokio::select! {
        biased;
        () = core.stopping.cancelled() => None,
        introduced = introduce => introduced.unwrap_or_else(|error: String| {
            tracing::info!(error, "a connection was refused");
            None
        }),
    }
}

/// Serves what a site has dialed for. It has its share of the places of the port, and the others have theirs.
async fn serve_site<S: SiteAdapter>(core: &Arc<Core<S>>, link: Link) -> Result<(), WireError> {
    let key = link.peer.fingerprint;
    core.adopt(&key).await?;
    let share = (core.config.limits.connections.get() / SHARE).max(1);
    let Some(_place) = core.peers.place(&key, share) else {
        let message = format!("site {} has {share} links already", link.peer.site);
        return Err(WireError::new(ErrorCode::Busy, message));
    };
    match link.purpose {
        Purpose::Migration { id } => destination::serve(core, link, id).await,
        Purpose::Control => until_out(core, key, control::serve(core, link)).await,
        Purpose::Rotate => until_out(core, key, rotation::serve(core, link)).await,
        Purpose::Probe | Purpose::Unknown => Ok(()),
    }
}

/// Ends with the daemon, and when the site is revoked. One that was, may still ask about its migrations.
async fn until_out<S: SiteAdapter>(
    core: &Core<S>,
    key: Fingerprint,
    work: impl Future<Output = Result<(), WireError>>,
) -> Result<(), WireError> {
    let out = core.peers.end_of(&key);
    if !core.peers.trusts(&key) {
        return Err(WireError::new(ErrorCode::NotPaired, "the site is not paired any more".to_owned()));
    }
    tokio::select! {
        biased;
        () = out.cancelled() => Ok(()),
        done = until_stopped(core, work) => done,
    }
}

/// What a caller only asks for ends with the daemon.
async fn until_stopped<S: SiteAdapter>(
    core: &Core<S>,
    work: impl Future<Output = Result<(), WireError>>,
) -> Result<(), WireError> {
    tokio::select! {
        biased;
        () = core.stopping.cancelled() => Ok(()),
        done = work => done,
    }
}
