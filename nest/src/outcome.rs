//! Results of the two streamed operations, dump and restore, which are asked for on a second connection.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use ums_model::error::WireError;
use ums_model::names::Epoch;

/// The last operation's epoch, and its result if it has ended.
type Last<T> = Option<(Epoch, Option<Result<T, WireError>>)>;

/// Result of a streamed operation, which its result request waits for.
pub(crate) struct Outcome<T> {
    last: Mutex<Last<T>>,
    changed: Notify,
}

impl<T: Clone> Outcome<T> {
    pub(crate) fn new() -> Self {
        Self { last: Mutex::new(None), changed: Notify::new() }
    }

    /// The operation starts (again); an earlier result is forgotten.
    pub(crate) fn begin(&self, epoch: Epoch) {
        self.put(epoch, None);
    }

    /// Tells whoever waits for this epoch.
    pub(crate) fn set(&self, epoch: Epoch, result: Result<T, WireError>) {
        self.put(epoch, Some(result));
    }

    fn put(&self, epoch: Epoch, result: Option<Result<T, WireError>>) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((epoch, result));
        self.changed.notify_waiters();
    }

    /// How the operation of `epoch` ended, once it has; it begins within `begin`. `None`: this nest knows of none; it
    /// may have been its predecessor's.
    pub(crate) async fn wait(&self, epoch: Epoch, begin: Duration) -> Option<Result<T, WireError>> {
        let began = self.until(|last| last.is_some_and(|(of, _)| of == epoch).then_some(()));
        tokio::time::timeout(begin, began).await.ok()?;
        self.until(|last| match last {
            Some((of, result)) if of == epoch => result.map(Some),
            // Another epoch's has replaced it.
            _ => Some(None),
        })
        .await
    }

    async fn until<U>(&self, look: impl Fn(Last<T>) -> Option<U>) -> U {
        loop {
            let changed = self.changed.notified();
            let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(found) = look(last) {
                return found;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_result_is_waited_for_only_where_something_is_under_way() {
        let (outcome, at_once) = (Outcome::new(), Duration::ZERO);
        assert!(outcome.wait(Epoch(1), at_once).await.is_none(), "nothing has begun");
        let (found, ()) = tokio::join!(outcome.wait(Epoch(1), SOON), async {
            tokio::task::yield_now().await;
            outcome.begin(Epoch(1));
            tokio::task::yield_now().await;
            outcome.set(Epoch(1), Ok(7));
        });
        assert_eq!(found, Some(Ok(7)));
        assert_eq!(outcome.wait(Epoch(1), SOON).await, Some(Ok(7)), "asked twice");
        assert!(outcome.wait(Epoch(2), at_once).await.is_none(), "of another epoch");
    }
}
