//! What a service does to its files arrives, through two real overlays over the same image.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};

use super::lab::{Overlay, in_private_mounts};
use super::*;

/// `user::rw-,user:1000:r--,group::r--,mask::r--,other::---` as the kernel keeps it.
const ACCESS_LIST: &[u8] = &[
    2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 232, 3, 0, 0, 4, 0, 4, 0, 255, 255, 255, 255, 16,
    0, 4, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255,
];
/// `cap_net_raw=ep`.
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn image(at: &Path) {
    for directory in ["etc", "dir/sub/deep", "old", "becomes-file/full", "replaced"] {
        fs::create_dir_all(at.join(directory)).unwrap();
    }
    for file in [
        "etc/conf",
        "etc/gone",
        "dir/a",
        "dir/b",
        "dir/sub/c",
        "dir/sub/deep/d",
        "old/x",
        "old/y",
        "becomes-file/full/file",
        "touched",
        "renamed",
        "twin-1",
        "replaced/1",
        "replaced/2",
    ] {
        fs::write(at.join(file), format!("image: {file}")).unwrap();
    }
    symlink("etc", at.join("becomes-dir")).unwrap();
    fs::hard_link(at.join("twin-1"), at.join("twin-2")).unwrap();
    // New things in it inherit the list, which must not end up on what is written.
    setxattr(at.join("etc"), "system.posix_acl_default", ACCESS_LIST, XattrFlags::empty()).unwrap();
    setxattr(at.join("dir"), "user.image", b"to be removed", XattrFlags::empty()).unwrap();
}

