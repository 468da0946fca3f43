//! An operator's word where no rule can decide.

use std::io::{IsTerminal, Write};

use serde_json::{Value, json};
use ums_model::error::{ErrorCode, WireError};

use super::{Context, segment};
use crate::client::CallResult;
use crate::render;

/// `ums resolve`. Says what is known and what the decision rests on, asks, and then tells the site.
pub(crate) async fn resolve(context: &Context, name: &str, run_here: bool, yes: bool) -> CallResult<u8> {
    let service = context.daemon.get(&format!("/v1/services/{}", segment(name))).await?;
    let path = format!("/v1/migrations?service={}&limit=1", segment(name));
    let migrations = context.daemon.get(&path).await?;
    if !yes {
        if context.json || !std::io::stdin().is_terminal() {
            let message = format!("the decision about {name} is yours, and nobody is here to confirm it");
            let flag = if run_here { "--run-here" } else { "--discard" };
            return Err(WireError::new(ErrorCode::BadRequest, message)
                .with_hint(format!("ums resolve {name} {flag} --yes")));
        }
        explain(name, run_here, &service, &migrations[0]);
        if !confirmed(name) {
            println!("nothing was done");
            return Ok(1);
        }
    }
    let verdict = if run_here { "run-here" } else { "give-up" };
    let resolved = context
        .daemon
        .post(&format!("/v1/services/{}/resolve", segment(name)), &json!({ "verdict": verdict }))
        .await?;
    if context.json {
        render::json(&resolved);
    } else if run_here && resolved["service"]["copy"] != "running" {
        println!("service {name} is at home here and does not run: ums start {name}");
    } else {
        println!("service {name} is resolved: {}", resolved["standing"].as_str().unwrap_or_default());
    }
    Ok(0)
}

fn explain(name: &str, run_here: bool, service: &Value, migration: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or("unknown").to_owned();
    let other = text(&migration["peer"]);
    println!("service    {name}, epoch {}", service["epoch"]);
    println!("copy here  {}", text(&service["copy"]));
    if migration.is_object() {
        let state = text(&migration["state"]);
        println!("migration  {} to {}, {state}", text(&migration["source"]), text(&migration["destination"]));
    }
    if run_here {
        println!("\nThe copy here will run. Only do this if the copy at {other} certainly never runs again:");
        println!(
            "from now on it is your word that keeps two from running. If {other} comes back, its copy is frozen."
        );
    } else {
        println!(
            "\nThe copy here is given up and never runs again. If {other} has none, the service is lost."
        );
    }
}

/// Whether the service's name was typed.
fn confirmed(name: &str) -> bool {
    print!("\nType the name of the service to go on: ");
    let _ = std::io::stdout().flush();
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).is_ok() && line.trim() == name
}
