//! Services that stay: start, look, command, stop; and what happens to them when UMS itself dies.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use ums_model::error::ErrorCode;
use ums_model::names::Bytes;
use ums_testbed::net::A;
use ums_testbed::rootfs::WORKLOAD;
use ums_testbed::site::Site;
use ums_testbed::tcp_check::TcpCheck;
use ums_testbed::workload::{Memhog, Workload};

use crate::rig::{Rig, start_static as start, typed};
use crate::script::Script;
use crate::traces::Traces;
use crate::verdict::failed;
use crate::{PATIENCE, eventually};

const KILLED: i64 = 128 + 9;

/// What `ums status NAME` says.
fn status(site: &Site, name: &str) -> Result<Value> {
    Ok(site.ums(&["status", name])?.success()?.result()?.clone())
}

/// Waits until a service has ended, and returns its exit code.
fn exit_code(site: &Site, name: &str) -> Result<i64> {
    eventually(&format!("the end of {name}"), || {
        let status = status(site, name)?;
        Ok((status["copy"] == "dead").then(|| status["exit_code"].as_i64()).flatten())
    })
}

fn kill(pid: i32) -> Result<()> {
    kill_process(Pid::from_raw(pid).context("a pid of 0")?, Signal::KILL).context("cannot kill")
}

