//! Nothing stays behind: neither of a test that ended, nor of one that was killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use ums_testbed::net::{A, B, Net};
use ums_testbed::ns::Ns;
use ums_testbed::shaper::Shape;
use ums_testbed::{sweep, tag};

#[test]
fn a_network_leaves_nothing_behind() {
    let net = Net::new(2).unwrap();
    let (tag, wire) = (net.tag().clone(), net.wire().clone());
    net.link(A, B).shape(Shape::gigabit().with_delay(Duration::from_millis(1))).unwrap();
    assert!(namespace_exists(&wire));
    let mut sleeper = net
        .site(A)
        .spawn(Command::new("sleep").arg("1000").env(tag::MARKER, tag.as_str()).stdin(Stdio::null()))
        .unwrap();
    drop(net);
    assert!(!namespace_exists(&wire));
    assert!(!sleeper.wait().unwrap().success(), "a process of the network was killed");
}

#[test]
fn a_sweep_removes_what_a_dead_run_left_and_nothing_else() {
    let live = Net::new(2).unwrap();
    let dead = dead_tag().unwrap();
    let namespace = Ns::named(format!("{dead}-a"));
    let status = Command::new("ip").args(["netns", "add", namespace.name()]).status().unwrap();
    assert!(status.success());
    let directory = std::env::temp_dir().join(&dead);
    std::fs::create_dir_all(directory.join("a/state")).unwrap();
    let mount = directory.join("a");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "umst"]).arg(&mount).status().unwrap();
    assert!(mounted.success());
    let mut orphan = namespace.spawn(Command::new("sleep").arg("1000").env(tag::MARKER, &dead)).unwrap();

    sweep::leftovers().unwrap();

    assert!(!namespace_exists(&namespace));
    assert!(!directory.exists());
    assert!(!orphan.wait().unwrap().success());
    assert!(namespace_exists(live.wire()), "a live run was swept away");
}

fn namespace_exists(ns: &Ns) -> bool {
    Path::new("/run/netns").join(ns.name()).exists()
}

/// A tag whose process is gone.
fn dead_tag() -> Result<String> {
    let mut child = Command::new("true").spawn()?;
    let pid = child.id();
    child.wait()?;
    Ok(format!("{}{pid}-0", tag::PREFIX))
}

fn sleeper(tag: &str) -> Result<Child> {
    let mut command = Command::new("sleep");
    Ok(command.arg("1000").env(tag::MARKER, tag).stdin(Stdio::null()).spawn()?)
}

/// Mount point of a hierarchy that can freeze, and the file and word that do it.
fn freezer() -> Result<(PathBuf, &'static str, &'static str)> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let of = |wanted: &dyn Fn(&[&str]) -> bool| {
        mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .find(|fields| wanted(fields))
            .map(|fields| PathBuf::from(fields[1]))
    };
    if let Some(mount) =
        of(&|fields| fields[2] == "cgroup" && fields[3].split(',').any(|option| option == "freezer"))
    {
        return Ok((mount, "freezer.state", "FROZEN"));
    }
    let mount = of(&|fields| fields[2] == "cgroup2").context("this test needs a mounted cgroup freezer")?;
    Ok((mount, "cgroup.freeze", "1"))
}

#[test]
fn a_frozen_service_is_swept_away_with_its_cgroups() {
    let dead = dead_tag().unwrap();
    let (mount, file, word) = freezer().unwrap();
    let site = mount.join(format!("ums-{dead}"));
    let service = site.join("web");
    fs::create_dir_all(&service).unwrap();
    let mut process = sleeper(&dead).unwrap();
    fs::write(service.join("cgroup.procs"), process.id().to_string()).unwrap();
    fs::write(site.join(file), word).unwrap();

    sweep::leftovers().unwrap();

    assert!(!process.wait().unwrap().success());
    assert!(!site.exists(), "{} is still there", site.display());
}

#[test]
fn empty_cgroups_of_a_dead_site_are_found_by_the_name_it_left() {
    let dead = dead_tag().unwrap();
    let (mount, ..) = freezer().unwrap();
    let name = format!("ums-{dead}");
    fs::create_dir_all(mount.join(&name).join("web")).unwrap();
    let directory = std::env::temp_dir().join(&dead).join("a");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("cgroup-name"), &name).unwrap();

    sweep::leftovers().unwrap();

    assert!(!mount.join(&name).exists());
}

#[test]
fn processes_that_lost_the_mark_are_found_below_and_inside() {
    let dead = dead_tag().unwrap();
    // The first process of a pid namespace has the mark; it starts another without it and in another session.
    let script = "env -i setsid sleep 1000 & echo started; wait";
    let mut process = Command::new("unshare")
        .args(["--pid", "--fork", "sh", "-c", script])
        .env(tag::MARKER, &dead)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(process.stdout.take().unwrap()), &mut line)
        .unwrap();
    let inner = |pid: u32| -> Vec<u32> {
        let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    };
    let sh = inner(process.id())[0];
    let lost = inner(sh)[0];

    sweep::leftovers().unwrap();

    process.wait().unwrap();
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while [sh, lost].iter().any(|pid| Path::new(&format!("/proc/{pid}/exe")).exists()) {
        assert!(std::time::Instant::now() < end, "{sh} or {lost} is still there");
    }
}
