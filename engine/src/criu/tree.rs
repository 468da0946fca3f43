//! How many tasks a tree has: in the images, and alive. The two must agree before a copy may be trusted.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use prost::Message;
use serde::{Deserialize, Serialize};

use crate::process::Stat;

/// First word of every image.
const IMAGE_MAGIC: u32 = 0x5456_4319;

/// Second word of `pstree.img`.
const PSTREE_MAGIC: u32 = 0x5027_3030;

/// Largest process entry; one with the kernel's limit of threads is smaller.
const MAX_ENTRY: usize = 32 << 20;

/// Size of a process tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tasks {
    /// Processes, zombies included.
    pub processes: u32,
    /// Threads; a zombie counts as one.
    pub threads: u32,
}

/// A tree could not be counted.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The image is damaged.
    #[error("{path} is no process tree image: {reason}")]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// One process in `pstree.img`.
#[derive(Clone, PartialEq, prost::Message)]
struct PstreeEntry {
    #[prost(uint32, required, tag = "1")]
    pid: u32,
    #[prost(uint32, repeated, packed = "false", tag = "5")]
    threads: Vec<u32>,
}

/// Counts the tree that lives in the pid namespace of `pid`, as `/proc` shows it from here.
///
/// Exact only while nothing can appear or go away: stopped, or frozen.
pub fn count_tasks(pid: i32) -> Result<Tasks, TreeError> {
    let members = members(pid)?;
    let threads = |pid: i32| fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Ok(Tasks {
        processes: number(members.len()),
        threads: number(members.iter().map(|member| threads(member.pid)).sum()),
    })
}

/// All processes in the pid namespace of `pid`.
pub(super) fn members(pid: i32) -> Result<Vec<Stat>, TreeError> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid"));
    let wanted = namespace(&pid.to_string())
        .map_err(|source| TreeError::Read { path: format!("/proc/{pid}/ns/pid").into(), source })?;
    let proc = Path::new("/proc");
    let entries = fs::read_dir(proc).map_err(|source| TreeError::Read { path: proc.to_owned(), source })?;
    let names = entries.filter_map(Result::ok).filter_map(|entry| entry.file_name().into_string().ok());
    let numbers = names.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    // One that ends while it is looked at is none.
    let inside = numbers.filter(|name| namespace(name).is_ok_and(|found| found == wanted));
    Ok(inside.filter_map(Stat::of).collect())
}

impl Tasks {
    /// Counts the tree in a directory of images.
    pub fn in_images(directory: &Path) -> Result<Self, TreeError> {
        let path = directory.join("pstree.img");
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|mut file| file.read_to_end(&mut bytes))
            .map_err(|source| TreeError::Read { path: path.clone(), source })?;
        Self::parse(&bytes).map_err(|reason| TreeError::Image { path, reason })
    }

    fn parse(mut bytes: &[u8]) -> Result<Self, &'static str> {
        let cut = "it ends in the middle of an entry";
        if word(&mut bytes) != Some(IMAGE_MAGIC) || word(&mut bytes) != Some(PSTREE_MAGIC) {
            return Err("it does not begin like one");
        }
        let mut tasks = Self::default();
        while !bytes.is_empty() {
            let length = word(&mut bytes).ok_or(cut)? as usize;
            if length > MAX_ENTRY {
                return Err("an entry is too large");
            }
            let (entry, rest) = bytes.split_at_checked(length).ok_or(cut)?;
            bytes = rest;
            let entry = PstreeEntry::decode(entry).map_err(|_| "an entry cannot be decoded")?;
            tasks.processes += 1;
            tasks.threads += u32::try_from(entry.threads.len()).unwrap_or(u32::MAX);
        }
        Ok(tasks)
    }
}

impl fmt::Display for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} processes with {} threads", self.processes, self.threads)
    }
}

fn word(bytes: &mut &[u8]) -> Option<u32> {
    let (word, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u32::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(entries: &[PstreeEntry]) -> Vec<u8> {
        let mut bytes = [IMAGE_MAGIC.to_le_bytes(), PSTREE_MAGIC.to_le_bytes()].concat();
        for entry in entries {
            let entry = entry.encode_to_vec();
            bytes.extend(u32::try_from(entry.len()).unwrap().to_le_bytes());
            bytes.extend(entry);
        }
        bytes
    }

    #[test]
    fn processes_and_threads_are_counted() {
        let one = PstreeEntry { pid: 1, threads: vec![1] };
        let two = PstreeEntry { pid: 7, threads: vec![7, 8, 9] };
        assert_eq!(Tasks::parse(&image(&[one, two])), Ok(Tasks { processes: 2, threads: 4 }));
    }

    #[test]
    fn a_damaged_image_is_refused() {
        let whole = image(&[PstreeEntry { pid: 1, threads: vec![1, 2] }]);
        for length in 9..whole.len() {
            assert!(Tasks::parse(&whole[..length]).is_err(), "cut after {length} bytes");
        }
        assert!(Tasks::parse(&whole[4..]).is_err());
        let mut huge = image(&[]);
        huge.extend(u32::MAX.to_le_bytes());
        assert!(Tasks::parse(&huge).is_err());
    }

    #[test]
    fn this_process_is_found_in_its_namespace() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(members(own).unwrap().iter().any(|member| member.pid == own));
    }
}
