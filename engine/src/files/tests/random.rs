//! Any tree that can be made is the same after it was read and written.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use proptest::collection::vec;
use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};

use super::*;

/// One step in the making of a tree.
#[derive(Debug, Clone)]
enum Step {
    Dir,
    File(Vec<(u64, Vec<u8>)>, u64),
    Link(Vec<u8>),
    HardLink(Vec<usize>),
    Node(FileType),
    Mode(u32),
    Owner(u32, u32),
    Time(u64, u32),
    Xattr(u8, Vec<u8>),
}

/// Few names, so that they collide; some that are no UTF-8 or look like something else.
const NAMES: [&[u8]; 7] = [b"a", b"b", b"a.b", b"%41", b"\xff\xfe", b"with space\n", b"...."];

fn name_at(path: &[usize]) -> PathBuf {
    path.iter().map(|index| OsStr::from_bytes(NAMES[index % NAMES.len()])).collect()
}

fn step() -> impl Strategy<Value = Step> {
    let place = vec(0..NAMES.len(), 1..4);
    let data = vec(prop_oneof![3 => 1..=255_u8, 1 => Just(0)], 0..6000);
    prop_oneof![
        4 => Just(Step::Dir),
        4 => (vec((0..200_000_u64, data), 0..4), 0..300_000_u64).prop_map(|(data, size)| Step::File(data, size)),
        1 => vec(1..=255_u8, 1..20).prop_map(Step::Link),
        2 => place.prop_map(Step::HardLink),
        1 => prop_oneof![Just(FileType::Fifo), Just(FileType::Socket), Just(FileType::CharacterDevice)]
            .prop_map(Step::Node),
        2 => (0..0o10000_u32).prop_map(Step::Mode),
        1 => (0..70_000_u32, 0..70_000_u32).prop_map(|(uid, gid)| Step::Owner(uid, gid)),
        1 => (0..4_000_000_000_u64, 0..1_000_000_000_u32).prop_map(|(s, n)| Step::Time(s, n)),
        1 => (0..4_u8, vec(any::<u8>(), 0..200)).prop_map(|(n, value)| Step::Xattr(n, value)),
    ]
}

/// Takes one step; one that is impossible is left out.
fn take(root: &Path, path: &[usize], step: &Step) -> std::io::Result<()> {
    let at = root.join(name_at(path));
    match step {
        Step::Dir => fs::create_dir_all(at),
        Step::File(parts, size) => {
            let file = File::create_new(at)?;
            for (offset, data) in parts {
                file.write_all_at(data, *offset)?;
            }
            file.set_len(*size)
        }
        Step::Link(target) => symlink(OsStr::from_bytes(target), at),
        Step::HardLink(first) => fs::hard_link(root.join(name_at(first)), at),
        Step::Node(kind) => Ok(mknodat(CWD, at, *kind, Mode::RUSR, rustix::fs::makedev(1, 5))?),
        // The rest follows symbolic links, which may lead anywhere.
        _ if at.symlink_metadata()?.is_symlink() => Ok(()),
        Step::Mode(mode) => fs::set_permissions(at, Permissions::from_mode(*mode)),
        Step::Owner(uid, gid) => chown(at, Some(*uid), Some(*gid)),
        // Opening a fifo would wait.
        Step::Time(..) if !at.is_file() && !at.is_dir() => Ok(()),
        Step::Time(seconds, nanoseconds) => {
            File::open(at)?.set_modified(UNIX_EPOCH + Duration::new(*seconds, *nanoseconds))
        }
        Step::Xattr(n, value) => Ok(setxattr(at, format!("user.{n}"), value, XattrFlags::empty())?),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_random_tree_survives(steps in vec((vec(0..NAMES.len(), 1..4), step()), 0..60)) {
        let folder = tempfile::tempdir().unwrap();
        let (source, destination) = (folder.path().join("source"), folder.path().join("destination"));
        fs::create_dir(&source).unwrap();
        fs::create_dir(&destination).unwrap();
        for (path, step) in &steps {
            let _ = take(&source, path, step);
        }
        let before = seen(&source, TreeForm::Plain);
        let written = carry(reader(&source, TreeForm::Plain), open_root(&destination).unwrap(), TRUSTING).unwrap();
        prop_assert_eq!(written.entries, before.len() as u64);
        prop_assert_eq!(seen(&destination, TreeForm::Plain), before);
    }

    #[test]
    fn bytes_survive_being_text(bytes in vec(any::<u8>(), 0..100)) {
        let text = text::encode(&bytes);
        prop_assert!(text.len() <= 3 * bytes.len());
        prop_assert!(serde_json::to_string(&text).unwrap().len() <= 3 * bytes.len() + 2);
        prop_assert_eq!(text::decode(&text).unwrap(), bytes.clone());
        prop_assert_eq!(text::unhex(&text::hex(&bytes)).unwrap(), bytes);
    }

    #[test]
    fn paths_survive_being_text(bytes in vec(prop_oneof![any::<u8>(), Just(b'/'), Just(b'.')], 0..30)) {
        if let Ok(path) = TreePath::new(&bytes) {
            prop_assert_eq!(path.to_string().parse::<TreePath>().unwrap(), path.clone());
            if let Some((parent, name)) = path.split() {
                prop_assert!(parent < path && path.is_within(&parent) && !parent.is_within(&path));
                prop_assert_eq!(parent.join(name.as_bytes()).unwrap(), path);
            }
        }
    }
}
