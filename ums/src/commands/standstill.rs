//! When a command stops waiting for a migration that does not go on.

use std::time::{Duration, Instant};

use serde_json::Value;
use ums_model::error::{ErrorCode, WireError};

use super::{Context, segment};

/// Time between two looks at a migration that tells its events by itself.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a migration may be stuck before nobody waits for it any more: it may only be that the other site comes back.
const STUCK: Duration = Duration::from_secs(10);

/// How long a commit may be in doubt before nobody waits for it any more.
const IN_DOUBT: Duration = Duration::from_secs(60);

/// Since when a migration stands still, as far as it was looked at.
#[derive(Default)]
pub(crate) struct Standstill(Option<(String, Instant)>);

impl Standstill {
    /// Whether `migration`, as the API tells it at `now`, has stood still for so long that waiting is no use.
    pub(crate) fn look(&mut self, migration: &Value, now: Instant) -> Option<WireError> {
        let text = |field: &str| migration[field].as_str().unwrap_or_default().to_owned();
        let (state, service, id) = (text("state"), text("service"), text("migration"));
        let (patience, code, why, next) = match state.as_str() {
            "stuck" if migration["alarm"] == "blocked" => (
                STUCK,
                ErrorCode::Stuck,
                "stands still: what has to be done at this site fails and is tried again; its notes say why",
                format!("ums watch {id}, which begins with them"),
            ),
            "stuck" => (
                STUCK,
                ErrorCode::Stuck,
                "is stuck: nobody may run the service before the other site answers or an operator decides",
                format!(
                    "ums status {service}, and if the other site cannot help: ums resolve {service} --help"
                ),
            ),
            "in-doubt" => (
                IN_DOUBT,
                ErrorCode::InDoubt,
                "is committed, and the destination does not answer; it goes on by itself",
                format!("ums watch {id}"),
            ),
            _ => {
                self.0 = None;
                return None;
            }
        };
        match &self.0 {
            Some((before, since)) if *before == state => {
                let message = format!("the migration of {service} {why}");
                (now.duration_since(*since) >= patience)
                    .then(|| WireError::new(code, message).with_hint(next))
            }
            _ => {
                self.0 = Some((state, now));
                None
            }
        }
    }
}

/// Ready when migration `id` has stood still for too long, with what to say about it.
pub(crate) async fn of(context: &Context, id: &str) -> WireError {
    let path = format!("/v1/migrations/{}", segment(id));
    let mut standstill = Standstill::default();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        // A daemon that does not answer is noticed by whoever reads the events.
        if let Ok(migration) = context.daemon.get(&path).await
            && let Some(error) = standstill.look(&migration, Instant::now())
        {
            return error;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_stands_still_for_long_is_given_up() {
        let begin = Instant::now();
        let mut standstill = Standstill::default();
        let mut look = |state: &str, after: Duration| {
            let migration = json!({ "state": state, "service": "web", "migration": "7" });
            standstill.look(&migration, begin + after).map(|error| error.code)
        };
        assert_eq!(look("active", Duration::ZERO), None);
        assert_eq!(look("stuck", STUCK * 2), None);
        assert_eq!(look("stuck", STUCK * 2 + STUCK / 2), None);
        assert_eq!(look("stuck", STUCK * 3), Some(ErrorCode::Stuck));
        // Another standstill begins anew.
        assert_eq!(look("in-doubt", STUCK * 3), None);
        assert_eq!(look("in-doubt", STUCK * 4), None);
        assert_eq!(look("active", STUCK * 5), None);
        assert_eq!(look("in-doubt", STUCK * 5), None);
        assert_eq!(look("in-doubt", STUCK * 5 + IN_DOUBT), Some(ErrorCode::InDoubt));
    }
}
