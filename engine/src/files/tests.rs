//! Trees that are real, trees that are random, and trees that mean harm.

mod hostile;
mod lab;
mod overlay;
mod random;
mod sparse;
mod wire;

use std::os::fd::OwnedFd;
use std::path::Path;

use super::*;

/// Accepts everything, like the operator's own site.
const TRUSTING: WritePolicy = WritePolicy {
    devices: true,
    setuid: true,
    limits: Limits { entries: 10_000, bytes: ums_model::names::Bytes::mib(64), depth: 256 },
};

fn reader(path: &Path, form: TreeForm) -> TreeReader {
    read_tree(open_root(path).unwrap(), ReadOptions { form, limits: TRUSTING.limits })
}

/// A tree as it is seen: every entry, and its content with the holes filled. Holes themselves are left out: they are
/// not content, and file systems differ in where they have them.
fn seen(path: &Path, form: TreeForm) -> Vec<(TreeEntry, Vec<u8>)> {
    reader(path, form)
        .map(|item| {
            let TreeItem { mut entry, content } = item.unwrap();
            let mut bytes = Vec::new();
            if let (EntryKind::File { size, holes }, Some(content)) = (&mut entry.kind, content) {
                bytes = filled(*size, holes, content);
                holes.clear();
            }
            (entry, bytes)
        })
        .collect()
}

fn filled(size: u64, holes: &[Hole], mut content: FileContent) -> Vec<u8> {
    // Sparse giants are compared by what they hold.
    let giant = size > 64 << 20;
    let mut bytes = Vec::new();
    let data = content.remaining();
    for range in layout::data_ranges(size, holes).unwrap() {
        if !giant {
            bytes.resize(range.start as usize, 0);
        }
        let mut left = range.end - range.start;
        while left > 0 {
            let mut buffer = [0; 5000];
            let wanted = buffer.len().min(left as usize);
            let read = content.read(&mut buffer[..wanted]).unwrap();
            assert!(read > 0);
            bytes.extend_from_slice(&buffer[..read]);
            left -= read as u64;
        }
    }
    assert_eq!(content.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(content.remaining(), 0);
    if giant {
        assert!(data < 1 << 20, "{data} bytes of data in a sparse file");
        bytes.retain(|byte| *byte != 0);
    } else {
        bytes.resize(size as usize, 0);
    }
    bytes
}

/// Reads one tree and writes another, every entry through JSON as on the wire.
fn carry(source: TreeReader, destination: OwnedFd, policy: WritePolicy) -> Result<Written, FilesError> {
    let mut writer = TreeWriter::new(destination, policy)?;
    for item in source {
        let TreeItem { entry, content } = item?;
        let json = serde_json::to_vec(&entry).unwrap();
        let arrived: TreeEntry = serde_json::from_slice(&json).unwrap();
        assert_eq!(arrived, entry);
        let file = writer.begin(&arrived)?;
        assert_eq!(file.is_some(), content.is_some());
        if let (Some(mut file), Some(mut content)) = (file, content) {
            let mut buffer = vec![0; 10_000];
            loop {
                let read = content.read(&mut buffer)?;
                if read == 0 {
                    break;
                }
                file.write(&buffer[..read])?;
            }
            file.finish()?;
        }
    }
    writer.complete()
}
