//! What is refused before anything is stopped: every error names what was tried, on what, why, and the next command,
//! and the service runs on as if nobody had asked.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, ensure};
use ums_model::error::{ErrorCode, WireError};
use ums_model::names::Bytes;
use ums_model::plan::Plan;
use ums_testbed::command::{SETUP_DEADLINE, finish, succeed};
use ums_testbed::net::{A, B};
use ums_testbed::programs;
use ums_testbed::rootfs::static_rootfs;
use ums_testbed::service::Service;
use ums_testbed::shaper::Cut;
use ums_testbed::workload::{Memhog, Workload};

use crate::PATIENCE;
use crate::gate::Gate;
use crate::histories::agreed;
use crate::rig::{Rig, Twist};
use crate::script::Script;
use crate::verdict::{complete, failed, failed_with};

/// Proves that neither plan nor migration to B gets further than `code`, with an error that contains `parts`, and that
/// the service runs on at A.
fn refused(service: &Service<'_>, code: ErrorCode, parts: &[&str]) -> Result<WireError> {
    refused_with(service, &[code], parts)
}

fn refused_with(service: &Service<'_>, codes: &[ErrorCode], parts: &[&str]) -> Result<WireError> {
    let planned = service.site().ums(&["plan", service.name(), "--to", "b"])?;
    ensure!(planned.code == Some(1), "a plan that cannot be carried out ends with 1: {planned:?}");
    // A site that cannot be asked is an error of the question; what stands in the way is part of the answer.
    match serde_json::from_value::<Plan>(planned.result()?.clone()) {
        Ok(plan) => {
            let found = plan.blockers.iter().find(|blocker| codes.contains(&blocker.code));
            let blocker = found.with_context(|| format!("the plan knows nothing of {codes:?}: {plan:?}"))?;
            ensure!(!blocker.message.is_empty() && !blocker.remedy.is_empty(), "{blocker:?}");
        }
        Err(_) => drop(failed_with(&planned, 1, codes, &[])?),
    }
    let outcome = service.try_migrate(B)?;
    let error = failed_with(&outcome, 1, codes, parts)?;
    service.check()?;
    Ok(error)
}

/// The counter that must not notice anything, with a port.
fn bystander(rig: &Rig) -> Result<Service<'_>> {
    let small = Memhog { size: Bytes::mib(1), processes: 1, threads: 1, dirty_per_second: Bytes::ZERO };
    rig.start(A, &Workload::Memhog(small))
}

#[test]
fn names_that_mean_nothing_or_too_much() {
    let rig = &Rig::new().unwrap();
    let service = &bystander(rig).unwrap();
    let name = service.name();
    let ums = |args: &[&str]| rig.a().ums(args).unwrap();

    failed(&ums(&["migrate", name, "--to", "nowhere"]), 1, ErrorCode::UnknownSite, &["nowhere"]).unwrap();
    failed(&ums(&["plan", name, "--to", "nowhere"]), 1, ErrorCode::UnknownSite, &["nowhere"]).unwrap();
    failed(&ums(&["migrate", "nobody", "--to", "b"]), 1, ErrorCode::ServiceNotFound, &["nobody"]).unwrap();
    for command in ["stop", "start", "rm", "logs", "status"] {
        let outcome = ums(&[command, "nobody"]);
        failed(&outcome, 1, ErrorCode::ServiceNotFound, &["nobody"])
            .with_context(|| command.to_owned())
            .unwrap();
    }
    let outcome = ums(&["exec", "nobody", "--", "true"]);
    failed(&outcome, 1, ErrorCode::ServiceNotFound, &["nobody"]).unwrap();
    failed(&ums(&["abort", "nobody"]), 1, ErrorCode::MigrationNotFound, &["nobody"]).unwrap();

    // To oneself.
    let outcome = ums(&["migrate", name, "--to", "a"]);
    assert_ne!(outcome.code, Some(0), "{outcome:?}");

    // Words that make no sense are the user's mistake, whoever finds it.
    for wrong in [&["migrate", name][..], &["run", "--name", "x", "--image", "y", "-p", "99999:1"]] {
        assert_eq!(ums(wrong).code, Some(2), "{wrong:?}");
    }

    // The same name, the same port, at the same site.
    let rootfs = rig.net().tag().directory().join("static");
    static_rootfs(&rootfs).unwrap();
    let rootfs = rootfs.display().to_string();
    let again = ["run", "--name", name, "--rootfs", &rootfs, "--", "/ums-workload", "signals"];
    failed(&ums(&again), 1, ErrorCode::NameTaken, &[name]).unwrap();
    let port = service.dialer().unwrap().addresses()[0].port();
    let publish = format!("{port}:1");
    let rival =
        ["run", "--name", "rival", "--rootfs", &rootfs, "-p", &publish, "--", "/ums-workload", "signals"];
    failed(&ums(&rival), 1, ErrorCode::PortTaken, &[&port.to_string()]).unwrap();
    failed(&ums(&["status", "rival"]), 1, ErrorCode::ServiceNotFound, &["rival"]).unwrap();

    // An image that is not there.
    let nothing = ["run", "--name", "empty", "--image", "no-such-image:1"];
    failed(&ums(&nothing), 1, ErrorCode::ImageMissing, &["no-such-image:1"]).unwrap();
    let nothing = ["run", "--name", "empty", "--rootfs", "/no/such/directory"];
    failed_with(
        &ums(&nothing),
        1,
        &[ErrorCode::ImageMissing, ErrorCode::BadRequest],
        &["/no/such/directory"],
    )
    .unwrap();
    service.check().unwrap();
}

