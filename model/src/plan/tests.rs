use super::*;
use crate::names::{Bytes, Digest, Fingerprint, MigrationId};
use crate::spec::{ImageRef, Protocol};

fn site(name: &str) -> SiteFacts {
    SiteFacts {
        name: name.parse().unwrap(),
        fingerprint: Fingerprint([name.as_bytes()[0]; 32]),
        arch: "x86_64".into(),
        kernel: "6.18.0-amd64".into(),
        criu: Some("Version: 4.2.1".into()),
        runc: Some("runc version 1.3.6+ds1".into()),
        is_root: true,
        memory_available: Bytes::gib(2),
        disk_available: Bytes::gib(2),
        cgroup: CgroupLayout::Hybrid,
        cpu_flags: vec!["fpu".into(), "avx2".into(), "constant_tsc".into()],
        ports_in_use: Vec::new(),
        services: Vec::new(),
        volumes: Vec::new(),
        site_mounts: Vec::new(),
        time_namespace: Some(true),
        user_namespaces: Some(true),
        userfaultfd_wp_async: None,
        soft_dirty: None,
        durable_journal: Some(true),
    }
}

fn service() -> ServiceFacts {
    ServiceFacts {
        running: true,
        migrating: None,
        approach: Approach::Container,
        memory: Bytes::gib(1),
        files: Bytes::mib(1),
        tasks: 1,
        threads: 4,
        image_at_source: true,
        image_at_destination: false,
        image_bytes: Bytes::mib(100),
        special_files: crate::policy::SpecialFiles::default(),
        blockers: Vec::new(),
    }
}

fn spec() -> ServiceSpec {
    let image = ImageRef { digest: Digest::sha256([7; 32]), name: "redis".into() };
    let mut spec = ServiceSpec::new("web".parse().unwrap(), image);
    spec.ports = vec!["8080:80".parse().unwrap()];
    spec.volumes = vec!["data:/data".parse().unwrap()];
    spec
}

/// Everything that a plan is made from; tests change one thing.
struct Case {
    spec: ServiceSpec,
    service: ServiceFacts,
    source: SiteFacts,
    destination: SiteFacts,
}

fn planned(change: impl FnOnce(&mut Case)) -> Plan {
    let mut case = Case { spec: spec(), service: service(), source: site("a"), destination: site("b") };
    change(&mut case);
    let link = LinkFacts { bytes_per_s: 125e6, rtt_ms: 1.0 };
    plan(&case.spec, &case.service, &case.source, &case.destination, Some(link))
}

#[test]
fn a_fitting_service_is_feasible_and_priced() {
    let plan = planned(|_| {});
    assert!(plan.feasible && plan.blockers.is_empty() && plan.warnings.is_empty(), "{plan:?}");
    let cost = plan.predicted.unwrap();
    // 1 GiB at 1 Gbit/s is 8.6 s, dump and restore 3 s, the rest half a second.
    assert!((11_500.0..13_000.0).contains(&cost.frozen_ms), "{cost:?}");
    assert!(cost.total_ms > cost.frozen_ms + 800.0, "the image travels before the freeze: {cost:?}");
    assert_eq!(cost.bytes, Bytes::gib(1) + Bytes::mib(101));
    let open: Vec<_> = plan.approaches.iter().filter(|a| a.feasibility == Feasibility::Feasible).collect();
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].approach, Approach::Container);
}

/// One thing that goes wrong with a case.
type Change = fn(&mut Case);

