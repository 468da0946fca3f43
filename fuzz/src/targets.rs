//! The decoders.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::LazyLock;

use bytes::BytesMut;
use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message as _;
use serde::de::DeserializeOwned;
use serde_json::from_slice;
use tokio::runtime::{Builder, Runtime};
use ums_engine::criu::rpc;
use ums_engine::files::TreeEntry;
use ums_engine::images::admit::{Admission, AdmittedMount, Intake, Mounted};
use ums_transfer::Deadlines;
use ums_transfer::archive::{ArchiveReader, Limits};
use ums_transfer::frame::{FrameReader, decode};

/// A decoder, and what it may take.
#[derive(Debug)]
pub struct Target {
    /// Name of its folder.
    pub name: &'static str,
    /// Reads an input, whatever it is: whether it was taken.
    pub decode: fn(&[u8]) -> bool,
    /// Bytes that it may hold for each byte of input.
    pub factor: usize,
    /// Bytes that it may hold besides.
    pub floor: usize,
    /// Its share of the inputs in a test.
    pub count: u64,
}

const fn json(name: &'static str, decode: fn(&[u8]) -> bool) -> Target {
    // A list of empty structures is the worst: a few hundred bytes for three characters.
    Target { name, decode, factor: 400, floor: 256 << 10, count: 30_000 }
}

/// All of them.
pub const TARGETS: [Target; 16] = [
    Target { name: "frames", decode: frames, factor: 4, floor: 256 << 10, count: 100_000 },
    // The reader takes its own buffers, of a mebibyte each.
    Target { name: "archive", decode: archive, factor: 64, floor: 4 << 20, count: 60_000 },
    json("message", message),
    json("hello", hello),
    Target { name: "invite", decode: invite, factor: 64, floor: 64 << 10, count: 50_000 },
    json("spec", spec),
    json("nest", nest),
    json("tree-entry", tree_entry),
    json("record", record),
    // Long names and extended headers are read whole, up to a limit of a mebibyte each.
    Target {
        name: "image-archive",
        decode: ums_sites::store::fuzz::archive,
        factor: 64,
        floor: 4 << 20,
        count: 20_000,
    },
    json("image-document", ums_sites::store::fuzz::documents),
    Target { name: "criu-rpc", decode: criu_rpc, factor: 100, floor: 64 << 10, count: 50_000 },
    Target { name: "images", decode: image, factor: 100, floor: 1 << 20, count: 40_000 },
    Target { name: "dump", decode: dump, factor: 100, floor: 8 << 20, count: 2_000 },
    // Compressed: bounded by what a service's /dev may have, whatever the input.
    Target { name: "tmpfs", decode: image, factor: 100, floor: 260 << 20, count: 3_000 },
    // What is in those, for a changed one hardly ever unpacks: packed here, which takes a mebibyte.
    Target { name: "tmpfs-tar", decode: tmpfs_tar, factor: 100, floor: 4 << 20, count: 10_000 },
];

