//! What processes have mapped into their memory.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;

use ums_model::names::Bytes;
use ums_model::plan::BlockerKind;

use super::Tree;
use super::descriptors::{Kept, ghost_size, is_in_huge_pages, kept_by_kernel};
use super::findings::Findings;
use super::mounts::Mounts;
use super::process::{Process, path, read};

/// One mapping, as far as it is of interest.
#[derive(Debug, PartialEq, Eq)]
struct Mapping<'a> {
    /// Begin and end, as the kernel writes them.
    range: &'a str,
    /// Number of the device that the file is on.
    device: (u32, u32),
    /// What is mapped; empty for anonymous memory.
    name: &'a str,
}

impl<'a> Mapping<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        // Range, permissions, offset, device, inode; then blanks and the name, which may contain blanks itself.
        let mut rest = line;
        let mut next = || {
            let (field, after) = rest.split_once(' ')?;
            rest = after.trim_start_matches(' ');
            Some(field)
        };
        let range = next()?;
        let (_permissions, _offset) = (next()?, next()?);
        let (major, minor) = next()?.split_once(':')?;
        let number = |text| u32::from_str_radix(text, 16).ok();
        let name = rest.split_once(' ').map_or("", |(_inode, name)| name.trim_start_matches(' '));
        Some(Self { range, device: (number(major)?, number(minor)?), name })
    }

    /// A link to the mapped file. The kernel names it without leading zeros.
    fn file(&self, pid: i32) -> Option<std::path::PathBuf> {
        let (begin, end) = self.range.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        Some(path(pid, &format!("map_files/{:x}-{:x}", number(begin)?, number(end)?)))
    }
}

pub(super) fn check(tree: &Tree, mounts: &Mounts, ghost_limit: Bytes, findings: &mut Findings) {
    let mut ghosts = HashSet::new();
    for process in tree.living() {
        let maps = read(process.pid, "maps").unwrap_or_default();
        for mapping in maps.lines().filter_map(Mapping::parse) {
            if let Some((kind, detail)) = find(process, &mapping, mounts, ghost_limit, &mut ghosts) {
                findings.add(process, kind, detail);
            }
        }
    }
}

fn find(
    process: &Process,
    mapping: &Mapping<'_>,
    mounts: &Mounts,
    ghost_limit: Bytes,
    ghosts: &mut HashSet<(u64, u64)>,
) -> Option<(BlockerKind, String)> {
    let Mapping { range, device, name } = mapping;
    let at = format!("{name} is mapped at {range}");
    match kept_by_kernel(name) {
        _ if *name == "[uprobes]" => Some((BlockerKind::Uprobe, at)),
        Some(Kept::HugePages) => Some((BlockerKind::HugePages, at)),
        Some(Kept::Secret) => Some((BlockerKind::AnonInode, at)),
        // A memfd may be in huge pages.
        Some(Kept::Memory) => {
            is_in_huge_pages(&mapping.file(process.pid)?).then_some((BlockerKind::HugePages, at))
        }
        None if mounts.is_huge(*device) => Some((BlockerKind::HugePages, at)),
        None if name.ends_with(" (deleted)") => {
            let metadata = fs::metadata(mapping.file(process.pid)?).ok()?;
            let size = ghost_size(&metadata).filter(|size| *size > ghost_limit)?;
            // Once, however often it is mapped.
            let new = ghosts.insert((metadata.dev(), metadata.ino()));
            new.then(|| (BlockerKind::GhostFile, format!("{at}, {size}")))
        }
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_read() {
        let line =
            "7fc8a17a4000-7fc8a17a5000 rw-s 00000000 00:13 875574                     /[aio] (deleted)";
        let mapping = Mapping::parse(line).unwrap();
        let name = "/[aio] (deleted)";
        assert_eq!(mapping, Mapping { range: "7fc8a17a4000-7fc8a17a5000", device: (0, 0x13), name });
        let file = mapping.file(7).unwrap();
        assert_eq!(file.to_str(), Some("/proc/7/map_files/7fc8a17a4000-7fc8a17a5000"));
        let anonymous = Mapping::parse("00400000-00401000 rw-p 00000000 00:00 0 ").unwrap();
        assert_eq!(anonymous.name, "");
        assert_eq!(anonymous.file(7).unwrap().to_str(), Some("/proc/7/map_files/400000-401000"));
    }
}
