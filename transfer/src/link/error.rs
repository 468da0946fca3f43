//! Why there is no link.

use std::time::Duration;

use super::Version;
use crate::frame::FrameError;
use crate::tls::TlsError;

/// Two sites did not come together. `with` is the address at the other end.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are what the messages say")]
pub enum LinkError {
    /// No authenticated connection: unreachable, wrong identity, not paired.
    #[error(transparent)]
    Tls {
        #[from]
        source: TlsError,
    },
    /// The connection failed in the handshake after it.
    #[error("the handshake with {with} failed")]
    Frame { with: String, source: FrameError },
    /// The handshake was not done in time.
    #[error("the handshake with {with} took longer than {} s", after.as_secs_f32())]
    TimedOut { with: String, after: Duration },
    /// One of the two is too old for the other.
    #[error(
        "no common protocol version with {with}: this site speaks {}, the other one {}",
        list(ours),
        list(theirs)
    )]
    NoCommonVersion { with: String, ours: Vec<Version>, theirs: Vec<Version> },
    /// The dialing site wants something that the accepting one does not know.
    #[error("the site that dialed wants a kind of link that {with} does not know")]
    UnknownPurpose { with: String },
    /// The answer is none that this version of the handshake knows.
    #[error("{with} gave an answer to the handshake that this site does not understand")]
    NoAnswer { with: String },
}

fn list(versions: &[Version]) -> String {
    let words: Vec<String> = versions.iter().map(Version::to_string).collect();
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}