/// The target of a name.
pub fn named(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

fn frames(input: &[u8]) -> bool {
    let mut buffer = BytesMut::from(input);
    while let Ok(Some(frame)) = decode(&mut buffer) {
        assert!(frame.payload.len() <= frame.kind.limit(), "a frame longer than its kind");
    }
    buffer.is_empty()
}

thread_local! {
    static RUNTIME: RefCell<Runtime> = RefCell::new(
        Builder::new_current_thread().enable_time().build().expect("a runtime of one thread can be made"),
    );
}

fn archive(input: &[u8]) -> bool {
    RUNTIME.with_borrow_mut(|runtime| {
        runtime.block_on(async {
            let mut frames = FrameReader::new(input, &Deadlines::default());
            let mut reader = ArchiveReader::new(&mut frames, Limits::default());
            while let Ok(event) = reader.next().await {
                if matches!(event, ums_transfer::archive::ArchiveEvent::End { .. }) {
                    return true;
                }
            }
            false
        })
    })
}

fn message(input: &[u8]) -> bool {
    let Ok(message) = from_slice::<ums_model::message::PeerMessage>(input) else { return false };
    let text = serde_json::to_vec(&message).expect("what was read can be written");
    let again = from_slice::<ums_model::message::PeerMessage>(&text);
    assert_eq!(again.ok(), Some(message), "it reads otherwise");
    true
}

fn hello(input: &[u8]) -> bool {
    reads::<ums_transfer::link::Purpose>(input)
}

fn invite(input: &[u8]) -> bool {
    std::str::from_utf8(input).is_ok_and(|text| text.parse::<ums_transfer::pairing::Invite>().is_ok())
}

fn spec(input: &[u8]) -> bool {
    from_slice::<ums_model::spec::ServiceSpec>(input).is_ok_and(|spec| spec.check().is_ok())
}

fn reads<T: DeserializeOwned>(input: &[u8]) -> bool {
    from_slice::<T>(input).is_ok()
}

fn nest(input: &[u8]) -> bool {
    reads::<ums_nest::protocol::Request>(input)
        | reads::<ums_nest::protocol::Reply>(input)
        | reads::<ums_nest::recipe::Recipe>(input)
        | reads::<ums_model::nest::Record>(input)
}

fn tree_entry(input: &[u8]) -> bool {
    let range = ums_engine::userns::IdRange { first: 100_000, count: 65_536 };
    from_slice::<TreeEntry>(input).is_ok_and(|mut entry| entry.shift_outwards(range).is_ok())
}

fn record(input: &[u8]) -> bool {
    reads::<ums_model::event::MigrationEvent>(input) | reads::<ums_model::error::WireError>(input)
}

fn criu_rpc(input: &[u8]) -> bool {
    let response = rpc::Response::decode(input).is_ok();
    let request = rpc::Request::decode(input).is_ok();
    ums_engine::criu::proxy::fuzz_restore_request(input) | response | request
}

/// A service without anything: enough for what is decided by an image alone.
fn nothing() -> Admission {
    Admission {
        ids: Some(65_536),
        capabilities: 0xa804_25fb,
        mounts: Vec::new(),
        devices: vec![(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)],
        denied_calls: vec![425, 426, 427],
        hostname: "zombie".to_owned(),
        cgroup: "ums-b/zombie".to_owned(),
        unified: false,
        network: "extRootNetNS".to_owned(),
        addresses: ("192.0.0.2".parse().expect("an address"), "fd75:6d73::2".parse().expect("an address")),
        processes: 1000,
        memory: 1 << 30,
        process_memory: 1 << 30,
        label: None,
        priority: (0, 0),
    }
}

/// The name of an image, a new line, and its bytes.
fn named_image(input: &[u8]) -> Option<(&str, &[u8])> {
    let end = input.iter().position(|byte| *byte == b'\n')?;
    Some((std::str::from_utf8(&input[..end]).ok()?, &input[end + 1..]))
}

thread_local! {
    static PLACE: tempfile::TempDir = tempfile::tempdir().expect("a directory for images can be made");
}

fn image(input: &[u8]) -> bool {
    let Some((name, bytes)) = named_image(input).filter(|(name, _)| !name.starts_with("pages-")) else {
        return false;
    };
    one_image(name, bytes)
}

fn tmpfs_tar(input: &[u8]) -> bool {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(input).expect("memory can be written to");
    one_image("tmpfs-dev-52.tar.gz.img", &packed.finish().expect("memory can be written to"))
}

fn one_image(name: &str, bytes: &[u8]) -> bool {
    PLACE.with(|place| {
        let mut intake = Intake::open(place.path(), nothing()).expect("the directory is there");
        let taken =
            intake.begin(name).and_then(|()| intake.write(name, bytes)).and_then(|()| intake.end(name));
        if taken.is_ok() {
            // One image alone is no dump.
            assert!(intake.finish().is_err(), "a part of a dump was admitted");
            return true;
        }
        false
    })
}

/// What the kept dump has mounted, so that all rules are reached.
fn its_mounts() -> Vec<AdmittedMount> {
    let mount = |point: &str, what: Mounted, required: bool, flags: u32| AdmittedMount {
        point: point.to_owned(),
        what,
        required,
        flags,
    };
    let own = |kind: &'static str, root: &str| Mounted::Own { kind, root: root.to_owned() };
    let mut mounts = vec![
        mount("/", Mounted::Root, true, 0),
        mount("/proc", own("proc", "/"), true, 0),
        mount("/dev", own("tmpfs", "/"), true, 2),
        mount("/dev/pts", own("devpts", "/"), true, 10),
        mount("/dev/mqueue", own("mqueue", "/"), true, 14),
        mount("/sys", own("sysfs", "/"), true, 15),
        mount("/proc/sys", own("proc", "/sys"), true, 1),
    ];
    for path in ["/proc/acpi", "/proc/keys", "/proc/timer_list", "/sys/firmware"] {
        mounts.push(mount(path, Mounted::Mask, false, 0));
    }
    for shown in ["bus", "fs", "irq"] {
        mounts.push(mount(&format!("/proc/{shown}"), own("proc", &format!("/{shown}")), false, 1));
    }
    let writable = "/dev/shm /etc/hostname /etc/hosts /etc/resolv.conf /dev/null /dev/random /dev/full /dev/tty /dev/zero \
        /dev/urandom";
    let fixed =
        "/sys/fs/cgroup /sys/fs/cgroup/memory /sys/fs/cgroup/cpu /sys/fs/cgroup/cpuset /sys/fs/cgroup/pids";
    for (paths, flags) in [(writable, 0), (fixed, 1)] {
        let external = |path: &str| mount(path, Mounted::External(path.to_owned()), true, flags);
        mounts.extend(paths.split_whitespace().map(external));
    }
    mounts
}

/// A dump that is whole and admitted.
struct Whole {
    images: BTreeMap<String, Vec<u8>>,
    pages: Vec<u8>,
}

static WHOLE: LazyLock<Whole> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/src/images/admit/tests/dumps/zombie");
    let entries = std::fs::read_dir(&folder).expect("the dumps are kept in the tree");
    let paths = entries.map(|entry| entry.expect("a folder can be listed").path());
    let images = paths.filter(|path| path.extension().is_some_and(|extension| extension == "img"));
    let named = images.map(|path| {
        let name =
            path.file_name().and_then(|name| name.to_str()).expect("names of images are plain").to_owned();
        (name, std::fs::read(path).expect("an image can be read"))
    });
    let size =
        std::fs::read_to_string(folder.join("pages-1.img.size")).expect("the size of its pages is kept");
    Whole { images: named.collect(), pages: vec![0; size.trim().parse().expect("it is a number")] }
});

fn dump(input: &[u8]) -> bool {
    let Some((name, bytes)) = named_image(input).filter(|(name, _)| !name.starts_with("pages-")) else {
        return false;
    };
    let place = tempfile::tempdir().expect("a directory for images can be made");
    let admission = Admission { mounts: its_mounts(), ..nothing() };
    let mut intake = Intake::open(place.path(), admission).expect("the directory is there");
    let all = WHOLE.images.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
    let changed = [("pages-1.img", WHOLE.pages.as_slice()), (name, bytes)].into_iter();
    for (name, bytes) in changed.chain(all.filter(|(other, _)| *other != name)) {
        let taken =
            intake.begin(name).and_then(|()| intake.write(name, bytes)).and_then(|()| intake.end(name));
        if taken.is_err() {
            return false;
        }
    }
    let named = |entry: std::io::Result<std::fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
    let admitted = intake.finish().is_ok();
    if !admitted {
        let left = std::fs::read_dir(place.path()).expect("the directory is there").filter_map(named);
        assert!(
            left.into_iter().all(|name| name.starts_with("pages-")),
            "something refused was left for CRIU"
        );
    }
    admitted
}
