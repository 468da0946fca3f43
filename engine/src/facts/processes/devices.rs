//! Which devices can be saved.

use rustix::fs::{Dev, major, minor};

/// What a device is to CRIU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Device {
    /// One that every container has.
    Basic,
    /// A terminal: fine if it is one of the service's own.
    Terminal,
    /// A terminal of the machine.
    HostTerminal,
    /// Anything else.
    Other,
}

/// What a character device is.
pub(super) fn character(device: Dev) -> Device {
    match (major(device), minor(device)) {
        // null, zero, full, random, urandom.
        (1, 3 | 5 | 7..=9) => Device::Basic,
        // tty: whichever terminal the process has.
        (5, 0) => Device::Basic,
        // ptmx, and the pseudo-terminals.
        (5, 2) | (136..=143, _) => Device::Terminal,
        // console, virtual consoles, serial lines.
        (4, _) | (5, 1) => Device::HostTerminal,
        _ => Device::Other,
    }
}

/// A device's number as people write it.
pub(super) fn number(device: Dev) -> String {
    format!("{}:{}", major(device), minor(device))
}
