//! A deadline that a caller cannot reset by asking again.

use std::time::Duration;

use tokio::time::{Instant, timeout};

/// How long to wait for a sign of the other side. A caller that drops a wait and starts it anew every second (in a
/// `select!` with a ticker, say) must not wait for ever: what was waited before counts. What the caller did between
/// two waits does not count, because nobody was looking then.
#[derive(Debug)]
pub(super) struct Patience {
    limit: Duration,
    spent: Duration,
}

impl Patience {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, spent: Duration::ZERO }
    }

    /// Awaits a sign. `Err`: patience is exhausted; holds the limit. Cancel safe if `sign` is.
    pub(super) async fn wait<T>(&mut self, sign: impl Future<Output = T>) -> Result<T, Duration> {
        let sign = self.spend(sign).await?;
        self.renew();
        Ok(sign)
    }

    /// [`Patience::wait`] for a sign that may be worth nothing: only [`Patience::renew`] gives new patience.
    pub(super) async fn spend<T>(&mut self, sign: impl Future<Output = T>) -> Result<T, Duration> {
        let left = self.limit.saturating_sub(self.spent);
        let meter = Meter { spent: &mut self.spent, since: Instant::now() };
        let waited = timeout(left, sign).await;
        drop(meter);
        waited.map_err(|_| self.limit)
    }

    /// What was waited for until now does not count any more.
    pub(super) fn renew(&mut self) {
        self.spent = Duration::ZERO;
    }
}

/// Adds the time until it is dropped, which is also when the wait is.
struct Meter<'a> {
    spent: &'a mut Duration,
    since: Instant,
}

impl Drop for Meter<'_> {
    fn drop(&mut self) {
        *self.spent += self.since.elapsed();
    }
}
