//! Questions between two Coordinators: facts for a plan, the speed of the link, what a journal says.
//!
//! ```text
//! asking site                              answering site
//!   FactsRequest ─────────────────────────► Facts
//!   Query ────────────────────────────────► State          also measures the round trip
//!   data frames, then Query ──────────────► State          the data is thrown away; measures the speed
//! ```
//! Nothing of this changes anything at the answering site.

use std::time::Instant;

use tokio::time::timeout;
use ums_model::error::{ErrorCode, WireError};
use ums_model::facts::Answer;
use ums_model::message::{About, PeerMessage};
use ums_model::names::{Digest, Epoch, Fingerprint, MigrationId, ServiceName};
use ums_model::plan::{Blocker, LinkFacts, SiteFacts};
use ums_model::policy::Wish;
use ums_sites::adapter::SiteAdapter;
use ums_transfer::frame::{Channel, FrameError, Kind, MAX_DATA};
use ums_transfer::link::{Link, Purpose, Version};

use crate::clock::ms;
use crate::core::Core;
use crate::failure;
use crate::journal::PairedRow;

/// How much is sent to find out how fast a link is: 16 ms at 1 Gbit/s, two seconds at 8 Mbit/s. On a long link the
/// connection is still speeding up meanwhile, so the result is on the low side.
const MEASURE_BYTES: usize = 2 * 1024 * 1024;
/// Most bytes that an asking site may have thrown away here on one link.
const MEASURE_MOST: usize = 16 * MEASURE_BYTES;

/// Most blockers that are taken over from another site: it may say what it likes.
const BLOCKERS: usize = 32;

/// What another site said about itself, and how far away it is.
#[derive(Debug)]
pub(crate) struct There {
    /// The site.
    pub(crate) facts: SiteFacts,
    /// Whether the image is there completely.
    pub(crate) image_present: bool,
    /// The link to it.
    pub(crate) link: LinkFacts,
    /// What its policy has against the service.
    pub(crate) blockers: Vec<Blocker>,
}

/// Asks a paired site about itself. Touches nothing there; safe to repeat.
pub(crate) async fn ask_facts<S: SiteAdapter>(
    core: &Core<S>,
    peer: &PairedRow,
    wish: &Wish,
    image: &Digest,
) -> Result<There, WireError> {
    let service = &wish.service;
    let mut link = core.dial(peer, Purpose::Control).await?;
    let cut = |error: FrameError| failure::cut(&peer.name, "asking it about itself", &error);
    let answer = core.config.deadlines.answer;
    link.frames
        .send(&PeerMessage::FactsRequest {
            service: service.clone(),
            image: *image,
            wish: Some(Box::new(wish.clone())),
        })
        .await
        .map_err(cut)?;
    let (mut facts, image_present, blockers) = match link.frames.expect(answer).await.map_err(cut)? {
        PeerMessage::Facts { site, image_present, blockers } => (*site, image_present, blockers),
        PeerMessage::Refused { error, .. } => return Err(error),
        _ => return Err(unexpected(peer)),
    };
    // Under the name by which it is paired here, whatever it calls itself now.
    facts.name = peer.name.clone();
    facts.fingerprint = peer.fingerprint;
    let measured = timeout(answer, measure(&mut link, service));
    let link_facts = measured.await.unwrap_or(Err(FrameError::Silent { after: answer })).map_err(cut)?;
    // What was asked is answered.
    let _ = timeout(answer, link.close()).await;
    let blockers = blockers.into_iter().take(BLOCKERS).collect();
    Ok(There { facts, image_present, link: link_facts, blockers })
}

/// Asks a paired site what its journal says. Touches nothing there; safe to repeat.
pub(crate) async fn ask_state<S: SiteAdapter>(
    core: &Core<S>,
    peer: &PairedRow,
    about: About,
) -> Result<Answer, WireError> {
    let mut link = core.dial(peer, Purpose::Control).await?;
    let cut = |error: FrameError| failure::cut(&peer.name, "asking what it knows", &error);
    link.frames.send(&PeerMessage::Query { about: about.clone() }).await.map_err(cut)?;
    let message: PeerMessage = link.frames.expect(core.config.deadlines.answer).await.map_err(cut)?;
    let _ = timeout(core.config.deadlines.answer, link.close()).await;
    match message {
        PeerMessage::State { about: again, answer } if again == about => Ok(answer),
        PeerMessage::Refused { error, .. } => Err(error),
        _ => Err(unexpected(peer)),
    }
}

fn unexpected(peer: &PairedRow) -> WireError {
    WireError::new(ErrorCode::Internal, format!("site {} gave an answer to another question", peer.name))
}

async fn measure(link: &mut Link, service: &ServiceName) -> Result<LinkFacts, FrameError> {
    // About nothing: no site has ever heard of a migration of this id.
    let about = About {
        migration: MigrationId::new(uuid::Uuid::now_v7()),
        service: service.clone(),
        epoch: Epoch::ZERO,
    };
    let began = Instant::now();
    round_trip(link, &about).await?;
    let rtt = began.elapsed();
    let began = Instant::now();
    let block = axum::body::Bytes::from(vec![0; MAX_DATA]);
    for _ in 0..MEASURE_BYTES / MAX_DATA {
        link.frames.writer.write_data(Channel(1), block.clone()).await?;
    }
    round_trip(link, &about).await?;
    let sending = began.elapsed().saturating_sub(rtt).max(std::time::Duration::from_micros(1));
    Ok(LinkFacts { bytes_per_s: MEASURE_BYTES as f64 / sending.as_secs_f64(), rtt_ms: ms(rtt) })
}

