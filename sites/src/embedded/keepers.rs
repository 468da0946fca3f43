//! Waiting for the ends of keepers, without looking at them again and again.

use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use ums_engine::process::Process;
use ums_model::names::ServiceName;
use ums_nest::keeper::KeeperId;

/// A keeper that was killed ends only after everything below it, and a frozen copy may do so long after: of that the kernel
/// tells nothing, so such a keeper is looked at. Rare enough to cost nothing.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// All keepers of a site that are waited for.
pub(super) struct Keepers {
    /// Unbounded, but for the number of services.
    new: UnboundedSender<(ServiceName, KeeperId)>,
    waiting: tokio::sync::Mutex<Waiting>,
}

struct Waiting {
    new: UnboundedReceiver<(ServiceName, KeeperId)>,
    ends: JoinSet<ServiceName>,
}

impl Keepers {
    pub(super) fn none() -> Self {
        let (new, receiver) = unbounded_channel();
        let waiting = Waiting { new: receiver, ends: JoinSet::new() };
        Self { new, waiting: tokio::sync::Mutex::new(waiting) }
    }

    /// From now on this keeper is waited for.
    pub(super) fn watch(&self, service: &ServiceName, keeper: KeeperId) {
        // The other half lives as long as this one.
        let _ = self.new.send((service.clone(), keeper));
    }

    /// The next service whose keeper has ended. Each end is told once; nothing is lost when this is dropped and asked again.
    pub(super) async fn next_end(&self) -> ServiceName {
        let mut waiting = self.waiting.lock().await;
        let Waiting { new, ends } = &mut *waiting;
        loop {
            tokio::select! {
                Some((service, keeper)) = new.recv() => {
                    ends.spawn(async move {
                        end(keeper).await;
                        service
                    });
                }
                Some(end) = ends.join_next() => match end {
                    Ok(service) => return service,
                    Err(error) => tracing::error!(%error, "the wait for the end of a keeper has failed"),
                },
            }
        }
    }
}

/// Waits until a keeper has ended, or is ending.
async fn end(keeper: KeeperId) {
    let told = told(keeper);
    tokio::pin!(told);
    while keeper.is_alive() {
        tokio::select! {
            () = &mut told => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Waits until the kernel tells of the end; without end where it cannot.
async fn told(keeper: KeeperId) {
    let Ok(process) = Process::open(keeper.pid) else { return std::future::pending().await };
    // The number may have gone to another process before it was opened.
    if keeper.is_alive() && process.ended().await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[tokio::test]
    async fn each_end_is_told_once_and_at_once() {
        let keepers = Keepers::none();
        let start = |name: &str| {
            let child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
            let id = KeeperId::of(&child.id().to_string()).unwrap();
            keepers.watch(&name.parse().unwrap(), id);
            child
        };
        let (mut one, mut other) = (start("one"), start("other"));
        // Who waits in vain misses nothing later.
        assert!(tokio::time::timeout(Duration::from_millis(20), keepers.next_end()).await.is_err());
        other.kill().unwrap();
        let next = || tokio::time::timeout(LOOK_EVERY / 2, keepers.next_end());
        assert_eq!(next().await.unwrap().as_str(), "other");
        one.kill().unwrap();
        assert_eq!(next().await.unwrap().as_str(), "one");
        // One that had ended before it was watched.
        let gone = KeeperId { start: 0, ..KeeperId::of("self").unwrap() };
        keepers.watch(&"gone".parse().unwrap(), gone);
        assert_eq!(next().await.unwrap().as_str(), "gone");
        let nobody = tokio::time::timeout(Duration::from_millis(20), keepers.next_end()).await;
        assert!(nobody.is_err());
        one.wait().and_then(|_| other.wait()).unwrap();
    }
}
