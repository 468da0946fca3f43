//! What a cold migration costs, from sizes and a link.

use serde::{Deserialize, Serialize};

use super::{LinkFacts, ServiceFacts};
use crate::names::Bytes;

// The constants were measured once, on two cores with all images in tmpfs. They stand in for a site's own history and
// cover CRIU and the copies through memory; they do not cover swapping or a busy machine.

/// Bytes per second at which a frozen tree is dumped.
pub const DUMP_BYTES_PER_S: f64 = 1.2e9;
/// Bytes per second at which a tree is restored.
pub const RESTORE_BYTES_PER_S: f64 = 0.5e9;
/// Seconds of every freeze that do not depend on size: seize, network, process tree, commit records, thaw.
pub const FIXED_FREEZE_S: f64 = 0.4;
/// Seconds before the freeze and after the resume that do not depend on size: plan, reserve, arm, release.
pub const FIXED_SETUP_S: f64 = 1.0;
/// Round trips inside the freeze: end of dump and HELD, COMMIT and RUNNING.
pub const ROUND_TRIPS_FROZEN: f64 = 2.0;
/// Round trips outside of it: handshake, facts, offer, image, arm.
pub const ROUND_TRIPS_SETUP: f64 = 6.0;

/// What a migration is expected to cost. An estimate from sizes; what was measured stands in the report.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// From freeze to resume, in milliseconds. A client sees more: its own round trip and its reconnect.
    pub frozen_ms: f64,
    /// From the request to the end, in milliseconds.
    pub total_ms: f64,
    /// What goes over the link, uncompressed.
    pub bytes: Bytes,
}

/// The cost of a cold migration: memory and files travel while the service is frozen, a missing image before.
/// `None` if the link's numbers make no sense.
pub fn predict(service: &ServiceFacts, link: LinkFacts) -> Option<Prediction> {
    let sane = link.bytes_per_s.is_finite()
        && link.bytes_per_s > 0.0
        && link.rtt_ms.is_finite()
        && link.rtt_ms >= 0.0;
    if !sane {
        return None;
    }
    let image = if service.image_at_destination { Bytes::ZERO } else { service.image_bytes };
    let memory_s = |rate: f64| service.memory.get() as f64 / rate;
    let link_s = |bytes: Bytes| bytes.get() as f64 / link.bytes_per_s;

    let rtt_s = link.rtt_ms / 1000.0;
    let frozen_s = memory_s(DUMP_BYTES_PER_S)
        + link_s(service.memory + service.files)
        + memory_s(RESTORE_BYTES_PER_S)
        + FIXED_FREEZE_S
        + ROUND_TRIPS_FROZEN * rtt_s;
    let total_s = frozen_s + link_s(image) + FIXED_SETUP_S + ROUND_TRIPS_SETUP * rtt_s;
    Some(Prediction {
        frozen_ms: frozen_s * 1000.0,
        total_ms: total_s * 1000.0,
        bytes: service.memory + service.files + image,
    })
}
