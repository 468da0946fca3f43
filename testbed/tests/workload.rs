//! The workload program by itself: that it finds its own errors, and that the testbed's clients understand it.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ums_testbed::dial::Dialer;
use ums_testbed::net::A;
use ums_testbed::probe::{Probe, Question};
use ums_testbed::tcp_check::TcpCheck;
use ums_testbed::witness::Recorder;
use ums_testbed::{memhog, rootfs};

/// For what must come: generous, because the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(20);
const PROGRAM: &str = env!("CARGO_BIN_EXE_ums-workload");

struct Workload {
    process: Child,
    dialer: Dialer,
}

impl Workload {
    /// Starts a workload that listens on `--port`.
    fn on_port(args: &[&str]) -> Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new(PROGRAM);
        command.args(args).args(["--port", &address.port().to_string()]).stdout(Stdio::null());
        Ok(Self { process: command.spawn()?, dialer: Dialer::outside(vec![address]) })
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_memhog_holds_what_it_must_in_all_its_processes_while_it_is_written() {
    let hog = Workload::on_port(&[
        "memhog",
        "--mib",
        "33",
        "--processes",
        "3",
        "--threads",
        "2",
        "--dirty-mib-s",
        "64",
    ])
    .unwrap();
    let pages = 33 * 256;
    assert_eq!(memhog::check(&hog.dialer, PATIENCE).unwrap(), pages);
    let end = Instant::now() + PATIENCE;
    let stats = loop {
        let stats = memhog::stats(&hog.dialer, PATIENCE).unwrap();
        if stats.dirtied > 1000 {
            break stats;
        }
        assert!(Instant::now() < end, "{stats:?}");
    };
    assert_eq!((stats.pages, stats.processes), (pages, 3));
    assert_eq!(memhog::check(&hog.dialer, PATIENCE).unwrap(), pages);
}

#[test]
fn a_memhog_finds_a_page_that_is_not_as_it_must_be() {
    let hog = Workload::on_port(&["memhog", "--mib", "4", "--allow-corrupt", "yes"]).unwrap();
    memhog::check(&hog.dialer, PATIENCE).unwrap();
    memhog::corrupt(&hog.dialer, PATIENCE).unwrap();
    let error = memhog::check(&hog.dialer, PATIENCE).unwrap_err().to_string();
    assert!(error.starts_with("1 pages"), "{error}");
}

#[test]
fn a_memhog_does_not_corrupt_itself_unless_that_was_allowed() {
    let hog = Workload::on_port(&["memhog", "--mib", "1"]).unwrap();
    assert!(memhog::corrupt(&hog.dialer, PATIENCE).is_err());
    memhog::check(&hog.dialer, PATIENCE).unwrap();
}

#[test]
fn the_parts_of_a_memhog_end_with_it() {
    let hog = Workload::on_port(&["memhog", "--mib", "2", "--processes", "3"]).unwrap();
    memhog::stats(&hog.dialer, PATIENCE).unwrap();
    let parts = children(hog.process.id()).unwrap();
    assert_eq!(parts.len(), 2);
    drop(hog);
    let end = Instant::now() + PATIENCE;
    while parts.iter().any(|pid| Path::new(&format!("/proc/{pid}/exe")).exists()) {
        assert!(Instant::now() < end, "{parts:?} are still there");
    }
}

fn children(pid: u32) -> Result<Vec<u32>> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    list.split_whitespace().map(|pid| pid.parse().context("a strange pid")).collect()
}

#[test]
fn the_echo_is_checked_and_probed() {
    let echo = Workload::on_port(&["tcp-echo"]).unwrap();
    let check = TcpCheck::start(&echo.dialer, PATIENCE, PATIENCE).unwrap();
    let probe = Probe::start(&echo.dialer, Question::Echo, PATIENCE, PATIENCE).unwrap();
    check.wait_for_more(1 << 20, PATIENCE).unwrap();
    probe.wait_for_answer(PATIENCE).unwrap();
    assert_eq!(check.stop().unwrap().reconnects, 0);
}

#[test]
fn the_counter_is_a_witness() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("witness");
    let recorder = Recorder::start(&[(A, path.clone())]).unwrap();
    let mut counter = Command::new(PROGRAM)
        .args(["counter", "--interval-ms", "1", "--witness"])
        .arg(&path)
        .spawn()
        .unwrap();
    for _ in 0..20 {
        recorder.wait_for_life(A, PATIENCE).unwrap();
    }
    counter.kill().unwrap();
    counter.wait().unwrap();
    assert!(recorder.check(&[A]).unwrap().numbers >= 20);
}

#[test]
fn signals_are_printed_and_the_exit_code_is_kept() {
    let mut process =
        Command::new(PROGRAM).args(["signals", "--exit-code", "9"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "ready");
    let pid = rustix::process::Pid::from_child(&process);
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    assert_eq!(lines.next().unwrap(), "SIGHUP");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(lines.next().unwrap(), "SIGTERM");
    assert_eq!(process.wait().unwrap().code(), Some(9));

    let status = Command::new(PROGRAM).args(["exit", "--code", "7"]).status().unwrap();
    assert_eq!(status.code(), Some(7));
}

#[test]
fn an_io_uring_is_held() {
    let mut process = Command::new(PROGRAM).arg("io-uring").stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let fds = std::fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap();
    let links: Vec<_> = fds.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok()).collect();
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(links.iter().any(|link| link.to_string_lossy() == "anon_inode:[io_uring]"), "{line} {links:?}");
}

#[test]
fn a_mistake_on_the_command_line_is_told() {
    for args in [&["memhog"][..], &["memhog", "--mib", "1", "--typo", "1"], &["nonsense"]] {
        let output = Command::new(PROGRAM).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("usage:"), "{args:?}");
    }
}

#[test]
fn the_root_directory_runs_the_workload_and_holds_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    rootfs::static_rootfs(&root).unwrap();
    // Safe to repeat: services of several tests share one image.
    rootfs::static_rootfs(&root).unwrap();
    let status = Command::new("chroot").arg(&root).args([rootfs::WORKLOAD, "exit", "--code", "5"]).status();
    assert_eq!(status.unwrap().code(), Some(5));
}
