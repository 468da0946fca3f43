//! Archives in memory: what is written is read back, and nothing that is read breaks the reader.

use std::io::Read;

use proptest::prelude::*;

use super::*;
use crate::store::policy::Limits;

fn read_all(bytes: &[u8], limits: &Limits) -> Result<Vec<(Entry, Vec<u8>)>, ArchiveError> {
    let mut archive = ArchiveReader::new(bytes, limits);
    let mut found = Vec::new();
    while let Some(entry) = archive.next_entry()? {
        let mut body = Vec::new();
        archive.body().read_to_end(&mut body).map_err(|source| ArchiveError::Read { source })?;
        found.push((entry, body));
    }
    Ok(found)
}

fn write_all(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut archive = ArchiveWriter::new(Vec::new());
    for (entry, body) in entries {
        archive.append(entry, &body[..]).expect("to memory");
    }
    archive.finish().expect("to memory")
}

/// Any entry that a file system can give.
fn entries() -> impl Strategy<Value = (Entry, Vec<u8>)> {
    let name = prop::collection::vec(any::<u8>().prop_filter("a path's byte", |byte| *byte != 0), 1..400);
    let kind = prop::sample::select(vec![
        Kind::File,
        Kind::HardLink,
        Kind::Symlink,
        Kind::Directory,
        Kind::Fifo,
        Kind::Character,
        Kind::Block,
    ]);
    let moment =
        (any::<i32>(), any::<bool>(), 0..1_000_000_000_u32).prop_map(|(seconds, whole, nanoseconds)| {
            Moment { seconds: i64::from(seconds) << 8, nanoseconds: if whole { 0 } else { nanoseconds } }
        });
    let attribute = ("[a-z.]{1,20}".prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 1..200));
    let xattrs =
        prop::collection::btree_map(attribute.0, attribute.1, 0..3).prop_map(|map| map.into_iter().collect());
    let body = prop::collection::vec(any::<u8>(), 0..2000);
    (
        name.clone(),
        name,
        kind,
        (0..0o10000_u32, 0..u32::MAX, 0..u32::MAX),
        moment,
        xattrs,
        (0..4096_u32, 0..1_000_000_u32),
        body,
    )
        .prop_map(|(mut path, link, kind, (mode, uid, gid), modified, xattrs, device, mut body)| {
            match kind {
                Kind::File => path.extend_from_slice(b"x"),
                _ => body.clear(),
            }
            let is_link = matches!(kind, Kind::HardLink | Kind::Symlink);
            let is_device = matches!(kind, Kind::Character | Kind::Block);
            let entry = Entry {
                path,
                link: if is_link { link } else { Vec::new() },
                kind,
                attributes: Attributes { mode, uid, gid, modified, xattrs },
                size: body.len() as u64,
                device: if is_device { device } else { (0, 0) },
            };
            (entry, body)
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_back(entries in prop::collection::vec(entries(), 0..6)) {
        let bytes = write_all(&entries);
        prop_assert_eq!(bytes.len() % BLOCK, 0);
        prop_assert_eq!(read_all(&bytes, &Limits::default()).expect("reads"), entries);
    }

    #[test]
    fn damaged_archives_end_in_an_error_or_in_entries(
        entries in prop::collection::vec(entries(), 1..4),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = write_all(&entries);
        for (place, value) in damage {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        // No panic, no endless loop, no memory beyond the input and the limits.
        let total: usize = read_all(&bytes, &Limits::default())
            .map_or(0, |found| found.iter().map(|(_, body)| body.len()).sum());
        prop_assert!(total <= bytes.len());
    }

    #[test]
    fn other_implementations_understand_it(entries in prop::collection::vec(entries(), 1..4)) {
        let bytes = write_all(&entries);
        let mut archive = tar::Archive::new(&bytes[..]);
        let found = archive.entries().expect("reads").map(|entry| {
            let mut entry = entry.expect("entry");
            let mut body = Vec::new();
            entry.read_to_end(&mut body).expect("body");
            (entry.header().entry_type(), body)
        });
        let bodies: Vec<_> = found.map(|(_, body)| body).collect();
        prop_assert_eq!(bodies, entries.into_iter().map(|(_, body)| body).collect::<Vec<_>>());
    }

    #[test]
    fn a_name_is_harmless(raw in prop::collection::vec(prop::sample::select(b"ab./\0".to_vec()), 0..20)) {
        if let Ok(name) = Name::parse(&raw, &Limits::default()) {
            prop_assert!(!name.bytes().starts_with(b"/") && !name.bytes().contains(&0));
            prop_assert!(name.components().all(|component| !matches!(component, b"" | b"." | b"..")));
            prop_assert_eq!(Name::parse(name.bytes(), &Limits::default()).unwrap_or(Name::root()), name);
        }
    }
}

#[test]
fn equal_entries_give_equal_bytes() {
    let entry = Entry {
        path: b"f".to_vec(),
        link: Vec::new(),
        kind: Kind::File,
        attributes: Attributes { mode: 0o644, uid: 1, gid: 2, ..Attributes::default() },
        size: 3,
        device: (0, 0),
    };
    let archive = write_all(&[(entry, b"abc".to_vec())]);
    let digest = crate::store::hash::digest_of(&archive);
    // Written down: an image must keep its digest over versions, or it travels although it is there.
    assert_eq!(digest.to_string(), "sha256:8130ae2677a21893425e02c7199ce4f9fcc5d3c5d3c93a44f060db9eb3dc152f");
}

#[test]
fn gnu_long_names_are_read() {
    let long = "directory/".repeat(30) + "file";
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o600);
    header.set_entry_type(tar::EntryType::Regular);
    builder.append_data(&mut header, &long, &b"hi"[..]).expect("to memory");
    let found = read_all(&builder.into_inner().expect("to memory"), &Limits::default()).expect("reads");
    assert_eq!((found[0].0.path.as_slice(), found[0].1.as_slice()), (long.as_bytes(), b"hi".as_slice()));
}

#[test]
fn a_shorter_file_than_announced_is_an_error() {
    let entry = Entry {
        path: b"f".to_vec(),
        link: Vec::new(),
        kind: Kind::File,
        attributes: Attributes::default(),
        size: 10,
        device: (0, 0),
    };
    let error = ArchiveWriter::new(Vec::new()).append(&entry, &b"short"[..]).expect_err("too short");
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}
