//! What a paired site may do here.

use serde_json::Value;
use ums_model::names::Bytes;
use ums_model::policy::Policy;

use super::{Context, misuse, segment};
use crate::cli::PolicyArgs;
use crate::client::CallResult;
use crate::render;

/// `ums sites policy`. What is not named stays as it is.
pub(crate) async fn policy(context: &Context, args: PolicyArgs) -> CallResult<u8> {
    let path = format!("/v1/sites/{}/policy", segment(&args.site));
    let found = context.daemon.get(&path).await?;
    let old: Policy = read(&found)?;
    let new = changed(if args.reset { Policy::default() } else { old.clone() }, &args)?;
    let holds = if new == old {
        old
    } else {
        let body = serde_json::to_value(&new).map_err(misuse)?;
        read(&context.daemon.put(&path, &body).await?)?
    };
    if context.json {
        render::json(&serde_json::to_value(&holds).map_err(misuse)?);
        return Ok(0);
    }
    let rows: Vec<Vec<String>> =
        lines(&holds).into_iter().map(|(what, says)| vec![what.to_owned(), says]).collect();
    render::table(&["OPTION", "VALUE"], &rows);
    Ok(0)
}

fn read(value: &Value) -> CallResult<Policy> {
    serde_json::from_value(value.clone())
        .map_err(|error| misuse(format!("the daemon's policy is not one that this version knows: {error}")))
}

fn changed(mut policy: Policy, args: &PolicyArgs) -> CallResult<Policy> {
    let lists = [
        (&args.incoming, &mut policy.incoming),
        (&args.outgoing, &mut policy.outgoing),
        (&args.site_mounts, &mut policy.site_mounts),
    ];
    for (given, list) in lists {
        if let Some(given) = given {
            *list = entries(given)?;
        }
    }
    if let Some(ports) = &args.ports {
        policy.ports = entries(ports)?;
    }
    if let Some(most) = args.max_services {
        policy.max_services = most;
    }
    if let Some(most) = args.max_migrations {
        policy.max_migrations = most;
    }
    if let Some(most) = &args.max_memory {
        policy.max_memory = size(most)?;
    }
    if let Some(most) = &args.max_disk {
        policy.max_disk = size(most)?;
    }
    let words = [
        (&args.allow_no_user_namespace, &mut policy.allow_no_user_namespace),
        (&args.allow_set_uid, &mut policy.allow_set_uid),
        (&args.allow_devices, &mut policy.allow_devices),
    ];
    for (word, allowed) in words {
        if let Some(word) = word {
            *allowed = word == "yes";
        }
    }
    Ok(policy)
}

fn entries<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> CallResult<Vec<T>> {
    text.split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .map(|entry| entry.parse().map_err(misuse))
        .collect()
}

fn size(text: &str) -> CallResult<Option<Bytes>> {
    if text == "none" { Ok(None) } else { text.parse().map(Some).map_err(misuse) }
}

fn lines(policy: &Policy) -> Vec<(&'static str, String)> {
    fn list<T: std::fmt::Display>(list: &[T]) -> String {
        let words: Vec<String> = list.iter().map(T::to_string).collect();
        if words.is_empty() { "none".to_owned() } else { words.join(",") }
    }
    let size = |size: Option<Bytes>| {
        size.map_or_else(|| "what the site has left".to_owned(), |size| size.to_string())
    };
    let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    vec![
        ("--incoming", list(&policy.incoming)),
        ("--outgoing", list(&policy.outgoing)),
        ("--max-services", policy.max_services.to_string()),
        ("--max-migrations", policy.max_migrations.to_string()),
        ("--max-memory", size(policy.max_memory)),
        ("--max-disk", size(policy.max_disk)),
        ("--ports", list(&policy.ports)),
        ("--site-mounts", list(&policy.site_mounts)),
        ("--allow-no-user-namespace", yes(policy.allow_no_user_namespace)),
        ("--allow-set-uid", yes(policy.allow_set_uid)),
        ("--allow-devices", yes(policy.allow_devices)),
    ]
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command, SitesCommand};

    fn after(options: &[&str]) -> CallResult<Policy> {
        let words = ["ums", "sites", "policy", "a"].iter().chain(options);
        match Cli::try_parse_from(words).unwrap().command {
            Command::Sites { command: Some(SitesCommand::Policy(args)) } => changed(Policy::default(), &args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_what_is_named_changes() {
        assert_eq!(after(&[]).unwrap(), Policy::default());
        let policy = after(&["--incoming", "web-*, db", "--outgoing", "", "--max-memory", "2g"]).unwrap();
        let expected = Policy {
            incoming: vec!["web-*".parse().unwrap(), "db".parse().unwrap()],
            outgoing: Vec::new(),
            max_memory: Some(Bytes::gib(2)),
            ..Policy::default()
        };
        assert_eq!(policy, expected);
        assert_eq!(
            after(&["--max-memory", "none", "--max-disk", "1k"]).unwrap().max_disk,
            Some(Bytes::kib(1))
        );
        assert!(after(&["--allow-no-user-namespace"]).unwrap().allow_no_user_namespace);
        assert!(!after(&["--allow-no-user-namespace", "no"]).unwrap().allow_no_user_namespace);
        let files = after(&["--allow-set-uid", "yes", "--allow-devices", "yes"]).unwrap();
        assert!(files.allow_set_uid && files.allow_devices && !files.allow_no_user_namespace);
    }

    #[test]
    fn nonsense_is_refused() {
        for options in [["--incoming", "A"], ["--ports", "0"], ["--max-disk", "much"]] {
            assert!(after(&options).is_err(), "{options:?}");
        }
    }
}