#[test]
fn every_single_obstacle_is_found_and_named() {
    use ErrorCode as E;
    let cases: Vec<(E, Change)> = vec![
        (E::CriuMissing, |c| c.destination.criu = None),
        (E::CriuMissing, |c| c.source.criu = None),
        (E::CriuTooOld, |c| c.destination.criu = Some("4.1.1".into())),
        (E::CriuTooOld, |c| c.destination.criu = Some("unknown".into())),
        (E::RuncMissing, |c| c.source.runc = None),
        (E::RuncTooOld, |c| c.destination.runc = Some("1.1.5".into())),
        (E::NotRoot, |c| c.destination.is_root = false),
        (E::Unsupported, |c| c.destination.arch = "aarch64".into()),
        (E::Unsupported, |c| c.destination.cpu_flags = vec!["fpu".into()]),
        (E::Unsupported, |c| c.source.kernel = "4.19.0".into()),
        (E::Unsupported, |c| c.destination.time_namespace = Some(false)),
        (E::Unsupported, |c| c.destination.user_namespaces = Some(false)),
        (E::Unsupported, |c| c.service.running = false),
        (E::BadRequest, |c| c.destination.fingerprint = c.source.fingerprint),
        (E::MemoryTooSmall, |c| c.destination.memory_available = Bytes::gib(1)),
        (E::DiskTooSmall, |c| c.destination.disk_available = Bytes::mib(101)),
        (E::PortTaken, |c| {
            c.destination.ports_in_use = vec![PortInUse { port: 8080, protocol: Protocol::Tcp }];
        }),
        (E::NameTaken, |c| c.destination.services = vec!["web".parse().unwrap()]),
        (E::VolumeTaken, |c| c.destination.volumes = vec!["data".parse().unwrap()]),
        (E::MountMissing, |c| c.spec.site_mounts = vec!["witness:/w:ro".parse().unwrap()]),
        (E::InvalidSpec, |c| c.spec.command = vec!["\0".into()]),
        (E::AlreadyMigrating, |c| c.service.migrating = Some(MigrationId::new(uuid::Uuid::from_u128(1)))),
        (E::ImageMissing, |c| c.service.image_at_source = false),
        (E::ProcessBlocked, |c| {
            c.service.blockers =
                vec![ProcessBlocker { pid: 7, kind: BlockerKind::IoUring, detail: "fd 5".into() }];
        }),
    ];
    for (code, change) in cases {
        let plan = planned(change);
        assert!(!plan.feasible && plan.predicted.is_none(), "{code}");
        let codes: Vec<_> = plan.blockers.iter().map(|blocker| blocker.code).collect();
        assert_eq!(codes, [code], "{plan:?}");
        assert!(plan.blockers.iter().all(|blocker| !blocker.remedy.is_empty()));
        assert!(plan.approaches.iter().all(|approach| approach.feasibility != Feasibility::Feasible));
    }
}

#[test]
fn all_obstacles_are_named_at_once() {
    let plan = planned(|c| {
        c.source.criu = None;
        c.destination.is_root = false;
        c.destination.services = vec!["web".parse().unwrap()];
    });
    assert_eq!(plan.blockers.len(), 3);
}

#[test]
fn what_does_not_hinder_is_not_a_blocker() {
    let plan = planned(|c| {
        c.destination.cpu_flags.retain(|flag| flag != "constant_tsc");
        c.destination.ports_in_use = vec![PortInUse { port: 8080, protocol: Protocol::Udp }];
        c.service.image_at_destination = true;
        c.service.image_at_source = false;
        c.destination.cgroup = CgroupLayout::V1;
        c.source.durable_journal = Some(false);
    });
    assert!(plan.feasible, "{plan:?}");
    assert_eq!(plan.warnings.len(), 1, "the journal: {plan:?}");
}

#[test]
fn the_two_kinds_of_control_groups_do_not_mix() {
    let plan = planned(|c| c.destination.cgroup = CgroupLayout::V2);
    assert_eq!(plan.blockers.len(), 1, "{plan:?}");
    assert!(plan.blockers[0].message.contains("control groups are hybrid at"), "{plan:?}");
    assert!(
        planned(|c| (c.source.cgroup, c.destination.cgroup) = (CgroupLayout::V2, CgroupLayout::V2)).feasible
    );
}

#[test]
fn a_writable_site_mount_and_unknown_cpus_are_worth_a_warning() {
    let plan = planned(|c| {
        c.spec.site_mounts = vec!["witness:/w".parse().unwrap()];
        c.destination.site_mounts = vec!["witness".parse().unwrap()];
        c.destination.cpu_flags.clear();
    });
    assert!(plan.feasible);
    assert_eq!(plan.warnings.len(), 2, "{plan:?}");
}

#[test]
fn a_plan_survives_the_wire() {
    let plan = planned(|c| c.source.criu = None);
    let json = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), plan);
    let error: WireError = plan.blockers[0].clone().into();
    assert_eq!(error.code, ErrorCode::CriuMissing);
}

#[test]
fn a_senseless_link_has_no_prediction() {
    for (bytes_per_s, rtt_ms) in [(0.0, 1.0), (-1.0, 1.0), (f64::NAN, 1.0), (1e6, f64::INFINITY), (1e6, -1.0)]
    {
        assert!(predict(&service(), LinkFacts { bytes_per_s, rtt_ms }).is_none());
    }
}

#[test]
fn versions_are_found_in_what_programs_print() {
    let version = |text: &str| Version::find(text).map(|v| v.to_string());
    assert_eq!(version("Version: 4.2.1\nGitID: v4.2.1").unwrap(), "4.2.1");
    assert_eq!(version("runc version 1.2.0-rc.1").unwrap(), "1.2.0");
    assert_eq!(version("6.18-amd64").unwrap(), "6.18.0");
    assert_eq!(version("4.2"), Some("4.2.0".into()));
    assert!(Version::find("4.2").unwrap() < CRIU_MIN);
    assert!(Version::find("10.0.0").unwrap() > CRIU_MIN);
    for none in ["", "criu", "4", ".", "99999999999.1.1"] {
        assert_eq!(version(none), None, "{none}");
    }
}