fn service(at: &Path) {
    let path = |name: &str| at.join(name);
    fs::remove_file(path("etc/gone")).unwrap();
    fs::remove_file(path("dir/sub/deep/d")).unwrap();
    rustix::fs::removexattr(path("dir"), "user.image").unwrap();
    fs::remove_dir_all(path("old")).unwrap();
    fs::create_dir(path("old")).unwrap();
    fs::write(path("old/new"), "new").unwrap();
    fs::remove_dir_all(path("replaced")).unwrap();
    fs::remove_file(path("becomes-dir")).unwrap();
    fs::create_dir_all(path("becomes-dir/inside")).unwrap();
    fs::write(path("becomes-dir/inside/file"), "x").unwrap();
    fs::remove_dir_all(path("becomes-file")).unwrap();
    fs::write(path("becomes-file"), "now a file").unwrap();
    fs::rename(path("renamed"), path("etc/renamed")).unwrap();
    fs::write(path("twin-1"), "no twin any more").unwrap();

    fs::write(path("dir/link-1"), "two names").unwrap();
    fs::hard_link(path("dir/link-1"), path("another")).unwrap();
    fs::hard_link(path("dir/link-1"), path("etc/third")).unwrap();
    symlink("nowhere", path("symlink-1")).unwrap();
    fs::hard_link(path("symlink-1"), path("symlink-2")).unwrap();
    symlink(OsStr::from_bytes(b"../\xff/out"), at.join(OsStr::from_bytes(b"odd \xfe\"%41\\\n"))).unwrap();

    fs::write(path("program"), "#!").unwrap();
    chown(path("program"), Some(1000), Some(1001)).unwrap();
    fs::set_permissions(path("program"), Permissions::from_mode(0o6755)).unwrap();
    setxattr(path("program"), "security.capability", CAPABILITY, XattrFlags::empty()).unwrap();
    setxattr(path("program"), "user.checksum", b"\0\xffbytes", XattrFlags::empty()).unwrap();
    setxattr(path("program"), "trusted.of-this-host", b"stays", XattrFlags::empty()).unwrap();
    fs::write(path("listed"), "acl").unwrap();
    setxattr(path("listed"), "system.posix_acl_access", ACCESS_LIST, XattrFlags::empty()).unwrap();

    mknodat(CWD, path("fifo"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
    mknodat(CWD, path("null"), FileType::CharacterDevice, Mode::RUSR, rustix::fs::makedev(1, 3)).unwrap();
    drop(UnixListener::bind(path("socket")).unwrap());
    setxattr(path("fifo"), "system.posix_acl_access", ACCESS_LIST, XattrFlags::empty()).unwrap();

    let sparse = File::create(path("sparse")).unwrap();
    sparse.write_all_at(b"begin", 0).unwrap();
    sparse.write_all_at(b"middle", 1 << 29).unwrap();
    sparse.set_len(1 << 30).unwrap();
    fs::write(path("empty"), "").unwrap();

    let touched = OpenOptions::new().write(true).open(path("touched")).unwrap();
    touched.set_modified(UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789)).unwrap();
    fs::set_permissions(path("old"), Permissions::from_mode(0o1700)).unwrap();
    let dir = File::open(path("dir")).unwrap();
    dir.set_modified(UNIX_EPOCH - Duration::from_secs(5)).unwrap();
    fs::set_permissions(at, Permissions::from_mode(0o711)).unwrap();
}

fn kind_of(tree: &[(TreeEntry, Vec<u8>)], path: &str) -> EntryKind {
    let path: TreePath = path.parse().unwrap();
    tree.iter().find(|(entry, _)| entry.path == path).expect("in the tree").0.kind.clone()
}

#[test]
fn what_a_service_changed_arrives() {
    in_private_mounts(|lab| {
        let lower = lab.join("image");
        image(&lower);
        let source = Overlay::new(&lab.join("source"), &lower);
        let destination = Overlay::new(&lab.join("destination"), &lower);
        service(&source.merged);

        let changed = reader(&source.upper, TreeForm::Overlay);
        let root = open_root(&destination.merged).unwrap();
        let written = carry(changed, root, TRUSTING).unwrap();

        let before = seen(&source.upper, TreeForm::Overlay);
        assert_eq!(written.entries, before.len() as u64);
        assert_eq!(kind_of(&before, "etc/gone"), EntryKind::Whiteout);
        assert_eq!(kind_of(&before, "renamed"), EntryKind::Whiteout);
        assert_eq!(kind_of(&before, "old"), EntryKind::Dir { opaque: true });
        assert_eq!(kind_of(&before, "dir"), EntryKind::Dir { opaque: false });
        assert_eq!(kind_of(&before, "etc/third"), EntryKind::HardLink { first: "another".parse().unwrap() });
        let program = before.iter().find(|(entry, _)| entry.path.to_string() == "program").unwrap();
        let names: Vec<_> = program.0.attributes.xattrs.iter().map(|xattr| xattr.name.as_slice()).collect();
        assert_eq!(names, [&b"security.capability"[..], b"user.checksum"]);

        // The service sees the same files, and a second move would carry the same.
        assert_eq!(seen(&destination.merged, TreeForm::Plain), seen(&source.merged, TreeForm::Plain));
        assert_eq!(seen(&destination.upper, TreeForm::Overlay), before);
        let sparse = fs::metadata(destination.merged.join("sparse")).unwrap();
        assert!(std::os::unix::fs::MetadataExt::blocks(&sparse) * 512 < 1 << 20, "the hole was filled");
        let size = tree_size(open_root(&source.upper).unwrap(), TRUSTING.limits).unwrap();
        assert_eq!(size.entries, before.len() as u64);
        assert!(size.bytes.get() < 1 << 20, "{}", size.bytes);
        // Whiteouts are no devices.
        assert_eq!((size.set_uid.as_deref(), size.device.as_deref()), (Some("program"), Some("null")));
    });
}

#[test]
fn a_tree_is_written_over_what_is_there() {
    in_private_mounts(|lab| {
        let lower = lab.join("image");
        image(&lower);
        let source = Overlay::new(&lab.join("source"), &lower);
        service(&source.merged);
        // The destination is not fresh: an earlier attempt left everything in the way that can be.
        let destination = Overlay::new(&lab.join("destination"), &lower);
        service(&destination.merged);
        for (name, content) in [("old/stray/file", "opaque hides it"), ("empty/a/b", "was a directory")] {
            let path = destination.merged.join(name);
            if name.starts_with("empty") {
                fs::remove_file(destination.merged.join("empty")).unwrap();
            }
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let root = open_root(&destination.merged).unwrap();
        carry(reader(&source.upper, TreeForm::Overlay), root, TRUSTING).unwrap();
        assert_eq!(seen(&destination.merged, TreeForm::Plain), seen(&source.merged, TreeForm::Plain));
    });
}

#[test]
fn an_opaque_root_empties_the_directory() {
    in_private_mounts(|lab| {
        let lower = lab.join("image");
        image(&lower);
        let overlay = Overlay::new(&lab.join("site"), &lower);
        let mut writer = TreeWriter::new(open_root(&overlay.merged).unwrap(), TRUSTING).unwrap();
        let kind = EntryKind::Dir { opaque: true };
        let attributes = Attributes { mode: 0o755, ..Attributes::default() };
        writer.begin(&TreeEntry { path: TreePath::root(), kind, attributes }).unwrap();
        writer.complete().unwrap();
        assert_eq!(seen(&overlay.merged, TreeForm::Plain).len(), 1);
    });
}

#[test]
fn a_mount_in_the_tree_is_neither_read_nor_written() {
    in_private_mounts(|lab| {
        let tree = lab.join("tree");
        fs::create_dir_all(tree.join("mounted")).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", tree.join("mounted"), "tmpfs", flags, None).unwrap();
        fs::write(tree.join("mounted/secret"), "").unwrap();

        let mounted = |error: FilesError| matches!(&error, FilesError::Refused { path, reason: Refusal::Mounted } if path.to_string() == "mounted");
        let read = reader(&tree, TreeForm::Plain).find_map(Result::err);
        assert!(mounted(read.expect("an error")));
        for opaque in [true, false] {
            let mut writer = TreeWriter::new(open_root(&tree).unwrap(), TRUSTING).unwrap();
            let kind = EntryKind::Dir { opaque };
            let entry =
                TreeEntry { path: "mounted".parse().unwrap(), kind, attributes: Attributes::default() };
            assert!(mounted(writer.begin(&entry).unwrap_err()));
        }
        assert!(tree.join("mounted/secret").exists());
    });
}

#[test]
fn features_that_cannot_be_translated_are_named() {
    in_private_mounts(|lab| {
        let upper = lab.join("upper");
        fs::create_dir_all(upper.join("moved")).unwrap();
        setxattr(upper.join("moved"), "trusted.overlay.redirect", b"/from", XattrFlags::empty()).unwrap();
        let error = reader(&upper, TreeForm::Overlay).find_map(Result::err).expect("an error");
        assert!(error.to_string().contains("redirect_dir=off"), "{error}");
        assert!(reader(&upper, TreeForm::Plain).all(|item| item.is_ok()));
        // Another way to say whiteout, and the way of mounts without privileges to say opaque.
        fs::remove_dir(upper.join("moved")).unwrap();
        fs::write(upper.join("hidden"), "").unwrap();
        setxattr(upper.join("hidden"), "user.overlay.whiteout", b"y", XattrFlags::empty()).unwrap();
        setxattr(&upper, "user.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
        let tree = seen(&upper, TreeForm::UserOverlay);
        assert_eq!(kind_of(&tree, "."), EntryKind::Dir { opaque: true });
        assert_eq!(kind_of(&tree, "hidden"), EntryKind::Whiteout);
        assert_eq!(kind_of(&seen(&upper, TreeForm::Overlay), "."), EntryKind::Dir { opaque: false });
    });
}
