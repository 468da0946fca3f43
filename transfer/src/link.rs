//! An authenticated connection between two paired sites, after the versioned handshake.
//!
//! ```text
//! dialing site                                       accepting site
//!   TCP, TLS 1.3, ALPN ums/1; both pin the other's fingerprint
//!   Hello { versions, software, site, purpose } ───►   picks the highest version that both know
//!   ◄─────────────── Welcome { version, software, site }
//!                 or NoCommonVersion { versions }      both sides fail, naming both lists
//!                 or UnknownPurpose
//!   frames of the picked version, both ways; KeepAlive where nothing else is to be said
//! ```
//!
//! See the crate's documentation for the versioning rule.

mod error;
mod hello;

use tokio::io::{ReadHalf, WriteHalf, split};
use tokio::time::timeout;
use ums_model::names::{Fingerprint, SiteName};

pub use error::LinkError;
use hello::{Answer, Hello, Offer, highest_common};
pub use hello::{Greeting, Purpose, VERSIONS, Version};

use crate::Deadlines;
use crate::frame::{Conversation, FrameError, FrameReader, FrameWriter};
use crate::identity::Identity;
use crate::tls::{self, Accepted, Dial, TlsError, TlsStream, refused_by_peer};

/// What a link reads from.
pub type LinkReader = FrameReader<ReadHalf<TlsStream>>;
/// What a link writes to.
pub type LinkWriter = FrameWriter<WriteHalf<TlsStream>>;
/// The frames of a link, both ways.
pub type LinkFrames = Conversation<ReadHalf<TlsStream>, WriteHalf<TlsStream>>;

/// A connection to a paired site that agreed on a version. Dropping it cuts it; [`Link::close`] ends it cleanly.
#[derive(Debug)]
pub struct Link {
    /// Both directions.
    pub frames: LinkFrames,
    /// The site at the other end.
    pub peer: Peer,
    /// What is spoken.
    pub version: Version,
    /// What the dialing site opened it for.
    pub purpose: Purpose,
}

/// The site at the other end of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Proven by TLS. Trust, and whatever a migration is bound to, rests on this.
    pub fingerprint: Fingerprint,
    /// As it calls itself: for people to read.
    pub site: SiteName,
    /// As it calls its software: for people to read, never to decide by.
    pub software: String,
}

impl Link {
    /// Flushes and ends our direction cleanly.
    pub async fn close(mut self) -> Result<(), FrameError> {
        self.frames.writer.close().await
    }
}

/// Dials a paired site at `address` (`host:port`) and agrees on a version.
///
/// `Ok`: both sides authenticated each other and accepted the link. `Err`: nothing has happened at the other side;
/// safe to repeat. Takes at most the sum of `connect` (once for the name, once per address), `tls` and `hello`.
pub async fn connect(
    address: &str,
    identity: &Identity,
    expected: Fingerprint,
    purpose: Purpose,
    greeting: &Greeting,
    deadlines: &Deadlines,
) -> Result<Link, LinkError> {
    let stream = tls::connect(address, identity, Dial::Link(expected), deadlines).await?;
    let mut frames = frames(stream, deadlines);
    let hello = Hello::new(greeting, purpose);
    let answer = timeout(deadlines.hello, ask(&mut frames, &hello, address)).await;
    let late = |_| LinkError::TimedOut { with: address.to_owned(), after: deadlines.hello };
    match answer.map_err(late)?? {
        Answer::Welcome { version, software, site } if greeting.versions.contains(&version) => {
            let peer = Peer { fingerprint: expected, site, software: hello::printable(&software) };
            Ok(Link { frames, peer, version, purpose })
        }
        Answer::NoCommonVersion { versions } => Err(LinkError::NoCommonVersion {
            with: address.to_owned(),
            ours: greeting.versions.clone(),
            theirs: versions,
        }),
        Answer::UnknownPurpose => Err(LinkError::UnknownPurpose { with: address.to_owned() }),
        Answer::Welcome { .. } | Answer::Unknown => Err(LinkError::NoAnswer { with: address.to_owned() }),
    }
}

/// Takes over a connection that [`tls::ServerTls::accept`] authenticated for [`tls::Alpn::Link`], and agrees on a
/// version with the site that dialed.
///
/// `Err` concerns this connection only, and the other side was told why if it could be. Takes at most `hello`.
pub async fn accept(
    accepted: Accepted,
    greeting: &Greeting,
    deadlines: &Deadlines,
) -> Result<Link, LinkError> {
    let with = accepted.address.to_string();
    let fingerprint = accepted
        .peer
        .ok_or_else(|| LinkError::Tls { source: TlsError::NoCertificate { address: with.clone() } })?;
    let mut frames = frames(accepted.stream, deadlines);
    let answered = timeout(deadlines.hello, answer(&mut frames, greeting, &with)).await;
    let (hello, version) = answered.map_err(|_| LinkError::TimedOut { with, after: deadlines.hello })??;
    let peer = Peer { fingerprint, site: hello.site, software: hello::printable(&hello.software) };
    Ok(Link { frames, peer, version, purpose: hello.purpose })
}

fn frames(stream: TlsStream, deadlines: &Deadlines) -> LinkFrames {
    let (reader, writer) = split(stream);
    Conversation::new(reader, writer, deadlines)
}

/// Says hello and hears the answer, or that our certificate is not accepted.
async fn ask(frames: &mut LinkFrames, hello: &Hello, with: &str) -> Result<Answer, LinkError> {
    let failed = |source| LinkError::Frame { with: with.to_owned(), source };
    // A server that refused our certificate has closed the connection by now, and writing may fail first. Only
    // reading tells why, so it is tried in any case.
    let sent = frames.send(hello).await;
    match frames.reader.read_control::<Answer>().await {
        Ok(Some(answer)) => Ok(answer),
        Err(FrameError::Read { source }) if refused_by_peer(&source) => {
            Err(TlsError::NotPaired { address: with.to_owned() }.into())
        }
        Ok(None) => Err(failed(sent.err().unwrap_or(FrameError::Ended))),
        Err(error) => Err(failed(sent.err().unwrap_or(error))),
    }
}

/// Hears the hello and answers it. `Ok` after a welcome only.
async fn answer(
    frames: &mut LinkFrames,
    greeting: &Greeting,
    with: &str,
) -> Result<(Hello, Version), LinkError> {
    let failed = |source| LinkError::Frame { with: with.to_owned(), source };
    let frame = frames.reader.read().await.map_err(failed)?.ok_or_else(|| failed(FrameError::Ended))?;
    // The versions are read on their own: the rest of the hello may be that of a version we do not know.
    let Offer { versions } = frame.control().map_err(failed)?;
    let Some(version) = highest_common(&greeting.versions, &versions) else {
        frames
            .send(&Answer::NoCommonVersion { versions: greeting.versions.clone() })
            .await
            .map_err(failed)?;
        frames.writer.close().await.map_err(failed)?;
        let ours = greeting.versions.clone();
        return Err(LinkError::NoCommonVersion { with: with.to_owned(), ours, theirs: versions });
    };
    let hello: Hello = frame.control().map_err(failed)?;
    if hello.purpose == Purpose::Unknown {
        frames.send(&Answer::UnknownPurpose).await.map_err(failed)?;
        frames.writer.close().await.map_err(failed)?;
        return Err(LinkError::UnknownPurpose { with: with.to_owned() });
    }
    let Greeting { software, site, .. } = greeting.clone();
    frames.send(&Answer::Welcome { version, software, site }).await.map_err(failed)?;
    Ok((hello, version))
}
