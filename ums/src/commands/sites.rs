//! This site, the paired ones, and who may use its API.

use serde_json::{Value, json};

use super::{Context, misuse, segment};
use crate::cli::{PairCommand, TokenCommand};
use crate::client::CallResult;
use crate::render;

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}

/// `ums pair`.
pub(crate) async fn pair(context: &Context, command: PairCommand) -> CallResult<u8> {
    match command {
        PairCommand::Invite => {
            let answer = context.daemon.post("/v1/sites/invite", &json!({})).await?;
            if context.json {
                render::json(&answer);
                return Ok(0);
            }
            println!("fingerprint of this site: {}", text(&answer["fingerprint"]));
            println!("type at the other site, once, within 15 minutes:");
            println!("  ums pair accept {}", text(&answer["token"]));
        }
        PairCommand::Rotate { forget } => return rotate(context, forget).await,
        PairCommand::Revoke { site } => return revoke(context, &site).await,
        PairCommand::Accept { token } => {
            let answer = context.daemon.post("/v1/sites/accept", &json!({ "token": token })).await?;
            if context.json {
                render::json(&answer);
                return Ok(0);
            }
            let site = &answer["site"];
            println!("paired with {}", text(&site["name"]));
            println!("its fingerprint:  {}", text(&site["fingerprint"]));
            println!("this site's own:  {}", text(&answer["fingerprint"]));
        }
    }
    Ok(0)
}

async fn rotate(context: &Context, forget: bool) -> CallResult<u8> {
    let answer = context.daemon.post("/v1/site/rotate", &json!({ "forget": forget })).await?;
    if context.json {
        render::json(&answer);
        return Ok(0);
    }
    let waiting: Vec<String> = answer["waiting"].as_array().into_iter().flatten().map(text).collect();
    println!("new fingerprint of this site: {}", text(&answer["fingerprint"]));
    match (answer["holds"].as_bool().unwrap_or(false), waiting.is_empty()) {
        (true, true) => println!("it holds; every paired site knows it"),
        (true, false) => println!("it holds; to be paired anew: {}", waiting.join(", ")),
        (false, _) => {
            println!("the old one holds until these sites have heard of it: {}", waiting.join(", "));
            println!("this goes on by itself; not to wait for them: ums pair rotate --forget");
        }
    }
    Ok(0)
}

/// `ums sites revoke`.
pub(crate) async fn revoke(context: &Context, site: &str) -> CallResult<u8> {
    let path = format!("/v1/sites/{}/revoke", segment(site));
    let answer = context.daemon.post(&path, &json!({})).await?;
    if context.json {
        render::json(&answer);
        return Ok(0);
    }
    println!("revoked {} ({})", text(&answer["site"]), text(&answer["fingerprint"]));
    for id in answer["aborted"].as_array().into_iter().flatten() {
        println!("rolled back: migration {}", text(id));
    }
    for id in answer["going_on"].as_array().into_iter().flatten() {
        println!("goes on, because it is or may be committed: migration {0}; ums watch {0}", text(id));
    }
    Ok(0)
}

/// `ums sites`.
pub(crate) async fn list(context: &Context) -> CallResult<u8> {
    let own = context.daemon.get("/v1/site").await?;
    let sites = context.daemon.get("/v1/sites").await?;
    let sites = sites.as_array().cloned().unwrap_or_default();
    if context.json {
        sites.iter().for_each(render::json);
        return Ok(0);
    }
    let mut rows = vec![vec![text(&own["name"]), "this site".to_owned(), text(&own["fingerprint"])]];
    for site in &sites {
        let addresses = site["addresses"].as_array().cloned().unwrap_or_default();
        let addresses: Vec<String> = addresses.iter().map(text).collect();
        rows.push(vec![text(&site["name"]), addresses.join(","), text(&site["fingerprint"])]);
    }
    render::table(&["SITE", "ADDRESS", "FINGERPRINT"], &rows);
    Ok(0)
}

/// `ums unpair`.
pub(crate) async fn unpair(context: &Context, site: &str) -> CallResult<u8> {
    context.daemon.delete(&format!("/v1/sites/{}", segment(site))).await?;
    if context.json {
        render::json(&json!({ "unpaired": site }));
    }
    Ok(0)
}

/// `ums doctor`. Exit code 1 if something is missing.
pub(crate) async fn doctor(context: &Context) -> CallResult<u8> {
    let answer = context.daemon.get("/v1/doctor").await?;
    let ok = answer["ok"].as_bool().unwrap_or(false);
    if context.json {
        render::json(&answer);
        return Ok(u8::from(!ok));
    }
    for check in answer["checks"].as_array().into_iter().flatten() {
        let mark = if check["ok"].as_bool().unwrap_or(false) { "ok     " } else { "MISSING" };
        println!("{mark}  {}: {}", text(&check["name"]), text(&check["detail"]));
        if let Some(remedy) = check["remedy"].as_str().filter(|remedy| !remedy.is_empty()) {
            println!("         {remedy}");
        }
    }
    for warning in answer["warnings"].as_array().into_iter().flatten() {
        println!("warning  {}", text(&warning["message"]));
    }
    println!(
        "{}",
        if ok {
            "this site can take part in migrations"
        } else {
            "this site cannot take part in migrations yet"
        }
    );
    Ok(u8::from(!ok))
}

/// `ums token`.
pub(crate) async fn token(context: &Context, command: TokenCommand) -> CallResult<u8> {
    let answer = match command {
        TokenCommand::New { name, role, read, expires } => {
            let role = if read { "viewer" } else { &role };
            let expires = expires.as_deref().map(seconds).transpose()?;
            let body = json!({ "name": name, "role": role, "expires_in_s": expires });
            context.daemon.post("/v1/tokens", &body).await?
        }
        TokenCommand::Ls => context.daemon.get("/v1/tokens").await?,
        TokenCommand::Rm { name } => context.daemon.delete(&format!("/v1/tokens/{}", segment(&name))).await?,
    };
    if context.json {
        render::json(&answer);
    } else if let Some(token) = answer["token"].as_str() {
        println!("{token}");
    } else {
        let tokens = answer.as_array().cloned().unwrap_or_default();
        let rows: Vec<Vec<String>> = tokens
            .iter()
            .map(|token| vec![text(&token["name"]), text(&token["role"]), until(&token["expires_unix_ms"])])
            .collect();
        if !rows.is_empty() {
            render::table(&["NAME", "ROLE", "EXPIRES"], &rows);
        }
    }
    Ok(0)
}

fn until(at_unix_ms: &Value) -> String {
    let at = at_unix_ms.as_i64().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.map_or_else(|| "never".to_owned(), |at| format!("{at:.0}"))
}

/// A time with a unit, in seconds.
fn seconds(text: &str) -> CallResult<u64> {
    let wrong = || misuse(format!("{text:?} is no time: 90s, 45m, 12h and 30d are"));
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    let number = text.strip_suffix(unit).filter(|number| number.bytes().all(|b| b.is_ascii_digit()));
    number.and_then(|number| number.parse::<u64>().ok()?.checked_mul(factor)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(seconds("90s").unwrap(), 90);
        assert_eq!(seconds("2h").unwrap(), 7200);
        assert_eq!(seconds("30d").unwrap(), 30 * 86400);
        for wrong in ["", "5", "d", "-1d", "1.5h", "9999999999999999999d", "1w", "1ä"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
