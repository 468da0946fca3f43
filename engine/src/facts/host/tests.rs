use std::fs;
use std::net::{TcpListener, UdpSocket};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use ums_model::spec::Protocol;

use super::*;

fn facts(storage: &Path) -> HostFacts {
    host_facts(&HostQuery { storage, journal: storage, deadline: Duration::from_secs(20) }).unwrap()
}

#[test]
fn this_machine_is_described() {
    let folder = tempfile::tempdir().unwrap();
    let facts = facts(folder.path());
    assert_eq!(facts.arch, std::env::consts::ARCH);
    assert_eq!(facts.kernel, fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().trim());
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
    let total: u64 = meminfo.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(facts.memory_available.get() > 0 && facts.memory_available.get() <= total * 1024);
    assert!(facts.disk_available.get() > 0);
    assert!(facts.cpu_flags.contains(&"sse2".to_owned()));
    assert_eq!(facts.time_namespace, Some(true));
    assert!(facts.user_namespaces != Some(false));
    // What the kernel answers agrees with what its version promises.
    let version = ums_model::plan::Version::find(&facts.kernel).unwrap();
    let at_least = |minor| version >= ums_model::plan::Version { major: 6, minor, patch: 0 };
    if let Some(noswap) = facts.noswap_tmpfs {
        assert_eq!(noswap, at_least(4));
    }
    if let Some(tracking) = facts.userfaultfd_wp_async {
        assert!(!tracking || at_least(7));
    }
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    // A kernel that follows soft-dirty bits marks new mappings with the flag `sd`.
    let marked = smaps.lines().filter(|line| line.starts_with("VmFlags:")).any(|line| line.contains(" sd"));
    assert_eq!(facts.soft_dirty, Some(marked));
}

#[test]
fn listening_ports_are_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let connected = UdpSocket::bind("127.0.0.1:0").unwrap();
    connected.connect(udp.local_addr().unwrap()).unwrap();
    let ports = facts(folder.path()).ports_in_use;
    let has = |port, protocol| ports.contains(&PortInUse { port, protocol });
    assert!(has(tcp.local_addr().unwrap().port(), Protocol::Tcp));
    assert!(has(udp.local_addr().unwrap().port(), Protocol::Udp));
    assert!(!has(connected.local_addr().unwrap().port(), Protocol::Udp));
    assert!(ports.is_sorted());
}

/// Every kind of storage that forgets is known for what it is, and a disk below it for a disk.
#[test]
fn lab_what_a_restart_forgets_is_not_durable() {
    struct Mounted(std::path::PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            if let Err(error) = unmount(&self.0, UnmountFlags::DETACH) {
                eprintln!("cannot unmount {}: {error}", self.0.display());
            }
        }
    }
    let home = tempfile::tempdir().unwrap();
    let dir = |name: &str| {
        let dir = home.path().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    };
    let mounted = |name: &str, kind: &str, options: &str| {
        let (target, options) = (dir(name), std::ffi::CString::new(options).unwrap());
        mount("ums-test", &target, kind, MountFlags::empty(), Some(options.as_c_str())).unwrap();
        Mounted(target)
    };
    let tmpfs = mounted("tmpfs", "tmpfs", "size=1m");
    let ramfs = mounted("ramfs", "ramfs", "mode=700");
    for memory in [&tmpfs, &ramfs] {
        let below = memory.0.join("state");
        std::fs::create_dir(&below).unwrap();
        assert_eq!(storage::is_durable(&below), Some(false), "{}", below.display());
    }
    // A container's own file system, whatever lies below it.
    let (lower, upper, work) = (tmpfs.0.join("lower"), tmpfs.0.join("upper"), tmpfs.0.join("work"));
    [&lower, &upper, &work].iter().for_each(|dir| std::fs::create_dir(dir).unwrap());
    let options =
        format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    let overlay = mounted("overlay", "overlay", &options);
    assert_eq!(storage::is_durable(&overlay.0), Some(false));
}

#[test]
fn memory_is_not_durable() {
    assert_eq!(storage::is_durable(Path::new("/dev/shm")), Some(false));
    assert_eq!(storage::is_durable(Path::new("/nowhere")), None);
    assert!(storage::available(Path::new("/nowhere")).is_err());
}

#[test]
fn only_flags_of_all_cpus_count() {
    let cpuinfo =
        "processor\t: 0\nflags\t\t: fpu sse2 avx\nbugs\t: x\n\nprocessor\t: 1\nflags\t\t: avx fpu\n";
    assert_eq!(common_flags(cpuinfo), ["avx", "fpu"]);
    assert_eq!(common_flags(""), Vec::<String>::new());
}
