//! A container made by runc, dumped by the engine and restored through the proxy.

use std::fs::{self, File};
use std::io::{PipeReader, PipeWriter, pipe};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::mount::{MountFlags, mount};
use serde_json::{Value, json};
use ums_engine::cgroup::Cgroup;
use ums_engine::criu::dump::{ArmedDump, DumpDeadlines, DumpRequest, Dumped};
use ums_engine::criu::restore::{self, ProxyListener, RestoreDeadlines};
use ums_engine::images::{Complete, Sink, Tail, Totals};
use ums_engine::spawn::{Namespaces, Spawn};

use crate::machine::{Machine, assert_runs, clean_up, helper, reap, wait_until};

const NAME: &str = "service";

/// Most bytes of images in these tests.
const LIMIT: u64 = 1 << 30;

pub(crate) struct Container {
    pub(crate) machine: Machine,
    pub(crate) cgroup: Cgroup,
    pub(crate) pid: i32,
    /// It grows while the container runs.
    pub(crate) file: PathBuf,
    /// What the standard streams were when it was dumped.
    streams: Vec<String>,
    /// Our ends of its standard streams, and copies of its own for the next copy of it.
    pipes: Pipes,
}

struct Pipes {
    input: PipeReader,
    output: PipeWriter,
    _ours: (PipeWriter, PipeReader),
}

impl Container {
    /// Creates and starts it.
    pub(crate) fn start(machine: Machine) -> Self {
        let cgroup = machine.cgroup();
        let root = machine.folder("root");
        fs::copy(helper(), root.join("helper")).expect("copy the helper");
        let network = network(&machine);
        configure(&machine, &network);
        let file = root.join("output");
        let pipes = Pipes::new();
        let mut container = Self { machine, cgroup, pid: 0, file, streams: Vec::new(), pipes };
        let mut create = container.runc();
        create
            .args(["create", "--bundle"])
            .arg(container.bundle())
            .arg("--pid-file")
            .arg(container.pid_file());
        container.pipes.give_to(create.arg(NAME));
        assert!(create.status().expect("run runc").success(), "runc create: {}", container.said());
        container.pid = container.read_pid();
        container.streams = restore::read_descriptors(container.pid).expect("standard streams");
        let started = container.runc().args(["start", NAME]).output().expect("run runc");
        assert!(started.status.success(), "runc start: {}", text(&started));
        assert_runs(&container.file);
        container
    }

    pub(crate) fn request(&self, images: &Path) -> DumpRequest {
        DumpRequest {
            criu: self.machine.criu.clone(),
            pid: self.pid,
            root: self.machine.folder("root"),
            images: images.to_owned(),
            external_network: Some("extRootNetNS".to_owned()),
            external_mounts: Vec::new(),
            cgroup: self.cgroup.clone(),
            deadlines: DumpDeadlines::default(),
        }
    }

    /// Dumps into one directory and carries the images to another while they are written.
    pub(crate) async fn dump(&self, images: &Path, destination: &Path) -> Dumped {
        let armed = ArmedDump::arm(self.request(images)).await.expect("arm");
        let (tail, complete) = Tail::of(images);
        let (dumped, totals) = tokio::join!(run(armed, complete), carry(tail, destination));
        assert_eq!(totals.0, totals.1, "source and destination count the same");
        dumped
    }

    /// The original is given up: killed without running again, and forgotten by runc.
    pub(crate) fn discard(&self) {
        self.cgroup.kill_all(crate::machine::SOON).expect("kill the original");
        reap();
        let deleted = self.runc().args(["delete", "--force", NAME]).output().expect("run runc");
        assert!(deleted.status.success(), "runc delete: {}", text(&deleted));
    }

    /// Starts `runc restore` as the nest does; it stops when it has come to its CRIU, the proxy.
    pub(crate) fn start_restore(&self, images: &Path, listener: &ProxyListener, cgroup: &Cgroup) -> Child {
        restore::write_descriptors(images, &self.streams).expect("write the descriptors");
        let path = self.machine.folder("path");
        restore::make_path(&path, &helper()).expect("make a path");
        let environment = listener.environment(&path, &self.machine.criu, cgroup).expect("environment");
        let mut command = self.runc();
        command
            .args(["restore", "--detach", "--tcp-established", "--file-locks", "--bundle"])
            .arg(self.bundle());
        command.arg("--image-path").arg(images).arg("--work-path").arg(self.machine.folder("work"));
        command.arg("--pid-file").arg(self.pid_file()).arg(NAME);
        self.pipes.give_to(command.envs(environment));
        command.spawn().expect("start runc")
    }

    pub(crate) fn listener(&self) -> ProxyListener {
        self.hurried_listener(RestoreDeadlines::default())
    }

    pub(crate) fn hurried_listener(&self, deadlines: RestoreDeadlines) -> ProxyListener {
        ProxyListener::bind(&self.machine.folder("socket").join("proxy.sock"), deadlines).expect("listen")
    }

