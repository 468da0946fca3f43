//! What two Coordinators say to each other. One JSON object per message; bulk data travels beside it, not in it.
//!
//! ```text
//! source                                             destination
//!   FactsRequest ────────────────────────────────────► Facts            (plan: nothing is touched)
//!   Offer ───────────────────────────────────────────► Accept{missing} or Reject
//!   (missing blobs as data) ; Arm ───────────────────► Armed            (or Refused)
//!   (dump as data) ; DumpComplete ───────────────────► Held             (or Refused)
//!   Commit ──────────────────────────────────────────► Running          (or Refused)
//!
//!   at any time before Commit:   Abort ──────────────► Aborted
//!   no copy is left:             Lost ───────────────► State            (version 2; to version 1: Abort)
//!   at any time, either side:    Query ──────────────► State
//! ```
//!
//! **Versions.** Unknown fields are passed over, so fields may be added. A message whose `type` is unknown is an error
//! that names it; new types are only sent to a site whose handshake said that it knows them.
//!
//! **Safety.** Of all this only the [`Word`] of a message ([`PeerMessage::word`]) takes part in the commit. A message
//! may be lost, repeated and overtaken at any time; the rules of [`crate::standing`] hold all the same.

mod key;
mod offer;

use serde::{Deserialize, Serialize};

use crate::action::Word;
use crate::error::{ErrorCode, WireError};
use crate::facts::Answer;
use crate::names::{Bytes, Digest, Epoch, MigrationId, ServiceName};
use crate::plan::{Blocker, SiteFacts};
use crate::policy::Wish;

pub use key::KeyMessage;
pub use offer::{BlobInfo, ImageOffer, Needs, Offer, RestoreRequirements, Sizes};

/// What a message is about. The receiver checks that the migration is known, has this service and this epoch, and
/// belongs to the site that is on the line.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct About {
    /// Which migration.
    pub migration: MigrationId,
    /// Which service.
    pub service: ServiceName,
    /// Its epoch.
    pub epoch: Epoch,
}

/// One message from Coordinator to Coordinator. The field `type` says which.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum PeerMessage {
    /// Source: would you take this service?
    Offer {
        /// What it is about.
        #[serde(flatten)]
        about: About,
        /// The service and what it needs.
        offer: Box<Offer>,
    },
    /// Destination: reserved.
    Accept {
        /// What it is about.
        #[serde(flatten)]
        about: About,
        /// The blobs of the image that are not here yet and have to be sent, in this order.
        missing: Vec<Digest>,
        /// How long the reservation holds, in milliseconds from now, unless HELD is reached.
        lease_ms: u64,
    },
    /// Destination: not with this offer.
    Reject {
        /// What it is about.
        #[serde(flatten)]
        about: About,
        /// Why.
        error: WireError,
        /// The newest epoch of this service that was seen here: the next offer must be newer.
        highest: Epoch,
    },
    /// Source: the image is complete; start what can be started before the freeze.
    Arm {
        /// What it is about.
        #[serde(flatten)]
        about: About,
    },
    /// Destination: everything waits for the dump.
    Armed {
        /// What it is about.
        #[serde(flatten)]
        about: About,
    },
    /// Source: the dump has been sent completely.
    DumpComplete {
        /// What it is about.
        #[serde(flatten)]
        about: About,
        /// Bytes of images, memory and files that were sent, before compression.
        bytes: Bytes,
        /// How many tasks were dumped; HELD counts the restored ones against it.
        tasks: u32,
    },
    /// Destination: HELD(E). The copy stands frozen; it neither runs nor goes away without a word.
    Held {
        /// What it is about.
        #[serde(flatten)]
        about: About,
        /// How many tasks stand frozen.
        tasks: u32,
    },
    /// Source: COMMIT(E) is durable. Run it.
    Commit {
        /// What it is about.
        #[serde(flatten)]
        about: About,
    },
    /// Destination: RUNNING(E) is durable.
    Running {
        /// What it is about.
        #[serde(flatten)]
        about: About,
        /// When the fence was lifted, by the destination's wall clock in milliseconds since 1970; for people only.
        #[serde(default)]
        resumed_at_unix_ms: Option<u64>,
    },
    /// Destination: REFUSED(E) is durable. This site never runs it.
    Refused {
        /// What it is about.
        #[serde(flatten)]
        about: About,
        /// Why.
        error: WireError,
    },
    /// Source: ABORT(E) is durable. Discard it.
    Abort {
        /// What it is about.
        #[serde(flatten)]
        about: About,
        /// Why.
        reason: WireError,
    },
    /// Destination: ABORTED(E) is durable. This site never runs it.
    Aborted {
        /// What it is about.
        #[serde(flatten)]
        about: About,
    },
    /// Source: no copy is left, here or there, and this is durable. A site that knows only version 1 hears `Abort`.
    Lost {
        /// What it is about.
        #[serde(flatten)]
        about: About,
        /// Why.
        reason: WireError,
    },
    /// Either: what does your journal say about this epoch?
    Query {
        /// What it is about.
        #[serde(flatten)]
        about: About,
    },
    /// Either: this is what it says.
    State {
        /// What it is about.
        #[serde(flatten)]
        about: About,
        /// The answer.
        answer: Answer,
    },
    /// Either: what do you have and what can you do? Touches nothing.
    FactsRequest {
        /// The service that somebody thinks of moving.
        service: ServiceName,
        /// Its image.
        image: Digest,
        /// What it would take of the site that is asked, so that its policy can be looked at. A site that does not say
        /// so hears of the policy when it offers the service.
        #[serde(default)]
        wish: Option<Box<Wish>>,
    },
    /// Either: this.
    Facts {
        /// The site.
        site: Box<SiteFacts>,
        /// Whether the image that was asked for is here completely.
        image_present: bool,
        /// What the policy of this site for the asking one has against the service.
        #[serde(default)]
        blockers: Vec<Blocker>,
    },
}

