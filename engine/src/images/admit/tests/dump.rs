//! A dump in memory.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::images::admit::{Admission, AdmittedMount, Intake, IntakeError, Mounted};
use crate::images::format::{Entry, Image};
use crate::images::schema::Value;

/// All images of a service, and how large those with its pages are.
#[derive(Clone)]
pub(super) struct Dump {
    service: String,
    pub(super) files: BTreeMap<String, Vec<u8>>,
    pub(super) pages: BTreeMap<String, u64>,
}

impl Dump {
    /// One that is kept beside the tests.
    pub(super) fn of(service: &str) -> Self {
        let dumps = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/images/admit/tests/dumps");
        Self { service: service.to_owned(), ..Self::read(&dumps.join(service)) }
    }

    /// The content of a directory.
    pub(super) fn read(directory: &Path) -> Self {
        let mut dump = Self { service: String::new(), files: BTreeMap::new(), pages: BTreeMap::new() };
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if let Some(pages) = name.strip_suffix(".size") {
                let size = fs::read_to_string(&path).unwrap().trim().parse().unwrap();
                dump.pages.insert(pages.to_owned(), size);
            } else if name.starts_with("pages-") {
                dump.pages.insert(name, fs::metadata(&path).unwrap().len());
            } else {
                dump.files.insert(name, fs::read(&path).unwrap());
            }
        }
        dump
    }

    /// What its service may have.
    pub(super) fn admission(&self) -> Admission {
        let ids = self.files.keys().any(|name| name.starts_with("userns-"));
        let name =
            if self.service == "redis" || self.service == "memhog" { "a-20000" } else { &self.service };
        Admission {
            ids: ids.then_some(65_536),
            capabilities: 0xa804_25fb,
            mounts: mounts(ids),
            devices: vec![(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)],
            denied_calls: vec![425, 426, 427],
            hostname: name.to_owned(),
            cgroup: format!("ums-b/{name}"),
            unified: false,
            network: "extRootNetNS".to_owned(),
            addresses: ("192.0.0.2".parse().unwrap(), "fd75:6d73::2".parse().unwrap()),
            processes: 1000,
            memory: 8 << 30,
            process_memory: 1 << 30,
            label: None,
            priority: (0, 0),
        }
    }

    /// Takes it. The directory holds what CRIU would read.
    pub(super) fn take(&self, admission: &Admission) -> Result<tempfile::TempDir, IntakeError> {
        let directory = tempfile::tempdir().unwrap();
        let mut intake = Intake::open(directory.path(), admission.clone())?;
        self.pages_into(&mut intake);
        self.images_into(&mut intake)?;
        match intake.finish() {
            Ok(()) => Ok(directory),
            Err(error) => {
                // Of what is refused CRIU could read nothing but pages.
                let left = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
                assert!(left.into_iter().all(|name| name.to_str().unwrap().starts_with("pages-")));
                Err(error)
            }
        }
    }

    pub(super) fn pages_into(&self, intake: &mut Intake) {
        let zeros = vec![0; 1 << 20];
        for (name, size) in &self.pages {
            intake.begin(name).unwrap();
            let mut left = *size;
            while left > 0 {
                let piece = left.min(1 << 20);
                intake.write(name, &zeros[..usize::try_from(piece).unwrap()]).unwrap();
                left -= piece;
            }
        }
    }

    pub(super) fn images_into(&self, intake: &mut Intake) -> Result<(), IntakeError> {
        for (name, bytes) in &self.files {
            intake.begin(name)?;
            for piece in bytes.chunks(1000) {
                intake.write(name, piece)?;
            }
            intake.end(name)?;
        }
        Ok(())
    }

    /// An image, decoded, changed and encoded.
    pub(super) fn edit(&mut self, name: &str, change: impl FnOnce(&mut Vec<Entry>)) {
        let mut image =
            Image::read(name, &self.files[name]).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        change(&mut image.entries);
        self.files.insert(name.to_owned(), image.write());
    }

    /// With so many times its last process, each with one thread, under other ids and without pages.
    pub(super) fn with_processes(mut self, count: u64) -> Self {
        let number = |number: u64| Value::Number(number);
        for pid in 100..100 + count.saturating_sub(4) {
            for stem in ["core", "ids", "mm", "fs"] {
                self.files.insert(format!("{stem}-{pid}.img"), self.files[&format!("{stem}-6.img")].clone());
            }
            self.files.insert(format!("pagemap-{pid}.img"), self.files["pagemap-6.img"].clone());
            self.edit(&format!("pagemap-{pid}.img"), |entries| {
                entries[0].message.set("pages_id", [number(pid)]);
                entries.truncate(1);
            });
            self.edit("pstree.img", |entries| {
                let mut last = entries.last().unwrap().clone();
                last.message.set("pid", [number(pid)]);
                last.message.set("threads", [number(pid)]);
                entries.push(last);
            });
        }
        self
    }
}

fn mounts(ids: bool) -> Vec<AdmittedMount> {
    let mount = |point: &str, what: Mounted, required, flags| AdmittedMount {
        point: point.into(),
        what,
        required,
        flags,
    };
    let own = |kind, root: &str| Mounted::Own { kind, root: root.into() };
    let mut mounts = vec![
        mount("/", Mounted::Root, true, 0),
        mount("/proc", own("proc", "/"), true, 0),
        mount("/dev", own("tmpfs", "/"), true, 2),
        mount("/dev/pts", own("devpts", "/"), true, 10),
        mount("/dev/mqueue", own("mqueue", "/"), true, 14),
        mount("/sys", own("sysfs", "/"), true, 15),
        mount("/proc/sys", own("proc", "/sys"), true, 1),
    ];
    let external =
        |point: &str, required, flags| mount(point, Mounted::External(point.into()), required, flags);
    for point in ["/dev/shm", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf"] {
        mounts.push(external(point, true, 0));
    }
    mounts.push(external("/witness", false, 0));
    for masked in ["acpi", "keys", "timer_list"] {
        mounts.push(mount(&format!("/proc/{masked}"), Mounted::Mask, !ids, 0));
    }
    mounts.push(mount("/sys/firmware", Mounted::Mask, false, 0));
    for shown in ["bus", "fs", "irq"] {
        mounts.push(mount(&format!("/proc/{shown}"), own("proc", &format!("/{shown}")), !ids, 1));
    }
    if ids {
        for device in ["null", "random", "full", "tty", "zero", "urandom"] {
            mounts.push(external(&format!("/dev/{device}"), true, 0));
        }
        for below in ["", "/memory", "/cpu", "/cpuset", "/pids"] {
            mounts.push(external(&format!("/sys/fs/cgroup{below}"), true, 1));
        }
    } else {
        mounts.push(mount("/sys/fs/cgroup", own("tmpfs", "/"), true, 14));
        mounts.push(mount("/sys/fs/cgroup/", own("cgroup", "/"), false, 15));
    }
    mounts
}
