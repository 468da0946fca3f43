//! A disk of a site's own: a file system in a file, small enough to be filled, and with a plug to pull.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use rustix::mount::{UnmountFlags, unmount};
use ums_model::names::Bytes;

use crate::command::{SETUP_DEADLINE, succeed};

/// Name of the file that takes the room away.
const BALLAST: &str = "ballast";
/// Number of the request that stops an ext4 at once, and what it says: without flushing its log.
const SHUTDOWN: &str = "0x8004587D";
const NO_FLUSH: u32 = 2;

/// An ext4 in a file, mounted. Whoever removes the directory unmounts it: see [`crate::sweep`].
#[derive(Debug)]
pub struct Disk {
    /// Where the file system is: `FILE.N` in its Nth life.
    file: PathBuf,
    life: AtomicU32,
    at: PathBuf,
}

impl Disk {
    /// Makes and mounts a disk at `directory/name`.
    ///
    /// On `Err` nothing is mounted.
    pub(crate) fn make(directory: &Path, name: &str, size: Bytes) -> Result<Self> {
        let file = directory.join(format!("{name}.ext4"));
        let disk = Self { file, life: AtomicU32::new(0), at: directory.join(name) };
        fs::create_dir_all(&disk.at).with_context(|| format!("cannot create {}", disk.at.display()))?;
        let file = File::create(disk.file()).context("cannot create a disk")?;
        file.set_len(size.get()).context("cannot size a disk")?;
        let mut make = Command::new("mkfs.ext4");
        make.args(["-q", "-m", "0"]).arg(disk.file());
        succeed(make, "", SETUP_DEADLINE).context("cannot make a file system")?;
        disk.mount()?;
        Ok(disk)
    }

    /// Takes all room away. Safe to repeat.
    pub fn fill(&self) -> Result<()> {
        let path = self.at.join(BALLAST);
        let mut file = File::options().create(true).append(true).open(&path).context("cannot fill a disk")?;
        // First in large pieces and then in small ones: the last free block counts.
        for size in [1 << 20, 4096, 64] {
            let piece = vec![0xa5; size];
            loop {
                match file.write(&piece) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error).context("cannot fill a disk"),
                }
            }
            // What was only promised is claimed: delayed allocation finds out here.
            match file.sync_all() {
                Err(error) if error.kind() != ErrorKind::StorageFull => {
                    return Err(error).context("cannot fill a disk");
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Gives all room back. Safe to repeat.
    pub fn free(&self) -> Result<()> {
        match fs::remove_file(self.at.join(BALLAST)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error).context("cannot free a disk"),
            _ => Ok(()),
        }
    }

    /// From now on nothing is written any more, and what was not synced never will be.
    pub(crate) fn pull_the_plug(&self) -> Result<()> {
        let script = "open(my $d, '<', $ARGV[0]) or die $!; my $how = pack('L', $ARGV[2]); ioctl($d, hex($ARGV[1]), $how) or die $!";
        let mut perl = Command::new("perl");
        perl.args(["-e", script]).arg(&self.at).args([SHUTDOWN, &NO_FLUSH.to_string()]);
        succeed(perl, "", SETUP_DEADLINE).context("cannot stop a disk").map(drop)
    }

    /// Reads the file system anew, as after a restart of the host.
    pub(crate) fn mount_again(&self) -> Result<()> {
        for point in points_below(&self.at)? {
            match unmount(&point, UnmountFlags::DETACH) {
                Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
                Err(error) => bail!("cannot unmount {}: {error}", point.display()),
            }
        }
        // Mount namespaces of the *other* site have a copy of the dead mount, and would bring it back to life: what was
        // written to the disk goes on in another file.
        let dead = self.file();
        self.life.fetch_add(1, Ordering::Relaxed);
        let mut copy = Command::new("cp");
        copy.arg("--sparse=always").arg(&dead).arg(self.file());
        succeed(copy, "", SETUP_DEADLINE).context("cannot copy a disk")?;
        fs::remove_file(&dead).context("cannot remove a dead disk")?;
        self.mount()
    }

    fn file(&self) -> PathBuf {
        let life = self.life.load(Ordering::Relaxed);
        self.file.with_extension(format!("ext4.{life}"))
    }

    fn mount(&self) -> Result<()> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "ext4", "-o", "loop"]).arg(self.file()).arg(&self.at);
        succeed(mount, "", SETUP_DEADLINE).context("cannot mount a disk").map(drop)
    }
}

/// Mount points at and below `top`, the last mounted first.
fn points_below(top: &Path) -> Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("cannot read the mount table")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut points: Vec<PathBuf> = points.filter(|point| point.starts_with(top)).collect();
    points.reverse();
    Ok(points)
}
