//! CRIU and runc with everything that they need, in one folder of their own.
//!
//! UMS needs CRIU 4.2.1: older ones cannot dump sockets on kernel 6.16 and newer, or do not run there at all. Debian
//! has it in newer releases only, whose C library must not replace the host's. So the packages are downloaded by a
//! private apt ([`super::private_apt`]), unpacked into a folder, and the two programs are told to use the loader and
//! the libraries of that folder. The loader's path is absolute, hence a bundle works only in the place it was made for.
//!
//! Starting the programs through the loader would need no patching, but runc starts itself again from
//! `/proc/self/exe`, which would then be the loader.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use super::draft::{self, Draft};
use super::lock::Lock;
use super::packages::{Need, PATCHELF};
use super::private_apt::PrivateApt;
use super::version::Version;
use super::{Places, sources, step};
use crate::process;

/// Raised when the way of making a bundle changes: bundles made the old way are made anew.
const RECIPE: u32 = 1;

/// Releases that have what is needed, the steadiest first.
const SUITES: [&str; 2] = ["forky", "sid"];

/// The programs inside the bundle.
pub(crate) const CRIU: &str = "usr/sbin/criu";
pub(crate) const RUNC: &str = "usr/sbin/runc";

/// The loader and the libraries inside the bundle.
const LOADER: &str = "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// Documentation and translations: nothing reads them there.
const NEEDLESS: [&str; 4] = ["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/lintian"];

/// Ending of the folder in which the private apt works; it is left behind when that fails, to look at.
const APT: &str = "apt";

/// What the bundle is made of, written into it.
const STAMP: &str = "ums-bundle.json";

/// Longest time to unpack a package or to patch a program.
const DEADLINE: Duration = Duration::from_mins(2);

/// Says what a bundle is; read to decide whether it can be used.
#[derive(Debug, Serialize, Deserialize)]
struct Stamp {
    recipe: u32,
    /// The place that the programs were patched for.
    place: PathBuf,
    suite: String,
    /// Versions as the programs print them.
    versions: BTreeMap<String, String>,
    /// Names of the package files, which hold Debian's versions.
    packages: Vec<String>,
}

/// The tool that making a bundle takes, if one has to be made.
pub(crate) fn needs(places: &Places) -> Option<Need> {
    usable(&places.bundle).err().map(|_| PATCHELF)
}

/// Makes the bundle unless a usable one is there.
pub(crate) fn ensure(places: &Places) -> Result<()> {
    if usable(&places.bundle).is_ok() {
        return Ok(());
    }
    let _lock = Lock::of(&places.bundle)?;
    if usable(&places.bundle).is_ok() {
        return Ok(());
    }
    let downloads = downloaded(places)?;
    step("unpacking CRIU and runc", || make(places, &downloads))
}

/// Forgets the downloaded packages, so that the next bundle is made of the newest ones.
pub(crate) fn forget_downloads(places: &Places) -> Result<()> {
    let folder = downloads(places);
    draft::remove(&draft::beside(&folder, APT)?)?;
    draft::remove(&folder)
}

fn downloads(places: &Places) -> PathBuf {
    places.cache.join("bundle-packages")
}

/// Tells why a bundle cannot be used. Starts nothing.
fn usable(bundle: &Path) -> Result<()> {
    let stamp = bundle.join(STAMP);
    let text = fs::read(&stamp).with_context(|| format!("cannot read {}", stamp.display()))?;
    let stamp: Stamp =
        serde_json::from_slice(&text).with_context(|| format!("cannot read {}", stamp.display()))?;
    if stamp.recipe != RECIPE || stamp.place != bundle {
        bail!("the bundle was made by recipe {} for {}", stamp.recipe, stamp.place.display());
    }
    for file in [CRIU, RUNC, LOADER] {
        if !process::is_program(&bundle.join(file)) {
            bail!("{file} is missing in the bundle");
        }
    }
    Ok(())
}

/// A folder with the packages: from the cache, else from the first archive and suite that have them.
fn downloaded(places: &Places) -> Result<PathBuf> {
    let folder = downloads(places);
    let _lock = Lock::of(&folder)?;
    if folder.is_dir() {
        return Ok(folder);
    }
    let os_release = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let codename = sources::codename(&os_release)
        .ok_or_else(|| anyhow!("/etc/os-release has no VERSION_CODENAME: is this a Debian?"))?;
    let archives = sources::archives(Path::new("/etc/apt"), &codename)?;
    let mut failures = Vec::new();
    for archive in &archives {
        for suite in SUITES {
            match step(&format!("downloading CRIU and runc from {suite}"), || {
                download(places, &folder, archive, suite)
            }) {
                Ok(()) => return Ok(folder),
                Err(error) => failures.push(format!("{suite} at {}: {error:#}", archive.uri)),
            }
        }
    }
    bail!(
        "none of the archives in /etc/apt that carry {codename} gave CRIU and runc (asked for {}); see with \
         `apt-get update` whether the mirror answers, and run the command again\n{}",
        SUITES.join(", "),
        failures.join("\n")
    )
}

