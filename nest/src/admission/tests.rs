use std::path::PathBuf;

use ums_engine::images::admit::Intake;
use ums_engine::userns::IdRange;

use super::*;

/// As the site of the kept dumps had it, for a service of one of them.
fn recipe(name: &str, ids: bool) -> Recipe {
    let place = r#"{"service":"x","site":"a15a4ea1","index":0,"ports":[],"resolver":"10.255.255.53"}"#;
    let digest = "sha256:2a313dc30b8fe2a6d7c6775a50b0af35c338e90ffe0d1e1e4ba2e0a18b81035f";
    let mut place: serde_json::Value = serde_json::from_str(place).unwrap();
    place["inner"] = serde_json::to_value(ums_model::spec::InnerNetwork::DEFAULT).unwrap();
    let recipe = serde_json::json!({
        "spec": { "name": name, "image": { "digest": digest, "name": "root" } },
        "lower": [], "args": ["x"], "env": [], "workdir": "/", "user": "", "volumes": [],
        "site_mounts": [{ "name": "witness", "host": "/", "inside": "/witness", "read_only": false }],
        "cgroup": "ums-b/service", "place": place,
    });
    let mut recipe: Recipe = serde_json::from_value(recipe).unwrap();
    recipe.ids = ids.then_some(IdRange { first: 200_000, count: 65_536 });
    recipe
}

fn host() -> HostShare {
    HostShare {
        memory: 8 << 30,
        swap: 0,
        unified: false,
        hidden: vec![
            "/proc/acpi",
            "/proc/keys",
            "/proc/timer_list",
            "/proc/sys",
            "/proc/irq",
            "/sys/firmware",
        ],
        label: None,
        oom_score: 0,
        nice: 0,
    }
}

/// Takes a dump that is kept with the rules' own tests.
fn take(service: &str, admission: Admission) -> Result<(), String> {
    let dumps = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/src/images/admit/tests/dumps");
    let directory = tempfile::tempdir().unwrap();
    let mut intake = Intake::open(directory.path(), admission).unwrap();
    for entry in fs::read_dir(dumps.join(service)).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let (name, bytes) = match name.strip_suffix(".size") {
            Some(pages) => {
                let size = fs::read_to_string(&path).unwrap().trim().parse().unwrap();
                (pages, vec![0; size])
            }
            None => (name, fs::read(&path).unwrap()),
        };
        intake.begin(name).and_then(|()| intake.write(name, &bytes)).map_err(|error| error.to_string())?;
        intake.end(name).map_err(|error| error.to_string())?;
    }
    intake.finish().map_err(|error| error.to_string())
}

#[test]
fn what_a_site_dumps_another_admits() {
    assert_eq!(take("memhog", admission(&recipe("a-20000", true), 4, &host())), Ok(()));
    assert_eq!(take("plain", admission(&recipe("plain", false), 1, &host())), Ok(()));
}

#[test]
fn another_service_is_refused() {
    let refused = |service: &str, recipe: &Recipe| take(service, admission(recipe, 1, &host())).unwrap_err();
    assert!(refused("plain", &recipe("other", false)).contains("utsns-12.img"));
    // One that is to live with ids of its own here and did not there.
    assert!(refused("plain", &recipe("plain", true)).contains("a namespace of the host"));
    assert!(refused("memhog", &recipe("a-20000", false)).contains("is refused"));
    let mut elsewhere = recipe("a-20000", true);
    elsewhere.site_mounts.clear();
    assert!(refused("memhog", &elsewhere).contains("nothing is mounted at /witness"));
    let mut read_only = recipe("a-20000", true);
    read_only.site_mounts[0].read_only = true;
    assert!(refused("memhog", &read_only).contains("lacks some of 0x1"));
    let mut small = recipe("a-20000", true);
    small.spec.limits.memory = Some(ums_model::names::Bytes::mib(1));
    assert!(refused("memhog", &small).contains("a process may have"));
}

#[test]
fn a_service_without_its_own_ids_must_have_hidden_what_this_host_has() {
    let open = HostShare { hidden: vec!["/proc/sysrq-trigger"], ..host() };
    let said = take("plain", admission(&recipe("plain", false), 1, &open)).unwrap_err();
    assert!(said.contains("/proc/sysrq-trigger is not mounted, and would lie open"), "{said}");
    // The root of others may not touch it.
    assert_eq!(take("memhog", admission(&recipe("a-20000", true), 4, &open)), Ok(()));
}

#[test]
fn numbers_are_those_of_the_names() {
    let admission = admission(&recipe("web", true), 1, &host());
    // What container tools give by default.
    assert_eq!(admission.capabilities, 0xa804_25fb);
    assert_eq!(CAPABILITIES.len(), admission.capabilities.count_ones() as usize);
    for (path, number) in DEVICES.iter().zip(DEVICE_NUMBERS) {
        use std::os::unix::fs::MetadataExt as _;
        let found = fs::metadata(path).unwrap().rdev();
        assert_eq!((rustix::fs::major(found), rustix::fs::minor(found)), number, "{path}");
    }
}

#[test]
fn this_host_can_be_read() {
    let host = HostShare::read();
    assert!(host.memory > 64 << 20);
    assert!((-20..=19).contains(&host.nice) && (-1000..=1000).contains(&host.oom_score));
    assert!(host.hidden.contains(&"/proc/sys"));
}
