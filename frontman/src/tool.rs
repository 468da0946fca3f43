//! Runs `ip` and `nft` with a deadline and turns their failures into errors that name the command.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::deadlines::Deadlines;

/// A network set-up step that failed. What it had done before is undone by removing the place.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are what the messages say")]
pub enum NetError {
    /// The tool is not installed or cannot be executed.
    #[error("cannot run {tool} (is it installed? on Debian: apt-get install iproute2 nftables)")]
    Spawn { tool: String, source: std::io::Error },
    /// The tool said no.
    #[error("{command} failed: {stderr}")]
    Failed { command: String, stderr: String },
    /// The tool did not end in time.
    #[error("{command} did not end within {} s", after.as_secs_f64())]
    Timeout { command: String, after: Duration },
    /// The site has not plugged in the place's uplink.
    #[error("the site did not plug in the uplink of the place within {} s", after.as_secs_f64())]
    NoUplink { after: Duration },
    /// A kernel setting could not be written.
    #[error("cannot write {value} to {path}")]
    Sysctl { path: String, value: String, source: std::io::Error },
}

/// Runs `tool args`, feeding `input` on stdin. Ok = exit status 0, with its stdout. Safe to repeat as far as the
/// command is.
pub(crate) async fn run<S: AsRef<OsStr>>(
    deadlines: &Deadlines,
    tool: &str,
    args: &[S],
    input: &str,
) -> Result<String, NetError> {
    let shown = || {
        let args: Vec<_> = args.iter().map(|arg| arg.as_ref().to_string_lossy()).collect();
        format!("{tool} {}", args.join(" "))
    };
    let mut child = Command::new(tool)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| NetError::Spawn { tool: tool.to_owned(), source })?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let work = async {
        // A tool that ends without reading its input is judged by its exit status.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(deadlines.tool, work)
        .await
        .map_err(|_| NetError::Timeout { command: shown(), after: deadlines.tool })?
        .map_err(|source| NetError::Spawn { tool: tool.to_owned(), source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(NetError::Failed { command: shown(), stderr })
}

/// Whether `tool args` ends with exit status 0.
pub(crate) async fn succeeds(deadlines: &Deadlines, tool: &str, args: &[&str]) -> Result<bool, NetError> {
    match run(deadlines, tool, args, "").await {
        Ok(_) => Ok(true),
        Err(NetError::Failed { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Runs a list of `ip` commands in one process; the first failing one ends it.
pub(crate) async fn ip_batch(deadlines: &Deadlines, script: &str) -> Result<(), NetError> {
    run(deadlines, "ip", &["-batch", "-"], script).await.map(drop)
}

/// Loads one nft transaction: all of it or nothing.
pub(crate) async fn nft(deadlines: &Deadlines, script: &str) -> Result<(), NetError> {
    run(deadlines, "nft", &["-f", "-"], script).await.map(drop)
}

/// Writes a kernel setting of the current network namespace.
pub(crate) fn sysctl(path: &str, value: &str) -> Result<(), NetError> {
    let path = format!("/proc/sys/net/{path}");
    std::fs::write(&path, value).map_err(|source| NetError::Sysctl { path, value: value.to_owned(), source })
}
