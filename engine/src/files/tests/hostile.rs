//! Trees that mean harm: refused by name, and nothing is touched outside of the root.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::*;

/// A directory to write into, beside one that must stay as it is.
struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("outside/dir")).unwrap();
        fs::write(folder.path().join("outside/file"), "untouched").unwrap();
        fs::create_dir(folder.path().join("root")).unwrap();
        Self { folder }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn outside(&self) -> PathBuf {
        self.folder.path().join("outside")
    }

    /// Writes `entries`, files with the given content; the first error.
    fn write(&self, policy: WritePolicy, entries: &[(TreeEntry, &[u8])]) -> Result<Written, FilesError> {
        let before = seen(&self.outside(), TreeForm::Plain);
        let outcome = write_all(&self.root(), policy, entries);
        assert_eq!(seen(&self.outside(), TreeForm::Plain), before, "something outside was touched");
        outcome
    }

    /// That writing `entries` is refused, and the last of them named.
    fn refuses(&self, policy: WritePolicy, entries: &[TreeEntry]) -> Refusal {
        let all: Vec<_> = entries.iter().map(|entry| (entry.clone(), &b"harm"[..])).collect();
        match self.write(policy, &all) {
            Err(FilesError::Refused { path, reason }) => {
                assert_eq!(path, entries.last().unwrap().path, "{reason}");
                reason
            }
            other => panic!("not refused: {other:?}"),
        }
    }
}

fn write_all(
    root: &Path,
    policy: WritePolicy,
    entries: &[(TreeEntry, &[u8])],
) -> Result<Written, FilesError> {
    let mut writer = TreeWriter::new(open_root(root).unwrap(), policy)?;
    for (entry, content) in entries {
        if let Some(mut file) = writer.begin(entry)? {
            file.write(content)?;
            file.finish()?;
        }
    }
    writer.complete()
}

fn entry(path: &str, kind: EntryKind) -> TreeEntry {
    let attributes = Attributes { mode: 0o755, ..Attributes::default() };
    TreeEntry { path: path.parse().unwrap(), kind, attributes }
}

fn dir(path: &str) -> TreeEntry {
    entry(path, EntryKind::Dir { opaque: false })
}

fn file(path: &str) -> TreeEntry {
    entry(path, EntryKind::File { size: 4, holes: vec![] })
}

fn link(path: &str, target: &Path) -> TreeEntry {
    entry(path, EntryKind::Symlink { target: target.as_os_str().as_encoded_bytes().to_vec() })
}

fn hard_link(path: &str, first: &str) -> TreeEntry {
    entry(path, EntryKind::HardLink { first: first.parse().unwrap() })
}

