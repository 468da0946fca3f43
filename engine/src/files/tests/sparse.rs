//! Holes, and files that change under the reader.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};

use super::*;

const BLOCK: u64 = 4096;

/// Data in every second block.
fn comb(path: &Path, teeth: u64) {
    let file = File::create(path).unwrap();
    for n in 0..teeth {
        file.write_all_at(b"tooth", 2 * n * BLOCK).unwrap();
    }
    file.set_len(2 * teeth * BLOCK).unwrap();
}

fn taken(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

#[test]
fn zeros_become_holes_however_they_arrive() {
    let folder = tempfile::tempdir().unwrap();
    let mut content = vec![0; 64 * BLOCK as usize];
    content[5] = 1;
    content[20 * BLOCK as usize - 1] = 2;
    let size = content.len() as u64;
    for piece in [1000, 4096, 5000, content.len()] {
        let mut writer = TreeWriter::new(open_root(folder.path()).unwrap(), TRUSTING).unwrap();
        let path: TreePath = format!("in-pieces-of-{piece}").parse().unwrap();
        let attributes = Attributes { mode: 0o600, ..Attributes::default() };
        let entry = TreeEntry { path, kind: EntryKind::File { size, holes: vec![] }, attributes };
        let mut file = writer.begin(&entry).unwrap().unwrap();
        content.chunks(piece).for_each(|piece| file.write(piece).unwrap());
        file.finish().unwrap();
        writer.complete().unwrap();
        let path = folder.path().join(entry.path.as_os_str());
        assert_eq!(fs::read(&path).unwrap(), content);
        assert!(taken(&path) <= 4 * BLOCK, "{} bytes in pieces of {piece}", taken(&path));
    }
}

#[test]
fn a_file_with_very_many_holes_stays_sparse() {
    let folder = tempfile::tempdir().unwrap();
    let (source, destination) = (folder.path().join("source"), folder.path().join("destination"));
    fs::create_dir(&source).unwrap();
    fs::create_dir(&destination).unwrap();
    comb(&source.join("comb"), 2 * MAX_HOLES as u64);
    let (before, _) = seen(&source, TreeForm::Plain).pop().unwrap();
    assert_eq!(before.path.to_string(), "comb");

    let told = reader(&source, TreeForm::Plain).last().unwrap().unwrap();
    let EntryKind::File { holes, .. } = told.entry.kind else { panic!("a file") };
    assert_eq!(holes.len(), MAX_HOLES);
    carry(reader(&source, TreeForm::Plain), open_root(&destination).unwrap(), TRUSTING).unwrap();
    assert_eq!(seen(&destination, TreeForm::Plain), seen(&source, TreeForm::Plain));
    assert_eq!(taken(&destination.join("comb")), taken(&source.join("comb")));
}

#[test]
fn a_file_that_becomes_shorter_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, [1; 10_000]).unwrap();
    let item = reader(folder.path(), TreeForm::Plain).last().unwrap().unwrap();
    let mut content = item.content.unwrap();
    let mut buffer = [0; 6000];
    assert_eq!(content.read(&mut buffer).unwrap(), 6000);
    File::options().write(true).open(&path).unwrap().set_len(6000).unwrap();
    let error = content.read(&mut buffer).unwrap_err();
    assert!(matches!(error, FilesError::Refused { reason: Refusal::Changed, .. }), "{error}");
}

#[test]
fn the_reader_keeps_to_the_bounds_of_the_other_end() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("a/b/c")).unwrap();
    fs::write(folder.path().join("file"), [1; 5000]).unwrap();
    let refused = |limits: Limits| {
        let options = ReadOptions { form: TreeForm::Plain, limits };
        match read_tree(open_root(folder.path()).unwrap(), options).find_map(Result::err) {
            Some(FilesError::Refused { reason, .. }) => reason,
            other => panic!("not refused: {other:?}"),
        }
    };
    let all = TRUSTING.limits;
    assert_eq!(refused(Limits { entries: 4, ..all }), Refusal::TooManyEntries { limit: 4 });
    assert_eq!(refused(Limits { depth: 2, ..all }), Refusal::TooDeep { limit: 2 });
    let bytes = ums_model::names::Bytes(4999);
    assert_eq!(refused(Limits { bytes, ..all }), Refusal::TooLarge { limit: bytes });
    let exact = Limits { entries: 5, depth: 3, bytes: ums_model::names::Bytes(5000) };
    let options = ReadOptions { form: TreeForm::Plain, limits: exact };
    assert_eq!(read_tree(open_root(folder.path()).unwrap(), options).filter(Result::is_ok).count(), 5);
}
