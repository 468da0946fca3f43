//! Layers on top of each other: whiteouts, opaque directories, and that an overlay and a merged tree show the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tempfile::TempDir;

use super::{Tar, image_of, listing, needs_root, store};
use crate::store::layers::{UnpackedLayer, layer_homes};
use crate::store::policy::{Limits, UnpackPolicy};
use crate::store::unpack::unpack;
use crate::store::{Rootfs, Store, merge, stack, tree};

fn tar() -> Tar {
    Tar::default()
}

fn has_opaque(directory: &Path) -> bool {
    let opened = fs::File::open(directory).expect("open");
    rustix::fs::fgetxattr(&opened, tree::OPAQUE, &mut [0_u8; 4][..]).is_ok()
}

fn is_whiteout(path: &Path) -> bool {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    path.symlink_metadata().is_ok_and(|stat| stat.file_type().is_char_device() && stat.rdev() == 0)
}

/// Unpacks `layer` alone.
fn tree_of(layer: Tar) -> TempDir {
    let tree = TempDir::new().expect("temporary directory");
    unpack(&layer.end()[..], tree.path(), UnpackPolicy::LOCAL, &Limits::default()).expect("unpacks");
    tree
}

#[test]
fn each_layer_is_a_directory_and_the_topmost_comes_first() {
    let (directory, store) = store();
    let layers =
        [tar().file("a", "1").end(), tar().file("a", "2").file("b", "2").end(), tar().file("c", "3").end()];
    let image = image_of(&store, directory.path(), &layers);
    let rootfs = store.rootfs(&image, UnpackPolicy::LOCAL).expect("unpacks");
    let first_files: Vec<_> = rootfs.lower.iter().map(|tree| listing(tree).len()).collect();
    assert_eq!(first_files, [1, 2, 1]);
    assert_eq!(fs::read(rootfs.lower[1].join("a")).expect("read"), b"2");
    assert_eq!(rootfs.lowerdir().to_str().expect("text").matches(':').count(), 2);
    assert_eq!(store.rootfs(&image, UnpackPolicy::LOCAL).expect("again"), rootfs);
}

#[test]
fn layers_are_shared_between_images() {
    let (directory, store) = store();
    let base = tar().file("base", "x").end();
    let one = image_of(&store, directory.path(), &[base.clone(), tar().file("one", "").end()]);
    let two = image_of(&store, directory.path(), &[base, tar().file("two", "").end()]);
    let one = store.rootfs(&one, UnpackPolicy::LOCAL).expect("unpacks");
    let two = store.rootfs(&two, UnpackPolicy::LOCAL).expect("unpacks");
    assert_eq!(one.lower[1], two.lower[1]);
    assert_eq!(layer_homes(&store).len(), 3);
}

#[test]
fn whiteouts_hide_lower_layers_only() {
    let tree =
        tree_of(tar().directory("d").file("d/.wh.gone", "").file("d/.wh.kept", "").file("d/kept", "new"));
    assert!(is_whiteout(&tree.path().join("d/gone")));
    assert_eq!(fs::read(tree.path().join("d/kept")).expect("read"), b"new");
    // The other way round it is the same.
    let tree = tree_of(tar().directory("d").file("d/kept", "new").file("d/.wh.kept", ""));
    assert_eq!(fs::read(tree.path().join("d/kept")).expect("read"), b"new");
}

#[test]
fn notes_of_other_file_systems_are_left_out() {
    let tree = tree_of(
        tar().directory(".wh..wh.plnk").file(".wh..wh.plnk/12", "x").file(".wh..wh.aufs", "").file("f", ""),
    );
    assert_eq!(listing(tree.path()).keys().collect::<Vec<_>>(), [Path::new("f")]);
}

#[test]
fn opaque_directories_and_replaced_ones_are_marked() {
    needs_root();
    let tree = tree_of(tar().directory("o").file("o/.wh..wh..opq", "").directory("n"));
    assert!(has_opaque(&tree.path().join("o")) && !has_opaque(&tree.path().join("n")));
    // A directory that was removed and made again hides its old content, whichever entry comes first.
    for layer in [tar().file(".wh.r", "").directory("r"), tar().directory("r").file(".wh.r", "")] {
        let tree = tree_of(layer.file("r/f", "x"));
        assert!(has_opaque(&tree.path().join("r")));
    }
    let tree = tree_of(tar().file(".wh.r", "").file("r/f", "x"));
    assert!(has_opaque(&tree.path().join("r")), "also when only something in it is named");
}

#[test]
fn directories_keep_times_and_modes() {
    let old = |header: &mut tar::Header| {
        header.set_mtime(1234);
        header.set_mode(0o500);
    };
    let tree = tree_of(tar().header("d", b'5', "", b"", old).file("d/f", "x").file("d/g", "y"));
    let stat = tree.path().join("d").metadata().expect("stat");
    assert_eq!(std::os::unix::fs::MetadataExt::mtime(&stat), 1234);
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&stat) & 0o7777, 0o500);
    let file = tree.path().join("d/f").metadata().expect("stat");
    assert_eq!(std::os::unix::fs::MetadataExt::mtime(&file), 1_000_000);
}

