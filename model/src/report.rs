//! The numbers of one migration, as they are told at its end and kept in the history.

use serde::{Deserialize, Serialize};

use crate::error::WireError;
use crate::names::{Bytes, Epoch, MigrationId, ServiceName, SiteName};
use crate::phase::{Approach, Mode, Outcome, Phase};

/// How long one phase took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PhaseTime {
    /// Which phase.
    pub phase: Phase,
    /// Milliseconds from its begin to its end, on the source's monotonic clock. Phases may overlap (a dump travels
    /// while it is written), so the sum can exceed the total.
    pub ms: f64,
}

/// All that was measured of one migration, successful or not.
///
/// `frozen_ms` and `downtime_ms` are different things and never stand in for each other: the first is what the sites
/// see, the second what a client saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Which migration.
    pub migration: MigrationId,
    /// Which service.
    pub service: ServiceName,
    /// Its epoch.
    pub epoch: Epoch,
    /// From where.
    pub source: SiteName,
    /// To where.
    pub destination: SiteName,
    /// How the state travelled.
    pub mode: Mode,
    /// On which level.
    pub approach: Approach,
    /// The phases that were entered, in order.
    pub phases: Vec<PhaseTime>,
    /// State to be moved: memory, images and files, before compression and without what the destination had.
    pub bytes_raw: Bytes,
    /// What went over the link for it, both directions, without TLS and TCP headers.
    pub bytes_sent: Bytes,
    /// From the begin of the freeze to the thaw, at whichever site that was. `None` if it was never frozen, or still
    /// is.
    #[serde(default)]
    pub frozen_ms: Option<f64>,
    /// From a client's last reply before to its first reply after, minus its own interval. Only a client can measure
    /// this; `None` means that none did.
    #[serde(default)]
    pub downtime_ms: Option<f64>,
    /// From the request to the end, planning included.
    pub total_ms: f64,
    /// What the plan said `frozen_ms` would be.
    #[serde(default)]
    pub predicted_frozen_ms: Option<f64>,
    /// What the plan said `total_ms` would be.
    #[serde(default)]
    pub predicted_total_ms: Option<f64>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it did not succeed; `None` exactly if the outcome is done.
    #[serde(default)]
    pub error: Option<WireError>,
}

impl Report {
    /// Milliseconds of one phase; `None` if it was not entered.
    pub fn phase_ms(&self, phase: Phase) -> Option<f64> {
        self.phases.iter().find(|time| time.phase == phase).map(|time| time.ms)
    }
}