fn is_gone(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

#[test]
fn a_service_lives_from_run_to_rm() {
    let rig = &Rig::new().unwrap();
    let before = Traces::of(rig).unwrap();
    let options = ["-e", "COLOUR=blue", "--hostname", "elsewhere", "--workdir", "/tmp", "--user", "nobody"];
    // The witness is written by everybody; everything else shows that the options arrived.
    let say = r#"print "out $ENV{COLOUR}\n"; print STDERR "err $<\n""#;
    let web = Script::start(rig, A, "web", say, "", &options).unwrap();

    let listed = rig.a().ums(&["ps"]).unwrap().success().unwrap();
    assert_eq!(listed.lines.len(), 1, "{listed:?}");
    let pid = rig.a().service_pid("web").unwrap();
    let process = PathBuf::from(format!("/proc/{pid}"));
    assert_eq!(fs::read_link(process.join("cwd")).unwrap(), Path::new("/tmp"));
    // The service's own numbers are the last 65536 of a range that nobody else on the host has.
    let uid = fs::metadata(&process).unwrap().uid();
    assert_eq!((uid % 65_536, uid >> 28), (65_534, 7), "{uid:x}");

    let logs = eventually("two lines in the log", || {
        let logs = typed(rig.a(), &["logs", "web"], "")?.stdout;
        Ok((logs.contains("out ") && logs.contains("err ")).then_some(logs))
    });
    let logs = logs.unwrap();
    assert!(logs.contains("out blue\n") && logs.contains("err 65534\n"), "{logs}");

    // Standard streams, environment, working directory and exit code of a command inside.
    let cat = web.exec(&["cat"], "through and back\n").unwrap();
    assert_eq!((cat.stdout.as_str(), cat.status.code()), ("through and back\n", Some(0)));
    let shell = web.exec(&["sh", "-c", "hostname; pwd; id -u; echo \"$COLOUR\" >&2; exit 42"], "").unwrap();
    assert_eq!(shell.stdout, "elsewhere\n/tmp\n65534\n");
    assert_eq!((shell.stderr.as_str(), shell.status.code()), ("blue\n", Some(42)));
    let args = ["exec", "-e", "COLOUR=red", "-w", "/usr", "web", "--", "sh", "-c", "pwd; echo $COLOUR"];
    assert_eq!(typed(rig.a(), &args, "").unwrap().stdout, "/usr\nred\n");
    let big = "0123456789abcdef".repeat(1 << 16);
    assert_eq!(web.exec(&["cat"], &big).unwrap().stdout, big, "a mebibyte each way");
    let killed = web.exec(&["sh", "-c", "kill -9 $$"], "").unwrap();
    assert_eq!(killed.status.code(), Some(128 + 9), "{killed:?}");

    web.check().unwrap();
    rig.a().ums(&["rm", "web"]).unwrap().failure(1, "not stopped").unwrap();
    web.check().unwrap();
    rig.a().ums(&["stop", "web", "--time", "1"]).unwrap().success().unwrap();
    assert!(is_gone(pid), "{pid} runs on");
    rig.a().ums(&["rm", "web"]).unwrap().success().unwrap();
    failed(&rig.a().ums(&["status", "web"]).unwrap(), 1, ErrorCode::ServiceNotFound, &["web"]).unwrap();
    Traces::wait_for(rig, &before).unwrap();
}

#[test]
fn an_exit_code_and_a_signal_are_passed_on() {
    let rig = &Rig::new().unwrap();
    start(rig, "seven", &[], &["exit", "--code", "7"]).unwrap();
    assert_eq!(exit_code(rig.a(), "seven").unwrap(), 7);

    // SIGTERM ends it, by its own choice of exit code; SIGHUP before that is only printed.
    start(rig, "polite", &[], &["signals", "--exit-code", "9"]).unwrap();
    let says = |word: &str| {
        eventually(&format!("{word} in the log"), || {
            Ok(typed(rig.a(), &["logs", "polite"], "")?.stdout.contains(word).then_some(()))
        })
    };
    says("ready").unwrap();
    rig.a().ums(&["kill", "polite", "--signal", "1"]).unwrap().success().unwrap();
    says("SIGHUP").unwrap();
    rig.a().ums(&["stop", "polite"]).unwrap().success().unwrap();
    assert_eq!(exit_code(rig.a(), "polite").unwrap(), 9);
    says("SIGTERM").unwrap();

    // One that does not obey is killed when its time is over.
    start(rig, "stubborn", &[], &["signals"]).unwrap();
    rig.a().ums(&["stop", "stubborn", "--time", "0"]).unwrap().success().unwrap();
    assert_eq!(exit_code(rig.a(), "stubborn").unwrap(), KILLED);

    // What has ended can be started again, and ends again.
    rig.a().ums(&["start", "seven"]).unwrap().success().unwrap();
    assert_eq!(exit_code(rig.a(), "seven").unwrap(), 7);
    // A command that is not there is the user's mistake, and leaves nothing.
    let rootfs = rig.net().tag().directory().join("static").display().to_string();
    let wrong = ["run", "--name", "wrong", "--rootfs", &rootfs, "--", "/no-such-program"];
    let outcome = rig.a().ums(&wrong).unwrap();
    assert!(matches!(outcome.code, Some(1 | 2)), "{outcome:?}");
    failed(&rig.a().ums(&["status", "wrong"]).unwrap(), 1, ErrorCode::ServiceNotFound, &["wrong"]).unwrap();
}

#[test]
fn a_service_is_started_again_as_its_policy_says() {
    let rig = &Rig::new().unwrap();
    let ends = ["exit", "--code", "3", "--after-ms", "50"];
    start(rig, "once", &["--restart", "no"], &ends).unwrap();
    start(rig, "content", &["--restart", "on-failure"], &["exit", "--code", "0"]).unwrap();
    start(rig, "failing", &["--restart", "on-failure"], &ends).unwrap();
    start(rig, "eternal", &["--restart", "always"], &["exit", "--code", "0", "--after-ms", "50"]).unwrap();
    let several_lives = |name: &str| {
        let mut lives = std::collections::BTreeSet::new();
        eventually(&format!("three lives of {name}"), || {
            // Between two lives there is no pid.
            lives.extend(status(rig.a(), name)?["pid"].as_i64());
            Ok((lives.len() >= 3).then_some(()))
        })
    };
    several_lives("failing").unwrap();
    several_lives("eternal").unwrap();
    assert_eq!(exit_code(rig.a(), "once").unwrap(), 3);
    assert_eq!(exit_code(rig.a(), "content").unwrap(), 0);

    // Whoever says stop means it.
    rig.a().ums(&["stop", "eternal"]).unwrap().success().unwrap();
    rig.a().restart().unwrap();
    assert_eq!(status(rig.a(), "eternal").unwrap()["copy"], "dead");
}

#[test]
fn volumes_outlive_their_service_and_limits_hold() {
    let rig = &Rig::new().unwrap();
    let write = r#"open(my $file, ">", "/data/kept"); print $file "precious"; close $file"#;
    let limits = ["-v", "data:/data", "--memory", "256m", "--cpus", "0.5"];
    let first = Script::start(rig, A, "first", write, "", &limits).unwrap();
    let limit = first
        .shell("cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; true");
    assert_eq!(limit.unwrap().trim(), (256 << 20).to_string());
    rig.a().ums(&["rm", "--force", "first"]).unwrap().success().unwrap();

    let read_only = ["-v", "data:/elsewhere:ro"];
    let second = Script::start(rig, A, "second", "", "", &read_only).unwrap();
    assert_eq!(second.shell("cat /elsewhere/kept").unwrap(), "precious");
    assert!(second.shell("echo x > /elsewhere/kept").is_err(), "read-only means read-only");

    // More memory than allowed: the kernel ends the service, and the site says so.
    start(rig, "greedy", &["--memory", "32m"], &["memhog", "--mib", "128"]).unwrap();
    assert_eq!(exit_code(rig.a(), "greedy").unwrap(), KILLED);
    second.check().unwrap();
}

#[test]
fn a_published_port_is_reached_by_clients_and_by_the_site_itself() {
    let rig = &Rig::new().unwrap();
    let echo = rig.start(A, &Workload::TcpEcho).unwrap();
    let dialer = echo.dialer().unwrap();
    let check = TcpCheck::start(&dialer, PATIENCE, PATIENCE).unwrap();
    check.wait_for_more(1 << 20, PATIENCE).unwrap();

    let port = dialer.addresses()[0].port();
    let own = rig.net().address(A);
    for address in [Ipv4Addr::LOCALHOST, own] {
        let said = rig.net().site(A).run(|| echoed(SocketAddr::from((address, port)))).unwrap();
        assert_eq!(said.unwrap(), *b"hello", "from the site, at {address}");
    }
    assert_eq!(check.stop().unwrap().reconnects, 0);

    // Nobody listens any more when the service is gone.
    rig.a().ums(&["rm", "--force", echo.name()]).unwrap().success().unwrap();
    let gone = rig.net().client().run(|| echoed(SocketAddr::from((own, port)))).unwrap();
    assert!(gone.is_err());
}

fn echoed(address: SocketAddr) -> Result<[u8; 5]> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"hello")?;
    let mut said = [0; 5];
    stream.read_exact(&mut said)?;
    Ok(said)
}

