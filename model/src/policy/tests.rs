//! What the defaults allow, and what each word of a policy changes.

use super::*;
use crate::names::Digest;
use crate::spec::{ImageRef, Limits, Protocol, SiteMount};

fn here() -> SiteName {
    "b".parse().unwrap()
}

fn peer() -> SiteName {
    "a".parse().unwrap()
}

fn spec() -> ServiceSpec {
    let image = ImageRef { digest: Digest::sha256([1; 32]), name: "redis".to_owned() };
    ServiceSpec::new("web-1".parse().unwrap(), image)
}

fn wish(spec: &ServiceSpec) -> Wish {
    Wish::of(spec, Bytes::mib(10), Bytes::mib(20))
}

fn refused(policy: &Policy, spec: &ServiceSpec, usage: &Usage) -> Vec<String> {
    let blockers = policy.incoming(&wish(spec), usage, &peer(), &here());
    for blocker in &blockers {
        assert_eq!(blocker.site, Some(here()));
        assert!(blocker.remedy.contains("ums sites policy a --"), "{}", blocker.remedy);
    }
    blockers.into_iter().map(|blocker| blocker.message).collect()
}

#[test]
fn an_ordinary_service_is_welcome_by_default() {
    let mut spec = spec();
    spec.ports = vec![PortPublish { host: 8080, container: 80, protocol: Protocol::Tcp }];
    assert_eq!(refused(&Policy::default(), &spec, &Usage::default()), Vec::<String>::new());
    assert_eq!(Policy::default().outgoing(&spec.name, &peer(), &here()), None);
    assert_eq!(Policy::default().busy(&Usage::default(), &peer(), &here()), None);
}

#[test]
fn what_could_harm_a_host_is_not() {
    type Change = (fn(&mut ServiceSpec), fn(&mut Policy));
    let changes: [Change; 3] = [
        (|spec| spec.user_namespace = false, |policy| policy.allow_no_user_namespace = true),
        (
            |spec| spec.ports = vec![PortPublish { host: 443, container: 80, protocol: Protocol::Udp }],
            |policy| policy.ports.push("443".parse().unwrap()),
        ),
        (
            |spec| {
                let mount =
                    SiteMount { name: "disk".parse().unwrap(), path: "/d".parse().unwrap(), read_only: true };
                spec.site_mounts = vec![mount];
            },
            |policy| policy.site_mounts.push("d*".parse().unwrap()),
        ),
    ];
    for (change, allow) in changes {
        let (mut spec, mut policy) = (spec(), Policy::default());
        change(&mut spec);
        assert_eq!(refused(&policy, &spec, &Usage::default()).len(), 1, "{spec:?}");
        allow(&mut policy);
        assert_eq!(refused(&policy, &spec, &Usage::default()), Vec::<String>::new());
    }
}

#[test]
fn every_ground_is_named_at_once() {
    let mut spec = spec();
    spec.user_namespace = false;
    let policy = Policy {
        incoming: vec!["db-*".parse().unwrap()],
        outgoing: Vec::new(),
        max_services: 1,
        max_migrations: 1,
        max_memory: Some(Bytes::mib(30)),
        max_disk: Some(Bytes::mib(30)),
        ..Policy::default()
    };
    let usage = Usage { services: 1, memory: Bytes::mib(21), disk: Bytes::mib(11), migrations: 1 };
    assert_eq!(refused(&policy, &spec, &usage).len(), 5);
    assert_eq!(policy.outgoing(&spec.name, &peer(), &here()).unwrap().code, ErrorCode::Refused);
    assert_eq!(policy.busy(&usage, &peer(), &here()).unwrap().code, ErrorCode::Busy, "it may be asked again");
    // Exactly what is left fits.
    let policy = Policy { max_services: 2, max_memory: Some(Bytes::mib(31)), ..Policy::default() };
    spec.user_namespace = true;
    assert_eq!(refused(&policy, &spec, &usage), Vec::<String>::new());
    // A limit of its own is what it may grow to.
    spec.limits = Limits { memory: Some(Bytes::mib(11)), ..Limits::default() };
    assert_eq!(refused(&policy, &spec, &usage).len(), 1);
    // A number that no machine has does not become a small one.
    let usage = Usage { memory: Bytes(u64::MAX), ..usage };
    assert_eq!(refused(&policy, &spec, &usage).len(), 1);
}

