//! Both directions together: ask, answer, stay alive.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::{FrameError, FrameReader, FrameWriter};
use crate::Deadlines;

/// Two directions of one connection. The halves are open to use, because a migration streams one way while it
/// listens the other: `let Conversation { reader, writer } = &mut conversation`.
#[derive(Debug)]
pub struct Conversation<R, W> {
    /// What the other side says.
    pub reader: FrameReader<R>,
    /// What we say.
    pub writer: FrameWriter<W>,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Conversation<R, W> {
    /// Frames over the two halves of a connection.
    pub fn new(reader: R, writer: W, deadlines: &Deadlines) -> Self {
        Self { reader: FrameReader::new(reader, deadlines), writer: FrameWriter::new(writer, deadlines) }
    }

    /// Sends one message now. Not cancel safe in one respect: dropped before it is ready, the message may have been
    /// sent or may be sent by the next call; the stream stays in step either way.
    pub async fn send<T: Serialize>(&mut self, message: &T) -> Result<(), FrameError> {
        self.writer.write_control(message).await?;
        self.writer.flush().await
    }

    /// The next message, whenever it comes; `None` when the other side closed cleanly. Sends keep-alive frames
    /// while it waits. Cancel safe.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let Self { reader, writer } = self;
        writer.alive_while(reader.read_control()).await?
    }

    /// The next message, which must come within `within`; a clean end is [`FrameError::Ended`], a message that does
    /// not come [`FrameError::Silent`], even if the other side is alive. Cancel safe.
    pub async fn expect<T: DeserializeOwned>(&mut self, within: Duration) -> Result<T, FrameError> {
        let message = timeout(within, self.next()).await.map_err(|_| FrameError::Silent { after: within })?;
        message?.ok_or(FrameError::Ended)
    }
}
