//! What processes have mapped into their memory.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;

use ums_model::names::Bytes;
use ums_model::plan::BlockerKind;

use super::Tree;
use super::descriptors::{Kept, ghost_size, is_in_huge_pages, kept_by_kernel};
use super::findings::Findings;
use super::process::{Process, path, read};

/// One mapping, as far as it is of interest.
#[derive(Debug, PartialEq, Eq)]
struct Mapping<'a> {
    /// Begin and end, as the kernel writes them.
    range: &'a str,
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
        for _ in 0..3 {
            next()?;
        }
        let name = rest.split_once(' ').map_or("", |(_, name)| name.trim_start_matches(' '));
        Some(Self { range, name })
    }

    /// A link to the mapped file. The kernel names it without leading zeros.
    fn file(&self, pid: i32) -> Option<std::path::PathBuf> {
        let (begin, end) = self.range.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        Some(path(pid, &format!("map_files/{:x}-{:x}", number(begin)?, number(end)?)))
    }
}

pub(super) fn check(tree: &Tree, ghost_limit: Bytes, findings: &mut Findings) {
    let mut ghosts = HashSet::new();
    for process in tree.living() {
        let maps = read(process.pid, "maps").unwrap_or_default();
        for mapping in maps.lines().filter_map(Mapping::parse) {
            one(process, &mapping, ghost_limit, &mut ghosts, findings);
        }
    }
}

fn one(
    process: &Process,
    mapping: &Mapping<'_>,
    ghost_limit: Bytes,
    ghosts: &mut HashSet<(u64, u64)>,
    findings: &mut Findings,
) {
    let at = format!("mapped at {}", mapping.range);
    if mapping.name == "[uprobes]" {
        findings.add(process, BlockerKind::Uprobe, at);
        return;
    }
    match kept_by_kernel(mapping.name) {
        Some(Kept::HugePages) => findings.add(process, BlockerKind::HugePages, at),
        Some(Kept::Secret) => findings.add(process, BlockerKind::AnonInode, format!("secret memory {at}")),
        // These may be in huge pages or in small ones.
        Some(Kept::Memory) | None if mapping.name.starts_with('/') => {
            let Some(file) = mapping.file(process.pid) else { return };
            if is_in_huge_pages(&file) {
                findings.add(process, BlockerKind::HugePages, format!("{} {at}", mapping.name));
            } else if kept_by_kernel(mapping.name).is_none()
                && let Ok(metadata) = fs::metadata(&file)
                && let Some(size) = ghost_size(&metadata).filter(|size| *size > ghost_limit)
                // Once, however often it is mapped.
                && ghosts.insert((metadata.dev(), metadata.ino()))
            {
                let detail = format!("{} ({size}) {at}", mapping.name);
                findings.add(process, BlockerKind::GhostFile, detail);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_read() {
        let line = "7fc8a17a4000-7fc8a17a5000 rw-s 00000000 00:13 875574                     /[aio] (deleted)";
        let mapping = Mapping::parse(line).unwrap();
        assert_eq!(mapping, Mapping { range: "7fc8a17a4000-7fc8a17a5000", name: "/[aio] (deleted)" });
        let file = mapping.file(7).unwrap();
        assert_eq!(file.to_str(), Some("/proc/7/map_files/7fc8a17a4000-7fc8a17a5000"));
        let anonymous = Mapping::parse("00400000-00401000 rw-p 00000000 00:00 0 ").unwrap();
        assert_eq!(anonymous.name, "");
        assert_eq!(anonymous.file(7).unwrap().to_str(), Some("/proc/7/map_files/400000-401000"));
    }
}
