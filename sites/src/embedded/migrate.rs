//! Dump and restore: the nest does the work, here its two connections become the adapter's streams.

use tokio::io::split;
use ums_model::error::{ErrorCode, WireError};
use ums_model::names::{Epoch, ServiceName};
use ums_model::nest::Wish;
use ums_nest::client::open;
use ums_nest::protocol::{Reply, Request};
use ums_nest::right;

use super::observe::keeper;
use super::remove::note;
use super::{Embedded, chained, unexpected};
use crate::adapter::{Dump, Dumped, Restore, Restored, SiteResult};

impl Embedded {
    pub(super) async fn start_dump(&self, name: &ServiceName, epoch: Epoch) -> SiteResult<Dump> {
        let deadlines = self.config.deadlines;
        let socket = self.existing(name)?.socket();
        let stream = open(&socket, &Request::Dump { epoch }, deadlines.answer).await?;
        let (site, name) = (self.clone(), name.clone());
        let done = async move {
            match site.ask(&name, &Request::DumpResult { epoch }, deadlines.change).await {
                Ok(Reply::Dumped(dumped)) => Ok(Dumped {
                    tasks: dumped.tasks,
                    dump_ms: dumped.dump_ms,
                    frozen_at_boot_ms: dumped.frozen_at_boot_ms,
                    memory_bytes: dumped.memory_bytes,
                    file_bytes: dumped.file_bytes,
                }),
                Ok(other) => Err(unexpected(&other)),
                Err(error) => Err(of_service(error, ErrorCode::DumpFailed, &name)),
            }
        };
        Ok(Dump { stream: Box::new(stream), done: Box::pin(done) })
    }

    pub(super) async fn start_restore(&self, name: &ServiceName, epoch: Epoch) -> SiteResult<Restore> {
        let deadlines = self.config.deadlines;
        let socket = self.existing(name)?.socket();
        let stream = open(&socket, &Request::Restore { epoch }, deadlines.answer).await?;
        // The nest says nothing on this connection, but it must stay open until the last byte was taken.
        let (_, write) = split(stream);
        let (site, name) = (self.clone(), name.clone());
        let done = async move {
            match site.ask(&name, &Request::RestoreResult { epoch }, deadlines.restore).await {
                Ok(Reply::Restored(restored)) => {
                    Ok(Restored { tasks: restored.tasks, restore_ms: restored.restore_ms })
                }
                Ok(other) => Err(unexpected(&other)),
                Err(error) => Err(of_service(error, ErrorCode::RestoreFailed, &name)),
            }
        };
        Ok(Restore { stream: Box::new(write), done: Box::pin(done) })
    }
}

impl Embedded {
    /// Lets the original run; where nothing of it is left to run, gives its files the right to be started.
    pub(super) async fn thaw_copy(&self, name: &ServiceName, epoch: Epoch) -> SiteResult<()> {
        let dir = self.existing(name)?;
        if keeper(&dir).is_some() {
            return self.tell(name, Request::Thaw { epoch }).await;
        }
        let _registry = self.registry.lock().await;
        self.note_for_nobody(name, epoch, Wish::Thaw)
    }

    /// Takes away the right to run or start the copy. Where nothing of the service is here there is nothing to take.
    pub(super) async fn freeze_copy(&self, name: &ServiceName, epoch: Epoch) -> SiteResult<()> {
        let dir = self.nest_dir(name);
        if !dir.recipe().exists() {
            return Ok(());
        }
        if keeper(&dir).is_some() {
            return self.tell(name, Request::Freeze { epoch }).await;
        }
        let _registry = self.registry.lock().await;
        self.note_for_nobody(name, epoch, Wish::Freeze)
    }

    /// Records what a nest would have recorded whose keeper is dead, and with it the copy. Held under the registry's
    /// lock, so that no keeper is started meanwhile.
    fn note_for_nobody(&self, name: &ServiceName, epoch: Epoch, wish: Wish) -> SiteResult<()> {
        let dir = self.existing(name)?;
        if keeper(&dir).is_some() {
            let message = format!("the keeper of {name} was started just now");
            return Err(WireError::new(ErrorCode::Busy, message).with_hint(format!("ums status {name}")));
        }
        let record = right::read(&dir.right()).map_err(|error| chained(ErrorCode::Internal, &error))?;
        let record = record.ok_or_else(|| {
            let message = format!("there is no record of what the copy of {name} may do");
            WireError::new(ErrorCode::Internal, message).with_hint(format!("ums status {name}"))
        })?;
        note(&dir, record, epoch, wish)
    }
}

/// An answer that never came says nothing about the service; one that came is passed on.
fn of_service(error: WireError, code: ErrorCode, name: &ServiceName) -> WireError {
    match error.code {
        ErrorCode::Internal | ErrorCode::Unreachable => {
            WireError::new(code, format!("{name}: {}", error.message))
        }
        _ => error,
    }
}
