//! `ums site`: the daemon, put together.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use ums_coordinator::Coordinator;
use ums_coordinator::config::{Config, Settings};
use ums_model::error::{ErrorCode, WireError};
use ums_model::names::{MountName, SiteName};
use ums_sites::embedded::{Embedded, EmbeddedConfig};
use ums_transfer::identity::Identity;

use crate::cli::SiteArgs;
use crate::inner::log_to_stderr;

/// Runs the daemon until SIGTERM or SIGINT. Prints one line when it serves; with `json` that line is an object.
pub(crate) fn run(args: &SiteArgs, json: bool) -> anyhow::Result<()> {
    log_to_stderr("info", json);
    if !rustix::process::geteuid().is_root() {
        let message = "a site needs root on its host: it makes namespaces and cgroups, and runs CRIU";
        return Err(WireError::new(ErrorCode::NotRoot, message).into());
    }
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let config = config(args)?;
    let state = std::path::absolute(&config.state_dir)?;
    let site_mounts = site_mounts(&args.site_mounts)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async move {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        std::fs::create_dir_all(&state).with_context(|| format!("cannot make {}", state.display()))?;
        let identity =
            Identity::load_or_create(&config.identity_dir()).context("cannot use this site's identity")?;
        let embedded = EmbeddedConfig {
            state,
            name: config.name.clone(),
            fingerprint: identity.fingerprint(),
            program,
            site_mounts,
            resolver: args.resolver,
            deadlines: config.deadlines.site,
            nest_deadlines: config.deadlines.nest,
        };
        let site = tokio::task::spawn_blocking(move || Embedded::open(embedded)).await??;
        let name = config.name.clone();
        let running = Coordinator::start(config, site, shutdown).await?;
        if json {
            let ready = serde_json::json!({
                "ready": true,
                "site": name,
                "fingerprint": running.fingerprint,
                "address": running.address,
                "socket": running.socket,
            });
            println!("{ready}");
        } else {
            println!("site {name} serves on {} and {}", running.address, running.socket.display());
            println!("fingerprint {}", running.fingerprint);
        }
        running.wait().await;
        Ok(())
    })
}

/// The file's settings, and the command line's over them.
fn config(args: &SiteArgs) -> anyhow::Result<Config> {
    let file = args.config.as_deref().map(Settings::read).transpose()?.unwrap_or_default();
    let name: SiteName = args.name.parse().context("--name")?;
    let said = Settings {
        state_dir: Some(args.state.clone()),
        name: Some(name),
        listen: Some(
            args.listen.parse().with_context(|| format!("--listen {} is not IP:PORT", args.listen))?,
        ),
        advertise: args.advertise.iter().cloned().collect(),
        allow_volatile: args.allow_volatile.then_some(true),
        new_journal: args.new_journal,
        ..Settings::default()
    };
    Ok(Config::resolve(file.overridden_by(said))?)
}

fn site_mounts(given: &[String]) -> anyhow::Result<BTreeMap<MountName, PathBuf>> {
    given
        .iter()
        .map(|text| {
            let (name, path) =
                text.split_once('=').with_context(|| format!("--site-mount {text} is not NAME=DIR"))?;
            let path = PathBuf::from(path);
            anyhow::ensure!(
                path.is_absolute(),
                "--site-mount {text}: the directory must be an absolute path"
            );
            anyhow::ensure!(path.exists(), "--site-mount {text}: there is no {}", path.display());
            Ok((name.parse().with_context(|| format!("--site-mount {text}"))?, path))
        })
        .collect()
}
