//! The restart policy where nobody else can follow it: a service whose keeper has ended, by itself or with its host.
//!
//! A nest restarts its service itself. Without a keeper there is no nest; so each service whose keeper ends is looked at
//! here, and when the daemon starts, each that has none. It is started as a user would start it: with the lane of the
//! service, and only if the journal says that it is at home: that, and not the lane, which a migration that waits for a word
//! gives back, keeps it from being started beside a copy that may run elsewhere. What was moved away, lost or superseded is
//! left alone, and the log says why. The end of a keeper is a failure, whatever the service was about; one that a user has stopped, or that
//! had ended before and was content with that, stays as it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use ums_model::error::{ErrorCode, WireError};
use ums_model::names::ServiceName;
use ums_model::spec::RestartPolicy;
use ums_sites::adapter::{CopyState, ServiceStatus, SiteAdapter};

use crate::core::Core;
use crate::desk::{Hold, Lane};
use crate::services;
use crate::settle::{is_settled, next_pause};
use crate::source::must_be_home;

/// A service that ran this long is taken to have recovered: the next pause is the first again.
const LASTING: Duration = Duration::from_secs(10);

/// So many are started at once: after a boot all of them want to be, and users and migrations want the disk and the
/// processors, too.
const AT_ONCE: usize = 4;

/// What is remembered of a service that was started here a short while ago.
struct Life {
    /// The pause before the next start.
    pause: Duration,
    since: Instant,
}

/// A service that is being started.
struct UnderWay {
    task: tokio::task::Id,
    /// Whether its keeper has ended again meanwhile.
    again: bool,
}

/// Looks after all services for as long as the daemon serves. Every migration stands where the journal says by then.
pub(crate) fn attend<S: SiteAdapter>(core: &Arc<Core<S>>) {
    let core = Arc::clone(core);
    core.tasks.clone().spawn(async move {
        let mut lives = BTreeMap::<ServiceName, Life>::new();
        let mut starts = JoinSet::new();
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut under_way = BTreeMap::<ServiceName, UnderWay>::new();
        let mut found: Vec<ServiceName> = core.desks.all().iter().map(|desk| desk.name().clone()).collect();
        loop {
            for service in found.drain(..) {
                if let Some(start) = under_way.get_mut(&service) {
                    start.again = true;
                    continue;
                }
                lives.retain(|_, life| life.since.elapsed() < LASTING);
                let pause = lives.get(&service).map_or(core.config.deadlines.retry_least, |life| life.pause);
                let (core, places) = (Arc::clone(&core), Arc::clone(&places));
                let name = service.clone();
                let task = starts.spawn(async move {
                    let pause = bring_back(&core, &service, pause, &places).await;
                    (service, pause)
                });
                under_way.insert(name, UnderWay { task: task.id(), again: false });
            }
            tokio::select! {
                biased;
                () = core.stopping.cancelled() => break,
                Some(start) = starts.join_next() => match start {
                    Ok((service, pause)) => {
                        let again = under_way.remove(&service).is_some_and(|start| start.again);
                        found.extend(again.then(|| service.clone()));
                        if let Some(pause) = pause {
                            lives.insert(service, Life { pause, since: Instant::now() });
                        }
                    }
                    Err(error) => {
                        tracing::error!(%error, "the restart of a service has failed");
                        under_way.retain(|_, start| start.task != error.id());
                    }
                },
                service = core.site.keeper_ended() => found.push(service),
            }
        }
        // Nobody begins anything any more; what was begun is brought to its end.
        while starts.join_next().await.is_some() {}
    });
}

/// What came of an attempt.
enum Attempt {
    Started,
    /// Nothing is to be done, now or later.
    Over,
    /// For the end of its migration, and why.
    Waits(WireError),
    /// To be tried again.
    Failed,
}

/// Starts a service whose keeper has ended, if it is to be started: as soon as it may be, and again after each failure,
/// with pauses that double. Answers the pause before the next start, if it was started.
async fn bring_back<S: SiteAdapter>(
    core: &Core<S>,
    service: &ServiceName,
    mut pause: Duration,
    places: &Semaphore,
) -> Option<Duration> {
    let mut waits = false;
    loop {
        // Before the lane is asked for: of most services there is nothing to do.
        match core.within(core.config.deadlines.act, "look at a service", core.site.status(service)).await {
            Ok(status) if !is_wanted(&status) => return None,
            Err(error) if error.code == ErrorCode::ServiceNotFound => return None,
            Ok(_) | Err(_) => {}
        }
        tokio::select! {
            biased;
            () = core.stopping.cancelled() => return None,
            () = tokio::time::sleep(pause) => pause = next_pause(pause, core.config.deadlines.retry_most),
        }
        let desk = core.desks.desk(service);
        let holder = core.holder(None, "being started again", Hold::Brief);
        let lane = match desk.try_take(holder.clone()) {
            Ok(lane) => lane,
            Err(present) => {
                if let Some(migration) = present.migration {
                    tracing::info!(%service, %migration, "the keeper of a service has ended; whether it is started again is seen after its migration");
                }
                tokio::select! {
                    biased;
                    () = core.stopping.cancelled() => return None,
                    lane = desk.wait(holder) => lane,
                }
            }
        };
        // Never closed.
        let _place = places.acquire().await;
        match attempt(core, &lane).await {
            Attempt::Started => return Some(pause),
            Attempt::Over => return None,
            Attempt::Waits(why) if !waits => {
                tracing::warn!(%service, %why, "a service whose keeper has ended is not started again yet");
                waits = true;
            }
            Attempt::Waits(_) | Attempt::Failed => {}
        }
    }
}

