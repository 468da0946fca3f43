//! What each command does: one call to the daemon, one answer on the terminal. Exit codes: 0 done, 1 failed and rolled
//! back (plan: cannot move), 2 wrong usage, 3 stuck or lost.

mod audit;
mod drain;
mod exec;
mod migrate;
mod policy;
mod resolve;
mod services;
mod sites;
mod standstill;

use std::process::ExitCode;

use ums_model::error::{ErrorCode, WireError};

use crate::cli::{Cli, Command, SitesCommand};
use crate::client::{CallResult, Daemon};
use crate::{inner, render, site};

/// Exit code for wrong usage.
pub(crate) const USAGE: u8 = 2;
const FAILED: u8 = 1;
const STUCK: u8 = 3;

/// Where to ask and how to answer.
pub(crate) struct Context {
    pub(crate) daemon: Daemon,
    pub(crate) json: bool,
}

/// Runs one command to its exit code.
pub(crate) fn run(cli: Cli) -> ExitCode {
    let json = cli.json;
    match cli.command {
        Command::Keeper { dir, program } => plain(inner::keeper(&dir, &program), json),
        Command::Nest { dir, stdio } => plain(inner::nest(&dir, &stdio), json),
        Command::Site(args) => plain(site::run(&args, json), json),
        command => {
            let daemon = match Daemon::from_args(cli.socket, cli.url, cli.fingerprint.as_deref()) {
                Ok(daemon) => daemon,
                Err(error) => return usage(&error, json),
            };
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return plain(Err(error.into()), json),
            };
            match runtime.block_on(client_command(&Context { daemon, json }, command)) {
                Ok(code) => ExitCode::from(code),
                Err(error) => {
                    render::error(&error, json);
                    ExitCode::from(exit_code(&error))
                }
            }
        }
    }
}

fn exit_code(error: &WireError) -> u8 {
    match error.code {
        ErrorCode::Stuck | ErrorCode::Lost | ErrorCode::InDoubt => STUCK,
        ErrorCode::BadRequest => USAGE,
        _ => FAILED,
    }
}

fn plain(result: anyhow::Result<()>, json: bool) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error = match error.downcast::<WireError>() {
                Ok(error) => error,
                Err(error) => WireError::new(ErrorCode::Internal, format!("{error:#}")),
            };
            render::error(&error, json);
            ExitCode::from(FAILED)
        }
    }
}

fn usage(error: &anyhow::Error, json: bool) -> ExitCode {
    render::error(&WireError::new(ErrorCode::BadRequest, format!("{error:#}")).with_hint("ums --help"), json);
    ExitCode::from(USAGE)
}

async fn client_command(context: &Context, command: Command) -> CallResult<u8> {
    match command {
        Command::Pair(command) => sites::pair(context, command).await,
        Command::Sites { command: None } => sites::list(context).await,
        Command::Sites { command: Some(SitesCommand::Policy(args)) } => policy::policy(context, *args).await,
        Command::Sites { command: Some(SitesCommand::Revoke { site }) } => {
            sites::revoke(context, &site).await
        }
        Command::Unpair { site } => sites::unpair(context, &site).await,
        Command::Audit(command) => audit::run(context, command).await,
        Command::Doctor => sites::doctor(context).await,
        Command::Token(command) => sites::token(context, command).await,
        Command::Run(args) => services::run(context, *args).await,
        Command::Ps => services::list(context).await,
        Command::Start { name } => services::start(context, &name).await,
        Command::Stop { name, time } => services::stop(context, &name, time).await,
        Command::Kill { name, signal } => services::signal(context, &name, signal).await,
        Command::Rm { name, force } => services::remove(context, &name, force).await,
        Command::Logs { name, follow } => services::logs(context, &name, follow).await,
        Command::Exec { env, workdir, name, command } => {
            exec::run(context, &name, env, workdir, command).await
        }
        Command::Plan { name, to } => migrate::plan(context, &name, &to).await,
        Command::Migrate { name, to, detach } => migrate::migrate(context, &name, &to, detach).await,
        Command::Watch { what } => migrate::watch(context, &what).await,
        Command::Drain { site, to, parallel, plan } => {
            drain::drain(context, &site, &to, usize::from(parallel), plan).await
        }
        Command::Abort { name } => migrate::abort(context, &name).await,
        Command::Resolve { name, run_here, yes, .. } => resolve::resolve(context, &name, run_here, yes).await,
        Command::Status { name } => migrate::status(context, name.as_deref()).await,
        Command::History { name, limit } => migrate::history(context, name.as_deref(), limit).await,
        Command::Site(_) | Command::Keeper { .. } | Command::Nest { .. } => Ok(USAGE),
    }
}

/// Wrong input that only the client can see.
pub(crate) fn misuse(message: impl std::fmt::Display) -> WireError {
    WireError::new(ErrorCode::BadRequest, message.to_string()).with_hint("ums --help")
}

/// A segment of a path or a value of a query: names and ids need no escapes, anything else is refused by the daemon.
pub(crate) fn segment(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}