#[test]
fn a_destination_that_has_no_room() {
    let rig = &Rig::new().unwrap();
    let service = &bystander(rig).unwrap();
    let name = service.name();

    // A service of the same name.
    let rootfs = rig.image(ums_testbed::workload::Image::Static).unwrap().display().to_string();
    let run = ["run", "--name", name, "--rootfs", &rootfs, "--", "/ums-workload", "signals"];
    rig.b().ums(&run).unwrap().success().unwrap();
    refused(service, ErrorCode::NameTaken, &[name, "b"]).unwrap();
    rig.b().ums(&["rm", "--force", name]).unwrap().success().unwrap();

    // A port on which somebody listens.
    let port = service.dialer().unwrap().addresses()[0].port();
    let listener = rig.net().site(B).run(|| TcpListener::bind(("0.0.0.0", port))).unwrap().unwrap();
    refused(service, ErrorCode::PortTaken, &[name, "b", &port.to_string()]).unwrap();
    drop(listener);

    // Once all of that is put right, it moves.
    service.migrate(B).unwrap();
    service.check().unwrap();
}

#[test]
fn a_destination_that_lacks_what_the_service_needs() {
    let shared = tempfile::tempdir().unwrap();
    let mount = format!("models={}", shared.path().display());
    let only_a = Twist { arguments: vec!["--site-mount".into(), mount], ..Twist::default() };
    // What a host with little memory says about itself.
    let poor = "sed 's/^\\(MemAvailable\\|MemFree\\):.*/\\1: 16384 kB/' /proc/meminfo > /run/poor-meminfo\n\
                mount --bind /run/poor-meminfo /proc/meminfo";
    let prelude =
        format!("mount -t tmpfs none /run --make-private 2>/dev/null || mount -t tmpfs none /run\n{poor}");
    let poor = Twist { prelude: prelude.replace("/run", "/mnt"), ..Twist::default() };
    let rig = &Rig::with(&[(A, only_a), (B, poor)]).unwrap();

    let mounted = rig.start_with(A, &Workload::counter(), &["--site-mount", "models:/models:ro"]).unwrap();
    refused(&mounted, ErrorCode::MountMissing, &[mounted.name(), "models", "b"]).unwrap();

    let hog = rig.start(A, &Workload::memhog(Bytes::mib(64))).unwrap();
    refused(&hog, ErrorCode::MemoryTooSmall, &[hog.name(), "memory", "b"]).unwrap();
}

#[test]
fn a_destination_with_a_small_disk() {
    // The small disk is made of memory.
    let volatile = Twist { arguments: vec!["--allow-volatile".to_owned()], ..Twist::default() };
    let rig = &Rig::with(&[(B, volatile)]).unwrap();
    let service = &rig.start_with(A, &Workload::counter(), &["-v", "big:/big"]).unwrap();
    // As the service would have written it; random, so that no compression makes it small.
    let volume = rig.a().state().join("volumes/big/data");
    let dd = format!("head -c 100M /dev/urandom > '{}'", volume.display());
    shell(&dd).unwrap();

    // The same site on a smaller disk.
    rig.b().kill9().unwrap();
    let state = rig.b().state();
    let state = state.display();
    let small =
        format!("mv '{state}' '{state}.old' && mkdir '{state}' && mount -t tmpfs -o size=96m none '{state}'");
    shell(&format!("{small} && cp -a '{state}.old/.' '{state}/'")).unwrap();
    rig.b().restart().unwrap();
    refused(service, ErrorCode::DiskTooSmall, &[service.name(), "disk", "b"]).unwrap();

    // A service that fits still moves, and comes back before the disk goes.
    let small = rig.start(A, &Workload::counter()).unwrap();
    small.migrate(B).unwrap();
    small.migrate(A).unwrap();
    small.check().unwrap();
}

