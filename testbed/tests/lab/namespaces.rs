//! The user namespace of a service: its root is nobody on the host, at either site, and does not notice.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result};
use ums_model::error::ErrorCode;
use ums_testbed::net::{A, B};
use ums_testbed::site::Site;

use crate::rig::Rig;
use crate::script::Script;
use crate::verdict::failed;

/// What 0 inside is on the host, and how many ids there are.
fn map_of(site: &Site, service: &str) -> Result<(u64, u64)> {
    let map = fs::read_to_string(format!("/proc/{}/uid_map", site.service_pid(service)?))?;
    let numbers: Vec<u64> = map.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    match numbers.as_slice() {
        [0, first, count] => Ok((*first, *count)),
        _ => anyhow::bail!("the map is {map}"),
    }
}

/// What only the root of a service can do, and what shows whose it is.
const AS_ROOT: &str = r"
    set -e
    echo own > /root-file && chown 33:44 /root-file && chmod u+s /root-file
    echo volume > /data/file && chown 1000:1000 /data/file
    echo shared > /dev/shm/file && chown 33:33 /dev/shm/file
    id -u
";
const LOOK: &str = r"
    stat -c '%n %u:%g %a' / /root-file /data /data/file /dev/shm /dev/shm/file /etc/hosts /bin
    cat /proc/self/uid_map | wc -l; id -u; ls /sys/fs/cgroup | wc -l
    test -w /proc/sysrq-trigger && echo the host can be reached || true
    ls /proc/1/ns/user
";

#[test]
fn the_root_of_a_service_is_nobody_on_the_host_and_stays_root_inside() {
    let rig = &Rig::new().unwrap();
    // So that the two sites give different ids.
    let _other = Script::start(rig, B, "other", "", "", &[]).unwrap();
    let service = Script::start(rig, A, "shifted", "", "", &["-v", "data:/data"]).unwrap();
    let (at_a, count) = map_of(rig.a(), service.name()).unwrap();
    assert!(at_a >= 0x7000_0000 && count == 65_536, "{at_a} {count}");
    assert_eq!(service.shell(AS_ROOT).unwrap().trim(), "0");
    let before = service.shell(LOOK).unwrap();
    assert!(before.contains("/root-file 33:44 4644"), "{before}");
    assert!(before.contains("/data/file 1000:1000"), "{before}");
    assert!(!before.contains("can be reached"), "{before}");

    service.migrate(B).unwrap();
    service.check().unwrap();
    let (at_b, count) = map_of(rig.b(), service.name()).unwrap();
    assert_eq!(count, 65_536);
    assert_ne!(at_a, at_b, "each site has its own");
    assert_eq!(service.shell(LOOK).unwrap(), before);

    // On the disk a volume has the ids of the inside, whoever reads it; what lies over the image has the host's.
    let kept = rig.b().state().join("volumes/data/file");
    assert_eq!(fs::metadata(&kept).unwrap().uid(), 1000);
    let upper = rig.b().state().join("services").join(service.name()).join("upper/root-file");
    let owner = fs::metadata(&upper).with_context(|| upper.display().to_string()).unwrap();
    assert_eq!((u64::from(owner.uid()), u64::from(owner.gid())), (at_b + 33, at_b + 44));

    // Started anew from its files it is the same again.
    let name = service.name();
    rig.b().ums(&["stop", name]).unwrap().success().unwrap();
    rig.b().ums(&["start", name]).unwrap().success().unwrap();
    assert_eq!(map_of(rig.b(), name).unwrap().0, at_b);
}

#[test]
fn a_service_without_a_user_namespace_moves_as_well() {
    let rig = &Rig::new().unwrap();
    let service = Script::start(rig, A, "plain", "", "", &["--no-user-namespace"]).unwrap();
    assert_eq!(map_of(rig.a(), service.name()).unwrap().0, 0);
    // Only where both sites' operators have said that they want it.
    let refused = rig.a().ums(&["migrate", service.name(), "--to", "b"]).unwrap();
    let error = failed(&refused, 1, ErrorCode::Refused, &["user namespace"]).unwrap();
    assert!(error.hint.contains("ums sites policy a "), "{error:?}");
    for (here, peer) in [(rig.a(), "b"), (rig.b(), "a")] {
        here.ums(&["sites", "policy", peer, "--allow-no-user-namespace"]).unwrap().success().unwrap();
    }
    for destination in [B, A] {
        service.migrate(destination).unwrap();
        service.check().unwrap();
        assert_eq!(map_of(rig.site(destination), service.name()).unwrap(), (0, u64::from(u32::MAX)));
    }
}
