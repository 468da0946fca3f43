//! Stopping a service, and starting it again with the files it had.

use std::time::Duration;

use ums_model::error::{ErrorCode, WireError};
use ums_model::names::{Epoch, ServiceName};
use ums_model::nest::{Record, Right, Seen, Wish};
use ums_nest::protocol::Request;
use ums_nest::stopped;

use super::observe::{keeper, read_record};
use super::remove::note;
use super::{Embedded, chained};
use crate::adapter::{ServiceStatus, SiteResult};

impl Embedded {
    /// Starts a service that has ended and is at home here since `epoch`, with the files it had. Its keeper is started again
    /// if it is gone.
    pub(super) async fn start_again(&self, name: &ServiceName, epoch: Epoch) -> SiteResult<ServiceStatus> {
        let dir = self.existing(name)?;
        {
            let _registry = self.registry.lock().await;
            let record = read_record(&dir)?.filter(|record| {
                !is_away(record) || record.decide(epoch, Wish::ComeHome, Seen::default()).is_ok()
            });
            let record = record.ok_or_else(|| {
                let message = format!("service {name} has no right to run at site {}", self.config.name);
                WireError::new(ErrorCode::Refused, message).with_hint(format!("ums status {name}"))
            })?;
            match keeper(&dir) {
                Some(keeper) => self.plug_in(name, keeper).await?,
                None => {
                    if is_away(&record) {
                        note(&dir, record, epoch, Wish::ComeHome)?;
                    }
                    // A copy that was frozen when its keeper died is dead only once it was thawed.
                    self.end_keeper(name).await?;
                    self.start_connected(name).await?;
                }
            }
        }
        // Whoever asks knows that it is at home here.
        match read_record(&dir)? {
            // The nest could not note that on a full disk.
            Some(record) if record.may_run() && record.is_fenced() => {
                self.tell(name, Request::Open { epoch: record.epoch() }).await?;
            }
            Some(record) if is_away(&record) => self.tell(name, Request::ComeHome { epoch }).await?,
            _ => {}
        }
        self.tell(name, Request::Start).await?;
        self.publish(name).await?;
        self.observe(name).await
    }

    /// Ends the service. Where its keeper is dead it does not run; then only the user's word is noted.
    pub(super) async fn stop_copy(&self, name: &ServiceName, grace: Duration) -> SiteResult<ServiceStatus> {
        let dir = self.existing(name)?;
        let note_stop = || stopped::note(&dir).map_err(|error| chained(ErrorCode::Internal, &error));
        if keeper(&dir).is_some() {
            let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
            match self.ask(name, &Request::Stop { grace_ms }, self.config.deadlines.change + grace).await {
                // The nest notes it, too, but goes on where it cannot.
                Ok(_) => {
                    note_stop()?;
                    return self.observe(name).await;
                }
                Err(error) if keeper(&dir).is_some() => return Err(error),
                // It has ended meanwhile, and its copy with it.
                Err(_) => {}
            }
        }
        {
            let _registry = self.registry.lock().await;
            note_stop()?;
            self.end_keeper(name).await?;
        }
        self.observe(name).await
    }
}

/// Whether its nest would not start it. Nobody can have committed to a dump that was not complete: the nest settles that.
fn is_away(record: &Record) -> bool {
    !record.may_run() && record.right() != Right::Dumping
}
