//! A tree of processes with its own pid and network namespace in a cgroup, without any container runtime.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use ums_engine::cgroup::Cgroup;
use ums_engine::criu::dump::{DumpDeadlines, DumpRequest};
use ums_engine::spawn::{Namespaces, Spawn};

use crate::machine::{Machine, assert_runs, clean_up, helper};

pub(crate) struct Service {
    pub(crate) machine: Machine,
    pub(crate) cgroup: Cgroup,
    pub(crate) pid: i32,
    /// It grows while the service runs.
    pub(crate) file: PathBuf,
}

impl Service {
    /// Starts the helper in one of its roles.
    pub(crate) fn start(machine: Machine, role: &str) -> Self {
        let cgroup = machine.cgroup();
        fs::create_dir_all(cgroup.dir()).expect("create a cgroup");
        let file = machine.folder.path().join("output");
        let mut command = Command::new(helper());
        command.arg(role).arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let namespaces = Namespaces { pid: true, network: true, mount: false };
        let pid = Spawn::new(command).namespaces(namespaces).session().detach().expect("start the service");
        let service = Self { machine, cgroup, pid, file };
        // Its children are forked later than this, as a rule; one that is not shows when the dump is checked.
        service.cgroup.admit(pid).expect("put the service into its cgroup");
        assert_runs(&service.file);
        for pid in ums_members(pid) {
            service.cgroup.admit(pid).expect("put a child into the cgroup");
        }
        service
    }

    pub(crate) fn request(&self, images: &str) -> DumpRequest {
        DumpRequest {
            criu: self.machine.criu.clone(),
            pid: self.pid,
            root: "/".into(),
            images: self.machine.folder(images),
            external_network: Some("network".to_owned()),
            external_mounts: Vec::new(),
            cgroup: self.cgroup.clone(),
            deadlines: DumpDeadlines::default(),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        clean_up(&self.cgroup);
    }
}

/// All processes in the pid namespace of `pid` that are not zombies.
fn ums_members(pid: i32) -> Vec<i32> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = namespace(&pid.to_string());
    let names =
        fs::read_dir("/proc").expect("/proc").filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let inside = names.filter(|name| name.parse::<i32>().is_ok() && namespace(name) == own);
    let alive = inside.filter(|name| {
        fs::read_to_string(format!("/proc/{name}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    });
    alive.filter_map(|name| name.parse().ok()).collect()
}
