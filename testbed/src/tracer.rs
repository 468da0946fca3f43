//! Somebody who traces a process, as a debugger does: CRIU cannot dump it then.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

/// A process that traces another. Dropping it detaches it.
#[derive(Debug)]
pub struct Tracer(Child);

impl Tracer {
    /// Traces process `pid`, which goes on running. Needs Perl on this machine.
    pub fn attach(pid: i32) -> Result<Self> {
        // System call 101 is ptrace, request 0x4206 is SEIZE: nothing is stopped by it.
        let seize =
            format!("syscall(101, 0x4206, {pid}, 0, 0) == 0 or die $!; $| = 1; print qq(attached\\n); sleep");
        let mut command = Command::new("perl");
        let mut perl =
            command.args(["-e", &seize]).stdout(Stdio::piped()).spawn().context("cannot start perl")?;
        let mut said = String::new();
        let stdout = perl.stdout.take().context("a child without stdout")?;
        let tracer = Self(perl);
        BufReader::new(stdout).read_line(&mut said)?;
        ensure!(said == "attached\n", "cannot trace process {pid}");
        Ok(tracer)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
