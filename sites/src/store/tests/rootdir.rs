//! Plain root directories as images.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, futimens, mknodat};
use tempfile::TempDir;

use super::{needs_root, store};
use crate::store::policy::UnpackPolicy;
use crate::store::rootdir::import_with;
use crate::store::{ImageId, ImageSource, Store, StoreError};

/// A small root with one of everything.
fn make_root(at: &Path) {
    fs::create_dir_all(at.join("usr/bin")).expect("create");
    fs::create_dir_all(at.join("etc/empty")).expect("create");
    symlink("usr/bin", at.join("bin")).expect("link");
    fs::write(at.join("usr/bin/tool"), vec![7; 100_000]).expect("write");
    fs::hard_link(at.join("usr/bin/tool"), at.join("usr/bin/alias")).expect("link");
    fs::set_permissions(at.join("usr/bin/tool"), fs::Permissions::from_mode(0o4755)).expect("mode");
    let long = format!("etc/{}", "long-name-".repeat(20));
    fs::write(at.join(&long), "long").expect("write");
    fs::write(at.join("etc/zero"), "").expect("write");
    mknodat(CWD, at.join("etc/pipe"), FileType::Fifo, Mode::RWXU, 0).expect("fifo");
    std::os::unix::net::UnixListener::bind(at.join("etc/socket")).expect("socket");
    let file = fs::File::open(at.join("etc/zero")).expect("open");
    rustix::fs::fsetxattr(&file, "user.note", b"a\nb\0c", XattrFlags::empty()).expect("attribute");
    let time = Timespec { tv_sec: -5, tv_nsec: 250_000_000 };
    futimens(&file, &Timestamps { last_access: time, last_modification: time }).expect("time");
    // Everything else at one time, or two copies would differ in that.
    let fixed = Timespec { tv_sec: 1_600_000_000, tv_nsec: 123_456_789 };
    for path in ["usr/bin/tool", &long, "etc/empty", "etc", "usr/bin", "usr", "."] {
        let file = fs::File::open(at.join(path)).expect("open");
        futimens(&file, &Timestamps { last_access: fixed, last_modification: fixed }).expect("time");
    }
    for path in ["bin", "etc/pipe", "etc"] {
        let times = Timestamps { last_access: fixed, last_modification: fixed };
        rustix::fs::utimensat(CWD, at.join(path), &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
            .expect("time");
    }
}

fn root() -> TempDir {
    let root = TempDir::new().expect("temporary directory");
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).expect("mode");
    make_root(root.path());
    root
}

fn import(store: &Store, path: &Path) -> Result<ImageId, StoreError> {
    store.import(&ImageSource::RootDir { path: path.to_owned() }, None)
}

#[test]
fn the_same_content_is_the_same_image_everywhere() {
    let ((_a, one), (_b, two)) = (store(), store());
    let (here, there) = (root(), root());
    let image = import(&one, here.path()).expect("imports");
    assert_eq!(import(&one, here.path()).expect("again"), image);
    assert_eq!(import(&two, there.path()).expect("elsewhere"), image);
    fs::write(there.path().join("etc/zero"), "changed").expect("write");
    assert_ne!(import(&two, there.path()).expect("imports"), image);
}

#[test]
fn the_image_is_the_directory() {
    let (_directory, store) = store();
    let root = root();
    let image = import(&store, root.path()).expect("imports");
    let rootfs = store.rootfs(&image, UnpackPolicy::LOCAL).expect("unpacks");
    let tree = &rootfs.lower[0];
    assert_eq!((rootfs.lower.len(), rootfs.mode), (1, 0o755));
    let facts = |at: &Path| {
        let mut facts = Vec::new();
        for path in [
            PathBuf::from("."),
            "bin".into(),
            "usr/bin/tool".into(),
            "usr/bin/alias".into(),
            "etc/zero".into(),
            "etc/pipe".into(),
            "etc/empty".into(),
            format!("etc/{}", "long-name-".repeat(20)).into(),
        ] {
            let stat = at.join(&path).symlink_metadata().unwrap_or_else(|error| panic!("{path:?}: {error}"));
            let times = (stat.mtime(), stat.mtime_nsec());
            let links = if stat.is_dir() { 0 } else { stat.nlink() };
            facts.push((
                path,
                stat.mode(),
                stat.uid(),
                stat.gid(),
                times,
                links,
                if stat.is_file() { stat.len() } else { 0 },
            ));
        }
        facts
    };
    assert_eq!(facts(tree), facts(root.path()));
    assert_eq!(fs::read_link(tree.join("bin")).expect("link"), Path::new("usr/bin"));
    assert_eq!(fs::read(tree.join("usr/bin/alias")).expect("read"), vec![7; 100_000]);
    let ino = |name: &str| tree.join(name).metadata().expect("stat").ino();
    assert_eq!(ino("usr/bin/alias"), ino("usr/bin/tool"));
    let file = fs::File::open(tree.join("etc/zero")).expect("open");
    assert_eq!(
        crate::store::xattr::read(&file).expect("read"),
        [(b"user.note".to_vec(), b"a\nb\0c".to_vec())]
    );
    assert!(!tree.join("etc/socket").exists(), "no archive can hold a socket");
}

