//! Connections that CRIU was reading when it was killed.
//!
//! It reads a connection in *repair* mode, in which the kernel neither sends nor answers for it. The mode belongs to
//! the socket and not to CRIU.

use std::fs;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// Switches repair mode.
const TCP_REPAIR: libc::c_int = 19;

/// Takes every connection of a process out of repair mode.
pub(super) fn out_of_repair(pid: i32) -> Result<Vec<String>, String> {
    let unknown = |error: io::Error| format!("its sockets cannot be looked at: {error}");
    let process = Pid::from_raw(pid).ok_or_else(|| unknown(io::ErrorKind::InvalidInput.into()))?;
    let process = pidfd_open(process, PidfdFlags::empty()).map_err(|errno| unknown(errno.into()))?;
    let mut cures = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).map_err(unknown)?.flatten() {
        let is_socket =
            fs::read_link(entry.path()).is_ok_and(|link| link.to_string_lossy().starts_with("socket:"));
        let Some(number) = entry.file_name().to_str().and_then(|number| number.parse::<i32>().ok()) else {
            continue;
        };
        if !is_socket {
            continue;
        }
        let socket =
            pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).map_err(|errno| unknown(errno.into()))?;
        if is_tcp(&socket) && is_in_repair(&socket).map_err(unknown)? {
            leave_repair(&socket).map_err(unknown)?;
            cures.push(format!(
                "the connection of its descriptor {number} was in repair mode and may have failed"
            ));
        }
    }
    Ok(cures)
}

fn is_tcp(socket: impl AsFd) -> bool {
    let inet = sockopt::socket_domain(&socket)
        .is_ok_and(|domain| domain == AddressFamily::INET || domain == AddressFamily::INET6);
    inet && sockopt::socket_type(&socket).is_ok_and(|kind| kind == SocketType::STREAM)
        && sockopt::socket_protocol(&socket).is_ok_and(|kind| kind == Some(rustix::net::ipproto::TCP))
}

#[allow(unsafe_code)]
fn is_in_repair(socket: &OwnedFd) -> io::Result<bool> {
    let mut on: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    let (level, option) = (libc::IPPROTO_TCP, TCP_REPAIR);
    // SAFETY: the kernel writes at most `length` bytes to `on`, which is that large, and `length` itself.
    let answer =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, (&raw mut on).cast(), &raw mut length) };
    if answer == 0 { Ok(on == 1) } else { Err(io::Error::last_os_error()) }
}

#[allow(unsafe_code)]
fn leave_repair(socket: &OwnedFd) -> io::Result<()> {
    let off: libc::c_int = 0;
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    let (level, option) = (libc::IPPROTO_TCP, TCP_REPAIR);
    // SAFETY: the kernel reads `length` bytes from `off`, which is that large.
    let answer =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const off).cast(), length) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
