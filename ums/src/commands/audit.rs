//! The audit, of a running site or in the file of one that does not run.

use std::path::Path;

use serde_json::Value;
use ums_coordinator::audit::{check_offline, list_offline};
use ums_model::error::{ErrorCode, WireError};

use super::{Context, segment};
use crate::cli::AuditCommand;
use crate::client::CallResult;
use crate::render;

/// Records per answer.
const PAGE: usize = 1000;

/// `ums audit`.
pub(crate) async fn run(context: &Context, command: AuditCommand) -> CallResult<u8> {
    match command {
        AuditCommand::List { journal } => list(context, journal.as_deref()).await,
        AuditCommand::Verify { journal, head } => verify(context, journal.as_deref(), head.as_deref()).await,
    }
}

async fn list(context: &Context, journal: Option<&Path>) -> CallResult<u8> {
    let (mut rows, mut last) = (Vec::new(), 0);
    loop {
        let records = match journal {
            Some(path) => {
                list_offline(path, last, PAGE)?.iter().map(value).collect::<CallResult<Vec<_>>>()?
            }
            None => {
                let page = context.daemon.get(&format!("/v1/audit?after={last}&limit={PAGE}")).await?;
                page.as_array().cloned().unwrap_or_default()
            }
        };
        let Some(newest) = records.last().and_then(|record| record["seq"].as_u64()) else { break };
        last = newest;
        if context.json {
            records.iter().for_each(render::json);
        } else {
            rows.extend(records.iter().map(row));
        }
    }
    if !context.json {
        let heading = ["NUMBER", "WHEN", "WHAT", "SERVICE", "EPOCH", "ROLE", "SITE", "HOW IT ENDED", "HASH"];
        render::table(&heading, &rows);
    }
    Ok(0)
}

fn value(record: &impl serde::Serialize) -> CallResult<Value> {
    serde_json::to_value(record).map_err(|error| WireError::new(ErrorCode::Internal, error.to_string()))
}

fn row(record: &Value) -> Vec<String> {
    let text = |field: &str| record[field].as_str().unwrap_or("-").to_owned();
    let number = |field: &str| record[field].as_u64().map_or("-".to_owned(), |number| number.to_string());
    let when = record["at_unix_ms"].as_i64().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let peer = format!("{} {:.8}", text("peer"), text("peer_fingerprint"));
    let mut ended = match record["verdict"].as_str() {
        Some(verdict) if record["kind"] == "resolve" => format!("operator: {verdict}"),
        Some(verdict) => format!("{}, operator: {verdict}", text("outcome")),
        None => text("outcome"),
    };
    if record["without_user_namespace"] == true {
        ended += ", without user namespace";
    }
    vec![
        number("seq"),
        when.map_or("-".to_owned(), |when| when.to_string()),
        text("kind"),
        text("service"),
        number("epoch"),
        text("role"),
        peer,
        ended,
        text("hash"),
    ]
}

async fn verify(context: &Context, journal: Option<&Path>, head: Option<&str>) -> CallResult<u8> {
    let check = match journal {
        Some(path) => value(&check_offline(path, head)?)?,
        None => {
            let known = head.map(|head| format!("?head={}", segment(head))).unwrap_or_default();
            context.daemon.get(&format!("/v1/audit/verify{known}")).await?
        }
    };
    let ok = check["ok"] == true;
    if context.json {
        render::json(&check);
    } else if ok {
        println!("{} records, all of them as they were written", check["records"]);
        println!("head {}", check["head"].as_str().unwrap_or("-"));
    } else {
        let broken = &check["broken"];
        let why = format!("record {} of the audit: {}", broken["seq"], broken["why"].as_str().unwrap_or("-"));
        let error = WireError::new(ErrorCode::Internal, why).with_hint(
            "what comes before it is as it was written; compare with a copy of the journal, or with the audit of the \
             other site",
        );
        render::error(&error, false);
    }
    Ok(u8::from(!ok))
}
