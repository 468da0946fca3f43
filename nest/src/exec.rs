//! Commands inside a running service.
//!
//! ```text
//! caller                                   nest
//! Control(Request::Exec(ExecRequest)) ───►
//! Data(1, stdin bytes) ... Close(1)   ───►
//!                                     ◄─── Data(2, stdout bytes), Data(3, stderr bytes)
//!                                     ◄─── Control(ExecReply)                             the last frame
//! ```
//! A command does not move with its service: it is ended when a migration freezes it.

use std::convert::Infallible;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::process::Child;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use ums_model::error::{ErrorCode, WireError};
use ums_transfer::frame::{Channel, Conversation, FrameError, FrameReader, Kind};

use crate::deadlines::Deadlines;
use crate::runc::Runc;

/// Bytes for the command's standard input.
pub const STDIN: Channel = Channel(1);
/// Bytes of its standard output.
pub const STDOUT: Channel = Channel(2);
/// Bytes of its standard error.
pub const STDERR: Channel = Channel(3);
/// Chunks of output waiting for a slow caller; the command blocks behind them.
const QUEUE: usize = 16;
/// Size of one chunk in bytes: a pipe's capacity.
const CHUNK: usize = 64 * 1024;
/// Pause between attempts to kill a command that runc may only just be starting.
const KILL_EVERY: Duration = Duration::from_millis(20);
/// How the names of pid files begin.
const PID_FILE: &str = "exec-";

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Additional environment, `NAME=value`.
    #[serde(default)]
    pub env: Vec<String>,
    /// Working directory inside; the service's own if absent.
    #[serde(default)]
    pub workdir: Option<String>,
}

/// How it ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExecReply {
    /// Its exit code, or 128 + signal.
    Exited(i32),
    /// It could not be run, or was ended by us.
    Failed(WireError),
}

/// Runs one command and relays its stdio until it ends, the caller hangs up, or `end` is cancelled.
pub(crate) async fn run<R, W>(
    runc: &Runc,
    request: &ExecRequest,
    conversation: &mut Conversation<R, W>,
    end: &CancellationToken,
) -> Result<(), FrameError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let Deadlines { linger, last_word, .. } = runc.deadlines();
    let process = Inside::new();
    let mut command = runc.exec(&request.args, &request.env, request.workdir.as_deref(), &process.pid_file);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let error = WireError::new(ErrorCode::Internal, format!("cannot start runc exec: {error}"));
            return conversation.send(&ExecReply::Failed(error)).await;
        }
    };
    let relayed = tokio::select! {
        biased;
        // Also while a caller that does not read holds everything up.
        () = end.cancelled() => None,
        ended = relay(&mut child, conversation, linger) => Some(ended?),
    };
    let writer = &mut conversation.writer;
    let Some(ended) = relayed else {
        process.kill(&mut child).await;
        let error = WireError::new(ErrorCode::Aborted, "the command was ended because the service moves");
        let told = async {
            writer.write_control(&ExecReply::Failed(error)).await?;
            writer.flush().await
        };
        return tokio::time::timeout(last_word, told).await.unwrap_or(Ok(()));
    };
    let reply = match ended {
        Ok(status) => {
            process.ended();
            use std::os::unix::process::ExitStatusExt as _;
            ExecReply::Exited(
                status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1),
            )
        }
        Err(error) => ExecReply::Failed(WireError::new(
            ErrorCode::Internal,
            format!("cannot wait for runc exec: {error}"),
        )),
    };
    writer.write_control(&reply).await?;
    writer.flush().await
}

