//! Archives that want something else than to be an image. Each is refused for its reason, and nothing outside of the
//! tree changes.

use std::fs;
use std::path::Path;

use tempfile::TempDir;
use ums_model::names::Bytes;

use super::{Tar, gzip, listing};
use crate::store::archive::{ArchiveError, Refusal};
use crate::store::policy::{Devices, Limits, Trust, UnpackPolicy};
use crate::store::unpack::{LayerRecord, unpack};

/// A directory with something to attack beside the tree.
struct Arena(TempDir);

impl Arena {
    fn new() -> Self {
        let arena = TempDir::new().expect("temporary directory");
        fs::create_dir(arena.path().join("tree")).expect("create");
        fs::create_dir(arena.path().join("outside")).expect("create");
        fs::write(arena.path().join("outside/secret"), "untouched").expect("write");
        Self(arena)
    }

    fn tree(&self) -> std::path::PathBuf {
        self.0.path().join("tree")
    }

    /// Unpacks `tar` and checks that nothing happened outside, whatever the outcome.
    fn unpack(&self, tar: Tar, policy: UnpackPolicy, limits: &Limits) -> Result<LayerRecord, ArchiveError> {
        self.unpack_bytes(&tar.end(), policy, limits)
    }

    fn unpack_bytes(
        &self,
        tar: &[u8],
        policy: UnpackPolicy,
        limits: &Limits,
    ) -> Result<LayerRecord, ArchiveError> {
        let outcome = unpack(tar, &self.tree(), policy, limits).map(|(record, _)| record);
        let around: Vec<_> = listing(self.0.path())
            .into_iter()
            .filter(|(path, _)| !path.starts_with("tree") || path == Path::new("tree"))
            .map(|(path, what)| {
                (path.display().to_string(), what.split(' ').next_back().unwrap_or("").to_owned())
            })
            .collect();
        let names: Vec<_> = around.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(names, ["outside", "outside/secret", "tree"], "nothing appeared or went away outside");
        assert_eq!(around[1].1, "untouched");
        assert_eq!(links(&self.0.path().join("outside/secret")), 1, "nothing outside was linked");
        outcome
    }
}

fn links(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::nlink(&path.symlink_metadata().expect("stat"))
}

fn refusal(tar: Tar) -> Refusal {
    refusal_with(tar, UnpackPolicy::LOCAL, &Limits::default())
}

fn refusal_with(tar: Tar, policy: UnpackPolicy, limits: &Limits) -> Refusal {
    match Arena::new().unpack(tar, policy, limits) {
        Err(ArchiveError::Refused { reason, .. }) => reason,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn tar() -> Tar {
    Tar::default()
}

#[test]
fn paths_that_leave_the_tree_are_refused() {
    assert_eq!(refusal(tar().file("../outside/evil", "x")), Refusal::Parent);
    assert_eq!(refusal(tar().file("a/../../outside/evil", "x")), Refusal::Parent);
    assert_eq!(refusal(tar().file("a/b/..", "x")), Refusal::Parent);
    assert_eq!(refusal(tar().file("/outside/evil", "x")), Refusal::Absolute);
    assert_eq!(refusal(tar().directory("../new")), Refusal::Parent);
    assert_eq!(refusal(tar().symlink("../link", "x")), Refusal::Parent);
    assert_eq!(refusal(tar().pax(&[("path", b"../outside/evil")]).file("harmless", "x")), Refusal::Parent);
    assert_eq!(refusal(tar().pax(&[("path", b"/etc/evil")]).file("harmless", "x")), Refusal::Absolute);
    assert_eq!(refusal(tar().pax(&[("path", b"a\0b")]).file("harmless", "x")), Refusal::NotAName);
    assert_eq!(refusal(tar().file(".wh...", "")), Refusal::Whiteout);
    assert_eq!(refusal(tar().file("a/.wh..", "")), Refusal::Whiteout);
    assert_eq!(refusal(tar().file(".wh.", "")), Refusal::Whiteout);
    assert_eq!(refusal(tar().file(".wh.a/b", "")), Refusal::Whiteout);
}

#[test]
fn symbolic_links_are_never_followed() {
    for target in ["../outside", "/", ".", "other"] {
        let link = || tar().directory("other").symlink("link", target);
        assert_eq!(refusal(link().file("link/evil", "x")), Refusal::ThroughSymlink);
        assert_eq!(refusal(link().file("link/deep/evil", "x")), Refusal::ThroughSymlink);
        assert_eq!(refusal(link().directory("link")), Refusal::ThroughSymlink);
        assert_eq!(refusal(link().directory("link/new")), Refusal::ThroughSymlink);
        assert_eq!(refusal(link().symlink("link/evil", "x")), Refusal::ThroughSymlink);
        assert_eq!(refusal(link().file("link/.wh.secret", "")), Refusal::ThroughSymlink);
        assert_eq!(refusal(link().file("link/.wh..wh..opq", "")), Refusal::ThroughSymlink);
        assert!(matches!(refusal(link().hard_link("hard", "link/secret")), Refusal::LinkTarget { .. }));
    }
    assert_eq!(refusal(tar().file("a", "x").file("a/b", "x")), Refusal::ThroughFile);
}

#[test]
fn a_file_takes_the_place_of_a_link_and_does_not_go_through_it() {
    let arena = Arena::new();
    let links = tar()
        .symlink("link", "../outside/secret")
        .hard_link("same", "link")
        .file("link", "mine")
        .file("same", "mine too");
    arena.unpack(links, UnpackPolicy::LOCAL, &Limits::default()).expect("unpacks");
    let tree = listing(&arena.tree());
    assert_eq!(tree[Path::new("link")], "file 644 mine");
    assert_eq!(tree[Path::new("same")], "file 644 mine too");
}

#[test]
fn attributes_of_a_link_do_not_reach_what_it_points_to() {
    let arena = Arena::new();
    let link = tar().header("link", b'2', "../outside/secret", b"", |header| header.set_mode(0o4777));
    arena.unpack(link, UnpackPolicy::LOCAL, &Limits::default()).expect("unpacks");
    let secret = arena.0.path().join("outside/secret").metadata().expect("stat");
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&secret.permissions()) & 0o4111, 0);
}

