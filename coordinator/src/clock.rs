//! The two clocks that are looked at, and what each is good for.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

/// How far this process's wall clock was moved on purpose, in milliseconds; see [`crate::fault`].
static MOVED: AtomicI64 = AtomicI64::new(0);

/// Wall clock in milliseconds since 1970: for people, and for the expiry of invites. No decision about a service
/// rests on it.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let true_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    true_ms.saturating_add_signed(MOVED.load(Ordering::Relaxed))
}

/// Moves the wall clock of this process by `seconds`, as an administrator or a bad time server would.
pub(crate) fn jump(seconds: i64) {
    MOVED.fetch_add(seconds.saturating_mul(1000), Ordering::Relaxed);
}

/// CLOCK_BOOTTIME of this host in milliseconds: what a nest stamps the begin of a freeze with. It is never compared
/// with another host's.
pub(crate) fn boot_ms() -> f64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec as f64 * 1e3 + now.tv_nsec as f64 / 1e6
}

/// A duration as reports tell it.
pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
