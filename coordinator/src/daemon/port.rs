//! The TLS port: other sites, sites that come with an invite, and users from other machines.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use ums_model::error::WireError;
use ums_sites::adapter::SiteAdapter;
use ums_transfer::link::{self, Purpose};
use ums_transfer::tls::{Alpn, ServerTls, server_config};

use super::StartError;
use crate::core::Core;
use crate::{api, control, destination, failure, pairing};

/// Pause after a connection could not be accepted, which is when the process has too many files open.
const PAUSE: Duration = Duration::from_millis(100);

/// Opens the port.
pub(super) async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })
}

/// What is spoken on it, and who may.
pub(super) fn tls<S: SiteAdapter>(core: &Arc<Core<S>>) -> Result<ServerTls, StartError> {
    let peers = core.peers.clone();
    Ok(server_config(&core.identity, Arc::new(move |fingerprint| peers.trusts(fingerprint)))?)
}

/// Serves the port until the daemon stops.
pub(super) async fn serve<S: SiteAdapter>(core: Arc<Core<S>>, listener: TcpListener, tls: ServerTls) {
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
        let (core, tls, remote) = (Arc::clone(&core), tls.clone(), remote.clone());
        core.tasks.clone().spawn(async move {
            let _place = place;
            if let Err(error) = connection(&core, tcp, &tls, remote).await {
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

async fn connection<S: SiteAdapter>(
    core: &Arc<Core<S>>,
    tcp: TcpStream,
    tls: &ServerTls,
    remote: axum::Router,
) -> Result<(), WireError> {
    let deadlines = core.config.deadlines.link();
    let accepted = match tls.accept(tcp, &deadlines).await {
        Ok(accepted) => accepted,
        Err(error) => {
            tracing::info!(error = failure::chain(&error), "a connection was refused");
            return Ok(());
        }
    };
    match accepted.alpn {
        Alpn::Api => {
            api::serve(remote, accepted.stream, core.config.deadlines.request, core.stopping.clone()).await;
            Ok(())
        }
        Alpn::Pairing => pairing::serve(core, accepted).await,
        Alpn::Link => {
            let link = match link::accept(accepted, &core.greeting, &deadlines).await {
                Ok(link) => link,
                Err(error) => {
                    tracing::info!(error = failure::chain(&error), "a link was refused");
                    return Ok(());
                }
            };
            match link.purpose {
                Purpose::Control => control::serve(core, link).await,
                Purpose::Migration { id } => destination::serve(core, link, id).await,
                Purpose::Probe | Purpose::Unknown => Ok(()),
            }
        }
    }
}
