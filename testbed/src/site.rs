//! One site: a running `ums site` daemon in its network namespace, driven from outside through the `ums` command.

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;
use ums_model::names::Bytes;

use crate::cli::{self, Outcome};
use crate::disk::Disk;
use crate::net::{Net, SiteIndex};
use crate::ns::Ns;
use crate::processes;
use crate::sweep::CGROUP_NAME_FILE;
use crate::tag::{MARKER, Tag};
use crate::watch::Watch;

/// A daemon opens its journal, recovers and listens; with services to recover that takes a few seconds.
const READY: Duration = Duration::from_secs(60);
/// Longest command that does not migrate: `run` unpacks an image, `stop` waits for a service.
const COMMAND: Duration = Duration::from_secs(120);
/// Longest migration, at the slowest link a test uses.
pub(crate) const MIGRATION: Duration = Duration::from_secs(300);
/// Where a site listens for other sites.
const PORT: u16 = 7443;
/// Name of the site mount that holds the witness files.
pub(crate) const WITNESS_MOUNT: &str = "witness";
/// Lines of each log that a failed test shows.
const TAIL: usize = 40;

/// A site of a lab. Dropping it kills the daemon; what the daemon started goes with the lab.
#[derive(Debug)]
pub struct Site {
    index: SiteIndex,
    ns: Ns,
    listen: String,
    directory: PathBuf,
    program: PathBuf,
    tag: Tag,
    daemon: Mutex<Option<Child>>,
    /// Where its state is, if that is a disk of its own. Unmounted with the lab.
    disk: Option<Disk>,
}

impl Site {
    /// Prepares the directories of a site, its state on a disk of its own if `disk` says how large, and starts its daemon,
    /// `program`.
    ///
    /// On `Ok` the daemon said that it is ready. On `Err` it does not run.
    pub fn start(net: &Net, index: SiteIndex, program: &Path, disk: Option<Bytes>) -> Result<Self> {
        let directory = net.tag().directory().join(index.name());
        let disk = disk.map(|size| Disk::make(&directory, "state", size)).transpose()?;
        let site = Self {
            disk,
            index,
            ns: net.site(index).clone(),
            listen: format!("{}:{PORT}", net.address(index)),
            program: program.to_owned(),
            tag: net.tag().clone(),
            daemon: Mutex::new(None),
            directory,
        };
        let witness = site.witness_directory();
        for path in [site.state(), witness.clone()] {
            fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        }
        // A service's root may be any user of this machine.
        fs::set_permissions(&witness, Permissions::from_mode(0o777))
            .with_context(|| format!("cannot open {} to everybody", witness.display()))?;
        site.launch(&[])?;
        Ok(site)
    }

    /// Which site it is.
    pub fn index(&self) -> SiteIndex {
        self.index
    }

