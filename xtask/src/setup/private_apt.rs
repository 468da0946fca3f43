//! An apt that knows nothing of this host's packages: own sources, lists, caches, and an empty list of installed
//! packages.
//!
//! Packages of a newer release cannot be installed beside those of an older one without upgrading the C library of
//! the whole host. Asked with an empty list of installed packages, apt resolves *all* that a package needs, down to
//! the C library, and downloads it; unpacked into one folder that is complete in itself. The host's apt configuration
//! still counts where it says how to reach the mirror (proxies, credentials, certificates).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::sources::{Archive, SignedBy};
use crate::process;

/// Longest time for reading the lists or for the downloads (some 25 MB each).
const DEADLINE: Duration = Duration::from_mins(15);

/// Name of its configuration file; a failed step can be repeated by hand with it.
const CONFIGURATION: &str = "apt.conf";

/// A private apt in a folder of its own.
#[derive(Debug)]
pub(crate) struct PrivateApt<'a> {
    root: &'a Path,
    log: &'a Path,
}

impl<'a> PrivateApt<'a> {
    /// Lays out the folder `root`, which is made anew, for one suite of one archive.
    pub(crate) fn new(root: &'a Path, log: &'a Path, archive: &Archive, suite: &str) -> Result<Self> {
        super::draft::remove(root)?;
        for folder in ["lists/partial", "cache/archives/partial", "dpkg", "empty"] {
            let folder = root.join(folder);
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        }
        let source = source_line(archive, suite, root)?;
        let files = [
            (CONFIGURATION, configuration(root)),
            ("sources.list", source),
            ("preferences", String::new()),
            ("dpkg/status", String::new()),
        ];
        for (file, text) in files {
            let file = root.join(file);
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(Self { root, log })
    }

    /// Downloads packages with everything that they depend on, and returns the files.
    pub(crate) fn download(&self, packages: &[&str]) -> Result<Vec<PathBuf>> {
        self.apt_get(&["update"], &[])?;
        self.apt_get(&["install", "--yes", "--no-install-recommends", "--download-only"], packages)?;
        let archives = self.root.join("cache/archives");
        let mut files = Vec::new();
        for entry in fs::read_dir(&archives).with_context(|| format!("cannot list {}", archives.display()))? {
            let path = entry.with_context(|| format!("cannot list {}", archives.display()))?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }

    fn apt_get(&self, verb: &[&str], packages: &[&str]) -> Result<()> {
        let mut apt = process::command("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive");
        apt.arg("-c").arg(self.root.join(CONFIGURATION)).args(verb).args(packages);
        process::run_logged(&mut apt, self.log, DEADLINE)
    }
}

/// The configuration that makes it private. It is read after the host's own, which it replaces where both speak.
fn configuration(root: &Path) -> String {
    let root = root.display();
    format!(
        r#"Dir::Etc::sourcelist "{root}/sources.list";
Dir::Etc::sourceparts "{root}/empty";
Dir::Etc::preferences "{root}/preferences";
Dir::Etc::preferencesparts "{root}/empty";
Dir::State::lists "{root}/lists";
Dir::State::status "{root}/dpkg/status";
Dir::State::extended_states "{root}/dpkg/extended_states";
Dir::Cache "{root}/cache";
// Programs that the host starts after every apt-get look at the host's packages, not at these.
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
// The folders are root's own; without this apt warns that its download user cannot write there.
APT::Sandbox::User "root";
// A default release of the host would not exist in these sources.
APT::Default-Release "";
// By itself apt calls it a success when no mirror answered.
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
"#
    )
}

/// The archive in apt's one-line format, for `suite`. A key that stands in the configuration itself is written to a file in `folder`.
pub(crate) fn source_line(archive: &Archive, suite: &str, folder: &Path) -> Result<String> {
    let mut options = vec!["arch=amd64".to_owned()];
    match &archive.signed_by {
        SignedBy::Machine => {}
        SignedBy::Keys(keys) => options.push(format!("signed-by={keys}")),
        SignedBy::Armoured(key) => {
            let file = folder.join("key.asc");
            fs::write(&file, key).with_context(|| format!("cannot write the key {}", file.display()))?;
            options.push(format!("signed-by={}", file.display()));
        }
    }
    options.extend(archive.trusted.then(|| "trusted=yes".to_owned()));
    Ok(format!("deb [{}] {} {suite} main\n", options.join(" "), archive.uri))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(signed_by: SignedBy, trusted: bool) -> Archive {
        Archive { uri: "http://mirror.example/debian".to_owned(), signed_by, trusted }
    }

    #[test]
    fn what_the_machine_trusts_is_passed_on() {
        let line = |archive: &Archive| source_line(archive, "forky", Path::new("/none")).unwrap();
        assert_eq!(
            line(&archive(SignedBy::Keys("/k.gpg".to_owned()), false)),
            "deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian forky main\n"
        );
        assert_eq!(
            line(&archive(SignedBy::Machine, true)),
            "deb [arch=amd64 trusted=yes] http://mirror.example/debian forky main\n"
        );
    }

    #[test]
    fn a_key_in_the_configuration_becomes_a_file() {
        let folder = std::env::temp_dir().join(format!("xtask-{}-key", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let line = source_line(&archive(SignedBy::Armoured("KEY\n".to_owned()), false), "sid", &folder);
        let key = fs::read_to_string(folder.join("key.asc"));
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(key.unwrap(), "KEY\n");
        assert!(line.unwrap().contains(&format!("signed-by={}/key.asc]", folder.display())));
    }
}