#[test]
fn paths_that_leave_the_tree_cannot_be_said() {
    for path in [
        "",
        "/etc/passwd",
        "../out",
        "a/../../out",
        "a//b",
        "a/",
        "./a",
        "a/.",
        "..",
        "%2e%2e/out",
        "a%2F..%2Fb",
        "%00",
        "a%0",
        "a%zz",
        "/",
    ] {
        let json = format!(r#"{{"path":{path:?},"kind":{{"type":"fifo"}}}}"#);
        let error = serde_json::from_str::<TreeEntry>(&json).expect_err(path);
        assert!(error.to_string().contains("invalid path"), "{path}: {error}");
    }
    for name in [&b""[..], b"..", b".", b"a/b", b"\0", &[b'x'; 256]] {
        assert!(TreePath::root().join(name).is_err());
    }
    assert!(TreePath::new(&[b'a'; 256]).is_err());
    assert!(TreePath::new(&b"a/".repeat(2048)[..4095]).is_ok());
    assert!(TreePath::new(&b"a/".repeat(2049)[..4097]).is_err());
}

#[test]
fn nothing_is_written_through_a_symbolic_link() {
    let site = Site::new();
    // One that the tree itself brings, and then one that was there before.
    let brought = link("a", &site.outside());
    assert_eq!(site.refuses(TRUSTING, &[brought.clone(), file("a/file")]), Refusal::NoDirectory);
    assert_eq!(site.refuses(TRUSTING, &[brought.clone(), dir("a/dir")]), Refusal::NoDirectory);
    let whiteout = entry("a/file", EntryKind::Whiteout);
    assert_eq!(site.refuses(TRUSTING, &[brought.clone(), whiteout]), Refusal::NoDirectory);

    fs::remove_file(site.root().join("a")).unwrap();
    symlink(site.outside(), site.root().join("a")).unwrap();
    assert_eq!(site.refuses(TRUSTING, &[file("a/file")]), Refusal::NoDirectory);
    // Named as a directory, it is replaced by one.
    let entries = [(dir("a"), &b""[..]), (file("a/file"), b"harm")];
    site.write(TRUSTING, &entries).unwrap();
    assert_eq!(fs::read(site.root().join("a/file")).unwrap(), b"harm");

    // A file and a whiteout replace the link, not what it points to.
    for kind in
        [EntryKind::File { size: 4, holes: vec![] }, EntryKind::Whiteout, EntryKind::Dir { opaque: true }]
    {
        fs::remove_dir_all(site.root()).unwrap();
        fs::create_dir(site.root()).unwrap();
        symlink(site.outside().join("dir"), site.root().join("a")).unwrap();
        site.write(TRUSTING, &[(entry("a", kind), b"harm")]).unwrap();
        assert!(!site.root().join("a").is_symlink());
    }
}

#[test]
fn hard_links_reach_only_what_came_before() {
    let site = Site::new();
    symlink(site.outside(), site.root().join("a")).unwrap();
    let refused = |first: &str| Refusal::HardLink { first: first.parse().unwrap() };
    assert_eq!(site.refuses(TRUSTING, &[hard_link("b", "a/file")]), refused("a/file"));
    assert_eq!(site.refuses(TRUSTING, &[dir("b"), hard_link("c", "b")]), refused("b"));
    assert_eq!(site.refuses(TRUSTING, &[hard_link("b", "missing")]), refused("missing"));
    assert_eq!(site.refuses(TRUSTING, &[hard_link("b", "b")]), refused("b"));
    assert_eq!(site.refuses(TRUSTING, &[hard_link("b", "c")]), refused("c"));
    assert_eq!(site.refuses(TRUSTING, &[hard_link("b", ".")]), refused("."));
}

#[test]
fn the_order_is_kept() {
    let site = Site::new();
    let after = |path: &str| Refusal::OutOfOrder { after: path.parse().unwrap() };
    assert_eq!(site.refuses(TRUSTING, &[file("a"), file("a")]), after("a"));
    assert_eq!(site.refuses(TRUSTING, &[file("b"), file("a")]), after("b"));
    assert_eq!(site.refuses(TRUSTING, &[dir("a"), dir("a.b"), file("a/c")]), after("a.b"));
    assert_eq!(site.refuses(TRUSTING, &[dir("a"), dir(".")]), after("a"));
    assert_eq!(site.refuses(TRUSTING, &[file("a"), file("a/b")]), Refusal::NoDirectory);
    assert_eq!(site.refuses(TRUSTING, &[file("missing/b")]), Refusal::NoDirectory);
    assert_eq!(site.refuses(TRUSTING, &[entry(".", EntryKind::Whiteout)]), Refusal::Root);
}

#[test]
fn what_the_policy_forbids_is_refused() {
    let site = Site::new();
    let strict = WritePolicy::default();
    for (major, minor) in [(1, 3), (0, 0)] {
        let device = Refusal::Device { major, minor };
        assert_eq!(site.refuses(strict, &[entry("d", EntryKind::CharDevice { major, minor })]), device);
        assert_eq!(site.refuses(strict, &[entry("d", EntryKind::BlockDevice { major, minor })]), device);
    }
    let whiteout = entry("d", EntryKind::CharDevice { major: 0, minor: 0 });
    assert_eq!(site.refuses(TRUSTING, &[whiteout]), Refusal::Device { major: 0, minor: 0 });
    let mut program = file("program");
    for mode in [0o4755, 0o2755] {
        program.attributes.mode = mode;
        assert_eq!(site.refuses(strict, std::slice::from_ref(&program)), Refusal::Privileged);
    }
    program.attributes.mode = 0o755;
    program.attributes.xattrs = vec![Xattr { name: b"security.capability".to_vec(), value: vec![0; 20] }];
    assert_eq!(site.refuses(strict, std::slice::from_ref(&program)), Refusal::Privileged);
    // Set-gid on a directory is not a right.
    let mut shared = dir("shared");
    shared.attributes.mode = 0o2775;
    site.write(strict, &[(shared, b"")]).unwrap();
}

#[test]
fn attributes_that_cannot_be_are_refused() {
    let site = Site::new();
    let attribute = |attribute| Refusal::InvalidAttribute { attribute };
    let with = |change: fn(&mut Attributes)| {
        let mut entry = file("a");
        change(&mut entry.attributes);
        [entry]
    };
    assert_eq!(site.refuses(TRUSTING, &with(|a| a.mode = 0o100_644)), attribute("mode"));
    // The system call would take it for "leave the owner".
    assert_eq!(site.refuses(TRUSTING, &with(|a| a.uid = u32::MAX)), attribute("owner"));
    assert_eq!(site.refuses(TRUSTING, &with(|a| a.gid = u32::MAX)), attribute("owner"));
    assert_eq!(site.refuses(TRUSTING, &with(|a| a.modified.nanoseconds = 1_000_000_000)), attribute("time"));
    // The system call would take it for "now".
    assert_eq!(site.refuses(TRUSTING, &with(|a| a.modified.nanoseconds = (1 << 30) - 1)), attribute("time"));
    for name in
        ["trusted.overlay.opaque", "user.overlay.opaque", "security.selinux", "trusted.x", "nonsense", ""]
    {
        let mut entry = file("a");
        entry.attributes.xattrs = vec![Xattr { name: name.into(), value: b"y".to_vec() }];
        assert_eq!(site.refuses(TRUSTING, &[entry]), Refusal::ForeignXattr { name: name.to_owned() });
    }
    let large = with(|a| a.xattrs = vec![Xattr { name: b"user.x".to_vec(), value: vec![0; 20_000] }]);
    assert_eq!(site.refuses(TRUSTING, &large), Refusal::LargeXattrs { limit: xattr::MAX_TEXT });
    for target in [&b""[..], b"a\0b", &[b'a'; 4096]] {
        let link = entry("a", EntryKind::Symlink { target: target.to_vec() });
        assert_eq!(site.refuses(TRUSTING, &[link]), Refusal::LinkTarget);
    }
}

#[test]
fn bounds_are_kept() {
    let site = Site::new();
    let limits = Limits { entries: 2, bytes: ums_model::names::Bytes(7), depth: 2 };
    let policy = WritePolicy { limits, ..TRUSTING };
    assert_eq!(site.refuses(policy, &[dir("a"), dir("b"), dir("c")]), Refusal::TooManyEntries { limit: 2 });
    assert_eq!(site.refuses(policy, &[file("a"), file("b")]), Refusal::TooLarge { limit: limits.bytes });
    assert_eq!(site.refuses(policy, &[dir("a/b/c")]), Refusal::TooDeep { limit: 2 });
    let endless = EntryKind::File { size: u64::MAX, holes: vec![] };
    assert_eq!(site.refuses(TRUSTING, &[entry("a", endless)]), Refusal::Layout(InvalidLayout));
    let holes = vec![Hole { offset: 2, length: 9 }];
    let beyond = EntryKind::File { size: 4, holes };
    assert_eq!(site.refuses(TRUSTING, &[entry("a", beyond)]), Refusal::Layout(InvalidLayout));
}

#[test]
fn content_is_as_long_as_announced() {
    let site = Site::new();
    let wrong = |side| Refusal::WrongLength { side, expected: 4 };
    for (content, side) in [(&b"longer than 4"[..], "longer"), (b"4-1", "shorter"), (b"", "shorter")] {
        match site.write(TRUSTING, &[(file("a"), content)]) {
            Err(FilesError::Refused { path, reason }) => {
                assert_eq!((path.to_string(), reason), ("a".to_owned(), wrong(side)));
            }
            other => panic!("not refused: {other:?}"),
        }
    }
    // A file that was begun and forgotten.
    let mut writer = TreeWriter::new(open_root(&site.root()).unwrap(), TRUSTING).unwrap();
    drop(writer.begin(&file("a")).unwrap());
    let error = writer.complete().unwrap_err();
    assert!(matches!(error, FilesError::Refused { reason: Refusal::Incomplete { files: 1 }, .. }), "{error}");
}