async fn attempt<S: SiteAdapter>(core: &Core<S>, lane: &Lane) -> Attempt {
    let (service, standing) = (lane.service(), lane.standing());
    // Again: a user may have had the lane meanwhile.
    let looked = core.site.status(service);
    let status = match core.within(core.config.deadlines.act, "look at a service", looked).await {
        Ok(status) => status,
        Err(error) if error.code == ErrorCode::ServiceNotFound => return Attempt::Over,
        Err(error) => {
            tracing::warn!(%service, %error, "cannot look at a service whose keeper has ended");
            return Attempt::Failed;
        }
    };
    if !is_wanted(&status) {
        return Attempt::Over;
    }
    if let Err(why) = must_be_home(core, &standing, service).await {
        if !is_settled(&standing) {
            return Attempt::Waits(why);
        }
        tracing::warn!(%service, %standing, %why, "a service whose keeper has ended is not started again");
        return Attempt::Over;
    }
    if status.epoch > standing.epoch() {
        tracing::error!(
            %service, %standing, nest = %status.epoch,
            "a service whose keeper has ended is not started again: its nest has seen a newer epoch than the journal"
        );
        return Attempt::Over;
    }
    match services::start_at_home(core, lane).await {
        Ok(status) => {
            let keeper = status.keeper_pid;
            tracing::warn!(%service, keeper, "the keeper of a service had ended: it was started again");
            Attempt::Started
        }
        // Another attempt would hear the same.
        Err(error) if matches!(error.code, ErrorCode::Refused | ErrorCode::InvalidSpec) => {
            tracing::error!(%service, %error, "a service whose keeper has ended cannot be started again");
            Attempt::Over
        }
        Err(error) => {
            tracing::warn!(%service, %error, "cannot start a service again whose keeper has ended");
            Attempt::Failed
        }
    }
}

/// Whether its policy asks for a start.
fn is_wanted(status: &ServiceStatus) -> bool {
    // A nest looks after a service that has ended, but not after one that its new keeper never came to start.
    let is_begun = status.copy == CopyState::Dead && status.exit_code.is_none();
    if status.stopped || (status.keeper_pid.is_some() && !is_begun) {
        return false;
    }
    match status.spec.restart {
        RestartPolicy::No => false,
        RestartPolicy::OnFailure => status.exit_code != Some(0),
        RestartPolicy::Always => true,
    }
}

#[cfg(test)]
mod tests {
    use ums_model::names::Epoch;
    use ums_model::spec::ServiceSpec;

    use super::*;

    #[test]
    fn a_policy_asks_for_a_start_only_without_a_keeper_and_not_against_its_user() {
        let spec: ServiceSpec = serde_json::from_value(serde_json::json!({
            "name": "web", "image": {"name": "redis", "digest": format!("sha256:{}", "0".repeat(64))},
        }))
        .unwrap();
        let status = |restart, keeper_pid, exit_code, stopped| ServiceStatus {
            spec: ServiceSpec { restart, ..spec.clone() },
            copy: CopyState::Dead,
            epoch: Epoch::ZERO,
            pid: None,
            keeper_pid,
            exit_code,
            stopped,
            since_unix_ms: 0,
        };
        use RestartPolicy::{Always, No, OnFailure};
        for (restart, exit_code, wanted) in [
            (No, None, false),
            (No, Some(1), false),
            (OnFailure, None, true),
            (OnFailure, Some(1), true),
            (OnFailure, Some(0), false),
            (Always, None, true),
            (Always, Some(0), true),
        ] {
            assert_eq!(
                is_wanted(&status(restart, None, exit_code, false)),
                wanted,
                "{restart} {exit_code:?}"
            );
            // Its nest looks after it, if it has run.
            assert_eq!(is_wanted(&status(restart, Some(7), exit_code, false)), wanted && exit_code.is_none());
            assert!(!is_wanted(&status(restart, None, exit_code, true)), "its user has stopped it");
        }
    }
}
