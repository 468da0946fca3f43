//! The host's clock, the same for all sites of a lab.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Time since the machine booted, suspended time included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Boottime(pub Duration);

impl Boottime {
    /// Now.
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).expect("time since boot is not negative");
        let nanos = u32::try_from(now.tv_nsec).expect("less than a second");
        Self(Duration::new(seconds, nanos))
    }
}
