//! A new key for this site, and new keys of others.
//!
//! ```text
//! site A, with key 1                                   site B, paired with key 1
//!   makes key 2 beside key 1, durably
//!   link with key 1: Next { key 2 } ─────────────────►  notes it, durably: takes both from now on
//!   notes that B knows  ◄───────────────────── Noted
//!   ... until every paired site knows, or --forget
//!   key 2 takes the place of key 1, in one step
//!   any link with key 2 ─────────────────────────────►  key 2 is A's key; key 1 opens nothing any more
//! ```
//! Each step may be interrupted and is done again: that key 2 is there means that a rotation is under way. A site that
//! cannot be reached holds it up, and is asked again until it answers; until then both sides go on with key 1.

use std::collections::BTreeMap;
use std::sync::Arc;

use ums_model::error::{ErrorCode, WireError};
use ums_model::message::KeyMessage;
use ums_model::names::Fingerprint;
use ums_sites::adapter::SiteAdapter;
use ums_transfer::identity::Identity;
use ums_transfer::link::{Link, Purpose};

use crate::core::Core;
use crate::failure;
use crate::journal::{Heard, PairedRow};
use crate::settle::next_pause;
use crate::view::RotationView;

/// Gives this site a new key and tells every paired site of it. `Ok`: it holds, or waits for the sites that it names;
/// then it goes on by itself. With `forget` it does not wait: those sites have to be paired anew. Safe to repeat.
pub(crate) async fn rotate<S: SiteAdapter>(
    core: &Arc<Core<S>>,
    forget: bool,
) -> Result<RotationView, WireError> {
    let next = prepare(core).await?;
    let view = advance(core, &next, forget).await?;
    attend(core);
    Ok(view)
}

/// Goes on with what was under way when the daemon ended, and with telling what was not told.
pub(crate) fn attend<S: SiteAdapter>(core: &Arc<Core<S>>) {
    let core = Arc::clone(core);
    core.tasks.clone().spawn(async move {
        let mut pause = core.config.deadlines.retry_least;
        while !turn(&core).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the new key of this site has still to be told");
            false
        }) {
            tokio::select! {
                biased;
                () = core.stopping.cancelled() => return,
                () = tokio::time::sleep(pause) => pause = next_pause(pause, core.config.deadlines.retry_most),
            }
        }
    });
}

/// One turn of what is left to do. `true`: nothing is.
async fn turn<S: SiteAdapter>(core: &Arc<Core<S>>) -> Result<bool, WireError> {
    let dir = core.config.identity_dir();
    if let Some(next) = blocking(move || Identity::next(&dir)).await? {
        advance(core, &next, false).await?;
        return Ok(false);
    }
    show(core).await
}

async fn prepare<S: SiteAdapter>(core: &Core<S>) -> Result<Identity, WireError> {
    let _one = core.rotating.lock().await;
    let dir = core.config.identity_dir();
    blocking(move || Identity::make_next(&dir)).await
}

/// Tells those who do not know yet; changes over once all know.
async fn advance<S: SiteAdapter>(
    core: &Core<S>,
    next: &Identity,
    forget: bool,
) -> Result<RotationView, WireError> {
    let _one = core.rotating.lock().await;
    let key = next.fingerprint();
    if core.identity().fingerprint() == key {
        return Ok(RotationView { fingerprint: key, holds: true, waiting: Vec::new() });
    }
    let mut heard = heard(core, key).await?;
    let mut waiting = Vec::new();
    for peer in core.peers.all() {
        if heard.contains_key(&peer.fingerprint) {
            continue;
        }
        match tell(core, &peer, key).await {
            Ok(()) => {
                let note = core.journal.has_heard(key, peer.fingerprint, Heard::Noted);
                note.await.map_err(|error| failure::journal(&error))?;
                heard.insert(peer.fingerprint, Heard::Noted);
            }
            Err(error) => {
                tracing::info!(site = %peer.name, %error, "a site does not know the next key of this one yet");
                waiting.push(peer.name);
            }
        }
    }
    let holds = waiting.is_empty() || forget;
    if holds {
        let dir = core.config.identity_dir();
        let changed = blocking(move || Identity::promote_next(&dir)).await?;
        tracing::info!(fingerprint = %changed.fingerprint(), "this site has a new key");
        core.change_identity(changed);
    }
    Ok(RotationView { fingerprint: key, holds, waiting })
}

