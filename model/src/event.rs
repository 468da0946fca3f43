//! What a migration tells whoever watches it: one event per change, numbered, replayable.

use serde::{Deserialize, Serialize};

use crate::names::{Bytes, Epoch, MigrationId, ServiceName};
use crate::phase::{Outcome, Phase};
use crate::report::Report;

/// One event of one migration. `seq` counts from 1 without gaps per migration, so a watcher that comes late or was
/// cut off can ask for what it missed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MigrationEvent {
    /// Number of the event within its migration, from 1.
    pub seq: u64,
    /// Which migration.
    pub migration: MigrationId,
    /// Which service moves.
    pub service: ServiceName,
    /// Its epoch.
    pub epoch: Epoch,
    /// Wall clock of the site that tells it, in milliseconds since 1970. For people: no decision rests on it.
    pub at_unix_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened. On the wire the field `event` says which.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum EventKind {
    /// A phase began.
    PhaseStarted {
        /// Which.
        phase: Phase,
    },
    /// A phase ended well.
    PhaseDone {
        /// Which.
        phase: Phase,
        /// How long it took, in milliseconds.
        ms: f64,
        /// How many bytes it moved, where it moved any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bytes: Option<Bytes>,
    },
    /// A phase that moves bytes got further.
    Progress {
        /// Which.
        phase: Phase,
        /// Bytes moved so far.
        done: Bytes,
        /// Bytes to move, as far as known; never less than `done`.
        total: Bytes,
    },
    /// Something worth telling that fits nowhere else.
    Note {
        /// One sentence for people.
        #[serde(deserialize_with = "crate::text::read")]
        text: String,
    },
    /// The last event of every migration.
    Ended {
        /// How it ended.
        outcome: Outcome,
        /// All its numbers.
        report: Box<Report>,
    },
    /// An event of a newer version that this one does not know. Never made, only read; to be passed over.
    #[serde(other)]
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: EventKind) -> MigrationEvent {
        MigrationEvent {
            seq: 3,
            migration: MigrationId::new(uuid::Uuid::from_u128(5)),
            service: "web".parse().unwrap(),
            epoch: Epoch(2),
            at_unix_ms: 1_700_000_000_000,
            kind,
        }
    }

    #[test]
    fn events_are_flat_objects() {
        let done = event(EventKind::PhaseDone { phase: Phase::Dump, ms: 12.5, bytes: Some(Bytes(7)) });
        let json = serde_json::to_value(&done).unwrap();
        assert_eq!(json["event"], "phase-done");
        assert_eq!(json["phase"], "dump");
        assert_eq!(json["bytes"], 7);
        assert_eq!(json["epoch"], 2);
        assert_eq!(serde_json::from_value::<MigrationEvent>(json).unwrap(), done);
    }

    #[test]
    fn an_event_of_a_newer_version_is_passed_over() {
        let mut json = serde_json::to_value(event(EventKind::Note { text: "x".into() })).unwrap();
        json["event"] = "warped".into();
        json["extra"] = 1.into();
        assert_eq!(serde_json::from_value::<MigrationEvent>(json).unwrap().kind, EventKind::Unknown);
    }
}
