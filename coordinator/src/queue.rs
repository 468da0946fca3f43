//! Whose turn it is: only so many migrations leave a site at once, the next ones wait, first come, first served.
//!
//! What waits has written nothing but that somebody may ask for it. A daemon that ends forgets it, and its history says
//! so. Only departures wait here; a site that has enough arrivals says `busy`, and the source offers again. Arrivals are
//! counted apart from departures: two sites that fill each other up would otherwise wait for each other for ever.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use ums_model::error::{ErrorCode, WireError};
use ums_model::names::MigrationId;

/// The departures of a site. Clones are the same queue.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// How many may be under way.
    most: usize,
    /// How many may wait.
    room: usize,
    state: Mutex<State>,
    moved: Notify,
}

#[derive(Debug, Default)]
struct State {
    under_way: usize,
    /// Who waits, first come first.
    waiting: VecDeque<MigrationId>,
}

/// A place in the queue, and then among those under way. Given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    inner: Arc<Inner>,
    id: MigrationId,
    under_way: bool,
}

impl Queue {
    /// Lets `most` migrations leave at once, and `room` more wait.
    pub(crate) fn new(most: NonZeroUsize, room: usize) -> Self {
        let inner = Inner { most: most.get(), room, state: Mutex::default(), moved: Notify::new() };
        Self { inner: Arc::new(inner) }
    }

    /// Takes the last place. `Err`: there is none left.
    pub(crate) fn join(&self, id: MigrationId) -> Result<Place, WireError> {
        let Inner { most, room, .. } = &*self.inner;
        let mut state = self.inner.state();
        if state.under_way + state.waiting.len() >= most.saturating_add(*room) {
            let message = format!(
                "{} migrations leave this site and {} more wait, which is as many as it allows",
                state.under_way,
                state.waiting.len()
            );
            let hint =
                "wait for one of them to end: ums history; or raise `queue` in [limits] of its configuration";
            return Err(WireError::new(ErrorCode::Busy, message).with_hint(hint));
        }
        state.waiting.push_back(id);
        Ok(Place { inner: Arc::clone(&self.inner), id, under_way: false })
    }

    /// How many are before a migration that waits; `None` if it does not.
    pub(crate) fn before(&self, id: MigrationId) -> Option<usize> {
        let state = self.inner.state();
        let free = self.inner.most - state.under_way;
        let place = state.waiting.iter().position(|waiting| *waiting == id)?;
        // Whoever could go this very moment does not wait, also if its task has not run yet.
        (place >= free).then_some(place)
    }
}

impl Place {
    /// Waits until it is this one's turn. Dropping the future keeps the place; safe to repeat.
    pub(crate) async fn turn(&mut self) {
        while !self.under_way {
            let moved = Arc::clone(&self.inner);
            let mut moved = std::pin::pin!(moved.moved.notified());
            // Before the look: what moves in between is not missed.
            moved.as_mut().enable();
            if self.go() {
                // Where two may go at once, the second has to look again.
                self.inner.moved.notify_waiters();
                return;
            }
            moved.await;
        }
    }

    fn go(&mut self) -> bool {
        let mut state = self.inner.state();
        if state.under_way < self.inner.most && state.waiting.front() == Some(&self.id) {
            state.waiting.pop_front();
            state.under_way += 1;
            self.under_way = true;
        }
        self.under_way
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.inner.state();
        if self.under_way {
            state.under_way -= 1;
        } else {
            state.waiting.retain(|waiting| *waiting != self.id);
        }
        drop(state);
        self.inner.moved.notify_waiters();
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn id(number: u128) -> MigrationId {
        MigrationId::new(uuid::Uuid::from_u128(number))
    }

    fn queue(most: usize, room: usize) -> Queue {
        Queue::new(NonZeroUsize::new(most).unwrap(), room)
    }

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn who_comes_first_goes_first_whoever_asks_first() {
        let queue = queue(1, 2);
        let mut places: Vec<Place> = (0..3).map(|n| queue.join(id(n)).unwrap()).collect();
        let error = queue.join(id(9)).unwrap_err();
        assert!(error.code == ErrorCode::Busy && error.retryable && error.hint.contains("queue"), "{error}");
        let [first, second, third] = &mut places[..] else { panic!() };
        let mut last = Box::pin(third.turn());
        assert!(poll(last.as_mut()).is_pending());
        assert!(poll(std::pin::pin!(first.turn())).is_ready());
        assert_eq!((queue.before(id(0)), queue.before(id(1)), queue.before(id(2))), (None, Some(0), Some(1)));
        assert!(poll(std::pin::pin!(second.turn())).is_pending());
        drop(last);
        // The one in the middle gives up, the first ends.
        places.remove(1);
        assert_eq!(queue.before(id(2)), Some(0));
        places.remove(0);
        assert_eq!(queue.before(id(2)), None, "it may go");
        assert!(poll(std::pin::pin!(places[0].turn())).is_ready());
    }

    #[tokio::test]
    async fn nobody_is_forgotten() {
        let queue = queue(2, 100);
        let tasks = (0..100).map(|n| {
            let mut place = queue.join(id(n)).unwrap();
            tokio::spawn(async move {
                place.turn().await;
                tokio::task::yield_now().await;
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            tokio::time::timeout(std::time::Duration::from_secs(60), task).await.unwrap().unwrap();
        }
        assert_eq!(queue.inner.state().under_way, 0);
    }
}