fn download(places: &Places, folder: &Path, archive: &sources::Archive, suite: &str) -> Result<()> {
    let work = draft::beside(folder, APT)?;
    let log = places.log(&format!("private-apt-{suite}"));
    let files = PrivateApt::new(&work, &log, archive, suite)?.download(&["criu", "runc"])?;
    let draft = Draft::folder(folder)?;
    for file in &files {
        let to = draft.path().join(file.file_name().unwrap_or_default());
        fs::rename(file, &to)
            .with_context(|| format!("cannot move {} to {}", file.display(), to.display()))?;
    }
    fs::write(draft.path().join("suite"), suite)
        .context("cannot note the suite of the downloaded packages")?;
    draft.publish()?;
    draft::remove(&work)
}

fn make(places: &Places, downloads: &Path) -> Result<()> {
    let bundle = &places.bundle;
    let draft = Draft::folder(bundle)?;
    let log = places.log("bundle");
    let packages = package_files(downloads)?;
    for package in &packages {
        let mut unpack = process::command("dpkg-deb");
        unpack.arg("--extract").arg(downloads.join(package)).arg(draft.path());
        process::run_logged(&mut unpack, &log, DEADLINE)
            .with_context(|| format!("if the download is damaged, remove {}", downloads.display()))?;
    }
    for folder in NEEDLESS {
        draft::remove(&draft.path().join(folder))?;
    }
    // Asked before they are patched, through the loader: afterwards they work in their final place only.
    let mut versions = BTreeMap::new();
    for (program, least) in [(CRIU, Version::new(&[4, 2, 1])), (RUNC, Version::new(&[1, 2, 0]))] {
        let version = version(draft.path(), program)?;
        if !version.at_least(&least) {
            bail!(
                "{program} is version {version}, but UMS needs {least} or newer; `cargo xtask setup --refresh` \
                 downloads the newest that this machine's mirror has"
            );
        }
        let name = Path::new(program).file_name().unwrap_or_default().to_string_lossy().into_owned();
        versions.insert(name, version.to_string());
    }
    for program in [CRIU, RUNC] {
        let mut patch = process::command("patchelf");
        patch.arg("--set-interpreter").arg(bundle.join(LOADER));
        // The plain form (DT_RUNPATH) is not used for the libraries that a library needs.
        patch.arg("--force-rpath").arg("--set-rpath").arg(bundle.join(LIBRARIES));
        patch.arg(draft.path().join(program));
        process::run_logged(&mut patch, &log, DEADLINE)?;
    }
    let suite =
        fs::read_to_string(downloads.join("suite")).context("cannot read the suite of the packages")?;
    let stamp = Stamp { recipe: RECIPE, place: bundle.clone(), suite, versions, packages };
    let text = serde_json::to_vec_pretty(&stamp).context("cannot describe the bundle")?;
    fs::write(draft.path().join(STAMP), text).context("cannot write the stamp of the bundle")?;
    draft.publish()?;
    usable(bundle)
}

fn version(root: &Path, program: &str) -> Result<Version> {
    let mut ask = process::command(root.join(LOADER));
    ask.arg("--library-path").arg(root.join(LIBRARIES)).arg(root.join(program)).arg("--version");
    let answer = process::capture(&mut ask)?;
    Version::find(&answer).ok_or_else(|| anyhow!("{program} tells no version but `{}`", answer.trim()))
}

fn package_files(folder: &Path) -> Result<Vec<String>> {
    let list = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in list {
        let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| name.ends_with(".deb"));
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_bundle_counts_only_in_its_place_by_its_recipe_and_complete() {
        let bundle = std::env::temp_dir().join(format!("xtask-{}-bundle", std::process::id()));
        for file in [CRIU, RUNC, LOADER] {
            let path = bundle.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mut told = Vec::new();
        for (recipe, place) in
            [(RECIPE, bundle.clone()), (RECIPE + 1, bundle.clone()), (RECIPE, "/elsewhere".into())]
        {
            let (suite, versions, packages) = ("forky".to_owned(), BTreeMap::new(), Vec::new());
            let stamp = Stamp { recipe, place, suite, versions, packages };
            fs::write(bundle.join(STAMP), serde_json::to_vec(&stamp).unwrap()).unwrap();
            told.push(usable(&bundle).is_ok());
        }
        fs::remove_file(bundle.join(STAMP)).unwrap();
        told.push(usable(&bundle).is_ok());
        fs::remove_dir_all(&bundle).unwrap();
        assert_eq!(told, [true, false, false, false]);
    }
}
