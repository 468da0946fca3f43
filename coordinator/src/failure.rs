//! From the errors inside to the one that users and other sites see: which code, and in whose words.

use std::time::Duration;

use ums_model::IllegalEvent;
use ums_model::error::{ErrorCode, WireError};
use ums_model::names::{ServiceName, SiteName};
use ums_transfer::archive::{ArchiveError, RelayError};
use ums_transfer::frame::FrameError;
use ums_transfer::link::LinkError;
use ums_transfer::pairing::PairingError;
use ums_transfer::tls::TlsError;

use crate::journal::JournalError;

pub(crate) use ums_model::error::chain;

/// The journal cannot be relied on: whatever was to follow does not.
pub(crate) fn journal(error: &JournalError) -> WireError {
    match error {
        JournalError::Closed => WireError::new(ErrorCode::Busy, chain(error)),
        JournalError::Full { .. } => WireError::new(ErrorCode::DiskTooSmall, chain(error)).with_hint(
            "make room on the disk of the site's state directory, then try again; see: ums doctor",
        ),
        _ => WireError::new(ErrorCode::Internal, chain(error)),
    }
}

/// The rules forbid a record: a defect, or a journal that was tampered with.
pub(crate) fn illegal(error: &IllegalEvent) -> WireError {
    WireError::new(ErrorCode::Internal, error.to_string())
}

/// No link to `site`.
pub(crate) fn no_link(site: &SiteName, error: &LinkError) -> WireError {
    let message = format!("cannot connect to site {site}: {}", chain(error));
    match error {
        LinkError::Tls { source } => tls(source, message),
        LinkError::Frame { .. } => WireError::new(ErrorCode::Unreachable, message),
        LinkError::TimedOut { .. } => WireError::new(ErrorCode::Unreachable, message),
        LinkError::NoCommonVersion { .. } => WireError::new(ErrorCode::Unsupported, message)
            .with_hint("bring the older of the two sites up to date; see which: ums --version"),
        LinkError::UnknownPurpose { .. } | LinkError::NoAnswer { .. } => {
            WireError::new(ErrorCode::Unsupported, message)
        }
    }
}

fn tls(error: &TlsError, message: String) -> WireError {
    let code = match error {
        TlsError::WrongIdentity { .. } => ErrorCode::WrongIdentity,
        TlsError::NotPaired { .. } | TlsError::UnknownSite { .. } | TlsError::NoCertificate { .. } => {
            ErrorCode::NotPaired
        }
        TlsError::Unreachable { .. } | TlsError::TimedOut { .. } => ErrorCode::Unreachable,
        TlsError::NoProtocol { .. } | TlsError::Handshake { .. } => ErrorCode::Unreachable,
        TlsError::Config { .. } => ErrorCode::Internal,
    };
    WireError::new(code, message)
}

/// Two sites were not paired.
pub(crate) fn pairing(error: &PairingError) -> WireError {
    let message = format!("cannot pair: {}", chain(error));
    match error {
        PairingError::Tls { source } => tls(source, message),
        PairingError::OwnInvite => WireError::new(ErrorCode::BadRequest, message),
        PairingError::Frame { .. } => WireError::new(ErrorCode::LinkCut, message),
        PairingError::TimedOut { .. } => WireError::new(ErrorCode::Timeout, message),
        PairingError::Binding { .. } => WireError::new(ErrorCode::Internal, message),
        PairingError::Refused { .. } | PairingError::Refusing { .. } => {
            WireError::new(ErrorCode::Refused, message)
                .with_hint("make a new invite at the other site: ums pair")
        }
        PairingError::NotProven { .. } => WireError::new(ErrorCode::WrongIdentity, message),
    }
}

/// A link to `site` failed in the middle, while `doing` something.
pub(crate) fn cut(site: &SiteName, doing: &str, error: &FrameError) -> WireError {
    let message = format!("the link to site {site} failed while {doing}: {}", chain(error));
    match error {
        // Alive, but without the answer: it is late, not gone.
        FrameError::Silent { .. } | FrameError::NoProgress { .. } => {
            WireError::new(ErrorCode::Timeout, message)
        }
        _ => WireError::new(ErrorCode::LinkCut, message),
    }
}

/// An archive to or from `site` did not arrive.
pub(crate) fn archive(site: &SiteName, doing: &str, error: &ArchiveError) -> WireError {
    match error {
        ArchiveError::Frame { source } => cut(site, doing, source),
        _ => WireError::new(
            ErrorCode::LinkCut,
            format!("the stream with site {site} failed while {doing}: {}", chain(error)),
        ),
    }
}

/// A stream between a nest and `site` did not get through. `incoming` is the code if the side that it came from is to
/// blame, `outgoing` if the side that it went to is.
pub(crate) fn relay(doing: &str, error: &RelayError, incoming: ErrorCode, outgoing: ErrorCode) -> WireError {
    let code = match error {
        RelayError::Incoming { .. } => incoming,
        RelayError::Outgoing { .. } => outgoing,
    };
    WireError::new(code, format!("the stream broke while {doing}: {}", chain(error)))
}

/// Something was not done in time.
pub(crate) fn late(doing: &str, after: Duration) -> WireError {
    WireError::new(
        ErrorCode::Timeout,
        format!("cannot {doing}: it took longer than {} s", after.as_secs_f32()),
    )
}

/// There is no such service here.
pub(crate) fn no_service(service: &ServiceName, site: &SiteName) -> WireError {
    WireError::new(ErrorCode::ServiceNotFound, format!("there is no service {service} at site {site}"))
}

/// What began as `cause` has left no copy at either site.
pub(crate) fn no_copy_left(service: &ServiceName, cause: WireError) -> WireError {
    match cause.code {
        ErrorCode::Lost => cause,
        _ => WireError::new(
            ErrorCode::Lost,
            format!("no copy of {service} is left at either site: {}", cause.message),
        ),
    }
}
