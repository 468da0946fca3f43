//! Services of this site.

use std::io::Write as _;
use std::str::FromStr;

use serde_json::{Value, json};
use ums_model::names::{Bytes, InvalidName};
use ums_model::spec::{PortPublish, SiteMount, VolumeMount, parse_env};

use super::{Context, misuse, segment};
use crate::cli::RunArgs;
use crate::client::CallResult;
use crate::render;

/// `ums run`.
pub(crate) async fn run(context: &Context, args: RunArgs) -> CallResult<u8> {
    let request = request(args).map_err(misuse)?;
    let status = context.daemon.post("/v1/services", &request).await?;
    show(context, &status);
    Ok(0)
}

fn request(args: RunArgs) -> Result<Value, InvalidName> {
    fn all<T: FromStr<Err = InvalidName>>(texts: &[String]) -> Result<Vec<T>, InvalidName> {
        texts.iter().map(|text| text.parse()).collect()
    }
    let image = match (args.image, args.rootfs) {
        (Some(image), _) => {
            // A relative path means ours, not the daemon's.
            let path = std::path::absolute(&image).ok().filter(|path| path.exists());
            json!({ "image": path.map_or(image, |path| path.display().to_string()) })
        }
        (None, rootfs) => {
            let rootfs = rootfs.unwrap_or_default();
            json!({ "rootfs": std::path::absolute(&rootfs).unwrap_or(rootfs) })
        }
    };
    let env = args.env.iter().map(|text| parse_env(text)).collect::<Result<Vec<_>, _>>()?;
    let memory = args.memory.map(|text| text.parse::<Bytes>()).transpose()?;
    let cpus = args.cpus.map(|text| text.parse::<ums_model::spec::MilliCpus>()).transpose()?;
    Ok(json!({
        "name": args.name,
        "image": image,
        "command": args.command,
        "env": env,
        "workdir": args.workdir,
        "user": args.user,
        "hostname": args.hostname,
        "user_namespace": !args.no_user_namespace,
        "volumes": all::<VolumeMount>(&args.volumes)?,
        "ports": all::<PortPublish>(&args.ports)?,
        "site_mounts": all::<SiteMount>(&args.site_mounts)?,
        "limits": { "memory": memory, "cpus": cpus },
        "restart": args.restart,
    }))
}

/// `ums ps`.
pub(crate) async fn list(context: &Context) -> CallResult<u8> {
    let services = context.daemon.get("/v1/services").await?;
    let services = services.as_array().cloned().unwrap_or_default();
    if context.json {
        services.iter().for_each(render::json);
        return Ok(0);
    }
    let now = jiff::Timestamp::now().as_millisecond().unsigned_abs();
    let rows: Vec<Vec<String>> = services.iter().map(|service| row(service, now)).collect();
    render::table(&["NAME", "STATE", "EPOCH", "SINCE", "PORTS", "IMAGE", "COMMAND"], &rows);
    Ok(0)
}

fn row(service: &Value, now: u64) -> Vec<String> {
    let spec = &service["spec"];
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let ports = spec["ports"].as_array().cloned().unwrap_or_default();
    let ports: Vec<String> = ports
        .iter()
        .map(|port| {
            format!("{}:{}/{}", port["host"], port["container"], port["protocol"].as_str().unwrap_or("tcp"))
        })
        .collect();
    let command = spec["command"].as_array().cloned().unwrap_or_default();
    let command: Vec<&str> = command.iter().filter_map(Value::as_str).collect();
    let state = match service["exit_code"].as_i64() {
        Some(code) if service["copy"] == "dead" => format!("exited ({code})"),
        _ => text(&service["copy"]),
    };
    vec![
        text(&spec["name"]),
        state,
        service["epoch"].to_string(),
        render::age(service["since_unix_ms"].as_u64().unwrap_or_default(), now),
        ports.join(","),
        text(&spec["image"]["name"]),
        command.join(" "),
    ]
}

fn show(context: &Context, status: &Value) {
    if context.json {
        render::json(status);
    } else {
        println!(
            "{}  {}",
            status["spec"]["name"].as_str().unwrap_or("-"),
            status["copy"].as_str().unwrap_or("-")
        );
    }
}

/// `ums start`.
pub(crate) async fn start(context: &Context, name: &str) -> CallResult<u8> {
    let status = context.daemon.post(&format!("/v1/services/{}/start", segment(name)), &json!({})).await?;
    show(context, &status);
    Ok(0)
}

/// `ums stop`.
pub(crate) async fn stop(context: &Context, name: &str, seconds: u64) -> CallResult<u8> {
    let body = json!({ "grace_ms": seconds.saturating_mul(1000) });
    let status = context.daemon.post(&format!("/v1/services/{}/stop", segment(name)), &body).await?;
    show(context, &status);
    Ok(0)
}

/// `ums kill`.
pub(crate) async fn signal(context: &Context, name: &str, signal: i32) -> CallResult<u8> {
    let body = json!({ "signal": signal });
    context.daemon.post(&format!("/v1/services/{}/signal", segment(name)), &body).await?;
    Ok(0)
}

/// `ums rm`.
pub(crate) async fn remove(context: &Context, name: &str, force: bool) -> CallResult<u8> {
    context.daemon.delete(&format!("/v1/services/{}?force={force}", segment(name))).await?;
    if context.json {
        render::json(&json!({ "removed": name }));
    }
    Ok(0)
}

/// `ums logs`.
pub(crate) async fn logs(context: &Context, name: &str, follow: bool) -> CallResult<u8> {
    let path = format!("/v1/services/{}/logs?follow={follow}", segment(name));
    let mut out = std::io::stdout();
    let json = context.json;
    let print = |data: &[u8]| {
        let written = if json {
            writeln!(out, "{}", json!({ "output": String::from_utf8_lossy(data) }))
        } else {
            out.write_all(data)
        };
        // A reader that has seen enough (head, less) is no error.
        written.and_then(|()| out.flush()).is_ok()
    };
    context.daemon.stream(&path, print).await?;
    Ok(0)
}
