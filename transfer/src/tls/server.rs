//! The listening side: one port, three protocols.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{Acceptor, NoServerSessionStorage};
use rustls::sign::SingleCertAndKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use ums_model::names::Fingerprint;

use super::verify::ClientCheck;
use super::{Alpn, TlsError, TlsStream, peer_fingerprint, provider, socket};
use crate::Deadlines;
use crate::identity::Identity;

/// Asks whether the site with this fingerprint is paired. Called in every handshake for [`Alpn::Link`], from within
/// the asynchronous runtime: it must answer from memory.
pub type TrustFn = Arc<dyn Fn(&Fingerprint) -> bool + Send + Sync>;

/// How many bytes of a refused client are read and thrown away while it has the chance to hear why.
const LINGER_BYTES: usize = 64 * 1024;

/// An authenticated connection.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub stream: TlsStream,
    /// What the client wants to speak.
    pub alpn: Alpn,
    /// Who it is. [`Alpn::Link`]: a paired site. [`Alpn::Pairing`]: a stranger. [`Alpn::Api`]: anyone or nobody; it
    /// is **not** checked against the paired sites.
    pub peer: Option<Fingerprint>,
    /// Where it comes from.
    pub address: SocketAddr,
}

/// The server's configurations, one for each protocol. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ServerTls {
    link: Arc<ServerConfig>,
    pairing: Arc<ServerConfig>,
    api: Arc<ServerConfig>,
}

/// Makes the server's configurations. `accept` is asked anew at every connection, so that pairing and revocation take
/// effect at once for new ones; who revokes a site must end its running connections.
pub fn server_config(identity: &Identity, accept: TrustFn) -> Result<ServerTls, TlsError> {
    let any: TrustFn = Arc::new(|_| true);
    Ok(ServerTls {
        link: config(identity, Alpn::Link, true, accept)?,
        pairing: config(identity, Alpn::Pairing, true, Arc::clone(&any))?,
        api: config(identity, Alpn::Api, false, any)?,
    })
}

impl ServerTls {
    /// Does the handshake on a fresh TCP connection. A client that is refused is told so by a TLS alert, before any
    /// byte of a protocol is read from it.
    ///
    /// `Err` concerns this client only. Takes up to `deadlines.tls` (and as long again to take leave of a refused
    /// client), so run it in the connection's own task.
    pub async fn accept(&self, tcp: TcpStream, deadlines: &Deadlines) -> Result<Accepted, TlsError> {
        let address =
            tcp.peer_addr().map_err(|source| TlsError::Unreachable { address: "client".into(), source })?;
        let handshake = timeout(deadlines.tls, self.handshake(tcp, address, deadlines)).await;
        match handshake {
            Ok(Ok(accepted)) => Ok(accepted),
            Ok(Err((error, refused))) => {
                if let Some(tcp) = refused {
                    linger(tcp, deadlines).await;
                }
                Err(error)
            }
            Err(_) => Err(TlsError::TimedOut { address: address.to_string(), after: deadlines.tls }),
        }
    }

    async fn handshake(
        &self,
        tcp: TcpStream,
        address: SocketAddr,
        deadlines: &Deadlines,
    ) -> Result<Accepted, (TlsError, Option<TcpStream>)> {
        let client = address.to_string();
        if let Err(source) = socket::tune(&tcp, deadlines) {
            return Err((TlsError::Handshake { address: client, source }, None));
        }
        let mut hello = LazyConfigAcceptor::new(Acceptor::default(), tcp);
        let start = match (&mut hello).await {
            Ok(start) => start,
            Err(source) => return Err((TlsError::handshake(&client, "TLS 1.3", source), hello.take_io())),
        };
        let alpn = choose(start.client_hello().alpn());
        let config = match alpn {
            Alpn::Link => &self.link,
            Alpn::Pairing => &self.pairing,
            Alpn::Api => &self.api,
        };
        let accept = start.into_stream(Arc::clone(config)).into_fallible();
        let stream = accept
            .await
            .map_err(|(source, tcp)| (TlsError::handshake(&client, alpn.name(), source), Some(tcp)))?;
        let peer = peer_fingerprint(stream.get_ref().1);
        Ok(Accepted { stream: stream.into(), alpn, peer, address })
    }
}

/// The first of our protocols that the client offers. A client that offers none, or none of ours, gets the API's
/// configuration: rustls then goes on without, or refuses.
fn choose<'a>(offered: Option<impl Iterator<Item = &'a [u8]>>) -> Alpn {
    let offered: Vec<&[u8]> = offered.into_iter().flatten().collect();
    let ours = Alpn::ALL.into_iter().find(|alpn| offered.contains(&alpn.name().as_bytes()));
    ours.unwrap_or(Alpn::Api)
}

fn config(
    identity: &Identity,
    alpn: Alpn,
    mandatory: bool,
    accept: TrustFn,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider();
    let check = ClientCheck { mandatory, accept, provider: Arc::clone(&provider) };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| TlsError::Config { source })?
        .with_client_cert_verifier(Arc::new(check))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified())));
    config.alpn_protocols = vec![alpn.name().into()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Closes our direction and waits for the client to close its own. Closing at once with bytes of the client unread
/// would make the kernel reset the connection, and the reset may overtake the alert that says why.
async fn linger(mut tcp: TcpStream, deadlines: &Deadlines) {
    let leave = async {
        tcp.shutdown().await?;
        let mut waste = [0_u8; 4096];
        let mut left = LINGER_BYTES;
        while left > 0 {
            match tcp.read(&mut waste).await? {
                0 => break,
                count => left = left.saturating_sub(count),
            }
        }
        Ok::<_, io::Error>(())
    };
    // The client was refused already; how it takes that changes nothing.
    let _ = timeout(deadlines.tls, leave).await;
}