async fn round_trip(link: &mut Link, about: &About) -> Result<(), FrameError> {
    link.frames.send(&PeerMessage::Query { about: about.clone() }).await?;
    link.frames.next::<PeerMessage>().await?.ok_or(FrameError::Ended).map(|_| ())
}

/// Answers on a link of a paired site until it has no more questions.
pub(crate) async fn serve<S: SiteAdapter>(core: &Core<S>, mut link: Link) -> Result<(), WireError> {
    let name = link.peer.site.clone();
    let cut = |error: FrameError| failure::cut(&name, "answering its questions", &error);
    let mut thrown_away = 0;
    loop {
        let frames = &mut link.frames;
        let next = timeout(core.config.deadlines.answer, frames.writer.alive_while(frames.reader.read()));
        let frame = match next.await {
            Ok(frame) => frame.and_then(|frame| frame).map_err(cut)?,
            Err(_) => return Ok(()),
        };
        let Some(frame) = frame.filter(|_| core.peers.trusts(&link.peer.fingerprint)) else { return Ok(()) };
        if frame.kind == Kind::Data {
            thrown_away += frame.payload.len();
            if thrown_away > MEASURE_MOST {
                return Err(WireError::new(
                    ErrorCode::Refused,
                    format!("site {name} sends more than a measurement"),
                ));
            }
            continue;
        }
        let answer = match frame.control::<PeerMessage>().map_err(cut)? {
            PeerMessage::FactsRequest { service, image, wish } => {
                let asker = &link.peer.fingerprint;
                let facts = own_facts(core, asker, &service, &image, wish.as_deref());
                frames.writer.alive_while(facts).await.map_err(cut)?
            }
            PeerMessage::Query { about } => {
                let answer = journal_says(core, &link.peer.fingerprint, &about).await?;
                PeerMessage::State { about, answer: in_words_of(link.version, answer) }
            }
            other => {
                let what = other.about().map_or("this".to_owned(), |about| about.service.to_string());
                let message = format!("site {name} said something about {what} on a link for questions only");
                return Err(WireError::new(ErrorCode::BadRequest, message));
            }
        };
        frames.send(&answer).await.map_err(cut)?;
    }
}

async fn own_facts<S: SiteAdapter>(
    core: &Core<S>,
    asker: &Fingerprint,
    service: &ServiceName,
    image: &Digest,
    wish: Option<&Wish>,
) -> PeerMessage {
    let look = async {
        let asker = core.peers.by_fingerprint(asker);
        let asker = asker.ok_or_else(|| {
            WireError::new(ErrorCode::NotPaired, "the site that asks is not paired any more".to_owned())
        })?;
        let blockers = wish.map_or_else(Vec::new, |wish| core.against_arrival(&asker, wish));
        let site = Box::new(core.facts().await?);
        let image_present = has_image(core, image).await?;
        Ok::<_, WireError>(PeerMessage::Facts { site, image_present, blockers })
    };
    look.await.unwrap_or_else(|error| {
        let about = About {
            migration: MigrationId::new(uuid::Uuid::nil()),
            service: service.clone(),
            epoch: Epoch::ZERO,
        };
        PeerMessage::Refused { about, error }
    })
}

/// Whether the image is here, with all its parts.
pub(crate) async fn has_image<S: SiteAdapter>(core: &Core<S>, image: &Digest) -> Result<bool, WireError> {
    let within = core.config.deadlines.facts;
    let doing = "look at an image";
    match core.within(within, doing, core.site.image_blobs(image)).await {
        Ok(blobs) => Ok(core.within(within, doing, core.site.missing_blobs(&blobs)).await?.is_empty()),
        Err(error) if error.code == ErrorCode::ImageMissing => Ok(false),
        Err(error) => Err(error),
    }
}

/// An answer in the words of the version that a link speaks.
pub(crate) fn in_words_of(version: Version, answer: Answer) -> Answer {
    if version < Version::LOST { answer.without_lost() } else { answer }
}

/// What this journal says to `asker` about a migration. Only the site that a migration is bound to hears about it:
/// another one that made an epoch of the same number must not take its outcome for that of its own.
pub(crate) async fn journal_says<S: SiteAdapter>(
    core: &Core<S>,
    asker: &Fingerprint,
    about: &About,
) -> Result<Answer, WireError> {
    let row = core.journal.migration(about.migration).await.map_err(|error| failure::journal(&error))?;
    let Some(row) = row.filter(|row| core.peers.are_one(&row.peer, asker) && row.service == about.service)
    else {
        return Ok(Answer::NeverHeard);
    };
    Ok(match row.epoch.cmp(&about.epoch) {
        std::cmp::Ordering::Equal => core.desks.desk(&about.service).standing().answer(about.epoch),
        // It began again with a newer epoch.
        std::cmp::Ordering::Greater => Answer::Over,
        std::cmp::Ordering::Less => Answer::NeverHeard,
    })
}
