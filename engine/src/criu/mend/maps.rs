//! The mappings of a process, as `/proc/PID/maps` has them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

/// One mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) executable: bool,
    /// What is mapped; empty for anonymous memory.
    pub(super) name: String,
}

impl Mapping {
    pub(super) fn holds(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }

    /// A line is range, permissions, offset, device, inode, blanks and a name, which may contain blanks.
    fn parse(line: &str) -> Option<Self> {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let (permissions, rest) = rest.split_once(' ')?;
        let name = rest.splitn(4, ' ').nth(3).unwrap_or_default().trim_start();
        Some(Self {
            start: u64::from_str_radix(start, 16).ok()?,
            end: u64::from_str_radix(end, 16).ok()?,
            executable: permissions.as_bytes().get(2) == Some(&b'x'),
            name: name.to_owned(),
        })
    }
}

/// All mappings of a process, by address.
pub(super) fn mappings(pid: i32) -> io::Result<Vec<Mapping>> {
    let text = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    Ok(text.lines().filter_map(Mapping::parse).collect())
}

/// What a process has in its memory from `address` on.
pub(super) fn peek<const N: usize>(memory: &File, address: u64) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    memory.read_exact_at(&mut bytes, address)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_read() {
        let line = "7fc8a17a4000-7fc8a17a5000 rwxs 00000000 00:01 875574                     /memfd:CRIUMFD (deleted)";
        let (start, end) = (0x7fc8_a17a_4000, 0x7fc8_a17a_5000);
        let name = "/memfd:CRIUMFD (deleted)".to_owned();
        assert_eq!(Mapping::parse(line), Some(Mapping { start, end, executable: true, name }));
        let anonymous = Mapping::parse("00400000-00401000 rw-p 00000000 00:00 0 ").unwrap();
        assert_eq!((anonymous.executable, &*anonymous.name), (false, ""));
        assert!(anonymous.holds(0x0040_0fff) && !anonymous.holds(0x0040_1000));
    }
}
