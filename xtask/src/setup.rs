//! What a machine needs before UMS can run on it, and how it gets there. Read in this order:
//!
//! 1. [`Lab::prepare`] here: the whole, in four lines;
//! 2. [`packages`]: tools of the host, from the distribution's own packages;
//! 3. [`bundle`]: CRIU and runc, newer than the distribution has them, in a folder of their own;
//! 4. [`images`]: root directories of containers with Redis and with PostgreSQL;
//! 5. [`tools`]: cargo's helpers;
//! 6. [`sources`], [`private_apt`], [`version`], [`draft`], [`lock`]: what these stand on.
//!
//! Rules: what is there is not made again, and finding that out starts no program. What is made appears whole or not
//! at all. Nothing on the host is upgraded. No address of a package mirror is known here: the machine's own
//! configuration says where packages come from.

mod bundle;
mod images;
mod packages;
pub(crate) mod tools;

mod draft;
mod lock;
mod private_apt;
mod sources;
mod version;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::workspace::Workspace;

/// Where set-up puts things.
#[derive(Debug)]
pub(crate) struct Places {
    /// CRIU and runc; one per machine.
    bundle: PathBuf,
    /// Downloads and tools that outlive any checkout.
    cache: PathBuf,
    /// What belongs to this checkout: images and logs.
    made: PathBuf,
}

impl Places {
    /// `UMS_BUNDLE` and `UMS_CACHE` move the two places outside of the checkout; both must be absolute.
    pub(crate) fn of(workspace: &Workspace) -> Result<Self> {
        Ok(Self {
            bundle: folder_from("UMS_BUNDLE")?.unwrap_or_else(|| "/var/lib/ums/bundle".into()),
            cache: folder_from("UMS_CACHE")?.unwrap_or_else(default_cache),
            made: workspace.target_directory.join("ums"),
        })
    }

    /// Removes what set-up made below the target directory.
    pub(crate) fn remove_made(&self) -> Result<()> {
        draft::remove(&self.made)
    }

    /// Removes the bundle and everything cached, so that the next set-up makes and downloads all anew.
    pub(crate) fn forget(&self) -> Result<()> {
        images::forget(self)?;
        draft::remove(&self.bundle)?;
        bundle::forget_downloads(self)?;
        tools::forget(self)
    }

    /// The file that takes the output of one step.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.made.join("log").join(format!("{name}.log"))
    }
}

/// A plain user can run the checks, which need tools but no root: their cache is in the home folder.
fn default_cache() -> PathBuf {
    let machine = PathBuf::from("/var/cache/ums");
    match std::env::var_os("HOME") {
        Some(home) if !writable(&machine) => Path::new(&home).join(".cache/ums"),
        _ => machine,
    }
}

fn writable(folder: &Path) -> bool {
    let probe = folder.join(format!(".probe-{}", std::process::id()));
    let done = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&probe, b""));
    let _ = std::fs::remove_file(&probe);
    done.is_ok()
}

fn folder_from(variable: &str) -> Result<Option<PathBuf>> {
    let Some(value) = std::env::var_os(variable).filter(|value| !value.is_empty()) else { return Ok(None) };
    let folder = PathBuf::from(value);
    if !folder.is_absolute() {
        bail!("{variable}={} is not an absolute path; give it from the root on", folder.display());
    }
    Ok(Some(folder))
}

/// What services are run, dumped and restored with on this machine.
#[derive(Debug)]
pub(crate) struct Lab {
    /// Folder with CRIU, runc and all libraries that they need.
    pub(crate) bundle: PathBuf,
    /// Root directory of a Debian with redis-server and redis-tools.
    pub(crate) redis_rootfs: PathBuf,
    /// Root directory of a Debian with PostgreSQL.
    pub(crate) postgres_rootfs: PathBuf,
}

impl Lab {
    /// Gets what is missing. On `Ok` everything is in place; a repeated call only looks. On `Err` what was finished
    /// stays, and a repeated call goes on from there.
    pub(crate) fn prepare(places: &Places) -> Result<Self> {
        if std::env::consts::ARCH != "x86_64" {
            bail!("UMS runs on x86-64 only for now; this machine is {}", std::env::consts::ARCH);
        }
        let mut needed = vec![packages::NFTABLES, packages::IPROUTE2, packages::IPTABLES];
        needed.extend(bundle::needs(places));
        needed.extend(images::needs(places));
        packages::ensure(&needed, places)?;
        bundle::ensure(places).context("cannot make the CRIU bundle")?;
        images::ensure(places)?;
        Ok(Self {
            bundle: places.bundle.clone(),
            redis_rootfs: images::REDIS.place(places),
            postgres_rootfs: images::POSTGRES.place(places),
        })
    }

    /// The CRIU of the bundle.
    pub(crate) fn criu(&self) -> PathBuf {
        self.bundle.join(bundle::CRIU)
    }

    /// The runc of the bundle.
    pub(crate) fn runc(&self) -> PathBuf {
        self.bundle.join(bundle::RUNC)
    }
}

/// Tells that a step begins and, when it went well, how long it took.
fn step<T>(what: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    process::say(&format!("{what} ..."));
    let start = Instant::now();
    let done = run()?;
    process::say(&format!("{what}: done in {:.1} s", start.elapsed().as_secs_f64()));
    Ok(done)
}