#[test]
fn an_unchanged_directory_is_not_read_again() {
    let (_directory, store) = store();
    let root = root();
    // With no tick to wait for, the directory counts as settled at once.
    let image = import_with(&store, root.path(), i64::MIN).expect("imports");
    let written = |store: &Store| {
        let blob = store.blobs_of(&image).expect("blobs")[2].digest;
        store.directory().join("blobs/sha256").join(blob.hex()).metadata().expect("stat").ino()
    };
    let before = written(&store);
    assert_eq!(import_with(&store, root.path(), i64::MIN).expect("again"), image);
    assert_eq!(written(&store), before, "packing again would have replaced the blob's file");
    fs::write(root.path().join("etc/zero"), "!").expect("write");
    assert_ne!(import_with(&store, root.path(), i64::MIN).expect("changed"), image);
    // A note about an image that is gone is worth nothing.
    store.gc(&Default::default()).expect("collects");
    assert_eq!(fs::read_dir(store.directory().join("rootdirs")).expect("list").count(), 0);
}

#[test]
fn a_directory_that_just_changed_is_read_again() {
    let (_directory, store) = store();
    import(&store, root().path()).expect("imports");
    assert_eq!(
        fs::read_dir(store.directory().join("rootdirs")).expect("list").count(),
        0,
        "not to be relied on yet"
    );
}

#[test]
fn names_that_mean_something_else_in_an_image_are_refused() {
    let (_directory, store) = store();
    let root = root();
    fs::write(root.path().join("etc/.wh.zero"), "").expect("write");
    assert!(matches!(import(&store, root.path()), Err(StoreError::BadRoot { .. })));
    let nothing = import(&store, &root.path().join("etc/nothing"));
    assert!(matches!(nothing, Err(StoreError::Io { .. })), "{nothing:?}");
    let file = import(&store, &root.path().join("usr/bin/tool"));
    assert!(matches!(file, Err(StoreError::Io { .. })), "{file:?}");
}

#[test]
fn device_nodes_are_part_of_the_image() {
    needs_root();
    let (_directory, store) = store();
    let root = root();
    fs::create_dir(root.path().join("dev")).expect("create");
    mknodat(
        CWD,
        root.path().join("dev/null"),
        FileType::CharacterDevice,
        Mode::RUSR,
        rustix::fs::makedev(1, 3),
    )
    .expect("node");
    let image = import(&store, root.path()).expect("imports");
    let rootfs = store.rootfs(&image, UnpackPolicy::STRANGER).expect("unpacks without it");
    assert!(rootfs.lower[0].join("dev").is_dir() && !rootfs.lower[0].join("dev/null").exists());
    mknodat(CWD, root.path().join("etc/gone"), FileType::CharacterDevice, Mode::empty(), 0)
        .expect("whiteout");
    assert!(
        matches!(import(&store, root.path()), Err(StoreError::BadRoot { .. })),
        "an overlay's upper directory"
    );
}

/// Ends with status 0 only if import refuses a directory on which something is mounted. Run as a process of its own
/// because the mount must not be seen by anybody else.
#[test]
fn mounts_are_not_crossed() {
    needs_root();
    let (directory, store) = store();
    let root = root();
    fs::create_dir(root.path().join("proc")).expect("create");
    // A helper's mount namespace is reached through its /proc entry's root; it lives until its stdin is closed.
    for (mount, at) in
        [("mount -t proc proc \"$1/proc\"", "proc"), ("mount --bind \"$1/usr\" \"$1/etc\"", "etc")]
    {
        let mut helper = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg(format!("{mount} && echo ready && exec cat"))
            .arg("sh")
            .arg(root.path())
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("unshare runs");
        let mut ready = [0; 6];
        let read = std::io::Read::read_exact(helper.stdout.as_mut().expect("piped"), &mut ready);
        let inside = PathBuf::from(format!("/proc/{}/root{}", helper.id(), root.path().display()));
        let outcome = crate::store::scan::Scan::of(&inside, &Default::default()).map(drop);
        drop(helper.stdin.take());
        helper.wait().expect("helper ends");
        read.expect("the helper has mounted");
        match outcome {
            Err(StoreError::BadRoot { path, .. }) => assert!(path.ends_with(at), "{path:?}"),
            other => panic!("{at}: {other:?}"),
        }
    }
    import(&store, root.path()).expect("outside of that namespace nothing is mounted");
    drop(directory);
}
