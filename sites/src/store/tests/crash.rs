//! What a crash leaves, and what it cannot leave.

use std::fs;

use super::{Tar, image_of, listing, store};
use crate::store::layers::layer_homes;
use crate::store::policy::UnpackPolicy;
use crate::store::{Store, StoreError};

#[test]
fn leftovers_are_swept_and_living_ones_are_not() {
    let (_directory, store) = store();
    let writer = store.blob_writer(super::digest("x"), ums_model::names::Bytes(1)).expect("begins");
    // A process that died while it unpacked a layer.
    let abandoned = store.directory().join("tmp/77/3/fs/deep");
    fs::create_dir_all(&abandoned).expect("create");
    fs::write(abandoned.join("half"), "x").expect("write");
    let second = Store::open(store.directory()).expect("opens");
    assert!(!store.directory().join("tmp/77").exists(), "its owner is gone");
    let mut writer = writer;
    writer.write(b"x").expect("its owner lives");
    writer.commit().expect("its owner lives");
    drop(second);
    assert_eq!(
        fs::read_dir(store.directory().join("tmp")).expect("list").count(),
        1,
        "the living store's own"
    );
    let root = store.directory().to_owned();
    drop(store);
    assert_eq!(fs::read_dir(root.join("tmp")).expect("list").count(), 0);
}

#[test]
fn a_failed_layer_leaves_no_tree() {
    let (directory, store) = store();
    let broken = Tar::default().directory("d").file("d/f", "x").file("../evil", "").end();
    let image = image_of(&store, directory.path(), &[Tar::default().file("ok", "").end(), broken]);
    for _ in 0..2 {
        let error = store.rootfs(&image, UnpackPolicy::LOCAL).expect_err("refused");
        assert!(matches!(error, StoreError::Layer { .. }), "{error}");
        assert_eq!(layer_homes(&store).len(), 1, "only the good one");
        let session =
            fs::read_dir(store.directory().join("tmp")).expect("list").next().expect("one").expect("entry");
        assert_eq!(listing(&session.path()).len(), 0, "nothing half");
    }
}

#[test]
fn a_damaged_blob_is_noticed_before_it_is_used() {
    let (directory, store) = store();
    let image = image_of(&store, directory.path(), &[Tar::default().file("f", &"text ".repeat(1000)).end()]);
    let blobs = store.blobs_of(&image).expect("listed");
    let path = |index: usize| store.directory().join("blobs/sha256").join(blobs[index].digest.hex());
    let damage = |index: usize| {
        let mut content = fs::read(path(index)).expect("read");
        let middle = content.len() / 2;
        content[middle] ^= 0x40;
        fs::remove_file(path(index)).expect("remove");
        fs::write(path(index), content).expect("write");
    };
    damage(2);
    store.rootfs(&image, UnpackPolicy::LOCAL).expect_err("the layer");
    assert_eq!(layer_homes(&store).len(), 0);
    damage(2);
    store.rootfs(&image, UnpackPolicy::LOCAL).expect("repaired");
    damage(1);
    assert!(matches!(store.config(&image), Err(StoreError::WrongContent { .. })), "the configuration");
    damage(1);
    damage(0);
    assert!(matches!(store.blobs_of(&image), Err(StoreError::WrongContent { .. })), "the manifest");
}

#[test]
fn an_unreadable_index_is_reported_and_kept() {
    let (directory, store) = store();
    image_of(&store, directory.path(), &[Tar::default().file("f", "").end()]);
    let index = store.directory().join("images.json");
    let good = fs::read_to_string(&index).expect("read");
    fs::write(&index, &good[..good.len() / 2]).expect("write");
    assert!(matches!(store.list(), Err(StoreError::BadIndex { .. })));
    assert!(
        matches!(store.gc(&Default::default()), Err(StoreError::BadIndex { .. })),
        "and costs no image its blobs"
    );
    fs::write(&index, good.replace("\"format\": 1", "\"format\": 2")).expect("write");
    assert!(matches!(store.resolve("web:1"), Err(StoreError::NewerIndex { found: 2, known: 1, .. })));
    fs::write(&index, good).expect("write");
    assert_eq!(store.list().expect("reads").len(), 1);
}

#[test]
fn only_paths_that_fit_a_mount_option_are_taken() {
    for bad in ["relative", "/tmp/a:b", "/tmp/a,b", "/tmp/a\\b"] {
        assert!(matches!(Store::open(bad.as_ref()), Err(StoreError::BadDirectory { .. })), "{bad}");
    }
}