#[test]
fn globs() {
    let matches = |glob: &str, name: &str| Glob::new(glob).unwrap().matches(name);
    for (glob, name) in [
        ("*", "web"),
        ("web", "web"),
        ("w*", "web"),
        ("*b", "web"),
        ("w?b", "web"),
        ("*-db-*", "a-db-db-1"),
        ("**", "x"),
        ("web*", "web"),
    ] {
        assert!(matches(glob, name), "{glob} {name}");
    }
    for (glob, name) in
        [("web", "web2"), ("?", ""), ("w?b", "wb"), ("*-db", "a-db-1"), ("a*b*c", "acb"), ("??", "web")]
    {
        assert!(!matches(glob, name), "{glob} {name}");
    }
    // Stars without end take no time without end.
    assert!(!matches(&format!("{}b", "a*".repeat(49)), &"a".repeat(63)));
    for wrong in ["", "Web", "a/b", "[a]", "ä", &"a".repeat(101)] {
        assert!(Glob::new(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn ranges_of_ports() {
    let range: PortRange = "80-443".parse().unwrap();
    assert!(range.contains(80) && range.contains(443) && !range.contains(79) && !range.contains(444));
    assert_eq!(range.to_string(), "80-443");
    assert_eq!("22".parse::<PortRange>().unwrap().to_string(), "22");
    for wrong in ["", "0", "0-5", "9-8", "65536", "-", "1-", "+1", "1-2-3"] {
        assert!(wrong.parse::<PortRange>().is_err(), "{wrong}");
    }
}

#[test]
fn what_is_left_out_has_its_default_and_what_is_mistyped_is_refused() {
    let policy: Policy = serde_json::from_str(r#"{"max_services": 3}"#).unwrap();
    assert_eq!(policy, Policy { max_services: 3, ..Policy::default() });
    let json = serde_json::to_string(&policy).unwrap();
    assert_eq!(serde_json::from_str::<Policy>(&json).unwrap(), policy);
    assert!(serde_json::from_str::<Policy>(r#"{"allow_everything": true}"#).is_err());
    assert!(serde_json::from_str::<Policy>(r#"{"ports": ["0-9"]}"#).is_err());
    // A site that says nothing about the user namespace has sent one without.
    assert!(!serde_json::from_str::<Wish>(r#"{"service": "web"}"#).unwrap().user_namespace);
}

#[test]
fn rights_of_the_host_do_not_come_with_files() {
    let (mut spec, mut policy) = (spec(), Policy::default());
    let accepted = |policy: &Policy, spec: &ServiceSpec| {
        let FilePolicy { set_uid, devices } = policy.files(spec);
        (set_uid, devices)
    };
    spec.user_namespace = true;
    assert_eq!(accepted(&policy, &spec), (true, false));
    spec.user_namespace = false;
    assert_eq!(accepted(&policy, &spec), (false, false));
    policy.allow_set_uid = true;
    assert_eq!(accepted(&policy, &spec), (true, false));
    policy.allow_devices = true;
    assert_eq!(accepted(&policy, &spec), (true, true));
    // A plan says so before anything travels.
    let mut wish = wish(&spec);
    wish.special_files = SpecialFiles { set_uid: Some("bin/tool".into()), device: Some("dev/kmsg".into()) };
    let found = |policy: &Policy, wish: &Wish| {
        let blockers = policy.incoming(wish, &Usage::default(), &peer(), &here());
        let options = [FilePolicy::SET_UID, FilePolicy::DEVICES];
        let about_files = |remedy: &String| options.iter().any(|option| remedy.ends_with(option));
        blockers.into_iter().map(|blocker| blocker.remedy).filter(about_files).collect::<Vec<_>>()
    };
    assert!(found(&policy, &wish).is_empty());
    policy.allow_no_user_namespace = true;
    policy.allow_devices = false;
    assert!(found(&policy, &wish)[0].ends_with("ums sites policy a --allow-devices yes"));
    policy.allow_set_uid = false;
    assert!(found(&policy, &wish)[0].ends_with("ums sites policy a --allow-set-uid yes"));
    wish.user_namespace = true;
    assert_eq!(found(&policy, &wish).len(), 1);
    let remedy = FilePolicy::remedy(FilePolicy::DEVICES, &peer(), &here()).unwrap();
    assert!(remedy.ends_with("ums sites policy a --allow-devices yes"), "{remedy}");
    assert_eq!(FilePolicy::remedy("ums doctor", &peer(), &here()), None);
}
