//! Whether a service can move from one site to another, why not, and what it will cost: pure checks over facts that
//! others collected. Looking at a plan touches nothing.
//!
//! Facts are taken at one moment; the same plan is made again right before the freeze. A fact that could not be found
//! out is `None` and leads to a warning, never silently to a yes.

mod blocker;
mod facts;
mod predict;
mod service_checks;
mod site_checks;
mod version;

use serde::{Deserialize, Serialize};

use crate::error::{ErrorCode, WireError};
use crate::names::SiteName;
use crate::phase::{Approach, Mode};
use crate::spec::ServiceSpec;
use crate::text::made_printable;

pub use blocker::{BlockerKind, ProcessBlocker};
pub use facts::{CgroupLayout, LinkFacts, PortInUse, ServiceFacts, SiteFacts};
pub use predict::{
    DUMP_BYTES_PER_S, FIXED_FREEZE_S, FIXED_SETUP_S, Prediction, RESTORE_BYTES_PER_S, ROUND_TRIPS_FROZEN,
    ROUND_TRIPS_SETUP, predict,
};
pub use service_checks::HEADROOM_PERCENT;
pub use version::{CRIU_MIN, RUNC_MIN, Version};

/// The answer to "can it move, and what will it cost?".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Whether nothing blocks.
    pub feasible: bool,
    /// How the state would travel.
    pub mode: Mode,
    /// Every approach, with the reason where it is not open.
    pub approaches: Vec<ApproachPlan>,
    /// Everything that must be put right first. Empty exactly if `feasible`.
    pub blockers: Vec<Blocker>,
    /// What does not prevent the migration but is worth knowing.
    pub warnings: Vec<Warning>,
    /// What it would cost; `None` if it is blocked or the link was not measured.
    #[serde(default)]
    pub predicted: Option<Prediction>,
}

/// One approach and whether it is open to this service between these sites.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApproachPlan {
    /// Which.
    pub approach: Approach,
    /// Whether it is open.
    pub feasibility: Feasibility,
}

/// Whether an approach is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Feasibility {
    /// It is.
    Feasible,
    /// It would be, if the plan's blockers were put right.
    Blocked,
    /// It is not, whatever is put right.
    Unavailable {
        /// Why.
        reason: String,
    },
}

/// One thing that must be put right first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocker {
    /// What kind of failure the migration would end in.
    pub code: ErrorCode,
    /// What is in the way, in plain words.
    #[serde(deserialize_with = "crate::text::read")]
    pub message: String,
    /// What to do about it.
    #[serde(deserialize_with = "crate::text::read")]
    pub remedy: String,
    /// At which site; `None` if it is about both or about the service itself.
    #[serde(default)]
    pub site: Option<SiteName>,
}

impl Blocker {
    /// A blocker with the code's usual remedy.
    pub fn new(code: ErrorCode, site: Option<&SiteName>, message: impl Into<String>) -> Self {
        Self { code, message: made_printable(message), remedy: code.hint().to_owned(), site: site.cloned() }
    }

    /// The same blocker with a better remedy than the code's usual one.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = made_printable(remedy);
        self
    }
}

/// The error with which a migration ends that is not even begun because of this.
impl From<Blocker> for WireError {
    fn from(blocker: Blocker) -> Self {
        Self::new(blocker.code, blocker.message).with_hint(blocker.remedy)
    }
}

/// Something worth knowing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// What, in plain words.
    #[serde(deserialize_with = "crate::text::read")]
    pub message: String,
    /// At which site; `None` if it is about both or about the service itself.
    #[serde(default)]
    pub site: Option<SiteName>,
}

/// Makes the plan of moving the service of `spec` from `source` to `destination`. Reports every blocker it can find,
/// not only the first.
pub fn plan(
    spec: &ServiceSpec,
    service: &ServiceFacts,
    source: &SiteFacts,
    destination: &SiteFacts,
    link: Option<LinkFacts>,
) -> Plan {
    let mut blockers = Vec::new();
    let mut warnings = Vec::new();
    site_checks::each_site(source, &mut blockers, &mut warnings);
    site_checks::each_site(destination, &mut blockers, &mut warnings);
    site_checks::both_sites(source, destination, &mut blockers, &mut warnings);
    service_checks::at_the_source(spec, service, source, &mut blockers, &mut warnings);
    service_checks::at_the_destination(spec, service, destination, &mut blockers);

    let feasible = blockers.is_empty();
    let predicted = match link {
        Some(link) if feasible => predict(service, link),
        _ => None,
    };
    let approaches =
        Approach::ALL.iter().map(|approach| approach_plan(*approach, service, feasible)).collect();
    Plan { feasible, mode: Mode::Cold, approaches, blockers, warnings, predicted }
}

impl Plan {
    /// Adds what a site's policy has against it: a plan that was feasible is not any more.
    pub fn block(&mut self, blockers: impl IntoIterator<Item = Blocker>) {
        self.blockers.extend(blockers);
        if self.blockers.is_empty() {
            return;
        }
        self.feasible = false;
        self.predicted = None;
        for approach in &mut self.approaches {
            if approach.feasibility == Feasibility::Feasible {
                approach.feasibility = Feasibility::Blocked;
            }
        }
    }
}

/// A service lives in one kind of nest; the others are open only to a service that was started in them.
fn approach_plan(approach: Approach, service: &ServiceFacts, feasible: bool) -> ApproachPlan {
    let feasibility = if approach != service.approach {
        Feasibility::Unavailable {
            reason: format!("the service was started at the {} level", service.approach),
        }
    } else if feasible {
        Feasibility::Feasible
    } else {
        Feasibility::Blocked
    };
    ApproachPlan { approach, feasibility }
}

#[cfg(test)]
mod tests;