    /// Its name towards the product.
    pub fn name(&self) -> &'static str {
        self.index.name()
    }

    /// Its state directory, as given to the daemon.
    pub fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// The daemon's Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.state().join("site.sock")
    }

    /// The program it runs.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Host directory behind the site mount of the witness.
    pub fn witness_directory(&self) -> PathBuf {
        self.directory.join("witness")
    }

    /// Runs a command at this site, whatever its exit code.
    pub fn ums(&self, args: &[&str]) -> Result<Outcome> {
        let deadline = if args.first() == Some(&"migrate") { MIGRATION } else { COMMAND };
        cli::call(&self.program, &self.socket(), &self.tag, args, deadline)
            .with_context(|| format!("at site {}", self.index))
    }

    /// Follows the migration of a service as the daemon tells it.
    pub fn watch(&self, service: &str) -> Result<Watch> {
        Watch::start(&self.program, &self.socket(), &self.tag, service)
    }

    /// Kills the daemon with SIGKILL. Its services live on. Safe to repeat.
    pub fn kill9(&self) -> Result<()> {
        let Some(mut daemon) = self.daemon().take() else { return Ok(()) };
        daemon.kill().context("cannot kill a site daemon")?;
        daemon.wait().context("cannot reap a site daemon")?;
        Ok(())
    }

    /// Kills the daemon if it runs, and starts it again on the same state.
    pub fn restart(&self) -> Result<()> {
        self.restart_with(&[])
    }

    /// [`Site::restart`] with additional environment variables for this life of the daemon.
    pub fn restart_with(&self, environment: &[(&str, String)]) -> Result<()> {
        self.kill9()?;
        self.launch(environment)
    }

    /// Its own disk.
    ///
    /// On `Err` it has none: see [`crate::rig::Rig::with_disks`].
    pub fn disk(&self) -> Result<&Disk> {
        self.disk.as_ref().with_context(|| format!("site {} has no disk of its own", self.index))
    }

    /// The host loses its power: every process of the site ends at the same moment, and what was not on its disk is gone.
    /// It needs a disk of its own. [`Site::restart`] switches it on again.
    pub fn lose_power(&self) -> Result<()> {
        let disk = self.disk()?;
        let state = self.state().display().to_string();
        // Nothing that was written since the last sync reaches the disk any more.
        disk.pull_the_plug()?;
        let daemon = self.daemon_pid();
        processes::power_off(&|pid| Some(pid) == daemon || processes::is_of_site(pid, &state))?;
        self.kill9()?;
        disk.mount_again()
    }

    /// Pid of the daemon, if it runs.
    pub fn daemon_pid(&self) -> Option<i32> {
        self.daemon().as_ref().map(|daemon| daemon.id().cast_signed())
    }

    /// Whether the daemon runs. One that ended by itself does not.
    pub fn is_alive(&self) -> bool {
        self.daemon().as_mut().is_some_and(|daemon| matches!(daemon.try_wait(), Ok(None)))
    }

    /// Name of the cgroup of its services, below each hierarchy's root. The daemon must run.
    pub fn cgroup(&self) -> Result<String> {
        let status = self.ums(&["status"])?.success()?;
        let short = status.text("fingerprint")?.get(..8).context("a fingerprint is longer")?;
        Ok(format!("ums-{short}"))
    }

    /// Pid of the keeper of a service here.
    pub fn keeper_pid(&self, service: &str) -> Result<i32> {
        self.pid_of(service, "keeper_pid")
    }

    /// Pid of the first process of a service here.
    pub fn service_pid(&self, service: &str) -> Result<i32> {
        self.pid_of(service, "pid")
    }

    /// Pid of the nest of a service here: the keeper's child that is `ums nest`.
    pub fn nest_pid(&self, service: &str) -> Result<i32> {
        let keeper = self.keeper_pid(service)?;
        let is_nest = |pid: i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).skip(1).any(|word| word == b"nest")
        };
        let found =
            processes::all()?.into_iter().find(|process| process.parent == keeper && is_nest(process.pid));
        let found = found.with_context(|| format!("the keeper {keeper} of {service} has no nest"))?;
        Ok(found.pid)
    }

    /// The end of every log of this site, for the report of a failed test.
    pub fn logs(&self) -> String {
        let mut files = vec![self.directory.join("daemon.log")];
        if let Ok(services) = fs::read_dir(self.state().join("services")) {
            files.extend(services.flatten().map(|service| service.path().join("nest.log")));
        }
        let part = |file: &PathBuf| {
            let text = fs::read(file).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
            format!("--- {} ---\n{tail}\n", file.display())
        };
        files.iter().map(part).collect()
    }

    fn pid_of(&self, service: &str, field: &str) -> Result<i32> {
        let outcome = self.ums(&["ps"])?.success()?;
        let pid = find_service(&outcome.lines, service).and_then(|status| status.get(field)?.as_i64());
        let pid = pid.with_context(|| format!("site {} knows no {field} of {service}", self.index))?;
        i32::try_from(pid).context("a pid out of range")
    }

    fn launch(&self, environment: &[(&str, String)]) -> Result<()> {
        let log = self.directory.join("daemon.log");
        let log = File::options().create(true).append(true).open(&log);
        let log = log.with_context(|| format!("cannot open the log of site {}", self.index))?;
        let mut command = Command::new(&self.program);
        command
            .args(["--json", "site", "--name", self.name(), "--listen", &self.listen, "--state"])
            .arg(self.state())
            .arg("--site-mount")
            .arg(format!("{WITNESS_MOUNT}={}", self.witness_directory().display()))
            .env(MARKER, self.tag.as_str())
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        let mut child = self.ns.spawn(&mut command)?;
        let stdout = child.stdout.take().context("a daemon without stdout")?;
        *self.daemon() = Some(child);
        let ready = first_line(stdout, READY);
        let ready = ready.and_then(|line| Ok(serde_json::from_str::<Value>(&line)?)).and_then(|line| {
            ensure!(line["ready"] == true, "it says {line}");
            Ok(line)
        });
        match ready {
            Ok(line) => self.note_cgroup(&line),
            Err(error) => {
                self.kill9()?;
                Err(error.context(format!("site {} did not become ready\n{}", self.index, self.logs())))
            }
        }
    }

    /// Leaves word of the cgroup's name for whoever sweeps up after this process, should it be killed.
    fn note_cgroup(&self, ready: &Value) -> Result<()> {
        let Some(short) = ready["fingerprint"].as_str().and_then(|text| text.get(..8)) else { return Ok(()) };
        fs::write(self.directory.join(CGROUP_NAME_FILE), format!("ums-{short}"))
            .context("cannot note the name of a site's cgroup")
    }

    fn daemon(&self) -> MutexGuard<'_, Option<Child>> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Err(error) = self.kill9() {
            eprintln!("testbed: {error:#}");
        }
    }
}

/// A service in the answer of `ps`: lines with a `name`, with a `spec` that has one, or lists of such.
fn find_service<'a>(lines: &'a [Value], name: &str) -> Option<&'a Value> {
    let is_it = |value: &&Value| value["name"] == name || value["spec"]["name"] == name;
    lines.iter().find_map(|line| {
        let lists =
            line.as_object().into_iter().flat_map(|object| object.values()).filter_map(Value::as_array);
        let mut listed = line.as_array().into_iter().chain(lists).flatten();
        Some(line).filter(is_it).or_else(|| listed.find(is_it))
    })
}

/// The first line of a daemon's output; the rest is read and thrown away, so that the daemon never blocks on it.
fn first_line(stdout: ChildStdout, deadline: Duration) -> Result<String> {
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::Builder::new().name("daemon output".to_owned()).spawn(move || {
        let mut reader = BufReader::new(stdout);
        let mut line = String::new();
        let outcome = reader.read_line(&mut line).map(|_| line);
        // Nobody waits any more if the deadline has passed.
        let _ = sender.send(outcome);
        let _ = std::io::copy(&mut reader.by_ref(), &mut std::io::sink());
    })?;
    match receiver.recv_timeout(deadline) {
        Ok(Ok(line)) if line.is_empty() => bail!("it ended without a word"),
        Ok(line) => line.context("cannot read its output"),
        Err(_) => Err(anyhow!("it said nothing within {deadline:?}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_service_is_found_in_any_form_of_list() {
        let web = json!({"spec": {"name": "web"}, "pid": 7});
        for lines in [vec![web.clone()], vec![json!([web])], vec![json!({"services": [{"name": "x"}, web]})]]
        {
            assert_eq!(find_service(&lines, "web").unwrap()["pid"], 7);
            assert!(find_service(&lines, "db").is_none());
        }
    }
}
