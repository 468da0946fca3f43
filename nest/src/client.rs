//! The site's side of a nest's socket.

use std::path::Path;
use std::time::Duration;

use tokio::io::{ReadHalf, WriteHalf, split};
use tokio::net::UnixStream;
use ums_model::error::{ErrorCode, WireError};
use ums_transfer::Deadlines;
use ums_transfer::frame::Conversation;

use crate::protocol::{Reply, Request};

/// Pause between attempts to reach a nest that is just starting.
const RETRY_PAUSE: Duration = Duration::from_millis(5);
/// A Unix socket does not lose bytes, and its end is noticed at once: silence there only means that work takes long, and
/// whoever wants no more of it hangs up. As good as no end.
const ENDLESS: Duration = Duration::from_secs(24 * 3600);

/// Both directions of a connection to a nest.
pub type NestConversation = Conversation<ReadHalf<UnixStream>, WriteHalf<UnixStream>>;

/// Deadlines for a Unix socket.
pub fn local_deadlines() -> Deadlines {
    Deadlines { idle: ENDLESS, stall: ENDLESS, ..Deadlines::default() }
}

/// Connects, waiting up to `patience` for a nest that starts or is being restarted by its keeper.
pub async fn connect(socket: &Path, patience: Duration) -> Result<UnixStream, WireError> {
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        match UnixStream::connect(socket).await {
            Ok(stream) => return Ok(stream),
            Err(error) if tokio::time::Instant::now() >= deadline => {
                return Err(unreachable(socket, &error));
            }
            Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
        }
    }
}

/// A nest that does not come up has said why in its log.
fn unreachable(socket: &Path, error: &std::io::Error) -> WireError {
    let diagnosis =
        socket.parent().map(|dir| crate::layout::NestDir::new(dir).diagnosis()).unwrap_or_default();
    let said = std::fs::read_to_string(&diagnosis).unwrap_or_default();
    let said = said
        .lines()
        .rev()
        .find(|line| line.starts_with("error:"))
        .map_or_else(String::new, |line| format!("; it said: {line}"));
    let message = format!("cannot reach the nest at {}: {error}{said}", socket.display());
    WireError::new(ErrorCode::Unreachable, message)
        .with_hint(format!("look into {}, then ums doctor", diagnosis.display()))
}

/// Sends a request and returns the connection, for requests that are followed by a stream.
pub async fn open(socket: &Path, request: &Request, patience: Duration) -> Result<UnixStream, WireError> {
    let mut stream = connect(socket, patience).await?;
    let mut writer = ums_transfer::frame::FrameWriter::new(&mut stream, &local_deadlines());
    let sent = async {
        writer.write_control(request).await?;
        writer.flush().await
    };
    sent.await.map_err(|error| broken(&error))?;
    Ok(stream)
}

/// Asks for something, waits up to `patience` for a nest to ask, and up to `within` for its answer. Err also when the nest refused; what holds then is
/// the request's contract. A nest that dies in between is an Err after which nothing is known: ask for its status.
pub async fn ask(
    socket: &Path,
    request: &Request,
    patience: Duration,
    within: Duration,
) -> Result<Reply, WireError> {
    let stream = connect(socket, patience.min(within)).await?;
    let (reader, writer) = split(stream);
    let mut conversation: NestConversation = Conversation::new(reader, writer, &local_deadlines());
    conversation.send(request).await.map_err(|error| broken(&error))?;
    match conversation.expect::<Reply>(within).await.map_err(|error| broken(&error))? {
        Reply::Failed { error } => Err(error),
        reply => Ok(reply),
    }
}

fn broken(error: &ums_transfer::frame::FrameError) -> WireError {
    WireError::new(ErrorCode::Internal, format!("the nest did not answer: {}", crate::server::chain(error)))
        .with_hint("ums status")
}