#[test]
fn the_root_directory_gets_its_attributes_from_the_layer_that_names_it() {
    let (directory, store) = store();
    let layers =
        [tar().mode("./", b'5', 0o700).end(), tar().mode("./", b'5', 0o711).end(), tar().file("f", "").end()];
    let image = image_of(&store, directory.path(), &layers);
    assert_eq!(store.rootfs(&image, UnpackPolicy::LOCAL).expect("unpacks").mode, 0o711);
    let image = image_of(&store, directory.path(), &layers[2..]);
    assert_eq!(store.rootfs(&image, UnpackPolicy::LOCAL).expect("unpacks").mode, 0o755);
}

#[test]
fn many_layers_become_one_tree() {
    let (directory, store) = store();
    let mut layers: Vec<_> = (0..25).map(|number| tar().file(&format!("f{number}"), "x").end()).collect();
    layers.push(tar().file(".wh.f3", "").file("f4", "newer").end());
    let image = image_of(&store, directory.path(), &layers);
    let rootfs = store.rootfs(&image, UnpackPolicy::LOCAL).expect("unpacks");
    assert_eq!(rootfs.lower.len(), 1);
    let tree = listing(&rootfs.lower[0]);
    assert_eq!(tree.len(), 24);
    assert!(!tree.contains_key(Path::new("f3")));
    assert_eq!(tree[Path::new("f4")], "file 644 newer");
    assert_eq!(store.rootfs(&image, UnpackPolicy::LOCAL).expect("again"), rootfs);
}

#[test]
fn layers_that_do_not_name_their_directories_keep_lower_attributes() {
    let (directory, store) = store();
    let layers = [tar().mode("d", b'5', 0o711).file("d/a", "").end(), tar().file("d/b", "").end()];
    let image = image_of(&store, directory.path(), &layers);
    let rootfs = store.rootfs(&image, UnpackPolicy::LOCAL).expect("unpacks");
    assert_eq!(rootfs.lower.len(), 1, "an overlay would show the upper layer's invented attributes");
    let tree = listing(&rootfs.lower[0]);
    assert_eq!(tree[Path::new("d")], "directory 711");
    assert_eq!(tree.len(), 3);
}

#[test]
fn a_repeated_layer_is_stacked_once() {
    let (directory, store) = store();
    let (empty, other) = (tar().end(), tar().file("f", "").end());
    let image = image_of(&store, directory.path(), &[empty.clone(), other, empty]);
    assert_eq!(store.rootfs(&image, UnpackPolicy::LOCAL).expect("unpacks").lower.len(), 2);
}

