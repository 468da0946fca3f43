//! A lab whose daemons run with short deadlines, and with whatever else a test wants to be different about them.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::command::{Finished, finish};
use crate::lab::Lab;
use crate::net::{A, B, SiteIndex};
use crate::programs;
use crate::rootfs::{WORKLOAD, static_rootfs};
use crate::shaper::Shape;
use crate::site::Site;
use anyhow::{Context, Result};
use ums_model::names::Bytes;

use crate::patience::PATIENCE;

/// A cut link is noticed in seconds, not in a quarter of a minute. The rules are the same, the tests are shorter.
const CONFIGURATION: &str = "\
[deadlines]
connect = 2
handshake = 4
keep_alive = 1
idle = 6
stall = 10
answer = 6
commit = 6
retry_most = 1
";

/// What is different about one site's daemon.
#[derive(Debug, Clone, Default)]
pub struct Twist {
    /// More arguments for `ums site`.
    pub arguments: Vec<String>,
    /// Shell commands in front of the daemon, in a mount namespace of their own that the daemon inherits.
    pub prelude: String,
    /// A program with arguments that starts the daemon.
    pub launcher: String,
    /// More lines for its configuration, after those that every rig has.
    pub configuration: String,
}

/// A lab of two paired sites. All of [`Lab`] can be used on it.
#[derive(Debug)]
pub struct Rig {
    // Dropped first: it needs the program in the directory.
    lab: Lab,
    directory: tempfile::TempDir,
}

impl Rig {
    /// Two sites as any others.
    pub fn new() -> Result<Self> {
        Self::with(&[])
    }

    /// Two sites, some of them different.
    pub fn with(twists: &[(SiteIndex, Twist)]) -> Result<Self> {
        Self::make(twists, None)
    }

    /// [`Rig::with`], each site with a disk of `size` bytes of its own for its state.
    pub fn with_disks(twists: &[(SiteIndex, Twist)], size: Bytes) -> Result<Self> {
        Self::make(twists, Some(size))
    }

    fn make(twists: &[(SiteIndex, Twist)], disk: Option<Bytes>) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("ums-rig-").tempdir()?;
        let configuration = directory.path().join("site.toml");
        for site in [A, B] {
            let more = twists.iter().filter(|(of, _)| *of == site).map(|(_, twist)| &*twist.configuration);
            configure(directory.path(), site, &more.collect::<String>())?;
        }
        let real = programs::find("ums")?;
        // Everything but the daemon is passed on as it is. `exec` keeps the pid, so the lab kills what it means to kill.
        let mut script = format!(
            "#!/bin/sh\nset -e\nreal='{}'\n[ \"$1 $2\" = '--json site' ] || exec \"$real\" \"$@\"\nname=$4\n\
             set -- \"$real\" \"$@\" --config '{}'-$name\ncase $name in\n",
            real.display(),
            configuration.display()
        );
        for (site, Twist { arguments, prelude, launcher, .. }) in twists {
            let arguments: Vec<String> = arguments.iter().map(|word| format!("'{word}'")).collect();
            let prelude_file = directory.path().join(format!("{site}.sh"));
            fs::write(&prelude_file, format!("{prelude}\nexec \"$@\"\n"))?;
            let mut words = launcher.clone();
            if !prelude.is_empty() {
                let _ =
                    write!(words, " unshare --mount --propagation slave sh -e '{}'", prelude_file.display());
            }
            let _ = writeln!(script, "{site}) set -- {words} \"$@\" {} ;;", arguments.join(" "));
        }
        script.push_str("esac\nexec \"$@\"\n");
        let program = directory.path().join("ums");
        fs::write(&program, script)?;
        fs::set_permissions(&program, Permissions::from_mode(0o755))?;
        let lab = Lab::with_disks(2, Shape::open(), &program, disk).context("cannot start two sites")?;
        Ok(Self { lab, directory })
    }

    /// Configures a site anew: with `more` after the lines that every rig has. It holds from the daemon's next start on.
    pub fn configure(&self, site: SiteIndex, more: &str) -> Result<()> {
        configure(self.directory.path(), site, more)
    }
}

fn configure(directory: &Path, site: SiteIndex, more: &str) -> Result<()> {
    let file = directory.join(format!("site.toml-{site}"));
    fs::write(&file, format!("{CONFIGURATION}{more}"))
        .with_context(|| format!("cannot write {}", file.display()))
}

impl Deref for Rig {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.lab
    }
}

/// Makes the static image, and starts a workload of it at A under a name of the test's choice.
pub fn start_static(rig: &Rig, name: &str, options: &[&str], command: &[&str]) -> Result<()> {
    let rootfs = rig.net().tag().directory().join("static");
    static_rootfs(&rootfs)?;
    let rootfs = rootfs.display().to_string();
    let mut args = vec!["run", "--name", name, "--rootfs", &rootfs];
    args.extend(options);
    args.extend(["--", WORKLOAD]);
    args.extend(command);
    rig.a().ums(&args)?.success().map(drop)
}

/// `ums ARGS` at a site as people type it: without `--json`, with `input` as standard input.
pub fn typed(site: &Site, args: &[&str], input: &str) -> Result<Finished> {
    let mut command = Command::new(site.program());
    command.arg("--socket").arg(site.socket()).args(args);
    finish(command, input, PATIENCE)
}

/// Processes of a service, as this machine numbers them: those in its cgroup.
pub fn processes_of(site: &Site, service: &str) -> Result<Vec<i32>> {
    let below = format!("{}/{service}/cgroup.procs", site.cgroup()?);
    // One list, whichever hierarchy it is in.
    let roots = ["freezer", "unified", ""].map(|hierarchy| Path::new("/sys/fs/cgroup").join(hierarchy));
    let lists = roots.iter().filter_map(|root| fs::read_to_string(root.join(&below)).ok());
    let list = lists.into_iter().find(|list| !list.is_empty());
    let list = list.with_context(|| format!("no process in {below}"))?;
    list.lines().map(|pid| Ok(pid.parse()?)).collect()
}