fn shell(script: &str) -> Result<()> {
    let mut command = Command::new("sh");
    command.args(["-ec", script]);
    succeed(command, "", PATIENCE).map(drop)
}

#[test]
fn a_destination_that_is_not_who_it_was_or_not_there() {
    let rig = &Rig::new().unwrap();
    let service = &bystander(rig).unwrap();
    let link = rig.net().link(A, B);

    link.cut(Cut::Both).unwrap();
    refused(service, ErrorCode::Unreachable, &["b"]).unwrap();
    link.cut(Cut::Nothing).unwrap();

    rig.b().kill9().unwrap();
    refused(service, ErrorCode::Unreachable, &["b"]).unwrap();

    // Somebody else answers at its address.
    let identity = rig.b().state().join("identity");
    let aside = rig.b().state().join("identity.aside");
    fs::rename(&identity, &aside).unwrap();
    rig.b().restart().unwrap();
    refused(service, ErrorCode::WrongIdentity, &["b"]).unwrap();
    rig.b().kill9().unwrap();
    fs::remove_dir_all(&identity).unwrap();
    fs::rename(&aside, &identity).unwrap();
    rig.b().restart().unwrap();

    // It has forgotten us, or we have forgotten it.
    rig.b().ums(&["unpair", "a"]).unwrap().success().unwrap();
    refused(service, ErrorCode::NotPaired, &["b"]).unwrap();
    rig.a().ums(&["unpair", "b"]).unwrap().success().unwrap();
    refused_with(service, &[ErrorCode::UnknownSite, ErrorCode::NotPaired], &["b"]).unwrap();

    // A token can be used once: with one that somebody kept, a site that was sent away does not come back.
    let invitation = rig.b().ums(&["pair", "invite"]).unwrap().success().unwrap();
    let token = invitation.text("token").unwrap();
    let accept = || rig.a().ums(&["pair", "accept", token]).unwrap();
    accept().success().unwrap();
    rig.b().ums(&["unpair", "a"]).unwrap().success().unwrap();
    failed(&accept(), 1, ErrorCode::Refused, &["pair"]).unwrap();
    let invitation = rig.b().ums(&["pair", "invite"]).unwrap().success().unwrap();
    rig.a().ums(&["pair", "accept", invitation.text("token").unwrap()]).unwrap().success().unwrap();
    // What it may do was forgotten with it.
    let error = refused_with(service, &[ErrorCode::Refused], &["site mount"]).unwrap();
    assert!(error.hint.contains("ums sites policy a "), "{error:?}");
    rig.trust(A, B).unwrap();
    service.migrate(B).unwrap();
    service.check().unwrap();
}

#[test]
fn a_site_without_a_criu_that_works() {
    let rig = &Rig::new().unwrap();
    let service = &bystander(rig).unwrap();
    let old = rig.net().tag().directory().join("old-criu");
    fs::write(&old, "#!/bin/sh\necho 'Version: 3.17'\n").unwrap();
    fs::set_permissions(&old, Permissions::from_mode(0o755)).unwrap();
    let nowhere = Path::new("/nonexistent/criu");
    for (site, name) in [(A, "a"), (B, "b")] {
        for (criu, code) in [(old.as_path(), ErrorCode::CriuTooOld), (nowhere, ErrorCode::CriuMissing)] {
            let variable = ("UMS_CRIU", criu.display().to_string());
            rig.site(site).restart_with(&[variable]).unwrap();
            let error =
                refused(service, code, &["criu", name]).with_context(|| format!("{code} at {name}")).unwrap();
            if code == ErrorCode::CriuTooOld {
                complete(&error, &["3.17"]).unwrap();
            }
        }
        rig.site(site).restart().unwrap();
    }
    service.migrate(B).unwrap();
    service.check().unwrap();
}

#[test]
fn an_image_that_is_nowhere_whole() {
    let rig = &Rig::new().unwrap();
    let service = &bystander(rig).unwrap();
    let blobs = rig.a().state().join("store/blobs");
    let aside = rig.a().state().join("store/blobs.aside");
    fs::rename(&blobs, &aside).unwrap();
    fs::create_dir_all(blobs.join("sha256")).unwrap();
    refused(service, ErrorCode::ImageMissing, &[service.name(), "image"]).unwrap();
    fs::remove_dir_all(&blobs).unwrap();
    fs::rename(&aside, &blobs).unwrap();
    service.migrate(B).unwrap();
    service.check().unwrap();
}