impl PeerMessage {
    /// What the message is about; `None` for the two that belong to no migration.
    pub const fn about(&self) -> Option<&About> {
        match self {
            Self::Offer { about, .. }
            | Self::Accept { about, .. }
            | Self::Reject { about, .. }
            | Self::Arm { about }
            | Self::Armed { about }
            | Self::DumpComplete { about, .. }
            | Self::Held { about, .. }
            | Self::Commit { about }
            | Self::Running { about, .. }
            | Self::Refused { about, .. }
            | Self::Abort { about, .. }
            | Self::Aborted { about }
            | Self::Lost { about, .. }
            | Self::Query { about }
            | Self::State { about, .. } => Some(about),
            Self::FactsRequest { .. } | Self::Facts { .. } => None,
        }
    }

    /// What the message means to the two-party commit; `None` for those that mean nothing to it.
    pub const fn word(&self) -> Option<Word> {
        match self {
            Self::Offer { .. } => Some(Word::Offer),
            Self::Accept { .. } => Some(Word::Accept),
            Self::Reject { highest, .. } => Some(Word::Reject { highest: *highest }),
            Self::Held { .. } => Some(Word::State { answer: Answer::Held }),
            Self::Commit { .. } => Some(Word::Commit),
            Self::Running { .. } => Some(Word::State { answer: Answer::Running }),
            Self::Refused { .. } => Some(Word::State { answer: Answer::Refused }),
            Self::Abort { .. } => Some(Word::Abort),
            Self::Aborted { .. } => Some(Word::State { answer: Answer::Aborted }),
            Self::Lost { .. } => Some(Word::Lost),
            Self::Query { .. } => Some(Word::Query),
            Self::State { answer, .. } => Some(Word::State { answer: *answer }),
            Self::Arm { .. }
            | Self::Armed { .. }
            | Self::DumpComplete { .. }
            | Self::FactsRequest { .. }
            | Self::Facts { .. } => None,
        }
    }

    /// The message that says `word`, for whoever carries out [`crate::action::Action::Tell`]. `None` for an offer and
    /// its acceptance, which need more than a word.
    pub fn saying(about: About, word: Word) -> Option<Self> {
        match word {
            Word::Offer | Word::Accept => None,
            Word::Reject { highest } => {
                let message =
                    format!("cannot take {} with epoch {}: {highest} was seen", about.service, about.epoch);
                Some(Self::Reject { about, error: WireError::new(ErrorCode::EpochTooOld, message), highest })
            }
            Word::Abort => {
                let message = format!("the migration of {} was ended before its commit", about.service);
                Some(Self::Abort { about, reason: WireError::new(ErrorCode::Aborted, message) })
            }
            Word::Commit => Some(Self::Commit { about }),
            Word::Lost => {
                let message = format!("no copy of {} is left", about.service);
                Some(Self::Lost { about, reason: WireError::new(ErrorCode::Lost, message) })
            }
            Word::Query => Some(Self::Query { about }),
            Word::State { answer } => Some(Self::State { about, answer }),
        }
    }
}

#[cfg(test)]
mod tests;
