//! Why there is no connection, told apart as far as it can be told.

use std::error::Error;
use std::io;
use std::time::Duration;

use rustls::AlertDescription;
use ums_model::names::Fingerprint;

/// A TLS connection could not be made. Nothing was sent or received inside it; safe to try again.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are what the messages say")]
pub enum TlsError {
    /// No TCP connection: the name does not resolve, nobody listens, no answer, no route.
    #[error("cannot reach {address}")]
    Unreachable { address: String, source: io::Error },
    /// Somebody else answers there. Either the address is wrong, or the site has a new identity, or somebody is in
    /// between.
    #[error("wrong identity at {address}: expected fingerprint {expected}, got {got}")]
    WrongIdentity { address: String, expected: Fingerprint, got: Fingerprint },
    /// The other side does not accept our certificate.
    #[error("{address} does not accept this site: not paired")]
    NotPaired { address: String },
    /// As the server: the client holds this identity, which is not accepted.
    #[error("refused {address}: its fingerprint {fingerprint} is not that of a paired site")]
    UnknownSite { address: String, fingerprint: Fingerprint },
    /// As the server: the client shows no certificate where one is needed.
    #[error("refused {address}: it shows no certificate")]
    NoCertificate { address: String },
    /// The other side does not speak the protocol that was asked for: no UMS site, or one of another age.
    #[error("{address} does not speak {protocol}")]
    NoProtocol { address: String, protocol: &'static str },
    /// The TCP connection is there, the handshake is not done in time.
    #[error("the TLS handshake with {address} took longer than {} s", after.as_secs_f32())]
    TimedOut { address: String, after: Duration },
    /// Anything else in the handshake.
    #[error("the TLS handshake with {address} failed")]
    Handshake { address: String, source: io::Error },
    /// The identity does not make a configuration.
    #[error("cannot configure TLS")]
    Config { source: rustls::Error },
}

/// What a certificate check found, handed through rustls inside its own error.
#[derive(Debug, thiserror::Error)]
pub(super) enum Rejected {
    #[error("expected fingerprint {expected}, got {got}")]
    WrongIdentity { expected: Fingerprint, got: Fingerprint },
    #[error("fingerprint {fingerprint} is not accepted")]
    UnknownSite { fingerprint: Fingerprint },
}

impl From<Rejected> for rustls::Error {
    fn from(rejected: Rejected) -> Self {
        let other = rustls::OtherError(std::sync::Arc::new(rejected));
        Self::InvalidCertificate(rustls::CertificateError::Other(other))
    }
}

/// Whether an I/O error on a TLS stream is the other side's word that it does not accept our certificate.
#[must_use]
pub fn refused_by_peer(error: &io::Error) -> bool {
    use AlertDescription as Alert;
    matches!(
        tls_error(error),
        Some(rustls::Error::AlertReceived(
            Alert::CertificateUnknown
                | Alert::CertificateRequired
                | Alert::AccessDenied
                | Alert::BadCertificate
                | Alert::UnknownCA
        ))
    )
}

impl TlsError {
    /// Sorts a failed handshake with `address`, in which `protocol` was asked for.
    pub(super) fn handshake(address: &str, protocol: &'static str, source: io::Error) -> Self {
        let address = address.to_owned();
        if refused_by_peer(&source) {
            return Self::NotPaired { address };
        }
        match tls_error(&source) {
            Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => {
                Self::NoProtocol { address, protocol }
            }
            Some(rustls::Error::NoCertificatesPresented) => Self::NoCertificate { address },
            Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other))) => {
                match other.0.downcast_ref::<Rejected>() {
                    Some(&Rejected::WrongIdentity { expected, got }) => {
                        Self::WrongIdentity { address, expected, got }
                    }
                    Some(&Rejected::UnknownSite { fingerprint }) => {
                        Self::UnknownSite { address, fingerprint }
                    }
                    None => Self::Handshake { address, source },
                }
            }
            _ => Self::Handshake { address, source },
        }
    }
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    let inner: &(dyn Error + 'static) = error.get_ref()?;
    inner.downcast_ref()
}