    /// What runc says about it.
    pub(crate) fn state(&self) -> Value {
        let output = self.runc().args(["state", NAME]).output().expect("run runc");
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// Runs the helper in it.
    pub(crate) fn exec(&self, role: &str) -> Output {
        self.runc().args(["exec", NAME, "/helper", role]).output().expect("run runc")
    }

    pub(crate) fn read_pid(&self) -> i32 {
        fs::read_to_string(self.pid_file()).ok().and_then(|pid| pid.trim().parse().ok()).expect("a pid")
    }

    /// What runc and the container have written.
    pub(crate) fn said(&self) -> String {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let log = text(self.machine.folder("work").join("restore.log"));
        let tail: Vec<_> = log.lines().rev().take(30).collect();
        format!("{}\n{}", text(self.machine.folder.path().join("log")), tail.join("\n"))
    }

    fn runc(&self) -> Command {
        let mut command = Command::new(&self.machine.runc);
        command.arg("--root").arg(self.machine.folder("runc"));
        command.arg("--log").arg(self.machine.folder.path().join("log"));
        command
    }

    fn bundle(&self) -> PathBuf {
        self.machine.folder("bundle")
    }

    fn pid_file(&self) -> PathBuf {
        self.machine.folder.path().join("pid")
    }
}

impl Pipes {
    fn new() -> Self {
        let (input, input_ours) = pipe().expect("a pipe");
        let (output_ours, output) = pipe().expect("a pipe");
        Self { input, output, _ours: (input_ours, output_ours) }
    }

    fn give_to(&self, command: &mut Command) {
        let output = || self.output.try_clone().expect("a copy");
        command.stdin(self.input.try_clone().expect("a copy")).stdout(output()).stderr(output());
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        clean_up(&self.cgroup);
        let _ = self.runc().args(["delete", "--force", NAME]).output();
        reap();
        // A runc or CRIU that was killed leaves mounts.
        let swept = restore::unmount_below(self.machine.folder.path());
        swept.unwrap_or_else(|error| eprintln!("clean up: {error}"));
    }
}

async fn run(armed: ArmedDump, complete: Complete) -> Dumped {
    let dumped = armed.run(|| async { Ok(()) }).await.expect("dump");
    complete.finish();
    dumped
}

async fn carry(mut tail: Tail, destination: &Path) -> (Totals, Totals) {
    let mut sink = Sink::open(destination, LIMIT).expect("open the destination");
    while let Some(chunk) = tail.next().await.expect("read the images") {
        sink.write(&chunk.name, &chunk.bytes).expect("write the images");
        if chunk.last {
            sink.end(&chunk.name);
        }
    }
    (tail.totals(), sink.finish())
}

/// Waits for runc without keeping the runtime from its work.
pub(crate) async fn ended(mut child: Child) -> i32 {
    let status =
        tokio::task::spawn_blocking(move || child.wait().expect("wait for runc")).await.expect("wait");
    status.code().unwrap_or_else(|| -status.signal().unwrap_or(0))
}

/// A new network namespace, and the file that names it.
fn network(machine: &Machine) -> PathBuf {
    let path = machine.folder.path().join("network");
    File::create(&path).expect("a file");
    let mut command = Command::new(helper());
    command.arg("sleep").stdin(Stdio::null());
    let namespaces = Namespaces { network: true, ..Namespaces::default() };
    let mut child = Spawn::new(command).namespaces(namespaces).spawn().expect("spawn");
    let namespace = format!("/proc/{}/ns/net", child.id());
    let mounted = mount(namespace, &path, c"none", MountFlags::BIND, None);
    child.kill().expect("kill the helper");
    child.wait().expect("reap the helper");
    mounted.expect("name the network namespace");
    path
}

/// runc's own default, with the helper, clean descriptors, and the namespaces of a nest.
fn configure(machine: &Machine, network: &Path) {
    let bundle = machine.folder("bundle");
    let output = Command::new(&machine.runc).arg("spec").current_dir(&bundle).output().expect("run runc");
    assert!(output.status.success(), "runc spec: {}", text(&output));
    let path = bundle.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).expect("read")).expect("JSON");
    config["root"] = json!({ "path": machine.folder("root"), "readonly": false });
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["/helper", "tree", "/output"]);
    config["process"].as_object_mut().expect("an object").remove("rlimits");
    config["linux"]["cgroupsPath"] = json!(machine.cgroup_path());
    let namespaces = ["pid", "ipc", "uts", "mount", "cgroup", "time"].map(|kind| json!({ "type": kind }));
    let mut namespaces = namespaces.to_vec();
    namespaces.push(json!({ "type": "network", "path": network }));
    config["linux"]["namespaces"] = Value::Array(namespaces);
    fs::write(&path, config.to_string()).expect("write");
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Waits until a cgroup has no processes.
pub(crate) fn wait_until_empty(cgroup: &Cgroup) {
    wait_until("the cgroup is empty", || {
        reap();
        cgroup.procs().expect("processes").is_empty()
    });
}