#[test]
fn a_service_survives_its_daemon_and_its_nest_but_not_its_keeper() {
    let rig = &Rig::new().unwrap();
    let hog = Memhog { size: Bytes::mib(8), processes: 2, threads: 2, dirty_per_second: Bytes::mib(1) };
    let hog = rig.start(A, &Workload::Memhog(hog)).unwrap();
    let (name, site) = (hog.name(), rig.a());
    let (pid, keeper) = (site.service_pid(name).unwrap(), site.keeper_pid(name).unwrap());
    let same = |what: &str| {
        ensure!(
            site.service_pid(name)? == pid && site.keeper_pid(name)? == keeper,
            "another copy after {what}"
        );
        hog.check()
    };

    site.kill9().unwrap();
    hog.check().unwrap();
    let client = hog.probe().unwrap();
    client.wait_for_answer(PATIENCE).unwrap();
    site.restart().unwrap();
    same("a restart of the daemon").unwrap();

    let nest = site.nest_pid(name).unwrap();
    kill(nest).unwrap();
    let another = || Ok(site.nest_pid(name).ok().filter(|pid| *pid != nest));
    eventually("another nest", another).unwrap();
    same("the death of its nest").unwrap();
    let exec = ["exec", name, "--", WORKLOAD, "exit", "--code", "5"];
    assert_eq!(typed(site, &exec, "").unwrap().status.code(), Some(5));

    // Both at once.
    let nest = another().unwrap().expect("it was there a moment ago");
    site.kill9().unwrap();
    kill(nest).unwrap();
    site.restart().unwrap();
    same("the death of daemon and nest").unwrap();
    client.wait_for_answer(PATIENCE).unwrap();

    kill(keeper).unwrap();
    eventually("the end of the service with its keeper", || Ok(is_gone(pid).then_some(()))).unwrap();
    eventually("word of it", || Ok((status(site, name)?["copy"] == "dead").then_some(()))).unwrap();
    failed(
        &site.ums(&["migrate", name, "--to", "b"]).unwrap(),
        1,
        ErrorCode::Unsupported,
        &[name, "not run"],
    )
    .unwrap();

    // It can be started again, from the files it had.
    drop(client);
    site.ums(&["start", name]).unwrap().success().unwrap();
    eventually("a new copy", || Ok(site.service_pid(name).ok().filter(|new| *new != pid))).unwrap();
    hog.probe().unwrap().wait_for_answer(PATIENCE).unwrap();
}

#[test]
fn an_io_uring_is_kept_away_from_a_service() {
    let rig = &Rig::new().unwrap();
    start(rig, "ring", &[], &["io-uring"]).unwrap();
    assert_ne!(exit_code(rig.a(), "ring").unwrap(), 0, "the service got its ring");
    let logs = typed(rig.a(), &["logs", "ring"], "").unwrap().stdout;
    assert!(
        logs.contains("os error 38"),
        "the kernel's answer must be ENOSYS, on which programs fall back: {logs}"
    );
}

#[test]
fn what_the_daemon_needs_is_told_by_doctor() {
    let rig = &Rig::new().unwrap();
    let fine = rig.a().ums(&["doctor"]).unwrap().success().unwrap();
    assert_eq!(fine.result().unwrap()["ok"], true, "{fine:?}");
    rig.a().restart_with(&[("UMS_CRIU", "/nonexistent/criu".to_owned())]).unwrap();
    let bad = rig.a().ums(&["doctor"]).unwrap().failure(1, "criu").unwrap();
    let checks = bad.result().unwrap()["checks"].as_array().unwrap().clone();
    let criu = checks.iter().find(|check| check["name"] == "criu" && check["ok"] == false).unwrap();
    assert!(!criu["remedy"].as_str().unwrap().is_empty(), "{criu}");
}