#[test]
fn a_service_that_migrates_already() {
    let rig = &Rig::new().unwrap();
    let service = &rig.start(A, &Workload::counter()).unwrap();
    let gate = Gate::close(rig, A, "arm").unwrap();
    thread::scope(|scope| {
        let first = scope.spawn(|| service.try_migrate(B));
        let second = gate.wait(|| first.is_finished()).and_then(|()| {
            let outcome = service.try_migrate(B)?;
            failed(&outcome, 1, ErrorCode::AlreadyMigrating, &[service.name()])?;
            // Nor can it be removed, stopped or started under way.
            let outcome = rig.a().ums(&["rm", "--force", service.name()])?;
            failed(&outcome, 1, ErrorCode::AlreadyMigrating, &[service.name()])
        });
        gate.open().unwrap();
        let first = first.join().unwrap();
        second.unwrap();
        first.unwrap().success().unwrap();
    });
    assert_eq!(service.settle().unwrap(), B);
    service.check().unwrap();
    agreed(rig, service.name()).unwrap();
}

#[test]
fn a_process_that_the_plan_knows_it_cannot_move() {
    let rig = &Rig::new().unwrap();
    // A child that has itself traced (system call 101, request 0), as under a debugger.
    let traced = r#"
        our $child = fork();
        if ($child == 0) { syscall(101, 0, 0, 0, 0); select(undef, undef, undef, 1) while 1 }
        select(undef, undef, undef, 0.3)
    "#;
    // Asks the kernel for all its interfaces (netlink route, RTM_GETLINK, dump) and never reads the answer.
    let unread = r#"
        socket(our $netlink, 16, 3, 0) or die "netlink: $!";
        syswrite($netlink, pack("LSSLL CxSlLL", 32, 18, 0x301, 1, 0, 0, 0, 0, 0, 0)) or die "ask: $!"
    "#;
    for (name, prepare, words) in [("debugged", traced, "traced"), ("unread", unread, "netlink")] {
        let service = Script::start(rig, A, name, prepare, "", &[]).unwrap();
        let plan = rig.a().ums(&["plan", name, "--to", "b"]).unwrap();
        assert_eq!(plan.code, Some(1), "{plan:?}");
        let plan: Plan = serde_json::from_value(plan.result().unwrap().clone()).unwrap();
        let blocker = plan.blockers.iter().find(|blocker| blocker.code == ErrorCode::ProcessBlocked).unwrap();
        assert!(blocker.message.contains(words) && !blocker.remedy.is_empty(), "{blocker:?}");
        let outcome = service.try_migrate(B).unwrap();
        failed(&outcome, 1, ErrorCode::ProcessBlocked, &[name, "b", words]).unwrap();
        service.check().unwrap();
    }
}

#[test]
fn a_daemon_that_is_not_root_says_so() {
    // Everybody may read this directory and run what is in it.
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    let program = directory.path().join("ums");
    fs::copy(programs::find("ums").unwrap(), &program).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    let state = directory.path().join("state");
    fs::create_dir(&state).unwrap();
    std::os::unix::fs::chown(&state, Some(65534), Some(65534)).unwrap();

    let mut site = Command::new(&program);
    site.args(["--json", "site", "--name", "x", "--listen", "127.0.0.1:0", "--state"]).arg(&state);
    let ended = finish(unprivileged(site), "", SETUP_DEADLINE).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let line: serde_json::Value = serde_json::from_str(ended.stdout.lines().next_back().unwrap()).unwrap();
    let error: WireError = serde_json::from_value(line["error"].clone()).unwrap();
    assert_eq!(error.code, ErrorCode::NotRoot, "{error:?}");
    complete(&error, &["root"]).unwrap();

    // The same for people: words, not JSON.
    let mut site = Command::new(&program);
    site.args(["site", "--name", "x", "--listen", "127.0.0.1:0", "--state"]).arg(&state);
    let ended = finish(unprivileged(site), "", SETUP_DEADLINE).unwrap();
    assert!(ended.stderr.contains("error: ") && ended.stderr.contains("hint: "), "{ended:?}");
}

fn unprivileged(mut command: Command) -> Command {
    command.uid(65534).gid(65534).env_remove("UMS_FAULT");
    command
}

#[test]
fn a_daemon_that_does_not_run_is_told_from_one_that_refuses() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(programs::find("ums").unwrap());
    command.arg("--socket").arg(directory.path().join("none")).args(["--json", "ps"]);
    let ended = finish(command, "", SETUP_DEADLINE).unwrap();
    let line: serde_json::Value = serde_json::from_str(ended.stdout.lines().next_back().unwrap()).unwrap();
    let error: WireError = serde_json::from_value(line["error"].clone()).unwrap();
    assert_eq!((ended.status.code(), error.code), (Some(1), ErrorCode::Unreachable), "{error:?}");
    complete(&error, &["none"]).unwrap();
}
