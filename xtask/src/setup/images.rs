//! Root directories of small Debians with a server in them: the services that demo and soak move, and the servers that
//! tests of the testbed talk to. No server is installed on the host, where its package would start a daemon.

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

/// Longest time for mmdebstrap, downloads included.
const MAKE_DEADLINE: Duration = Duration::from_mins(20);

/// Longest time to unpack the archive.
const UNPACK_DEADLINE: Duration = Duration::from_mins(5);

/// What a service does not read; without it an image is a third smaller.
const LEFT_OUT: [&str; 4] =
    ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*"];

/// How one image is made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Recipe {
    /// As people call it.
    title: &'static str,
    /// Part of every file name.
    name: &'static str,
    /// Part of the name of the cached archive; raised when the way of making it changes.
    version: u32,
    /// The package that is installed.
    package: &'static str,
    /// Files that are left out besides [`LEFT_OUT`].
    left_out: &'static [&'static str],
    /// Shell commands at the end; `$1` is the root directory.
    finish: Option<&'static str>,
    /// A program by which a whole image is known.
    program: &'static str,
}

/// Redis.
pub(crate) const REDIS: Recipe = Recipe {
    title: "Redis",
    name: "redis",
    version: 1,
    package: "redis-server",
    left_out: &[],
    finish: None,
    program: "usr/bin/redis-server",
};

/// PostgreSQL, without its just-in-time compiler (two thirds of the size), and without the cluster that the package
/// makes: a service makes its own. Its programs are linked to where their version need not be known.
pub(crate) const POSTGRES: Recipe = Recipe {
    title: "PostgreSQL",
    name: "postgres",
    version: 1,
    package: "postgresql",
    left_out: &[
        "/usr/lib/x86_64-linux-gnu/libLLVM*",
        "/usr/lib/x86_64-linux-gnu/libz3*",
        "/usr/lib/postgresql/*/lib/llvmjit*",
        "/usr/lib/postgresql/*/lib/bitcode/*",
    ],
    finish: Some(concat!(
        "rm -rf \"$1\"/var/lib/postgresql/* \"$1\"/etc/postgresql/* && cd \"$1\"/usr/local/bin && ",
        "ln -s ../../lib/postgresql/*/bin/postgres ../../lib/postgresql/*/bin/initdb ."
    )),
    program: "usr/local/bin/postgres",
};

/// All of them.
const ALL: [&Recipe; 2] = [&REDIS, &POSTGRES];

impl Recipe {
    /// Where the root directory is.
    pub(crate) fn place(&self, places: &Places) -> PathBuf {
        places.made.join(format!("rootfs-{}", self.name))
    }

    /// Makes the root directory unless it is there; the archive it is unpacked from is kept in the cache.
    fn ensure(&self, places: &Places) -> Result<()> {
        if self.usable(places) {
            return Ok(());
        }
        let place = self.place(places);
        let _lock = Lock::of(&place)?;
        if self.usable(places) {
            return Ok(());
        }
        let archive = self.archive(places);
        let made = Lock::of(&archive)?;
        if !archive.is_file() {
            step(&format!("making the {} image", self.title), || make(self, places, &archive))?;
        }
        drop(made);
        step(&format!("unpacking the {} image", self.title), || unpack(self, places, &archive, &place))
    }

    fn archive(&self, places: &Places) -> PathBuf {
        places.cache.join(format!("rootfs-{}-{}.tar", self.name, self.version))
    }

    /// Beside the root directory, not in it: what is in it becomes part of the service.
    fn stamp(&self, places: &Places) -> PathBuf {
        places.made.join(format!("rootfs-{}.recipe", self.name))
    }

    fn usable(&self, places: &Places) -> bool {
        fs::read_to_string(self.stamp(places)).is_ok_and(|recipe| recipe == self.version.to_string())
            && process::is_program(&self.place(places).join(self.program))
    }
}

/// The tool that making what is missing takes, if something has to be made.
pub(crate) fn needs(places: &Places) -> Option<Need> {
    let missing = |recipe: &&Recipe| !recipe.usable(places) && !recipe.archive(places).is_file();
    ALL.iter().any(missing).then_some(MMDEBSTRAP)
}

/// Makes every image that is missing.
pub(crate) fn ensure(places: &Places) -> Result<()> {
    ALL.iter().try_for_each(|recipe| {
        recipe.ensure(places).with_context(|| format!("cannot make the {} image", recipe.title))
    })
}

/// Removes the root directories and the cached archives.
pub(crate) fn forget(places: &Places) -> Result<()> {
    ALL.iter().try_for_each(|recipe| {
        draft::remove(&recipe.stamp(places))?;
        draft::remove(&recipe.place(places))?;
        draft::remove(&recipe.archive(places))
    })
}

/// Debian of the host's own release, minimal, with one server. Its apt sources are removed: an image says nothing
/// about the machine it was made on.
fn make(recipe: &Recipe, places: &Places, archive: &Path) -> Result<()> {
    let os_release = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let codename = sources::codename(&os_release)
        .ok_or_else(|| anyhow!("/etc/os-release has no VERSION_CODENAME: is this a Debian?"))?;
    let draft = Draft::file(archive)?;
    let folder = archive.parent().unwrap_or(archive);
    let mut failures = Vec::new();
    for known in sources::archives(Path::new("/etc/apt"), &codename)? {
        let mut make = process::command("mmdebstrap");
        make.args(["--variant=minbase", "--architectures=amd64", "--format=tar"]);
        make.arg(format!("--include={}", recipe.package));
        let left_out = LEFT_OUT.iter().chain(recipe.left_out);
        make.args(left_out.map(|path| format!("--dpkgopt=path-exclude={path}")));
        make.args(recipe.finish.map(|commands| format!("--customize-hook={commands}")));
        make.arg("--customize-hook=rm -rf \"$1\"/etc/apt/sources.list \"$1\"/etc/apt/sources.list.d/*");
        make.args([&codename]).arg(draft.path());
        make.arg(source_line(&known, &codename, folder)?.trim_end());
        match process::run_logged(
            &mut make,
            &places.log(&format!("mmdebstrap-{}", recipe.name)),
            MAKE_DEADLINE,
        ) {
            Ok(()) => return draft.publish(),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    bail!(
        "no archive that this machine knows gave a Debian {codename} with {}\n{}",
        recipe.title,
        failures.join("\n")
    )
}

fn unpack(recipe: &Recipe, places: &Places, archive: &Path, place: &Path) -> Result<()> {
    draft::remove(&recipe.stamp(places))?;
    let draft = Draft::folder(place)?;
    let mut unpack = process::command("tar");
    unpack.args(["--extract", "--numeric-owner", "--preserve-permissions", "--xattrs", "--xattrs-include=*"]);
    unpack.arg("--file").arg(archive).arg("--directory").arg(draft.path());
    process::run_logged(&mut unpack, &places.log(&format!("unpack-{}", recipe.name)), UNPACK_DEADLINE)
        .with_context(|| format!("if the archive is damaged, remove {}", archive.display()))?;
    draft.publish()?;
    fs::write(recipe.stamp(places), recipe.version.to_string())
        .with_context(|| format!("cannot note that the {} image is complete", recipe.title))
}
