//! TLS 1.3 between sites: mutual authentication by pinned fingerprints, no authority, no names, no expiry.
//!
//! One port serves three protocols, told apart by ALPN before any certificate is asked for:
//!
//! | ALPN | for | the client's certificate | the server's certificate |
//! | --- | --- | --- | --- |
//! | `ums/1` | [`crate::link`] | required, and its fingerprint must be accepted | the client pins it |
//! | `ums-pair/1` | [`crate::pairing`] | required, any: the invite decides | the client pins it, from the invite |
//! | `http/1.1`, or none | the site's API | optional; **any** that is shown is reported, the API decides | the client pins it (browsers: as they like) |
//!
//! Whoever shows a certificate proves that it holds the key; that check is the provider's and never left out.
//! Sessions are not resumed and there is no early data, so that a revoked fingerprint is out at its next connection.
//!
//! In TLS 1.3 a client is done with the handshake before the server has looked at its certificate. A refusal
//! therefore reaches the client as an alert at its first *read*; [`refused_by_peer`] recognises it.

mod client;
mod error;
mod server;
mod socket;
mod verify;

use std::sync::{Arc, OnceLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio::net::TcpStream;
use ums_model::names::Fingerprint;

pub use client::{Dial, connect, reachable};
pub use error::{TlsError, refused_by_peer};
pub use server::{Accepted, ServerTls, TrustFn, server_config};
pub(crate) use socket::host_port;

/// An encrypted connection between two sites.
pub type TlsStream = tokio_rustls::TlsStream<TcpStream>;

/// What is spoken inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// Frames between two paired sites.
    Link,
    /// The pairing of two sites.
    Pairing,
    /// The site's API.
    Api,
}

impl Alpn {
    /// In the order of preference, should a client offer several.
    const ALL: [Self; 3] = [Self::Link, Self::Pairing, Self::Api];

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Link => "ums/1",
            Self::Pairing => "ums-pair/1",
            Self::Api => "http/1.1",
        }
    }
}

/// The one provider, passed to every configuration. A process-wide default would be up to whoever comes first.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let make = || {
        Arc::new(CryptoProvider {
            // The hybrid first: what crosses is the memory of services, and a recording of it keeps its value.
            kx_groups: vec![
                aws_lc_rs::kx_group::X25519MLKEM768,
                aws_lc_rs::kx_group::X25519,
                aws_lc_rs::kx_group::SECP256R1,
            ],
            ..aws_lc_rs::default_provider()
        })
    };
    Arc::clone(PROVIDER.get_or_init(make))
}

/// Who is at the other end, if it showed a certificate.
fn peer_fingerprint(connection: &rustls::CommonState) -> Option<Fingerprint> {
    connection.peer_certificates()?.first().map(crate::identity::fingerprint_of)
}
