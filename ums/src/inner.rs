//! The processes that a site starts of this binary: keeper, nest, criu proxy.

use std::os::fd::RawFd;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;

/// Worker threads of a nest: one that reads or writes images, one that answers.
const NEST_THREADS: usize = 2;

/// `criu ...` as runc calls it.
pub(crate) fn criu_proxy() -> ExitCode {
    ums_engine::criu::proxy::main(std::env::args_os())
}

/// `ums keeper`: returns when its service is gone for good.
pub(crate) fn keeper(dir: &Path, program: &Path) -> anyhow::Result<()> {
    ums_nest::keeper::main(dir, program).context("the keeper cannot go on")
}

/// `ums nest`: returns when its service is gone for good.
pub(crate) fn nest(dir: &Path, stdio: &[RawFd]) -> anyhow::Result<()> {
    log_to_stderr("info", false);
    let stdio: [RawFd; 3] = stdio.try_into().ok().context("--stdio takes three descriptors")?;
    let take =
        |fd| ums_engine::spawn::inherited(fd).with_context(|| format!("cannot take over descriptor {fd}"));
    let stdio = [take(stdio[0])?, take(stdio[1])?, take(stdio[2])?];
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(NEST_THREADS).enable_all().build()?;
    runtime
        .block_on(ums_nest::server::serve(dir, stdio))
        .map_err(|error| anyhow::anyhow!("{}", error.message))
}

/// Starts logging. `UMS_LOG` chooses what, in the syntax of tracing's `EnvFilter`.
pub(crate) fn log_to_stderr(default: &str, json: bool) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("UMS_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    if json {
        builder.json().init();
    } else {
        builder.init();
    }
}