async fn tell<S: SiteAdapter>(core: &Core<S>, peer: &PairedRow, key: Fingerprint) -> Result<(), WireError> {
    let cut = |error| failure::cut(&peer.name, "telling it the next key of this site", &error);
    let mut link = core.dial(peer, Purpose::Rotate).await?;
    link.frames.send(&KeyMessage::Next { fingerprint: key }).await.map_err(cut)?;
    match link.frames.expect(core.config.deadlines.answer).await.map_err(cut)? {
        KeyMessage::Noted { fingerprint } if fingerprint == key => Ok(()),
        KeyMessage::Refused { error } => Err(error),
        KeyMessage::Next { .. } | KeyMessage::Noted { .. } => {
            Err(WireError::new(ErrorCode::Internal, format!("site {} confirms another key", peer.name)))
        }
    }
}

/// Lets every site that knows the new key see it, so that the old one opens nothing there any more. `true`: all have.
async fn show<S: SiteAdapter>(core: &Core<S>) -> Result<bool, WireError> {
    let key = core.identity().fingerprint();
    let mut all = true;
    for (site, how) in heard(core, key).await? {
        let Some(peer) = core.peers.by_fingerprint(&site).filter(|_| how == Heard::Noted) else { continue };
        match core.dial(&peer, Purpose::Probe).await {
            Ok(_) => {
                let note = core.journal.has_heard(key, site, Heard::Used);
                note.await.map_err(|error| failure::journal(&error))?;
            }
            Err(error) => {
                tracing::info!(site = %peer.name, %error, "a site has not seen the new key of this one yet");
                all = false;
            }
        }
    }
    Ok(all)
}

async fn heard<S: SiteAdapter>(
    core: &Core<S>,
    key: Fingerprint,
) -> Result<BTreeMap<Fingerprint, Heard>, WireError> {
    core.journal.heard(key).await.map_err(|error| failure::journal(&error))
}

/// Serves a paired site that announces its next key.
pub(crate) async fn serve<S: SiteAdapter>(core: &Core<S>, mut link: Link) -> Result<(), WireError> {
    let name = link.peer.site.clone();
    let cut = |error| failure::cut(&name, "hearing its next key", &error);
    let answer = match link.frames.expect(core.config.deadlines.answer).await.map_err(cut)? {
        KeyMessage::Next { fingerprint } => match note(core, &link.peer.fingerprint, fingerprint).await {
            Ok(()) => KeyMessage::Noted { fingerprint },
            Err(error) => KeyMessage::Refused { error },
        },
        _ => return Err(WireError::new(ErrorCode::BadRequest, format!("site {name} announces no key"))),
    };
    link.frames.send(&answer).await.map_err(cut)?;
    link.close().await.map_err(cut)
}

async fn note<S: SiteAdapter>(
    core: &Core<S>,
    from: &Fingerprint,
    next: Fingerprint,
) -> Result<(), WireError> {
    let peer = core.peers.by_fingerprint(from).ok_or_else(|| {
        WireError::new(
            ErrorCode::NotPaired,
            "the site that announces a key is not paired any more".to_owned(),
        )
    })?;
    if core.peers.next_of(&peer.fingerprint) == Some(next) {
        return Ok(());
    }
    // A key of somebody else must not become one of this site: whatever is bound to it would be.
    if core.peers.is_taken(&next) || core.identity().fingerprint() == next {
        let message = format!("the key that site {} announces is that of another site", peer.name);
        return Err(WireError::new(ErrorCode::Refused, message));
    }
    let noted = core.journal.note_next_key(peer.fingerprint, next);
    noted.await.map_err(|error| failure::journal(&error))?;
    core.peers.reload(&core.journal).await.map_err(|error| failure::journal(&error))?;
    tracing::info!(site = %peer.name, %next, "a site has announced its next key");
    Ok(())
}

impl<S: SiteAdapter> Core<S> {
    /// Takes a key over that a paired site has announced and now used; any other key is left as it is.
    pub(crate) async fn adopt(&self, key: &Fingerprint) -> Result<(), WireError> {
        let Some(before) = self.peers.announced(key) else { return Ok(()) };
        self.journal.adopt_key(before, *key).await.map_err(|error| failure::journal(&error))?;
        self.peers.reload(&self.journal).await.map_err(|error| failure::journal(&error))?;
        self.policies.reload(&self.journal).await.map_err(|error| failure::journal(&error))?;
        tracing::info!(%before, %key, "a site has a new key");
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ums_transfer::identity::IdentityError> + Send + 'static,
) -> Result<T, WireError> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|error| WireError::new(ErrorCode::Internal, error.to_string()))?;
    done.map_err(|error| {
        WireError::new(
            ErrorCode::Internal,
            format!("cannot change the key of this site: {}", failure::chain(&error)),
        )
    })
}
