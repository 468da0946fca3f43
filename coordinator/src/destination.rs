//! Taking a service in: one migration, as seen from the site that it comes to.
//!
//! A link for a migration is a row of messages. An offer leads through the straight part, from the reservation to
//! HELD ([`steps`]), which lives and dies with its link: whatever goes wrong in it, REFUSED is recorded, what exists
//! of the copy is discarded, and the source is told why. Every other message is a word about what the journal knows
//! ([`words`]), and may come over any link, at any time, any number of times.
//!
//! When a link ends while the copy is HELD, the copy stays, and this site asks the source from time to time.

mod image;
mod lost;
mod restore;
mod steps;
mod words;

use std::sync::Arc;

use ums_model::error::{ErrorCode, WireError};
use ums_model::message::PeerMessage;
use ums_model::names::MigrationId;
use ums_sites::adapter::SiteAdapter;
use ums_transfer::link::Link;

use crate::core::Core;
use crate::failure;
use crate::recovery::attend;

pub(crate) use lost::correct_after_restart;

/// Serves one link that a paired site opened for the migration `id`, until that site closes it. `Err` is for this
/// site's log; the other one was told what it needs.
pub(crate) async fn serve<S: SiteAdapter>(
    core: &Arc<Core<S>>,
    mut link: Link,
    id: MigrationId,
) -> Result<(), WireError> {
    let mut counted = 0;
    let served = serve_messages(core, &mut link, id, &mut counted).await;
    count(core, &link, id, &mut counted).await;
    if let Some(chronicle) = core.chronicles.of(id) {
        attend(core, chronicle.row());
    }
    served
}

/// Adds what went over the link since the last time to the migration's numbers; `counted` is how much that was.
async fn count<S: SiteAdapter>(core: &Arc<Core<S>>, link: &Link, id: MigrationId, counted: &mut u64) {
    let total = link.frames.writer.sent() + link.frames.reader.received();
    if let Some(chronicle) = core.chronicles.of(id) {
        chronicle.add_sent(total - *counted).await;
        *counted = total;
    }
}

async fn serve_messages<S: SiteAdapter>(
    core: &Arc<Core<S>>,
    link: &mut Link,
    id: MigrationId,
    counted: &mut u64,
) -> Result<(), WireError> {
    let name = link.peer.site.clone();
    let cut = |error| failure::cut(&name, "waiting for its word", &error);
    let out = core.peers.end_of(&link.peer.fingerprint);
    let mut is_out = core.peers.by_fingerprint(&link.peer.fingerprint).is_none();
    if is_out {
        must_be_its_own(core, link, id).await?;
    }
    loop {
        let message: PeerMessage = tokio::select! {
            biased;
            () = core.stopping.cancelled() => return Ok(()),
            () = out.cancelled(), if !is_out => {
                is_out = true;
                must_be_its_own(core, link, id).await?;
                continue;
            }
            message = link.frames.next() => match message.map_err(cut)? {
                Some(message) => message,
                None => return Ok(()),
            },
        };
        // Before it is acted on: the last one concludes the report.
        count(core, link, id, counted).await;
        // Revoking takes effect at the next message, not only at the next connection.
        if !core.peers.trusts(&link.peer.fingerprint) {
            return Err(WireError::new(ErrorCode::NotPaired, format!("site {name} is not paired any more")));
        }
        match message.about() {
            Some(about) if about.migration == id => {}
            _ => {
                let message = format!("site {name} speaks of another migration than {id}");
                return Err(WireError::new(ErrorCode::BadRequest, message));
            }
        }
        match message {
            PeerMessage::Offer { about, offer } => steps::offered(core, link, about, *offer).await?,
            message => words::told(core, link, &message).await?,
        }
    }
}

/// A revoked site is heard about its own half of a migration that was under way, and about nothing else.
async fn must_be_its_own<S: SiteAdapter>(
    core: &Core<S>,
    link: &Link,
    id: MigrationId,
) -> Result<(), WireError> {
    let key = &link.peer.fingerprint;
    let row = core.journal.migration(id).await.map_err(|error| failure::journal(&error))?;
    if core.peers.is_closing(key) && row.is_some_and(|row| core.peers.are_one(&row.peer, key)) {
        return Ok(());
    }
    Err(WireError::new(ErrorCode::NotPaired, format!("site {} is not paired any more", link.peer.site)))
}