#[test]
fn hard_links_stay_inside() {
    for target in ["../outside/secret", "/etc/passwd", "missing", "directory", "", ".", "directory/.."] {
        let refused = refusal(tar().directory("directory").hard_link("hard", target));
        assert!(matches!(refused, Refusal::LinkTarget { .. }), "{target:?}: {refused:?}");
    }
    let whiteout = refusal(tar().file(".wh.gone", "").hard_link("hard", "gone"));
    assert!(matches!(whiteout, Refusal::LinkTarget { .. }), "{whiteout:?}");
}

#[test]
fn directories_are_not_replaced() {
    let directory = || tar().directory("d").file("d/f", "x");
    assert_eq!(refusal(directory().file("d", "x")), Refusal::ReplacesDirectory);
    assert_eq!(refusal(directory().symlink("d", "/")), Refusal::ReplacesDirectory);
    assert_eq!(refusal(directory().hard_link("d", "d/f")), Refusal::ReplacesDirectory);
    assert_eq!(refusal(tar().symlink(".", "/")), Refusal::ReplacesDirectory);
    assert_eq!(refusal(tar().file("./", "").symlink("./", "/")), Refusal::ReplacesDirectory);
}

#[test]
fn device_nodes_are_refused_outside_of_dev() {
    let device = Refusal::Device { major: 8, minor: 0 };
    assert_eq!(refusal(tar().device("disk", 8, 0)), device);
    assert_eq!(refusal(tar().device("developer/disk", 8, 0)), device);
    assert_eq!(refusal(tar().device("dev/../disk", 8, 0)), Refusal::Parent);
    let arena = Arena::new();
    let nodes =
        tar().directory("dev").device("dev/sda", 8, 0).hard_link("dev/also", "dev/sda").file("f", "x");
    let record = arena.unpack(nodes, UnpackPolicy::LOCAL, &Limits::default()).expect("unpacks");
    assert_eq!(record.omitted, 2);
    let tree = listing(&arena.tree());
    assert_eq!(tree.keys().collect::<Vec<_>>(), [Path::new("dev"), Path::new("f")]);
    // 0:0 would be a whiteout, which only the store makes.
    let allow = UnpackPolicy { trust: Trust::Local, devices: Devices::Allow };
    for path in ["node", "dev/node"] {
        let refused = refusal_with(tar().device(path, 0, 0), allow, &Limits::default());
        assert_eq!(refused, Refusal::Device { major: 0, minor: 0 });
    }
}

#[test]
fn owners_must_exist() {
    for owner in [u64::from(u32::MAX), 1 << 33] {
        let header = tar().header("f", b'0', "", b"", |header| header.set_uid(owner));
        assert_eq!(refusal(header), Refusal::Owner { owner });
        let pax = tar().pax(&[("gid", owner.to_string().as_bytes())]).file("f", "");
        assert_eq!(refusal(pax), Refusal::Owner { owner });
    }
}

