//! Root directories for services, made without a network.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{SETUP_DEADLINE, succeed};
use crate::programs;

/// Where the workload program is inside a service.
pub const WORKLOAD: &str = "/ums-workload";
/// Where the site's witness directory is mounted inside a service.
pub const WITNESS: &str = "/witness";
/// Environment variable with the path of a root directory that has Redis in it.
pub const REDIS_VARIABLE: &str = "UMS_REDIS_ROOTFS";
/// Environment variable with the path of a root directory that has PostgreSQL in it.
pub const POSTGRES_VARIABLE: &str = "UMS_POSTGRES_ROOTFS";

/// Mount points and directories that programs expect.
const DIRECTORIES: [&str; 8] = ["tmp", "proc", "dev", "sys", "etc", "run", "root", "witness"];
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";

/// Makes `root` a root directory that holds the workload program and nothing else that runs. Safe to repeat.
pub fn static_rootfs(root: &Path) -> Result<()> {
    for name in DIRECTORIES {
        let path = root.join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
    }
    mode(&root.join("tmp"), 0o1777)?;
    write(&root.join("etc/passwd"), PASSWD)?;
    write(&root.join("etc/group"), GROUP)?;
    let program = programs::find("ums-workload")?;
    let copy = root.join(WORKLOAD.trim_start_matches('/'));
    // Without symbols it is a quarter of the size, and images travel in many tests. The tool came with the linker.
    let mut strip = Command::new("strip");
    strip.arg("-o").arg(&copy).arg(&program);
    succeed(strip, "", SETUP_DEADLINE).context("cannot copy the workload program")?;
    mode(&copy, 0o755)
}

/// The root directory with Redis, made beforehand by `cargo xtask`.
pub fn redis_rootfs() -> Result<PathBuf> {
    made(REDIS_VARIABLE, "usr/bin/redis-server")
}

/// The root directory with PostgreSQL, made beforehand by `cargo xtask`.
pub fn postgres_rootfs() -> Result<PathBuf> {
    made(POSTGRES_VARIABLE, "usr/local/bin/postgres")
}

fn made(variable: &str, program: &str) -> Result<PathBuf> {
    let Some(path) = std::env::var_os(variable).map(PathBuf::from) else {
        bail!("{variable} does not say where an image is: run this by `cargo xtask`, which makes it");
    };
    if !path.join(program).exists() {
        bail!("{} ({variable}) holds no {program}: run `cargo xtask test`, which makes it", path.display());
    }
    Ok(path)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    mode(path, 0o644)
}

fn mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of {}", path.display()))
}
