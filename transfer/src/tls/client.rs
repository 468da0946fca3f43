//! The dialing side.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use ums_model::names::Fingerprint;

use super::verify::ServerCheck;
use super::{Alpn, TlsError, TlsStream, provider, socket};
use crate::Deadlines;
use crate::identity::{CERTIFICATE_NAME, Identity};

/// What to dial for, and whom to expect there. There is no way to dial without knowing whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dial {
    /// A paired site, for frames.
    Link(Fingerprint),
    /// A site to be paired; the invite tells its fingerprint.
    Pair(Fingerprint),
    /// A site's API.
    Api(Fingerprint),
}

impl Dial {
    fn alpn(self) -> Alpn {
        match self {
            Self::Link(_) => Alpn::Link,
            Self::Pair(_) => Alpn::Pairing,
            Self::Api(_) => Alpn::Api,
        }
    }

    fn expected(self) -> Fingerprint {
        let (Self::Link(fingerprint) | Self::Pair(fingerprint) | Self::Api(fingerprint)) = self;
        fingerprint
    }
}

/// Authenticates whom `dial` names, by fingerprint alone.
fn client_config(identity: &Identity, dial: Dial) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let check = ServerCheck { expected: dial.expected(), provider: Arc::clone(&provider) };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| TlsError::Config { source })?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(check))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified())));
    config.alpn_protocols = vec![dial.alpn().name().into()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Dials `address` (`host:port`) and authenticates the server.
///
/// `Ok`: the server proved the expected identity. Whether it accepts *ours* shows at the first read, as in every
/// TLS 1.3 connection ([`super::refused_by_peer`]). `Err`: nothing was exchanged; safe to repeat.
pub async fn connect(
    address: &str,
    identity: &Identity,
    dial: Dial,
    deadlines: &Deadlines,
) -> Result<TlsStream, TlsError> {
    let connector = TlsConnector::from(client_config(identity, dial)?);
    let name = ServerName::try_from(CERTIFICATE_NAME).expect("a constant DNS name");
    let tcp = socket::dial(address, deadlines).await?;
    let protocol = dial.alpn().name();
    let stream = timeout(deadlines.tls, connector.connect(name, tcp))
        .await
        .map_err(|_| TlsError::TimedOut { address: address.to_owned(), after: deadlines.tls })?
        .map_err(|source| TlsError::handshake(address, protocol, source))?;
    let (_, connection) = stream.get_ref();
    // A server without ALPN answers without choosing; it is none of ours.
    if connection.alpn_protocol() != Some(protocol.as_bytes()) {
        return Err(TlsError::NoProtocol { address: address.to_owned(), protocol });
    }
    Ok(stream.into())
}

/// Whether a site with this identity answers at `address`. It need not know us yet: the connection is one for
/// pairing, closed at once. Safe to repeat.
pub async fn reachable(
    address: &str,
    identity: &Identity,
    expected: Fingerprint,
    deadlines: &Deadlines,
) -> Result<(), TlsError> {
    let mut stream = connect(address, identity, Dial::Pair(expected), deadlines).await?;
    // Courtesy only; what was asked is answered.
    let _ = timeout(deadlines.tls, stream.shutdown()).await;
    Ok(())
}