#[test]
fn many_threads_unpack_once() {
    let (directory, store) = store();
    let layers: Vec<_> = (0..3).map(|number| tar().file("f", &number.to_string()).end()).collect();
    let image = image_of(&store, directory.path(), &layers);
    // Another process has another store on the same directory.
    let other = Store::open(store.directory()).expect("opens");
    let stores: Vec<_> =
        (0..8).map(|number| if number % 2 == 0 { store.clone() } else { other.clone() }).collect();
    let found: Vec<Rootfs> = thread::scope(|scope| {
        let threads: Vec<_> = stores
            .iter()
            .map(|store| scope.spawn(|| store.rootfs(&image, UnpackPolicy::LOCAL).expect("unpacks")))
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert!(found.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(layer_homes(&store).len(), 3);
}

/// What the kernel shows for an overlay of `lower`, topmost first. The mount lives and dies with the command.
fn overlay_listing(lower: &[PathBuf]) -> String {
    let scratch = TempDir::new().expect("temporary directory");
    let rootfs = Rootfs { lower: lower.to_vec(), mode: 0o755, uid: 0, gid: 0 };
    let script = "mount -t overlay overlay -o ro,lowerdir=\"$1\" \"$2\" && cd \"$2\" && exec find . -mindepth 1 \
                  -printf '%P %y %m %l %s\\n'";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(rootfs.lowerdir())
        .arg(scratch.path())
        .output()
        .expect("unshare runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    sorted(&output.stdout)
}

fn plain_listing(tree: &Path) -> String {
    let output = Command::new("find")
        .arg(tree)
        .args(["-mindepth", "1", "-printf", "%P %y %m %l %s\\n"])
        .output()
        .expect("find runs");
    sorted(&output.stdout)
}

fn sorted(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    // The size of a directory is the file system's business.
    let mut lines: Vec<_> =
        text.lines()
            .map(|line| {
                if line.contains(" d ") {
                    line.rsplit_once(' ').map_or(line, |(start, _)| start)
                } else {
                    line
                }
            })
            .collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// One entry of a random layer.
#[derive(Debug, Clone)]
enum Act {
    File(String),
    Link(String),
    Directory(String, u32),
    Whiteout(String),
    Opaque(String),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let name = prop::sample::select(vec!["a", "b", "c"]);
    let path = prop::collection::vec(name, 1..4).prop_map(|parts| parts.join("/"));
    let act = (path, 0..10_u32).prop_map(|(path, choice)| match choice {
        0..=2 => Act::File(path),
        3 => Act::Link(path),
        4..=6 => Act::Directory(path, 0o700 + choice),
        7 | 8 => Act::Whiteout(path),
        _ => Act::Opaque(path),
    });
    prop::collection::vec(act, 1..8)
}

/// The layer of `acts`. Acts that contradict an earlier one are left out.
fn layer(acts: &[Act]) -> Vec<u8> {
    let (mut tar, mut directories, mut others) = (tar(), Vec::<String>::new(), Vec::<String>::new());
    for act in acts {
        let (Act::File(path)
        | Act::Link(path)
        | Act::Directory(path, _)
        | Act::Whiteout(path)
        | Act::Opaque(path)) = act;
        let parents: Vec<_> = path.match_indices('/').map(|(slash, _)| path[..slash].to_owned()).collect();
        if parents.iter().chain([path]).any(|path| others.contains(path)) {
            continue;
        }
        let wants_directory = matches!(act, Act::Directory(..) | Act::Opaque(_));
        if !wants_directory && directories.contains(path) && !matches!(act, Act::Whiteout(_)) {
            continue;
        }
        for parent in parents.iter().chain(wants_directory.then_some(path)) {
            if !directories.contains(parent) {
                let mode = if let Act::Directory(_, mode) = act { *mode } else { 0o755 };
                tar = tar.mode(parent, b'5', mode);
                directories.push(parent.clone());
            }
        }
        let (parent, last) =
            path.rsplit_once('/').map_or(("", path.as_str()), |(parent, last)| (parent, last));
        tar = match act {
            Act::File(_) => tar.file(path, &format!("content {}", others.len())),
            Act::Link(_) => tar.symlink(path, "a/b"),
            Act::Directory(..) => tar,
            Act::Whiteout(_) => tar.file(format!("{parent}/.wh.{last}").trim_start_matches('/'), ""),
            Act::Opaque(_) => tar.file(&format!("{path}/.wh..wh..opq"), ""),
        };
        if matches!(act, Act::File(_) | Act::Link(_)) {
            others.push(path.clone());
        }
    }
    tar.end()
}

#[test]
fn an_overlay_and_a_merged_tree_show_the_same() {
    needs_root();
    let config =
        Config { cases: 40, max_global_rejects: 10_000, failure_persistence: None, ..Config::default() };
    let makes =
        |acts: Vec<Act>| acts.into_iter().filter(|act| !matches!(act, Act::Whiteout(_) | Act::Opaque(_)));
    let base =
        prop::collection::vec(acts(), 4).prop_map(move |parts| parts.into_iter().flat_map(makes).collect());
    let images = (base, prop::collection::vec(acts(), 1..4))
        .prop_map(|(base, upper): (Vec<Act>, _)| std::iter::once(base).chain(upper).collect::<Vec<_>>());
    let outcome = TestRunner::new(config).run(&images, |layers| {
        let home = TempDir::new().expect("temporary directory");
        let unpacked: Vec<_> = layers
            .iter()
            .enumerate()
            .map(|(number, acts)| {
                let tree = home.path().join(number.to_string());
                fs::create_dir(&tree).expect("create");
                let (record, _) = unpack(&layer(acts)[..], &tree, UnpackPolicy::LOCAL, &Limits::default())
                    .expect("unpacks");
                assert!(record.unnamed.is_empty());
                UnpackedLayer { tree, record }
            })
            .collect();
        let merged = home.path().join("merged");
        fs::create_dir(&merged).expect("create");
        merge::merge(&unpacked, &merged).expect("merges");
        if !stack::shows_the_image(&unpacked).expect("looks") {
            return Err(TestCaseError::reject("is merged, never stacked"));
        }
        let lower: Vec<_> = unpacked.iter().rev().map(|layer| layer.tree.clone()).collect();
        prop_assert_eq!(overlay_listing(&lower), plain_listing(&merged));
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn an_opaque_root_hides_all_lower_layers() {
    needs_root();
    let (directory, store) = store();
    let layers = [tar().file("old", "").end(), tar().file(".wh..wh..opq", "").file("new", "").end()];
    let image = image_of(&store, directory.path(), &layers);
    let rootfs = store.rootfs(&image, UnpackPolicy::LOCAL).expect("unpacks");
    assert_eq!(rootfs.lower.len(), 1);
    assert_eq!(listing(&rootfs.lower[0]).keys().collect::<Vec<_>>(), [Path::new("new")]);
}
