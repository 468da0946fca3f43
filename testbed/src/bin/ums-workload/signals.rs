//! Prints the signals it gets.

use std::process::ExitCode;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::Args;

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let code: Option<u8> = args.optional("exit-code")?;
    args.finish()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("cannot trap SIGTERM")?;
        let mut hang_up = signal(SignalKind::hangup()).context("cannot trap SIGHUP")?;
        println!("ready");
        loop {
            tokio::select! {
                _ = terminate.recv() => {
                    println!("SIGTERM");
                    if let Some(code) = code {
                        return Ok(ExitCode::from(code));
                    }
                }
                _ = hang_up.recv() => println!("SIGHUP"),
            }
        }
    })
}
