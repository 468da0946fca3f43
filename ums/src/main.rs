//! The one binary of UMS: the command line, and the processes that it starts of itself.
//!
//! Read in this order: [`cli`] (what can be typed), [`site`] (the daemon), [`inner`] (keeper, nest and criu proxy, which
//! users never start), [`client`] and [`commands`] (what talks to a daemon), [`render`] (how answers look).

mod cli;
mod client;
mod commands;
mod inner;
mod render;
mod site;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    // runc starts whatever is called `criu`; at a restore that is us.
    if std::env::args_os()
        .next()
        .is_some_and(|name| name.to_string_lossy().rsplit('/').next() == Some("criu"))
    {
        return inner::criu_proxy();
    }
    match cli::Cli::try_parse() {
        Ok(cli) => commands::run(cli),
        Err(error) => {
            let _ = error.print();
            // Help and version are no misuse.
            ExitCode::from(if error.use_stderr() { commands::USAGE } else { 0 })
        }
    }
}
