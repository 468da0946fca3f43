//! The restart policy: what happens when a service ends by itself. One that ends with its keeper, or with its host, is
//! started again by the site's Coordinator.

use std::sync::Arc;
use std::time::Duration;

use ums_model::spec::RestartPolicy;

use crate::server::Nest;

/// How often the nest looks. A service that crashes costs this much extra time at most.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// First pause before a restart; doubled with every restart that does not last.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A service that ran this long is taken to have recovered.
const LASTING: Duration = Duration::from_secs(10);

/// Watches the service for as long as the nest lives.
pub(crate) async fn watch(nest: Arc<Nest>) {
    let policy = nest.recipe.spec.restart;
    if policy == RestartPolicy::No {
        return;
    }
    let mut pause = FIRST_PAUSE;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(code) = ended(&nest) else { continue };
        if policy == RestartPolicy::OnFailure && code == 0 {
            continue;
        }
        let lasted = Duration::from_millis(crate::keeper::unix_ms().saturating_sub(nest.since()));
        pause = if lasted >= LASTING { FIRST_PAUSE } else { pause };
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        let _life = nest.life.lock().await;
        // Stopped by its owner, or moved away, in the meantime.
        if ended(&nest).is_none() {
            continue;
        }
        if let Err(error) = nest.start().await {
            tracing::warn!(error = %error.message, "cannot restart the service");
        }
    }
}

/// The exit code of a service that ended by itself and may be started; `None` otherwise.
fn ended(nest: &Nest) -> Option<i32> {
    if !nest.record().may_start() || nest.is_stopped() || nest.is_alive() {
        return None;
    }
    nest.exit().map(|exit| exit.code)
}
