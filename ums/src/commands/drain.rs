//! Emptying a site: every service that runs there moves to another one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ums_model::error::{ErrorCode, WireError};
use ums_model::text::printable;

use super::standstill::Standstill;
use super::{Context, segment};
use crate::client::CallResult;
use crate::render;

/// Time between two looks at what is under way.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How one service fared.
struct Fate {
    service: String,
    /// `moved`, `failed`, `stuck`, `lost` or `skipped`; of a plan `can-move` or `cannot-move`.
    result: &'static str,
    reason: String,
}

/// `ums drain`. Goes on after a failure. Exit code 0: all moved; 1: some stayed; 3: one is stuck or lost.
pub(crate) async fn drain(
    context: &Context,
    site: &str,
    to: &str,
    parallel: usize,
    plan: bool,
) -> CallResult<u8> {
    let own = context.daemon.get("/v1/site").await?;
    if own["name"] != site {
        let name = own["name"].as_str().unwrap_or_default();
        let message = format!("this command talks to site {name}, not to {site}");
        return Err(WireError::new(ErrorCode::BadRequest, message).with_hint(format!(
            "run it there, or reach it: ums --url HOST:PORT --fingerprint FP drain {site} --to {to}"
        )));
    }
    let mut fates = Vec::new();
    let services = context.daemon.get("/v1/services").await?;
    let mut waiting = VecDeque::new();
    for service in services.as_array().into_iter().flatten() {
        let name = service["spec"]["name"].as_str().unwrap_or_default().to_owned();
        match service["copy"].as_str() {
            Some("running") => waiting.push_back(name),
            state => {
                let reason = format!("it is {} here", state.unwrap_or("unknown"));
                fates.push(Fate { service: name, result: "skipped", reason });
            }
        }
    }
    match plan {
        true => foresee(context, to, waiting, &mut fates).await?,
        false => move_all(context, to, parallel, waiting, &mut fates).await?,
    }
    show(context, site, to, &fates);
    Ok(exit_code(&fates))
}

/// A migration under way.
struct Moving {
    service: String,
    id: String,
    standstill: Standstill,
}

impl Moving {
    fn fate(&mut self, migration: &Value) -> Option<Fate> {
        let stands = self.standstill.look(migration, Instant::now());
        let stuck =
            |error: WireError| Fate { service: self.service.clone(), result: "stuck", reason: error.message };
        fate(&self.service, migration).or_else(|| stands.map(stuck))
    }
}

async fn foresee(
    context: &Context,
    to: &str,
    services: VecDeque<String>,
    fates: &mut Vec<Fate>,
) -> CallResult<()> {
    for service in services {
        let path = format!("/v1/plan?service={}&to={}", segment(&service), segment(to));
        let fate = match context.daemon.get(&path).await {
            Ok(plan) if plan["feasible"] == true => {
                let frozen = plan["predicted"]["frozen_ms"].as_f64().unwrap_or_default();
                Fate { service, result: "can-move", reason: format!("frozen for about {frozen:.0} ms") }
            }
            Ok(plan) => {
                let reason = plan["blockers"][0]["message"].as_str().unwrap_or_default().to_owned();
                Fate { service, result: "cannot-move", reason }
            }
            Err(error) => Fate { service, result: "cannot-move", reason: error.message },
        };
        fates.push(fate);
    }
    Ok(())
}

async fn move_all(
    context: &Context,
    to: &str,
    parallel: usize,
    mut waiting: VecDeque<String>,
    fates: &mut Vec<Fate>,
) -> CallResult<()> {
    let mut moving: Vec<Moving> = Vec::new();
    while !waiting.is_empty() || !moving.is_empty() {
        while moving.len() < parallel
            && let Some(service) = waiting.pop_front()
        {
            let wish = json!({ "service": service, "to": to, "mode": "cold" });
            match context.daemon.post("/v1/migrations", &wish).await {
                Ok(started) => {
                    let id = started["migration"].as_str().unwrap_or_default().to_owned();
                    say(context, &format!("{service} moves: ums watch {id}"));
                    moving.push(Moving { service, id, standstill: Standstill::default() });
                }
                // The site does as much at once as it may; others may have asked it as well.
                Err(error) if error.code == ErrorCode::Busy => {
                    waiting.push_front(service);
                    break;
                }
                Err(error) => fates.push(Fate { service, result: "failed", reason: error.message }),
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
        let mut still = Vec::new();
        for mut one in moving {
            let migration = context.daemon.get(&format!("/v1/migrations/{}", one.id)).await?;
            match one.fate(&migration) {
                Some(fate) => {
                    say(context, &format!("{} {}", fate.service, fate.result));
                    fates.push(fate);
                }
                None => still.push(one),
            }
        }
        moving = still;
    }
    Ok(())
}

/// `None` before its end.
fn fate(service: &str, migration: &Value) -> Option<Fate> {
    let reason = migration["report"]["error"]["message"].as_str().unwrap_or_default().to_owned();
    let result = match (migration["state"].as_str()?, migration["outcome"].as_str()) {
        ("ended", Some("stuck")) => "stuck",
        ("ended", Some("done")) => "moved",
        ("ended", Some("lost")) => "lost",
        ("ended", _) => "failed",
        _ => return None,
    };
    Some(Fate { service: service.to_owned(), result, reason })
}

fn exit_code(fates: &[Fate]) -> u8 {
    let any = |results: &[&str]| fates.iter().any(|fate| results.contains(&fate.result));
    match () {
        () if any(&["stuck", "lost"]) => 3,
        () if any(&["failed", "cannot-move"]) => 1,
        () => 0,
    }
}

fn say(context: &Context, line: &str) {
    if !context.json {
        println!("{line}");
    }
}

fn show(context: &Context, site: &str, to: &str, fates: &[Fate]) {
    if context.json {
        let services: Vec<Value> = fates
            .iter()
            .map(|fate| json!({ "service": fate.service, "result": fate.result, "reason": fate.reason }))
            .collect();
        return render::json(&json!({ "site": site, "to": to, "services": services }));
    }
    println!("\n{site} to {to}: {} services", fates.len());
    let width = fates.iter().map(|fate| fate.service.len()).max().unwrap_or(0);
    for Fate { service, result, reason } in fates {
        println!("{service:width$}  {result:11}  {}", printable(reason));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stuck_weighs_more_than_what_stayed() {
        let fate = |result| Fate { service: "web".into(), result, reason: String::new() };
        assert_eq!(exit_code(&[]), 0);
        assert_eq!(exit_code(&[fate("moved"), fate("skipped"), fate("can-move")]), 0);
        assert_eq!(exit_code(&[fate("moved"), fate("failed")]), 1);
        assert_eq!(exit_code(&[fate("failed"), fate("stuck")]), 3);
        assert_eq!(exit_code(&[fate("lost")]), 3);
    }

    #[test]
    fn a_migration_has_a_fate_when_it_has_ended() {
        let result = |state, outcome: Option<&str>| {
            fate("web", &json!({ "state": state, "outcome": outcome })).map(|fate| fate.result)
        };
        assert_eq!(result("active", None), None);
        assert_eq!(result("in-doubt", None), None);
        assert_eq!(result("stuck", None), None);
        assert_eq!(result("ended", Some("stuck")), Some("stuck"));
        assert_eq!(result("ended", Some("done")), Some("moved"));
        assert_eq!(result("ended", Some("rolled-back")), Some("failed"));
        assert_eq!(result("ended", Some("lost")), Some("lost"));
    }
}
