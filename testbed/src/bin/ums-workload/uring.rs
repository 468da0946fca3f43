//! A process that holds an io_uring: the plainest thing that cannot be dumped.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use io_uring::{IoUring, opcode};

use crate::args::Args;

pub(crate) fn run(args: &Args) -> Result<()> {
    args.finish()?;
    let mut ring = IoUring::new(8).context("cannot create an io_uring")?;
    // Ask the kernel for something, so that a ring that only looks like one is told at once.
    let mut probe = io_uring::Probe::new();
    ring.submitter().register_probe(&mut probe).context("cannot use an io_uring")?;
    println!("io_uring ready, nop supported: {}", probe.is_supported(opcode::Nop::CODE));
    loop {
        thread::sleep(Duration::from_secs(3600));
        ring.submission().sync();
    }
}
