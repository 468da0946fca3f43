//! How entries look on the wire.

use super::*;

/// What a receiver accepts as the head of an item.
const MOST: usize = 60 << 10;

#[test]
fn the_form_on_the_wire_stays() {
    let entry = TreeEntry {
        path: TreePath::new(b"dir/\xff").unwrap(),
        kind: EntryKind::File { size: 9000, holes: vec![Hole { offset: 4096, length: 4096 }] },
        attributes: Attributes {
            mode: 0o644,
            uid: 1,
            gid: 2,
            modified: Modified { seconds: -1, nanoseconds: 5 },
            xattrs: vec![Xattr { name: b"user.x".to_vec(), value: vec![0, 255] }],
        },
    };
    let json = concat!(
        r#"{"path":"dir/%FF","kind":{"type":"file","size":9000,"holes":[[4096,4096]]},"#,
        r#""attributes":{"mode":420,"uid":1,"gid":2,"modified":{"seconds":-1,"nanoseconds":5},"#,
        r#""xattrs":[{"name":"user.x","value":"00ff"}]}}"#
    );
    assert_eq!(serde_json::to_string(&entry).unwrap(), json);
    assert_eq!(serde_json::from_str::<TreeEntry>(json).unwrap(), entry);

    let root = TreeEntry::bare(TreePath::root(), EntryKind::Dir { opaque: true });
    assert!(
        serde_json::to_string(&root)
            .unwrap()
            .starts_with(r#"{"path":".","kind":{"type":"dir","opaque":true}"#)
    );
}

/// The longest entries that a reader can make still fit.
#[test]
fn every_entry_fits() {
    let worst = vec![b"\xff".repeat(255); 15].join(&b'/');
    let path = TreePath::new(&[worst, vec![b'/'], vec![0xff; 255]].concat()).unwrap();
    assert_eq!(path.as_bytes().len(), 4095);
    let mut xattrs = Vec::new();
    for n in 0.. {
        let name = [format!("user.{n:03}").into_bytes(), vec![0xff; 240]].concat();
        xattrs.push(Xattr { name, value: vec![0; 1] });
        if xattr::check_size(&path, &xattrs).is_err() {
            xattrs.pop();
            break;
        }
    }
    let attributes = Attributes {
        mode: 0o7777,
        uid: u32::MAX - 1,
        gid: u32::MAX - 1,
        modified: Modified { seconds: i64::MIN, nanoseconds: 999_999_999 },
        xattrs,
    };
    let holes = vec![Hole { offset: i64::MAX as u64, length: i64::MAX as u64 }; MAX_HOLES];
    let kinds = [
        EntryKind::File { size: i64::MAX as u64, holes },
        EntryKind::Symlink { target: vec![0xff; 4095] },
        EntryKind::HardLink { first: path.clone() },
    ];
    for kind in kinds {
        let entry = TreeEntry { path: path.clone(), kind, attributes: attributes.clone() };
        let size = serde_json::to_vec(&entry).unwrap().len();
        assert!(size <= MOST, "{size} bytes");
    }
}
