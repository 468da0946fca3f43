//! Introducing two sites to each other once, over a network that neither trusts.
//!
//! ```text
//! site A: Invite::new(addresses, fingerprint) ── text, by hand or over a channel that the users trust ──► site B
//!
//! B dials A     TLS, ALPN ums-pair/1: B pins A's fingerprint from the invite, A takes any certificate
//! B ──► A       Request { invite id, proof of B, name, addresses }
//!       A       knows the invite? proof right?  dials B's addresses, pinning the fingerprint that B just proved
//!       A       redeems the invite and records B, in one durable step
//! A ──► B       Accepted { proof of A, name, addresses, could dial back }  or  Refused { reason }
//!       B       proof right?  records A
//! ```
//!
//! A proof is an HMAC, keyed with the invite's 128-bit secret, over the role of its maker, both fingerprints and a
//! value that TLS derives from this very session. So it cannot be made without the secret, cannot be replayed in
//! another session, cannot be reflected, and says nothing about the secret to somebody in between, whose
//! fingerprint would be in it.

mod base32;
mod client;
mod invite;
mod message;
mod proof;
mod server;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use ums_model::names::{Fingerprint, SiteName};

pub use client::pair_client;
pub use invite::{InvalidInvite, Invite, InviteId, MAX_ADDRESSES, Secret};
pub use server::{InviteBook, pair_server};

use crate::frame::FrameError;
use crate::tls::TlsError;

/// What a site tells the other one about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// Its name.
    pub name: SiteName,
    /// Where it listens, `host:port`, best first; at most [`MAX_ADDRESSES`]. An unspecified host (`0.0.0.0`, `[::]`)
    /// stands for the address at which the other site sees it.
    pub addresses: Vec<String>,
}

/// A site that was just paired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairedSite {
    /// As it calls itself.
    pub name: SiteName,
    /// By which it is known from now on.
    pub fingerprint: Fingerprint,
    /// Where it says it can be dialed; one that is known to work comes first.
    pub addresses: Vec<String>,
}

/// What a pairing found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paired {
    /// The other site.
    pub site: PairedSite,
    /// We reached it at the first of its addresses.
    pub we_can_dial: bool,
    /// It reached us.
    pub they_can_dial: bool,
}

/// Two sites were not paired. Unless said otherwise nothing was recorded at either, and the invite is still good.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are what the messages say")]
pub enum PairingError {
    /// None of the invite's addresses gave an authenticated connection; this is the last one's failure.
    #[error(transparent)]
    Tls {
        #[from]
        source: TlsError,
    },
    /// The invite has the fingerprint of the site it was given to.
    #[error("this invite is from this site itself; give it to the other one")]
    OwnInvite,
    /// The connection failed during the exchange. If it failed before the last message, the inviting site may have
    /// recorded us; the same invite may be used again by the same site.
    #[error("the pairing exchange with {with} failed")]
    Frame { with: String, source: FrameError },
    /// As [`PairingError::Frame`].
    #[error("the pairing exchange with {with} took longer than {} s", after.as_secs_f32())]
    TimedOut { with: String, after: Duration },
    /// The session gives no value to bind the proofs to.
    #[error("cannot bind the pairing to its connection")]
    Binding { source: rustls::Error },
    /// The inviting site said no.
    #[error("{with} refused the pairing: {reason}")]
    Refused { with: String, reason: Refusal },
    /// We, the inviting site, said no.
    #[error("refused to pair with {with}: {reason}")]
    Refusing { with: String, reason: Refusal },
    /// The inviting site does not know the secret. The identity at its address was the expected one all the same.
    #[error("{with} could not prove that it made this invite")]
    NotProven { with: String },
}

/// Why an inviting site says no.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Refusal {
    /// Never made here, expired, or withdrawn.
    #[error("it does not know this invite; it may have expired")]
    UnknownInvite,
    /// The invite was redeemed by another site.
    #[error("this invite was used before")]
    Used,
    /// The secret is not the invite's.
    #[error("the invite's secret was not proven")]
    WrongProof,
    /// What the site tells about itself is not usable.
    #[error("the site's announcement is not valid: {message}")]
    Announcement {
        /// What is wrong with it.
        message: String,
    },
    /// Anything else that the inviting site has against it, such as a name that is taken.
    #[error("{message}")]
    Other {
        /// In its own words.
        message: String,
    },
}
