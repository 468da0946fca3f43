//! Receiving what is missing of the image.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::AsyncWriteExt;
use ums_model::error::{ErrorCode, WireError};
use ums_model::names::Bytes;
use ums_model::phase::Phase;
use ums_sites::adapter::{Blob, SiteAdapter};
use ums_transfer::archive::{ArchiveEvent, ArchiveReader, Limits};
use ums_transfer::frame::MAX_DATA;
use ums_transfer::link::LinkReader;

use super::steps::{Arrival, alive_unless};
use crate::core::Core;
use crate::failure;
use crate::fault::Step;

impl<S: SiteAdapter> Arrival<'_, S> {
    /// The image is complete and has its name.
    pub(super) async fn image(&mut self) -> Result<(), WireError> {
        let core = Arc::clone(&self.core);
        self.chronicle.enter(&core.journal, Phase::Image).await;
        core.config.faults.at(Step::DestinationImage).await?;
        let total: Bytes = self.missing.iter().map(|blob| blob.size).sum();
        if !self.missing.is_empty() {
            let chronicle = Arc::clone(&self.chronicle);
            let site = self.link.peer.site.clone();
            let moved = AtomicU64::new(0);
            let Self { link, stop, missing, .. } = self;
            // Both halves of the link are needed at once: one to read from, one to show a sign of life on.
            let frames = &mut link.frames;
            frames.reader.demand(Some(core.config.deadlines.lease));
            let (reader, writer) = (&mut frames.reader, &mut frames.writer);
            let receive = async {
                receive(&core, missing, reader, &moved).await.map_err(|error| match error {
                    Failed::Link(error) => failure::archive(&site, "receiving the image", &error),
                    Failed::Site(error) => error,
                })
            };
            let receive = chronicle.while_moving(&core.journal, Phase::Image, &moved, total, receive);
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(super::steps::replaced()),
                done = writer.alive_while(receive) => {
                    done.map_err(|error| failure::cut(&site, "receiving the image", &error))??;
                }
            }
            link.frames.reader.demand(None);
        }
        if core.config.faults.twice(Step::DestinationImage) {
            core.site.register_image(&self.offer.spec.image).await?;
        }
        let register = core.site.register_image(&self.offer.spec.image);
        let register = core.within(core.config.deadlines.change, "name the image", register);
        let Self { link, stop, .. } = self;
        alive_unless(link, stop, register).await?;
        self.chronicle.leave(&core.journal, Phase::Image, Some(total)).await;
        Ok(())
    }
}

enum Failed {
    Link(ums_transfer::archive::ArchiveError),
    Site(WireError),
}

async fn receive<S: SiteAdapter>(
    core: &Core<S>,
    missing: &[Blob],
    reader: &mut LinkReader,
    moved: &AtomicU64,
) -> Result<(), Failed> {
    let total: Bytes = missing.iter().map(|blob| blob.size).sum();
    let limits = Limits { items: missing.len() as u64, open: 1, item_bytes: total.get(), bytes: total.get() };
    let mut archive = ArchiveReader::new(reader, limits);
    for blob in missing {
        match archive.next().await.map_err(Failed::Link)? {
            ArchiveEvent::Open { name, .. } if name == blob.digest.to_string() => {}
            _ => return Err(Failed::Site(other_than(blob))),
        }
        let (mut pipe, mut bytes) = tokio::io::duplex(MAX_DATA);
        let pump = async {
            loop {
                match archive.next().await.map_err(Failed::Link)? {
                    ArchiveEvent::Data { data, .. } => {
                        moved.fetch_add(data.len() as u64, Ordering::Relaxed);
                        // A store that has stopped reading has an error of its own to tell.
                        if pipe.write_all(&data).await.is_err() {
                            return Ok(());
                        }
                    }
                    ArchiveEvent::Close { .. } => break,
                    ArchiveEvent::Open { .. } | ArchiveEvent::End { .. } => {
                        return Err(Failed::Site(other_than(blob)));
                    }
                }
            }
            drop(pipe);
            Ok(())
        };
        let store = core.within(
            core.config.deadlines.blob,
            "store a part of the image",
            core.site.write_blob(blob, &mut bytes),
        );
        tokio::pin!(store);
        tokio::select! {
            biased;
            stored = &mut store => stored.map_err(Failed::Site)?,
            pumped = pump => {
                pumped?;
                store.await.map_err(Failed::Site)?;
            }
        }
    }
    match archive.next().await.map_err(Failed::Link)? {
        ArchiveEvent::End { .. } => Ok(()),
        _ => Err(Failed::Site(WireError::new(
            ErrorCode::BadRequest,
            "more of the image came than was asked for".to_owned(),
        ))),
    }
}

fn other_than(blob: &Blob) -> WireError {
    WireError::new(ErrorCode::BadRequest, format!("something else came where {} was asked for", blob.digest))
}
