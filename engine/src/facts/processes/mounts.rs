//! What is mounted where the service lives.

use std::collections::HashSet;

use ums_model::plan::BlockerKind;

use super::findings::Findings;
use super::process::{path, read};
use super::{FactsError, Tree};

/// The mounts of a service's first process.
#[derive(Debug)]
pub(super) struct Mounts {
    ids: HashSet<u64>,
    /// Device numbers of file systems in huge pages.
    huge: HashSet<(u32, u32)>,
    /// Mount point and file system of those that a program in user space serves.
    served: Vec<(String, String)>,
}

impl Mounts {
    pub(super) fn of(pid: i32) -> Result<Self, FactsError> {
        let text = read(pid, "mountinfo").ok_or_else(|| match read(pid, "comm") {
            None => FactsError::Gone { pid },
            Some(_) => FactsError::Unclear { path: path(pid, "mountinfo"), what: "the mounts" },
        })?;
        Ok(Self::parse(&text))
    }

    fn parse(mountinfo: &str) -> Self {
        let mut mounts = Self { ids: HashSet::new(), huge: HashSet::new(), served: Vec::new() };
        for line in mountinfo.lines() {
            let Some((before, after)) = line.split_once(" - ") else { continue };
            let mut fields = before.split(' ');
            let Some(id) = fields.next().and_then(|id| id.parse().ok()) else { continue };
            mounts.ids.insert(id);
            let device = fields.nth(1).and_then(|device| {
                let (major, minor) = device.split_once(':')?;
                Some((major.parse().ok()?, minor.parse().ok()?))
            });
            let kind = after.split(' ').next().unwrap_or_default();
            if kind == "hugetlbfs" {
                mounts.huge.extend(device);
            }
            if kind == "autofs" || kind == "fuse" || kind == "fuseblk" || kind.starts_with("fuse.") {
                let point = fields.nth(1).unwrap_or_default();
                mounts.served.push((point.to_owned(), kind.to_owned()));
            }
        }
        mounts
    }

    /// Whether what is on a device lies in huge pages.
    pub(super) fn is_huge(&self, device: (u32, u32)) -> bool {
        self.huge.contains(&device)
    }

    /// Whether there is a mount of this number.
    pub(super) fn contains(&self, id: u64) -> bool {
        self.ids.contains(&id)
    }
}

pub(super) fn check(tree: &Tree, mounts: &Mounts, findings: &mut Findings) {
    let Some(first) = tree.processes.iter().find(|process| process.pid == tree.first) else { return };
    for (point, kind) in &mounts.served {
        findings.add(first, BlockerKind::UserspaceMount, format!("{kind} is mounted on {point}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_user_space_are_found() {
        let mounts = Mounts::parse(
            "22 27 0:21 / /proc rw,relatime - proc proc rw\n\
             27 1 254:0 / / rw shared:1 master:2 - ext4 /dev/vda rw\n\
             40 27 0:30 / /data rw,nosuid - fuse.sshfs host:/ rw\n\
             41 27 0:31 / /sys/fs/fuse/connections rw - fusectl fusectl rw\n\
             42 27 0:32 / /net rw - autofs auto rw\n\
             43 27 0:33 / /dev/hugepages rw - hugetlbfs hugetlbfs rw\n",
        );
        assert!(mounts.contains(27) && !mounts.contains(28));
        assert!(mounts.is_huge((0, 33)) && !mounts.is_huge((0, 32)));
        let served: Vec<_> =
            mounts.served.iter().map(|(point, kind)| (point.as_str(), kind.as_str())).collect();
        assert_eq!(served, [("/data", "fuse.sshfs"), ("/net", "autofs")]);
    }
}
