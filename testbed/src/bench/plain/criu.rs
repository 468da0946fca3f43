//! `criu dump` and `criu restore` as one would type them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ums_model::names::Bytes;

use super::container::NULL;
use super::stats;
use crate::command::finish;
use crate::ns::Ns;
use crate::tag::{MARKER, Tag};

/// Longest dump or restore; 1 GiB takes two seconds.
const DEADLINE: Duration = Duration::from_secs(120);
/// Name under which both commands know the network namespace, which is there before and after.
const NET: &str = "plain";
/// Lines of CRIU's log in an error.
const TAIL: usize = 12;

/// The CRIU under test: what `UMS_CRIU` says.
pub(super) fn program() -> Result<PathBuf> {
    let path = std::env::var_os("UMS_CRIU").map(PathBuf::from);
    let path = path.context("UMS_CRIU does not say where CRIU is: run this by `cargo xtask bench`")?;
    if !path.exists() {
        bail!("UMS_CRIU names {}, which does not exist: run this by `cargo xtask bench`", path.display());
    }
    Ok(path)
}

/// What a dump says about itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dumped {
    /// From the first task stopped to the end of the dump, when CRIU kills what it dumped.
    pub(super) frozen: Duration,
    /// Size of all images.
    pub(super) images: Bytes,
}

/// Dumps the tree below `pid` into `images` and ends it. Connections are not kept.
pub(super) fn dump(criu: &Path, tag: &Tag, pid: i32, images: &Path) -> Result<Dumped> {
    let net = fs::metadata(format!("/proc/{pid}/ns/net")).context("the process to dump is gone")?.ino();
    let mut command = common(criu, tag, "dump", images);
    command.args(["--tree", &pid.to_string()]);
    command.args(["--external", &format!("mnt[/{NULL}]:null"), "--external", &format!("net[{net}]:{NET}")]);
    run(command, images, "dump")?;
    Ok(Dumped { frozen: stats::frozen(&images.join("stats-dump"))?, images: size(images)? })
}

/// Restores from `images` on the root directory `root` (a mount point) in the network namespace `ns`, and returns the
/// pid of the first process.
pub(super) fn restore(criu: &Path, tag: &Tag, ns: &Ns, root: &Path, images: &Path) -> Result<i32> {
    let pidfile = images.join("pid");
    // CRIU takes the namespace as an open descriptor, which only a shell passes on by number.
    let mut command = Command::new("sh");
    command.args(["-c", "exec 5<\"$1\"; shift; exec \"$@\"", "with-namespace"]);
    command.arg(Path::new("/run/netns").join(ns.name()));
    let criu = common(criu, tag, "restore", images);
    command.arg(criu.get_program()).args(criu.get_args()).env(MARKER, tag.as_str());
    command.arg("--restore-detached").arg("--root").arg(root).arg("--pidfile").arg(&pidfile);
    command.args(["--external", "mnt[null]:/dev/null", "--inherit-fd", &format!("fd[5]:{NET}")]);
    run(command, images, "restore")?;
    let text = fs::read_to_string(&pidfile).context("cannot read the pid of the restored process")?;
    text.trim().parse().with_context(|| format!("`{text}` is no pid"))
}

fn common(criu: &Path, tag: &Tag, verb: &str, images: &Path) -> Command {
    let mut command = Command::new(criu);
    command.arg(verb).arg("--images-dir").arg(images).args(["--log-file", &format!("{verb}.log"), "-v2"]);
    command.args(["--tcp-close", "--network-lock", "skip"]).env(MARKER, tag.as_str());
    command
}

fn run(command: Command, images: &Path, verb: &str) -> Result<()> {
    let finished = finish(command, "", DEADLINE)?;
    if finished.status.success() {
        return Ok(());
    }
    let log = fs::read(images.join(format!("{verb}.log"))).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
    bail!("criu {verb} ended with {}: {}\n{tail}", finished.status, finished.stderr.trim());
}

fn size(directory: &Path) -> Result<Bytes> {
    let entries = fs::read_dir(directory).context("cannot list the images")?;
    let images = entries.flatten().filter(|entry| entry.path().extension().is_some_and(|end| end == "img"));
    images.map(|entry| Ok(Bytes(entry.metadata()?.len()))).sum()
}
