//! One connection to Redis.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::resp::{Reply, encode, parse};
use crate::dial::{Dialer, wait_readable};

/// Longest wait for a single reply of a blocking call.
const REPLY: Duration = Duration::from_secs(20);
/// Longest wait for the answer that proves a new connection.
const GREETING: Duration = Duration::from_millis(200);

/// A connection: what is sent and what has come.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    bytes: Vec<u8>,
    replies: VecDeque<Reply>,
    out: Vec<u8>,
}

/// Proves that Redis is behind a new connection and serves: a `PING` that is answered.
pub fn greet(stream: &mut TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(GREETING))?;
    stream.set_write_timeout(Some(REPLY))?;
    stream.write_all(b"PING\r\n")?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer)?;
    if &answer == b"+PONG\r\n" { Ok(()) } else { Err(io::Error::other("not ready")) }
}

impl Client {
    /// Connects to whichever address serves.
    ///
    /// On `Err` none did within `deadline`.
    pub fn connect(dialer: &Dialer, deadline: Duration) -> Result<Self> {
        Ok(Self::over(dialer.connect(deadline, greet)?))
    }

    /// A client over a connection that [`greet`] found good.
    pub(crate) fn over(stream: TcpStream) -> Self {
        Self { stream, bytes: Vec::new(), replies: VecDeque::new(), out: Vec::new() }
    }

    /// One command, one reply.
    pub fn call(&mut self, words: &[&[u8]]) -> Result<Reply> {
        self.queue(words);
        self.flush()?;
        self.next_reply()
    }

    /// One command and one reply, which may be an error of Redis. `Err` if none came within `patience`: the connection
    /// is of no further use, and whether the command took effect is not known.
    pub fn call_within(&mut self, words: &[&[u8]], patience: Duration) -> io::Result<Reply> {
        self.queue(words);
        self.flush()?;
        match self.receive(patience)? {
            true => self.take().ok_or_else(|| ErrorKind::TimedOut.into()),
            false => Err(ErrorKind::TimedOut.into()),
        }
    }

    /// Adds a command to what the next [`Client::flush`] sends.
    pub(super) fn queue(&mut self, words: &[&[u8]]) {
        encode(words, &mut self.out);
    }

    /// Sends what was queued.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// Waits for the next reply. An error reply is an error.
    pub(super) fn next_reply(&mut self) -> Result<Reply> {
        let reply = match self.receive(REPLY)? {
            true => self.replies.pop_front(),
            false => None,
        };
        match reply.with_context(|| format!("no reply of Redis within {REPLY:?}"))? {
            Reply::Error(error) => bail!("Redis refused: {error}"),
            reply => Ok(reply),
        }
    }

    /// Takes a reply that has come.
    pub(super) fn take(&mut self) -> Option<Reply> {
        self.replies.pop_front()
    }

    /// Waits at most `longest` until there is a reply to take; `false` if none came. `Err` if the connection broke.
    pub(super) fn receive(&mut self, longest: Duration) -> io::Result<bool> {
        let end = std::time::Instant::now() + longest;
        while self.replies.is_empty() {
            let left = end.saturating_duration_since(std::time::Instant::now());
            if !wait_readable(&self.stream, left)? {
                return Ok(false);
            }
            self.read()?;
        }
        Ok(true)
    }

    fn read(&mut self) -> io::Result<()> {
        let mut buffer = [0; 64 * 1024];
        let read = self.stream.read(&mut buffer)?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.bytes.extend_from_slice(&buffer[..read]);
        let mut used = 0;
        while let Some((reply, length)) = parse(&self.bytes[used..]).map_err(io::Error::other)? {
            self.replies.push_back(reply);
            used += length;
        }
        self.bytes.drain(..used);
        Ok(())
    }
}
