//! Talking to a destination that may give up at any time, for a user who may do so too.

use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use ums_model::error::{ErrorCode, WireError};
use ums_model::message::PeerMessage;
use ums_model::names::SiteName;
use ums_transfer::link::{LinkReader, LinkWriter};

use crate::failure;

/// Awaits `work`, but not beyond the wish to stop. Dropping `work` in the middle must do no harm.
pub(super) async fn unless<T>(
    stop: &CancellationToken,
    work: impl Future<Output = Result<T, WireError>>,
) -> Result<T, WireError> {
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(stopped()),
        result = work => result,
    }
}

/// Awaits work that takes time here, while the destination hears that this site is alive. Dropping `work` in the middle
/// must do no harm: that is what happens if the link breaks.
pub(super) async fn while_alive<T>(
    writer: &mut LinkWriter,
    site: &SiteName,
    work: impl Future<Output = Result<T, WireError>>,
) -> Result<T, WireError> {
    let alive = writer.alive_while(work).await;
    alive.unwrap_or_else(|error| Err(failure::cut(site, "keeping it alive", &error)))
}

/// Awaits work that writes to the link. What the destination says meanwhile can only be that it gives up, and it says
/// why better than a broken pipe does: for that it is given `patience`.
pub(super) async fn while_listening<T>(
    reader: &mut LinkReader,
    site: &SiteName,
    patience: Duration,
    work: impl Future<Output = Result<T, WireError>>,
) -> Result<T, WireError> {
    let result = tokio::select! {
        biased;
        result = work => result,
        said = reader.read_control::<PeerMessage>() => {
            return Err(match said {
                Ok(Some(PeerMessage::Refused { error, .. })) => error,
                Ok(Some(_)) => WireError::new(ErrorCode::Internal, format!("site {site} spoke out of turn")),
                Ok(None) => WireError::new(ErrorCode::LinkCut, format!("site {site} closed the link")),
                Err(error) => failure::cut(site, "sending to it", &error),
            });
        }
    };
    match result {
        Ok(done) => Ok(done),
        Err(error) if error.code == ErrorCode::LinkCut => {
            Err(last_word(reader, patience).await.unwrap_or(error))
        }
        Err(error) => Err(error),
    }
}

/// Whether the link is not known to be broken now, and the destination has not given up. No proof that it works: that
/// is what the answer to the next message is for.
pub(super) fn still_whole(reader: &mut LinkReader, site: &SiteName) -> Result<(), WireError> {
    match reader.read_control::<PeerMessage>().now_or_never() {
        None => Ok(()),
        Some(Ok(Some(PeerMessage::Refused { error, .. }))) => Err(error),
        Some(Ok(Some(_))) => {
            Err(WireError::new(ErrorCode::Internal, format!("site {site} spoke out of turn")))
        }
        Some(Ok(None)) => Err(WireError::new(ErrorCode::LinkCut, format!("site {site} closed the link"))),
        Some(Err(error)) => Err(failure::cut(site, "holding the service there", &error)),
    }
}

/// What the destination said before it closed the link.
pub(super) async fn last_word(reader: &mut LinkReader, patience: Duration) -> Option<WireError> {
    match tokio::time::timeout(patience, reader.read_control::<PeerMessage>()).await {
        Ok(Ok(Some(PeerMessage::Refused { error, .. }))) => Some(error),
        _ => None,
    }
}

/// Somebody does not want the migration to go on.
pub(super) fn stopped() -> WireError {
    WireError::new(ErrorCode::Aborted, "the migration was aborted before its commit".to_owned())
}

pub(super) fn hung_up() -> WireError {
    WireError::new(ErrorCode::LinkCut, "the link to the destination was given up".to_owned())
}
