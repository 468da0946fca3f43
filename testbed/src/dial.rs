//! Where a client stands, and where it looks for a service that may have moved.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::ns::Ns;

/// A connection inside the lab is made in a fraction of a millisecond, or its packets fall into a hole. Trying again
/// soon finds the service soon after it is back.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(20);
/// Between two rounds over all addresses.
const PAUSE: Duration = Duration::from_millis(2);

/// Waits until `stream` has something to read (or has ended), at most `longest`; exact to the microsecond where a
/// socket's own timeout is rounded up to the kernel's tick.
pub(crate) fn wait_readable(stream: &TcpStream, longest: Duration) -> io::Result<bool> {
    let timeout = Timespec::try_from(longest).map_err(io::Error::other)?;
    let mut fds = [PollFd::new(stream, PollFlags::IN)];
    match poll(&mut fds, Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A client's place and the addresses it tries: those of all sites, because a service that moved answers at another.
#[derive(Debug, Clone)]
pub struct Dialer {
    ns: Option<Ns>,
    addresses: Vec<SocketAddr>,
}

impl Dialer {
    /// A client in `ns`.
    pub fn inside(ns: &Ns, addresses: Vec<SocketAddr>) -> Self {
        Self { ns: Some(ns.clone()), addresses }
    }

    /// A client in the test's own network.
    pub fn outside(addresses: Vec<SocketAddr>) -> Self {
        Self { ns: None, addresses }
    }

    /// The addresses, in the order in which they are tried.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The same client, interested in one address only.
    pub fn only(&self, address: SocketAddr) -> Self {
        Self { ns: self.ns.clone(), addresses: vec![address] }
    }

    /// Moves the calling thread to the client's place.
    pub(crate) fn enter(&self) -> Result<()> {
        self.ns.as_ref().map_or(Ok(()), Ns::enter)
    }

    /// Tries every address once, beginning with the `first`-th, and returns the first connection on which `greet`
    /// succeeds: a connection alone does not prove that anybody is behind it. For threads that did [`Self::enter`].
    pub(crate) fn try_once(
        &self,
        first: usize,
        mut greet: impl FnMut(&mut TcpStream) -> io::Result<()>,
    ) -> Option<(usize, TcpStream)> {
        let count = self.addresses.len();
        (0..count).map(|step| (first + step) % count).find_map(|index| {
            let mut stream = TcpStream::connect_timeout(&self.addresses[index], CONNECT_TIMEOUT).ok()?;
            stream.set_nodelay(true).ok()?;
            greet(&mut stream).ok()?;
            Some((index, stream))
        })
    }

    /// Connects to whichever address is alive, trying until `deadline` has passed.
    ///
    /// On `Err` no address let `greet` succeed in that time.
    pub fn connect(
        &self,
        deadline: Duration,
        mut greet: impl FnMut(&mut TcpStream) -> io::Result<()> + Send,
    ) -> Result<TcpStream> {
        let mut search = || {
            let end = Instant::now() + deadline;
            let mut last = None;
            loop {
                let found = self
                    .try_once(0, |stream| greet(stream).inspect_err(|error| last = Some(error.to_string())));
                match found {
                    Some((_, stream)) => return Ok(stream),
                    None if Instant::now() >= end => bail!("{}", last.as_deref().unwrap_or("no connection")),
                    None => thread::sleep(PAUSE),
                }
            }
        };
        let found = match &self.ns {
            Some(ns) => ns.run(search)?,
            None => search(),
        };
        found.with_context(|| format!("nobody answers at {} within {deadline:?}", list(&self.addresses)))
    }
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" or ")
}
