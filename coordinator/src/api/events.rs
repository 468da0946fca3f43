//! `/v1/migrations/{id}/events`: what a migration tells, from the first event or from where the client was cut off.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use futures_util::stream::unfold;
use ums_model::event::{EventKind, MigrationEvent};
use ums_model::names::MigrationId;
use ums_sites::adapter::SiteAdapter;

use super::extract::{Failure, Named};
use crate::core::Core;
use crate::migrations;

/// Where nobody tells at the moment (the daemon was just restarted), the journal is looked at this often.
const LOOK: Duration = Duration::from_secs(1);

/// The header in which a client says what it has seen last.
const LAST: &str = "last-event-id";

struct Reader<S> {
    core: Arc<Core<S>>,
    id: MigrationId,
    last: u64,
    page: VecDeque<MigrationEvent>,
    over: bool,
}

pub(super) async fn events<S: SiteAdapter>(
    State(core): State<Arc<Core<S>>>,
    Named(id): Named<MigrationId>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Failure> {
    migrations::show(&core, id).await?;
    let last = headers.get(LAST).and_then(|value| value.to_str().ok()).and_then(|value| value.parse().ok());
    let reader = Reader { core, id, last: last.unwrap_or(0), page: VecDeque::new(), over: false };
    Ok(Sse::new(unfold(reader, next)).keep_alive(KeepAlive::default()))
}

async fn next<S: SiteAdapter>(mut reader: Reader<S>) -> Option<(Result<Event, Infallible>, Reader<S>)> {
    while reader.page.is_empty() {
        if reader.over {
            return None;
        }
        reader.fill().await?;
    }
    let event = reader.page.pop_front()?;
    reader.last = event.seq;
    reader.over = matches!(event.kind, EventKind::Ended { .. });
    let sse = Event::default().id(event.seq.to_string()).event("migration");
    // An event that cannot be written is a defect; the client sees a gap instead of a broken stream.
    let sse = sse.json_data(&event).unwrap_or_else(|_| Event::default().comment("unreadable event"));
    Some((Ok(sse), reader))
}

impl<S: SiteAdapter> Reader<S> {
    /// Waits for more events. `None`: there will be none.
    async fn fill(&mut self) -> Option<()> {
        // Subscribed before looking, so that nothing told in between is missed.
        let follow = self.core.chronicles.of(self.id).map(|chronicle| chronicle.follow());
        let ended = follow.is_none();
        let page = self.core.journal.events(self.id, self.last).await.ok()?;
        if !page.is_empty() {
            self.page = page.into();
            return Some(());
        }
        if ended && migrations::show(&self.core, self.id).await.ok()?.outcome.is_some() {
            return None;
        }
        let last = self.last;
        let told = async {
            match follow {
                Some(mut follow) => {
                    // An error says that the chronicle is closed: the next look finds its end.
                    let _ = follow.wait_for(|seq| *seq > last).await;
                }
                None => tokio::time::sleep(LOOK).await,
            }
        };
        tokio::select! {
            biased;
            () = self.core.stopping.cancelled() => None,
            () = told => Some(()),
        }
    }
}