#[test]
fn sizes_are_bounded() {
    let limits =
        Limits { path_bytes: 300, path_depth: 5, entries: 10, header: Bytes(2000), ..Limits::default() };
    let refused = |tar| refusal_with(tar, UnpackPolicy::LOCAL, &limits);
    let long = "n".repeat(256);
    assert_eq!(
        refused(tar().pax(&[("path", long.as_bytes())]).file("f", "")),
        Refusal::TooLong { limit: 300 }
    );
    let longer = "abc/".repeat(76);
    assert_eq!(
        refused(tar().pax(&[("path", longer.as_bytes())]).file("f", "")),
        Refusal::TooLong { limit: 300 }
    );
    assert_eq!(refused(tar().file("1/2/3/4/5/6", "")), Refusal::TooDeep { limit: 5 });
    let many = (0..11).fold(tar(), |tar, number| tar.file(&number.to_string(), ""));
    assert_eq!(refused(many), Refusal::TooMany { limit: 10 });
    // Directories that come along without an entry count as well.
    let implied = (0..4).fold(tar(), |tar, number| tar.file(&format!("{number}/a/b/c/f"), ""));
    assert_eq!(refused(implied), Refusal::TooMany { limit: 10 });
    let big = "v".repeat(3000);
    assert_eq!(refused(tar().pax(&[("comment", big.as_bytes())])), Refusal::Header { limit: Bytes(2000) });
    assert_eq!(
        refused(tar().pax(&[("size", b"9223372036854775808")]).file("f", "")),
        Refusal::Field { field: "size" }
    );
}

#[test]
fn other_types_are_refused() {
    assert_eq!(refusal(tar().header("f", b'S', "", b"", |_| {})), Refusal::Type { kind: 'S' });
    assert_eq!(refusal(tar().header("f", b'M', "", b"", |_| {})), Refusal::Type { kind: 'M' });
    assert_eq!(refusal(tar().pax(&[("GNU.sparse.major", b"1")]).file("f", "")), Refusal::Type { kind: 'S' });
}

#[test]
fn broken_archives_are_noticed() {
    let arena = Arena::new();
    let whole = tar().directory("d").file("d/f", &"content".repeat(1000)).end();
    let limits = Limits::default();
    let try_bytes = |bytes: &[u8]| {
        fs::remove_dir_all(arena.tree()).expect("clean");
        fs::create_dir(arena.tree()).expect("clean");
        arena.unpack_bytes(bytes, UnpackPolicy::LOCAL, &limits)
    };
    assert!(
        matches!(try_bytes(&whole[..512 + 100]), Err(ArchiveError::Malformed { .. })),
        "ends inside a header"
    );
    assert!(
        matches!(try_bytes(&whole[..512 + 512 + 100]), Err(ArchiveError::Read { .. })),
        "ends inside a file"
    );
    let mut flipped = whole.clone();
    flipped[512 + 3] ^= 1;
    assert!(matches!(try_bytes(&flipped), Err(ArchiveError::Malformed { .. })), "checksum");
    assert!(matches!(try_bytes(b"PK\x03\x04 this is no tar archive"), Err(ArchiveError::Malformed { .. })));
    let (padded, lying) =
        (whole.len(), tar().header("f", b'0', "", b"short", |header| header.set_size(1 << 40)));
    assert!(
        padded > 0 && matches!(try_bytes(&lying.end()), Err(ArchiveError::Read { .. })),
        "body that is not there"
    );
    assert!(try_bytes(&whole).is_ok());
}

#[test]
fn attributes_of_the_overlay_and_the_host_are_left_out() {
    let arena = Arena::new();
    let odd: &[u8] = b"one\ntwo=\0three";
    let entry = tar()
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.trusted.overlay.metacopy", b"y"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.security.selinux", b"label"),
            ("SCHILY.xattr.user.kept", odd),
        ])
        .file("f", "x");
    arena.unpack(entry, UnpackPolicy::LOCAL, &Limits::default()).expect("unpacks");
    let file = fs::File::open(arena.tree().join("f")).expect("open");
    let mut names = vec![0; 1000];
    let length = rustix::fs::flistxattr(&file, &mut names[..]).expect("list");
    // Security modules of the host may add a label of their own.
    let names: Vec<_> =
        names[..length].split(|byte| *byte == 0).filter(|name| !name.starts_with(b"security.")).collect();
    assert_eq!(names, [b"user.kept".as_slice(), b""]);
    assert_eq!(crate::store::xattr::read(&file).expect("read"), [(b"user.kept".to_vec(), odd.to_vec())]);
}

#[test]
fn a_bomb_does_not_go_off() {
    let (_directory, store) = super::store();
    let bomb = tar().file("zeros", &"\0".repeat(8 << 20)).end();
    assert!(gzip(&bomb).len() < 200 << 10, "small as it travels");
    let image = super::image_of(&store, store.directory().parent().expect("parent"), &[bomb]);
    let small = Limits { unpacked: Bytes::mib(4), ..Limits::default() };
    let guarded = super::Store::open_with(store.directory(), small).expect("opens");
    let error = guarded.rootfs(&image, UnpackPolicy::STRANGER).expect_err("too large");
    assert!(format!("{:?}", error).contains("FileTooLarge"), "{error:?}");
    assert_eq!(crate::store::layers::layer_homes(&guarded), Vec::<std::path::PathBuf>::new());
    guarded.rootfs(&image, UnpackPolicy::STRANGER).expect_err("still too large");
    store.rootfs(&image, UnpackPolicy::STRANGER).expect("fits the default limits");
}
