//! Files that give rights: what a site takes of them by its policy, and that ordinary images move as they are.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ums_model::error::ErrorCode;
use ums_testbed::command::succeed;
use ums_testbed::net::{A, B};

use crate::PATIENCE;
use crate::rig::Rig;
use crate::script::Script;
use crate::verdict::failed;

/// Programs of the service that are set-uid or set-gid, with their modes.
const SET_UID: &str = "find /usr /bin /sbin -xdev -type f -perm /6000 -exec stat -c '%a %n' {} + | sort";

/// Because of a file the migration does not begin, neither site has a memory of it, and what to do about it is said.
fn refused(rig: &Rig, service: &Script<'_>, parts: &[&str], option: &str) -> Result<()> {
    let pid = rig.a().service_pid(service.name())?;
    let outcome = service.try_migrate(B)?;
    let error = failed(&outcome, 1, ErrorCode::Refused, parts)?;
    ensure!(error.hint.contains(&format!("ums sites policy a {option} yes")), "{error:?}");
    ensure!(rig.a().service_pid(service.name())? == pid, "it was touched");
    service.check()?;
    let left = rig.b().state().join("services").join(service.name());
    ensure!(!left.exists(), "{} was written", left.display());
    Ok(())
}

/// Puts a device where only the host's root can: what a site does that means harm.
fn plant(directory: &Path, name: &str, kind: &str) -> Result<()> {
    let mut command = Command::new("sh");
    let script = format!("mknod -m 666 {name} {kind} && chown --reference=. {name}");
    command.current_dir(directory).args(["-ec", &script]);
    succeed(command, "", PATIENCE).map(drop)
}

#[test]
fn devices_come_only_by_policy() {
    let rig = &Rig::new().unwrap();
    let service = Script::start(rig, A, "ordinary", "", "", &["-v", "data:/data"]).unwrap();
    let programs = service.shell(SET_UID).unwrap();
    assert!(programs.contains("/su\n"), "an ordinary image has such programs: {programs}");
    let volume = rig.a().state().join("volumes/data");
    plant(&volume, "memory", "c 1 1").unwrap();
    refused(rig, &service, &["memory in volume data", "a device"], "--allow-devices").unwrap();
    fs::remove_file(volume.join("memory")).unwrap();
    let upper = rig.a().state().join("services").join(service.name()).join("upper");
    plant(&upper, "disk", "b 7 0").unwrap();
    refused(rig, &service, &["disk in its root", "a device"], "--allow-devices").unwrap();

    rig.b().ums(&["sites", "policy", "a", "--allow-devices", "yes"]).unwrap().success().unwrap();
    service.migrate(B).unwrap();
    service.check().unwrap();
    let here = rig.b().state().join("services").join(service.name()).join("upper/disk");
    let kind = fs::symlink_metadata(&here).with_context(|| here.display().to_string()).unwrap().file_type();
    assert!(kind.is_block_device());
    // Also then it opens nothing: a service may use the devices of its own /dev.
    let opened = service.shell("head -c 1 /disk > /dev/null 2>&1 && echo opened || echo refused").unwrap();
    assert_eq!(opened.trim(), "refused");
    assert_eq!(service.shell(SET_UID).unwrap(), programs, "in a user namespace they stay what they are");
}

#[test]
fn set_uid_programs_of_the_hosts_root_come_only_by_policy() {
    let rig = &Rig::new().unwrap();
    for (here, peer) in [(rig.a(), "b"), (rig.b(), "a")] {
        here.ums(&["sites", "policy", peer, "--allow-no-user-namespace"]).unwrap().success().unwrap();
    }
    // Those of the image are taken off, and everything else of it goes on.
    let plain = Script::start(rig, A, "plain", "", "", &["--no-user-namespace"]).unwrap();
    assert!(plain.shell(SET_UID).unwrap().contains("/su\n"));
    plain.migrate(B).unwrap();
    plain.check().unwrap();
    assert_eq!(plain.shell(SET_UID).unwrap(), "");

    let service = Script::start(rig, A, "tools", "", "", &["--no-user-namespace"]).unwrap();
    let programs = service.shell(SET_UID).unwrap();
    service.shell("cp /bin/true /tool && chmod 4755 /tool").unwrap();
    refused(rig, &service, &["tool in its root", "set-uid"], "--allow-set-uid").unwrap();
    rig.b().ums(&["sites", "policy", "a", "--allow-set-uid", "yes"]).unwrap().success().unwrap();
    service.shell("cp /bin/true /tool && chmod 4755 /tool").unwrap();
    service.migrate(B).unwrap();
    service.check().unwrap();
    assert_eq!(service.shell("stat -c %a /tool").unwrap().trim(), "4755");
    assert_eq!(service.shell(SET_UID).unwrap(), programs);
}
