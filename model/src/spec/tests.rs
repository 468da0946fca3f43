use proptest::prelude::*;

use super::*;
use crate::names::{Bytes, Digest};

fn spec() -> ServiceSpec {
    let image = ImageRef { digest: Digest::sha256([7; 32]), name: "redis".into() };
    ServiceSpec::new("web".parse().unwrap(), image)
}

#[test]
fn the_cli_forms_are_read() {
    let port: PortPublish = "8080:80".parse().unwrap();
    assert_eq!(port, PortPublish { host: 8080, container: 80, protocol: Protocol::Tcp });
    assert_eq!("5353:53/udp".parse::<PortPublish>().unwrap().protocol, Protocol::Udp);
    for bad in ["", "80", "0:80", "80:0", "80:+80", "1:2:3", "70000:1", "1:2/sctp", "1:2/"] {
        assert!(bad.parse::<PortPublish>().is_err(), "{bad}");
    }
    let volume: VolumeMount = "data:/var/lib/redis:ro".parse().unwrap();
    assert_eq!((volume.path.as_str(), volume.read_only), ("/var/lib/redis", true));
    assert!(!"data:/x:rw".parse::<VolumeMount>().unwrap().read_only);
    for bad in ["data", "data:x", "/host:/x", "data:/a/../b", ":/x"] {
        assert!(bad.parse::<VolumeMount>().is_err(), "{bad}");
    }
    assert_eq!(parse_env("A=b=c").unwrap(), ("A".into(), "b=c".into()));
    assert_eq!(parse_env("A=").unwrap(), ("A".into(), String::new()));
    assert!(parse_env("A").is_err() && parse_env("=b").is_err());
    for (text, milli) in [("1.5", 1500), ("2", 2000), ("0.001", 1), ("0.25", 250)] {
        assert_eq!(text.parse::<MilliCpus>().unwrap().get(), milli);
    }
    for bad in ["0", "0.0001", "-1", "1.", ".5", "1e3", "NaN", "1001"] {
        assert!(bad.parse::<MilliCpus>().is_err(), "{bad}");
    }
    assert_eq!("on-failure".parse::<RestartPolicy>().unwrap(), RestartPolicy::OnFailure);
}

#[test]
fn a_short_spec_is_completed_and_unknown_fields_are_tolerated() {
    let digest = Digest::sha256([7; 32]);
    let json = format!(
        r#"{{"name":"web","image":{{"digest":"{digest}","name":"redis","later":1}},"colour":"green"}}"#
    );
    // What was created before there were user namespaces has none.
    let expected = ServiceSpec { user_namespace: false, ..spec() };
    assert_eq!(serde_json::from_str::<ServiceSpec>(&json).unwrap(), expected);
    assert_eq!(spec().network.address.to_string(), "192.0.0.2");
    assert_eq!(spec().network.gateway6.to_string(), "fd75:6d73::1");
    assert_eq!(spec().hostname(), "web");
}

#[test]
fn a_spec_survives_the_wire() {
    let mut full = spec();
    full.command = vec!["redis-server".into(), "--save".into(), String::new()];
    full.env = vec![("A".into(), "1".into())];
    full.workdir = Some("/data".parse().unwrap());
    full.user = Some("999:999".into());
    full.volumes = vec!["data:/data".parse().unwrap()];
    full.ports = vec!["6379:6379".parse().unwrap()];
    full.limits = Limits { memory: Some(Bytes::mib(512)), cpus: Some("1.5".parse().unwrap()) };
    full.restart = RestartPolicy::Always;
    full.site_mounts = vec!["witness:/witness".parse().unwrap()];
    full.hostname = Some("cache.example".into());
    full.check().unwrap();
    assert!(full.writes_outside());
    let json = serde_json::to_string(&full).unwrap();
    assert_eq!(serde_json::from_str::<ServiceSpec>(&json).unwrap(), full);
}

#[test]
fn nonsense_is_refused() {
    let refused = |change: fn(&mut ServiceSpec)| {
        let mut bad = spec();
        change(&mut bad);
        bad.check().unwrap_err()
    };
    refused(|s| s.ports = vec!["1:2".parse().unwrap(), "1:3".parse().unwrap()]);
    refused(|s| s.ports = vec![PortPublish { host: 0, container: 1, protocol: Protocol::Tcp }]);
    refused(|s| s.volumes = vec!["a:/x".parse().unwrap(), "b:/x/".parse().unwrap()]);
    refused(|s| s.volumes = vec!["a:/proc/x".parse().unwrap()]);
    refused(|s| s.site_mounts = vec!["a:/".parse().unwrap()]);
    refused(|s| s.command = vec!["a\0b".into()]);
    refused(|s| s.command = vec![String::new(); 2000]);
    refused(|s| s.env = vec![("A=B".into(), String::new())]);
    refused(|s| s.env = vec![("A".into(), "x".repeat(200_000))]);
    refused(|s| s.hostname = Some("a..b".into()));
    refused(|s| s.user = Some("a:b:c".into()));
    refused(|s| s.network.gateway = "192.0.1.1".parse().unwrap());
    refused(|s| s.network.prefix = 0);
    refused(|s| s.network.mtu = 100);
    let mut fine = spec();
    fine.ports = vec!["1:2".parse().unwrap(), "1:2/udp".parse().unwrap()];
    fine.volumes = vec!["a:/process".parse().unwrap(), "b:/dev/thing".parse().unwrap()];
    fine.check().unwrap();
}

proptest! {
    #[test]
    fn parsers_never_panic(text in "\\PC{0,60}") {
        let _ = text.parse::<PortPublish>();
        let _ = text.parse::<VolumeMount>();
        let _ = text.parse::<SiteMount>();
        let _ = text.parse::<MilliCpus>();
        let _ = text.parse::<InnerPath>();
        let _ = text.parse::<RestartPolicy>();
        let _ = parse_env(&text);
    }

    #[test]
    fn inner_paths_never_climb(text in "(/|\\.|a|\\.\\.|:|\n){0,12}") {
        if let Ok(path) = text.parse::<InnerPath>() {
            prop_assert!(path.as_str().starts_with('/'));
            prop_assert!(path.as_str().split('/').all(|part| part != ".." && part != "."));
            prop_assert_eq!(path.to_string().parse::<InnerPath>().unwrap(), path);
        }
    }

    #[test]
    fn printed_forms_are_read_back(host in 1_u16.., container in 1_u16.., udp: bool, milli in 1_u32..1_000_000,
                                   path in "/[a-z:]{1,9}(/[a-z]{1,9})?(:ro|:rw)?", read_only: bool) {
        let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
        let port = PortPublish { host, container, protocol };
        prop_assert_eq!(port.to_string().parse::<PortPublish>().unwrap(), port);
        let cpus = MilliCpus::new(milli).unwrap();
        prop_assert_eq!(cpus.to_string().parse::<MilliCpus>().unwrap(), cpus);
        let mount = VolumeMount { name: "v".parse().unwrap(), path: path.parse().unwrap(), read_only };
        prop_assert_eq!(mount.to_string().parse::<VolumeMount>().unwrap(), mount);
    }
}
