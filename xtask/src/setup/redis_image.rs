//! The root directory of a small Debian with Redis: the service that the demo moves, and the server that tests of
//! the testbed talk to. No Redis is installed on the host, where its package would start a daemon.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use super::draft::{self, Draft};
use super::lock::Lock;
use super::packages::{MMDEBSTRAP, Need};
use super::private_apt::source_line;
use super::{Places, sources, step};
use crate::process;

/// Part of the name of the cached archive; raised when the way of making it changes.
const RECIPE: u32 = 1;

/// Longest time for mmdebstrap, downloads included.
const MAKE_DEADLINE: Duration = Duration::from_mins(20);

/// Longest time to unpack the archive.
const UNPACK_DEADLINE: Duration = Duration::from_mins(5);

/// What a service does not read; without it the image is a third smaller.
const LEFT_OUT: [&str; 4] =
    ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*"];

/// Where the root directory is.
pub(crate) fn place(places: &Places) -> PathBuf {
    places.made.join("rootfs-redis")
}

/// The tool that making it takes, if it has to be made.
pub(crate) fn needs(places: &Places) -> Option<Need> {
    (!usable(places) && !archive(places).is_file()).then_some(MMDEBSTRAP)
}

/// Makes the root directory unless it is there; the archive it is unpacked from is kept in the cache.
pub(crate) fn ensure(places: &Places) -> Result<()> {
    if usable(places) {
        return Ok(());
    }
    let place = place(places);
    let _lock = Lock::of(&place)?;
    if usable(places) {
        return Ok(());
    }
    let archive = archive(places);
    let made = Lock::of(&archive)?;
    if !archive.is_file() {
        step("making the Redis image", || make(places, &archive))?;
    }
    drop(made);
    step("unpacking the Redis image", || unpack(places, &archive, &place))
}

/// Removes the root directory and the cached archive.
pub(crate) fn forget(places: &Places) -> Result<()> {
    draft::remove(&stamp(places))?;
    draft::remove(&place(places))?;
    draft::remove(&archive(places))
}

fn archive(places: &Places) -> PathBuf {
    places.cache.join(format!("rootfs-redis-{RECIPE}.tar"))
}

/// Beside the root directory, not in it: what is in it becomes part of the service.
fn stamp(places: &Places) -> PathBuf {
    places.made.join("rootfs-redis.recipe")
}

fn usable(places: &Places) -> bool {
    fs::read_to_string(stamp(places)).is_ok_and(|recipe| recipe == RECIPE.to_string())
        && process::is_program(&place(places).join("usr/bin/redis-server"))
}

/// Debian of the host's own release, minimal, with redis-server. Its apt sources are removed: an image says nothing
/// about the machine it was made on.
fn make(places: &Places, archive: &Path) -> Result<()> {
    let os_release = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let codename = sources::codename(&os_release)
        .ok_or_else(|| anyhow!("/etc/os-release has no VERSION_CODENAME: is this a Debian?"))?;
    let draft = Draft::file(archive)?;
    let folder = archive.parent().unwrap_or(archive);
    let mut failures = Vec::new();
    for known in sources::archives(Path::new("/etc/apt"), &codename)? {
        let mut make = process::command("mmdebstrap");
        make.args(["--variant=minbase", "--architectures=amd64", "--format=tar", "--include=redis-server"]);
        make.args(LEFT_OUT.map(|path| format!("--dpkgopt=path-exclude={path}")));
        make.arg("--customize-hook=rm -rf \"$1\"/etc/apt/sources.list \"$1\"/etc/apt/sources.list.d/*");
        make.args([&codename]).arg(draft.path());
        make.arg(source_line(&known, &codename, folder)?.trim_end());
        match process::run_logged(&mut make, &places.log("mmdebstrap"), MAKE_DEADLINE) {
            Ok(()) => return draft.publish(),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    bail!("no archive that this machine knows gave a Debian {codename} with Redis\n{}", failures.join("\n"))
}

fn unpack(places: &Places, archive: &Path, place: &Path) -> Result<()> {
    draft::remove(&stamp(places))?;
    let draft = Draft::folder(place)?;
    let mut unpack = process::command("tar");
    unpack.args(["--extract", "--numeric-owner", "--preserve-permissions", "--xattrs", "--xattrs-include=*"]);
    unpack.arg("--file").arg(archive).arg("--directory").arg(draft.path());
    process::run_logged(&mut unpack, &places.log("unpack-redis"), UNPACK_DEADLINE)
        .with_context(|| format!("if the archive is damaged, remove {}", archive.display()))?;
    draft.publish()?;
    fs::write(stamp(places), RECIPE.to_string()).context("cannot note that the Redis image is complete")
}
