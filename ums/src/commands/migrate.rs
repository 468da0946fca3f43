//! Migrations: plan, start, watch, give up, look back.

use serde_json::{Value, json};
use ums_model::error::{ErrorCode, WireError};
use ums_model::event::{EventKind, MigrationEvent};
use ums_model::names::MigrationId;
use ums_model::text::printable_json;

use super::{Context, segment, standstill};
use crate::client::CallResult;
use crate::render;

/// `ums plan`. Exit code 1 if the service cannot move.
pub(crate) async fn plan(context: &Context, name: &str, to: &str) -> CallResult<u8> {
    let plan = context.daemon.get(&format!("/v1/plan?service={}&to={}", segment(name), segment(to))).await?;
    let feasible = plan["feasible"].as_bool().unwrap_or(false);
    if context.json {
        render::json(&plan);
    } else {
        show_plan(name, to, feasible, &plan);
    }
    Ok(u8::from(!feasible))
}

fn show_plan(name: &str, to: &str, feasible: bool, plan: &Value) {
    println!("{name} {} move to {to}", if feasible { "can" } else { "cannot" });
    for blocker in plan["blockers"].as_array().into_iter().flatten() {
        println!("blocker   {}", blocker["message"].as_str().unwrap_or_default());
        println!("  remedy  {}", blocker["remedy"].as_str().unwrap_or_default());
    }
    for warning in plan["warnings"].as_array().into_iter().flatten() {
        println!("warning   {}", warning["message"].as_str().unwrap_or_default());
    }
    let predicted = &plan["predicted"];
    if predicted.is_object() {
        let number = |field: &str| predicted[field].as_f64().unwrap_or_default();
        println!(
            "predicted frozen {:.0} ms, total {:.0} ms, {} to move",
            number("frozen_ms"),
            number("total_ms"),
            render::bytes(&predicted["bytes"])
        );
    }
}

/// `ums migrate`.
pub(crate) async fn migrate(context: &Context, name: &str, to: &str, detach: bool) -> CallResult<u8> {
    let started =
        context.daemon.post("/v1/migrations", &json!({ "service": name, "to": to, "mode": "cold" })).await?;
    let id = started["migration"].as_str().unwrap_or_default().to_owned();
    if detach {
        if context.json {
            render::json(&started);
        } else {
            println!("migration {id} started: ums watch {name}");
        }
        return Ok(0);
    }
    follow(context, &id).await
}

/// `ums watch`.
pub(crate) async fn watch(context: &Context, what: &str) -> CallResult<u8> {
    let id = match what.parse::<MigrationId>() {
        Ok(id) => id.to_string(),
        Err(_) => latest(context, what).await?,
    };
    follow(context, &id).await
}

async fn latest(context: &Context, service: &str) -> CallResult<String> {
    let migrations = context.daemon.get(&format!("/v1/migrations?service={}", segment(service))).await?;
    let newest = migrations.as_array().into_iter().flatten().max_by_key(|migration| {
        // Ids are ordered by time.
        migration["migration"].as_str().map(str::to_owned)
    });
    newest.and_then(|migration| migration["migration"].as_str()).map(str::to_owned).ok_or_else(|| {
        WireError::new(
            ErrorCode::ServiceNotFound,
            format!("service {service} has never migrated from or to this site"),
        )
        .with_hint("ums ps")
    })
}

/// Prints a migration's events to its end; the exit code is its outcome's. One that stands still for long is not waited for.
async fn follow(context: &Context, id: &str) -> CallResult<u8> {
    let mut code = None;
    let mut seen = 0;
    let path = format!("/v1/migrations/{}/events", segment(id));
    let each = |event: MigrationEvent| {
        if event.seq <= seen {
            return true;
        }
        seen = event.seq;
        if context.json {
            if let Ok(value) = serde_json::to_value(&event) {
                render::json(&value);
            }
        } else {
            render::event(&event);
        }
        if let EventKind::Ended { outcome, .. } = &event.kind {
            code = Some(outcome.exit_code());
        }
        code.is_none()
    };
    let streamed = tokio::select! {
        streamed = context.daemon.events(&path, each) => streamed,
        error = standstill::of(context, id) => return Err(error),
    };
    match code {
        Some(code) => Ok(code),
        None => {
            streamed?;
            let message =
                format!("the daemon ended before migration {id} did; it goes on when the daemon is back");
            Err(WireError::new(ErrorCode::InDoubt, message).with_hint(format!("ums watch {id}")))
        }
    }
}

/// `ums abort`.
pub(crate) async fn abort(context: &Context, name: &str) -> CallResult<u8> {
    let answer = context.daemon.post(&format!("/v1/services/{}/abort", segment(name)), &json!({})).await?;
    if context.json {
        render::json(&answer);
    } else {
        println!("migration of {name} is given up; the service runs here");
    }
    Ok(0)
}

/// `ums status`.
pub(crate) async fn status(context: &Context, name: Option<&str>) -> CallResult<u8> {
    let Some(name) = name else {
        let site = context.daemon.get("/v1/site").await?;
        if context.json {
            render::json(&site);
            return Ok(0);
        }
        println!(
            "site {}  {}",
            site["name"].as_str().unwrap_or("-"),
            site["fingerprint"].as_str().unwrap_or("-")
        );
        return super::services::list(context).await;
    };
    let service = context.daemon.get(&format!("/v1/services/{}", segment(name))).await?;
    if context.json {
        render::json(&service);
        return Ok(0);
    }
    let text = serde_json::to_string_pretty(&service).unwrap_or_default();
    println!("{}", printable_json(&text));
    Ok(0)
}

/// `ums history`.
pub(crate) async fn history(context: &Context, name: Option<&str>, limit: usize) -> CallResult<u8> {
    let service = name.map(|name| format!("&service={}", segment(name))).unwrap_or_default();
    let migrations = context.daemon.get(&format!("/v1/migrations?limit={limit}{service}")).await?;
    let migrations = migrations.as_array().cloned().unwrap_or_default();
    if context.json {
        migrations.iter().for_each(render::json);
        return Ok(0);
    }
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let ms = |value: &Value| value.as_f64().map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0}"));
    let outcome = |migration: &Value| {
        let outcome =
            if migration["outcome"].is_null() { &migration["state"] } else { &migration["outcome"] };
        // What an operator has allowed on purpose is to be seen.
        let plain = migration["user_namespace"] == Value::Bool(false);
        text(outcome) + if plain { " (no user namespace)" } else { "" }
    };
    let rows: Vec<Vec<String>> = migrations
        .iter()
        .map(|migration| {
            let report = &migration["report"];
            let started = migration["started_unix_ms"].as_i64().unwrap_or_default();
            let when = jiff::Timestamp::from_millisecond(started)
                .map_or_else(|_| "-".to_owned(), |at| format!("{at:.0}"));
            vec![
                when,
                text(&migration["service"]),
                migration["epoch"].to_string(),
                text(&migration["role"]),
                text(&migration["source"]),
                text(&migration["destination"]),
                outcome(migration),
                ms(&report["frozen_ms"]),
                ms(&report["total_ms"]),
                render::bytes(&report["bytes_sent"]),
                text(&migration["migration"]),
            ]
        })
        .collect();
    let heading = [
        "STARTED",
        "SERVICE",
        "EPOCH",
        "ROLE",
        "SOURCE",
        "DESTINATION",
        "OUTCOME",
        "FROZEN ms",
        "TOTAL ms",
        "SENT",
        "ID",
    ];
    render::table(&heading, &rows);
    Ok(0)
}
