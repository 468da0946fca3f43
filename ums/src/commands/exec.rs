//! `ums exec`: a command inside a service, with this terminal's stdin, stdout and stderr.

use std::io::Write as _;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, split};
use ums_model::error::{ErrorCode, WireError};
use ums_nest::client::local_deadlines;
use ums_nest::exec::{ExecReply, ExecRequest, STDERR, STDIN, STDOUT};
use ums_nest::protocol::Request;
use ums_transfer::frame::{Frame, FrameReader, FrameWriter, Kind};

use super::{Context, segment};
use crate::client::{CallResult, chain};
use crate::render;

/// How much of stdin is sent at once, in bytes.
const CHUNK: usize = 64 * 1024;

/// Runs the command and answers its exit code.
pub(crate) async fn run(
    context: &Context,
    name: &str,
    env: Vec<String>,
    workdir: Option<String>,
    args: Vec<String>,
) -> CallResult<u8> {
    let path = format!("/v1/services/{}/exec", segment(name));
    let (read, write) = split(context.daemon.upgrade(&path, "ums-exec").await?);
    let (mut reader, mut writer) =
        (FrameReader::new(read, &local_deadlines()), FrameWriter::new(write, &local_deadlines()));
    let request = Request::Exec(ExecRequest { args, env, workdir });
    writer.write_control(&request).await.map_err(|error| broken(&error))?;
    writer.flush().await.map_err(|error| broken(&error))?;
    let input = tokio::spawn(send_input(writer));
    let reply = receive(&mut reader, context.json).await;
    input.abort();
    match reply? {
        ExecReply::Exited(code) => Ok(u8::try_from(code).unwrap_or(u8::MAX)),
        ExecReply::Failed(error) => Err(error),
    }
}

async fn send_input<W: tokio::io::AsyncWrite + Unpin>(mut writer: FrameWriter<W>) {
    let mut stdin = tokio::io::stdin();
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        match stdin.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {
                let sent = writer.write_data(STDIN, buffer.split().freeze()).await;
                if sent.is_err() || writer.flush().await.is_err() {
                    return;
                }
            }
        }
    }
    let end = Frame { kind: Kind::Close, channel: STDIN, payload: bytes::Bytes::new() };
    if writer.write(end).await.is_ok() {
        let _ = writer.flush().await;
    }
    // The connection must stay whole until the command has ended; whoever runs us ends us then.
    std::future::pending::<()>().await;
}

async fn receive<R: tokio::io::AsyncRead + Unpin>(
    reader: &mut FrameReader<R>,
    json: bool,
) -> CallResult<ExecReply> {
    loop {
        let frame = reader.read().await.map_err(|error| broken(&error))?;
        let frame = frame
            .ok_or_else(|| WireError::new(ErrorCode::Aborted, "the nest hung up before the command ended"))?;
        match frame.kind {
            Kind::Data if json => {
                let stream = if frame.channel == STDERR { "stderr" } else { "stdout" };
                render::json(&serde_json::json!({ stream: String::from_utf8_lossy(&frame.payload) }));
            }
            Kind::Data => {
                let written = match frame.channel {
                    STDOUT => {
                        std::io::stdout().write_all(&frame.payload).and_then(|()| std::io::stdout().flush())
                    }
                    _ => std::io::stderr().write_all(&frame.payload),
                };
                // Nobody reads any more: the command goes on, its output is dropped.
                let _ = written;
            }
            Kind::Control => return frame.control().map_err(|error| broken(&error)),
            _ => {}
        }
    }
}

fn broken(error: &ums_transfer::frame::FrameError) -> WireError {
    WireError::new(ErrorCode::Unreachable, format!("the connection to the service broke: {}", chain(error)))
}