/// Relays until the command has ended and its output was taken, for which there is `patience`. Err: the caller is gone.
async fn relay<R, W>(
    child: &mut Child,
    conversation: &mut Conversation<R, W>,
    patience: Duration,
) -> Result<std::io::Result<ExitStatus>, FrameError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (sender, mut output) = mpsc::channel(QUEUE);
    let stdout = child.stdout.take().expect("stdout is piped");
    let stderr = child.stderr.take().expect("stderr is piped");
    tokio::spawn(pump(STDOUT, stdout, sender.clone()));
    tokio::spawn(pump(STDERR, stderr, sender));
    let stdin = child.stdin.take().expect("stdin is piped");

    let Conversation { reader, writer } = conversation;
    let mut feed = std::pin::pin!(feed(reader, stdin));
    let mut status = None;
    let mut linger = std::pin::pin!(tokio::time::sleep(Duration::MAX));
    loop {
        tokio::select! {
            chunk = output.recv() => match chunk {
                Some((channel, bytes)) => {
                    // Who hangs up is noticed also while nothing can be written.
                    let write = async {
                        writer.write_data(channel, bytes).await?;
                        writer.flush().await
                    };
                    tokio::select! {
                        written = write => written?,
                        gone = &mut feed => return gone.map(|gone| match gone {}),
                    }
                }
                // Both streams are closed: the command has ended or soon will.
                None => return Ok(match status {
                    Some(status) => status,
                    None => tokio::select! {
                        status = child.wait() => status,
                        gone = &mut feed => return gone.map(|gone| match gone {}),
                    },
                }),
            },
            ended = child.wait(), if status.is_none() => {
                status = Some(ended);
                linger.set(tokio::time::sleep(patience));
            }
            // Something that it left behind keeps its output open.
            () = &mut linger, if status.is_some() => {
                return Ok(status.unwrap_or_else(|| Err(std::io::ErrorKind::Other.into())));
            }
            gone = &mut feed => return gone.map(|gone| match gone {}),
        }
    }
}

/// Ends what a nest that died has left of its sessions: nobody speaks to those commands any more.
pub(crate) fn end_leftovers() {
    let Ok(entries) = std::fs::read_dir(crate::layout::runc_root()) else { return };
    let names = entries.flatten().map(|entry| entry.path());
    for pid_file in names.filter(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with(PID_FILE) && name.ends_with(".pid")
    }) {
        drop(Inside { pid_file });
    }
}

/// The command's own process, which runc started inside. Killed when this goes, whatever the reason: without its
/// session it would be a stranger in the service's tree, and the next dump would fail.
struct Inside {
    pid_file: PathBuf,
}

impl Inside {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            pid_file: crate::layout::runc_root()
                .join(format!("{PID_FILE}{}-{number}.pid", std::process::id())),
        }
    }

    /// Kills it, also where runc is just about to start it.
    async fn kill(&self, child: &mut Child) {
        while tokio::time::timeout(KILL_EVERY, child.wait()).await.is_err() {
            self.signal();
        }
    }

    fn signal(&self) {
        // runc writes the file before the command can run.
        let pid = std::fs::read_to_string(&self.pid_file).ok().and_then(|text| text.trim().parse().ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// It has ended by itself, and its pid may already be another's.
    fn ended(&self) {
        let _ = std::fs::remove_file(&self.pid_file);
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.signal();
        let _ = std::fs::remove_file(&self.pid_file);
    }
}

/// Copies one output stream into the queue until it ends or nobody listens.
async fn pump(channel: Channel, mut from: impl AsyncRead + Unpin, to: mpsc::Sender<(Channel, Bytes)>) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        match from.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) if to.send((channel, buffer.split().freeze())).await.is_err() => return,
            Ok(_) => {}
        }
    }
}

/// Copies the caller's input to the command, to the caller's Close. Returns only when the caller is gone; a command
/// that does not read its input is no error.
async fn feed<R: AsyncRead + Unpin>(
    from: &mut FrameReader<R>,
    to: impl AsyncWrite + Unpin,
) -> Result<Infallible, FrameError> {
    let mut to = Some(to);
    while let Some(frame) = from.read().await? {
        let open = match (frame.kind, &mut to) {
            (Kind::Data, Some(input)) => input.write_all(&frame.payload).await.is_ok(),
            (kind, _) => kind != Kind::Close,
        };
        if !open {
            to = None;
        }
    }
    Err(FrameError::Write { source: std::io::ErrorKind::ConnectionAborted.into() })
}
