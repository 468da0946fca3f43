//! What of a file's privilege is kept, by trust.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use super::{Tar, image_of, needs_root, store};
use crate::store::policy::{Devices, Limits, Trust, UnpackPolicy};
use crate::store::unpack::unpack;
use crate::store::xattr;

const TRUSTED_PEER: UnpackPolicy =
    UnpackPolicy { trust: Trust::Peer { setuid: true }, devices: Devices::Refuse };

fn mode(path: &Path) -> u32 {
    path.metadata().expect("stat").permissions().mode() & 0o7777
}

#[test]
fn set_uid_bits_are_kept_by_trust() {
    let layer = Tar::default()
        .mode("su", b'0', 0o4755)
        .mode("wall", b'0', 0o2755)
        .mode("mail", b'5', 0o2775)
        .mode("tmp", b'5', 0o1777)
        .end();
    for (policy, su, wall, stripped) in [
        (UnpackPolicy::LOCAL, 0o4755, 0o2755, 0),
        (TRUSTED_PEER, 0o4755, 0o2755, 0),
        (UnpackPolicy::STRANGER, 0o755, 0o755, 2),
    ] {
        let tree = TempDir::new().expect("temporary directory");
        let (record, _) = unpack(&layer[..], tree.path(), policy, &Limits::default()).expect("unpacks");
        assert_eq!(
            (mode(&tree.path().join("su")), mode(&tree.path().join("wall"))),
            (su, wall),
            "{policy:?}"
        );
        assert_eq!(record.stripped, stripped);
        // These give nobody a right: who creates a file there only shares it with the directory's group.
        assert_eq!((mode(&tree.path().join("mail")), mode(&tree.path().join("tmp"))), (0o2775, 0o1777));
    }
}

#[test]
fn file_capabilities_are_kept_by_trust() {
    needs_root();
    // cap_net_raw, effective and permitted, as the kernel stores it; the bytes include a newline.
    let capability: &[u8] =
        b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x0a\x00\x00\x00\x00\x00\x00\x00";
    let layer =
        Tar::default().pax(&[("SCHILY.xattr.security.capability", capability)]).file("ping", "x").end();
    for (policy, kept) in [(UnpackPolicy::LOCAL, true), (TRUSTED_PEER, true), (UnpackPolicy::STRANGER, false)]
    {
        let tree = TempDir::new().expect("temporary directory");
        let (record, _) = unpack(&layer[..], tree.path(), policy, &Limits::default()).expect("unpacks");
        let found =
            xattr::read(std::fs::File::open(tree.path().join("ping")).expect("open")).expect("attributes");
        let expected = kept.then(|| (b"security.capability".to_vec(), capability.to_vec()));
        assert_eq!(found, Vec::from_iter(expected), "{policy:?}");
        assert_eq!(record.stripped, u64::from(!kept));
    }
}

#[test]
fn policies_do_not_share_trees() {
    let (directory, store) = store();
    let image = image_of(&store, directory.path(), &[Tar::default().mode("su", b'0', 0o4755).end()]);
    let stranger = store.rootfs(&image, UnpackPolicy::STRANGER).expect("unpacks");
    let local = store.rootfs(&image, UnpackPolicy::LOCAL).expect("unpacks");
    assert_eq!(mode(&stranger.lower[0].join("su")), 0o755);
    assert_eq!(mode(&local.lower[0].join("su")), 0o4755);
    // The two that keep the bits do.
    assert_eq!(store.rootfs(&image, TRUSTED_PEER).expect("unpacks"), local);
}

#[test]
fn nobody_else_reaches_unpacked_programs() {
    let (_directory, store) = store();
    assert_eq!(mode(store.directory()), 0o700);
}

#[test]
fn owners_and_devices_are_made_when_allowed() {
    needs_root();
    let owned = |header: &mut tar::Header| {
        header.set_uid(4_000_000_000);
        header.set_gid(7);
        header.set_mode(0o4711);
    };
    let layer = Tar::default()
        .header("owned", b'0', "", b"", owned)
        .header("link", b'2', "nowhere", b"", owned)
        .header("pipe", b'6', "", b"", owned)
        .device("null", 1, 3)
        .end();
    let tree = TempDir::new().expect("temporary directory");
    let policy = UnpackPolicy { trust: Trust::Local, devices: Devices::Allow };
    unpack(&layer[..], tree.path(), policy, &Limits::default()).expect("unpacks");
    for name in ["owned", "link", "pipe"] {
        let stat = tree.path().join(name).symlink_metadata().expect("stat");
        let owner = (std::os::unix::fs::MetadataExt::uid(&stat), std::os::unix::fs::MetadataExt::gid(&stat));
        assert_eq!(owner, (4_000_000_000, 7), "{name}");
    }
    assert_eq!(mode(&tree.path().join("owned")), 0o4711, "the owner does not cost the set-uid bit");
    let null = tree.path().join("null").symlink_metadata().expect("stat");
    assert_eq!(std::os::unix::fs::MetadataExt::rdev(&null), rustix::fs::makedev(1, 3));
}
