//! A connection to PostgreSQL: its wire protocol as far as simple queries need it.
//!
//! Nothing is prepared, copied or encrypted; a query is a text and its answer is rows of texts.

mod wire;

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

pub use self::wire::{Message, WireError, parse, query, startup};
use crate::dial::{Dialer, wait_readable};

/// One row of an answer; `None` is SQL's null.
pub type Row = Vec<Option<String>>;

/// A connection whose server is ready for a query.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    bytes: Vec<u8>,
}

/// Why a query has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryError {
    /// The server refused it. What came before it in the same text is undone as well, unless it committed itself.
    Refused {
        /// The five characters of SQLSTATE.
        code: String,
        /// In the server's words.
        message: String,
    },
    /// The connection is of no further use; whether the query took effect is not known.
    Lost(String),
}

impl std::fmt::Display for QueryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused { code, message } => write!(f, "PostgreSQL refused ({code}): {message}"),
            Self::Lost(why) => write!(f, "the connection to PostgreSQL is lost: {why}"),
        }
    }
}

impl std::error::Error for QueryError {}

impl From<io::Error> for QueryError {
    fn from(error: io::Error) -> Self {
        Self::Lost(error.to_string())
    }
}

impl Client {
    /// Tries every address once, as `user`, with `password` where the server asks for one. For threads that stand at the
    /// dialer's place. `None` if no server was ready within `patience` each.
    pub(crate) fn try_once(dialer: &Dialer, user: &str, password: &str, patience: Duration) -> Option<Self> {
        let mut rest = Vec::new();
        let (_, stream) = dialer.try_once(0, |stream| {
            rest = greet(stream, user, password, patience)?;
            Ok(())
        })?;
        Some(Self { stream, bytes: rest })
    }

    /// Sends one text of one or more statements and waits for its end; the rows of all of them.
    ///
    /// On `Refused` the connection can be used again; after `Lost` it cannot.
    pub fn query(&mut self, text: &str, patience: Duration) -> Result<Vec<Row>, QueryError> {
        self.stream.write_all(&query(text))?;
        let end = Instant::now() + patience;
        let mut rows = Vec::new();
        let mut refused = None;
        loop {
            match next(&mut self.stream, &mut self.bytes, end)? {
                Message::Row(row) => rows.push(row),
                Message::Error { code, message, fatal: true } => {
                    return Err(QueryError::Lost(format!("{message} ({code})")));
                }
                Message::Error { code, message, fatal: false } => {
                    refused = Some(QueryError::Refused { code, message });
                }
                Message::Ready => return refused.map_or(Ok(rows), Err),
                Message::Other(_) => {}
                Message::Password | Message::Welcome => {
                    return Err(QueryError::Lost("it asks who this is in the middle of a query".to_owned()));
                }
            }
        }
    }
}

/// Introduces the client; the bytes that came after the server was ready.
fn greet(stream: &mut TcpStream, user: &str, password: &str, patience: Duration) -> io::Result<Vec<u8>> {
    stream.set_write_timeout(Some(patience))?;
    stream.write_all(&startup(user, "postgres"))?;
    let mut bytes = Vec::new();
    let end = Instant::now() + patience;
    loop {
        match next(stream, &mut bytes, end)? {
            Message::Ready => return Ok(bytes),
            Message::Password => stream.write_all(&wire::password(password))?,
            Message::Error { message, .. } => return Err(io::Error::other(message)),
            Message::Welcome | Message::Row(_) | Message::Other(_) => {}
        }
    }
}

fn next(stream: &mut TcpStream, bytes: &mut Vec<u8>, end: Instant) -> io::Result<Message> {
    let mut buffer = [0; 16 * 1024];
    loop {
        if let Some((message, used)) = parse(bytes).map_err(io::Error::other)? {
            bytes.drain(..used);
            return Ok(message);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        if !wait_readable(stream, left)? {
            continue;
        }
        match stream.read(&mut buffer)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read => bytes.extend_from_slice(&buffer[..read]),
        }
    }
}
