//! Sending what the destination lacks of the image: one archive, one item per blob, in the order it asked for.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Bytes as Block;
use tokio::io::{AsyncRead, AsyncReadExt};
use ums_model::error::{ErrorCode, WireError};
use ums_model::names::{Bytes, Digest, SiteName};
use ums_model::phase::Phase;
use ums_sites::adapter::{Blob, SiteAdapter};
use ums_transfer::archive::{ArchiveWriter, Limits};
use ums_transfer::frame::MAX_DATA;
use ums_transfer::link::LinkWriter;

use super::Migration;
use super::talk::{hung_up, unless, while_listening};
use crate::core::Core;
use crate::failure;
use crate::fault::Step;

impl<S: SiteAdapter> Migration<S> {
    /// The destination has been sent every blob that it asked for.
    pub(super) async fn image(&mut self) -> Result<(), WireError> {
        let core = self.core.clone();
        self.chronicle.enter(&core.journal, Phase::Image).await;
        core.config.faults.at(Step::Image).await?;
        let blobs = self.wanted()?;
        let total: Bytes = blobs.iter().map(|blob| blob.size).sum();
        if !blobs.is_empty() {
            let chronicle = self.chronicle.clone();
            let Self { link, stop, preflight, .. } = self;
            let link = link.as_mut().ok_or_else(hung_up)?;
            let name = &preflight.peer.name;
            let moved = AtomicU64::new(0);
            let sending = send(&core, &blobs, &mut link.frames.writer, name, &moved);
            let sending = chronicle.while_moving(&core.journal, Phase::Image, &moved, total, sending);
            let patience = core.config.deadlines.keep_alive;
            unless(stop, while_listening(&mut link.frames.reader, name, patience, sending)).await?;
            self.chronicle.add_raw(total).await;
        }
        self.chronicle.leave(&core.journal, Phase::Image, Some(total)).await;
        Ok(())
    }

    /// The blobs that were asked for. A destination gets parts of this image and nothing else of the store.
    fn wanted(&self) -> Result<Vec<Blob>, WireError> {
        let find = |digest: &Digest| {
            self.blobs.iter().find(|blob| blob.digest == *digest).cloned().ok_or_else(|| {
                let message =
                    format!("the destination asks for {digest}, which is no part of the image here");
                WireError::new(ErrorCode::ImageMissing, message)
            })
        };
        self.missing.iter().map(find).collect()
    }
}

async fn send<S: SiteAdapter>(
    core: &Core<S>,
    blobs: &[Blob],
    writer: &mut LinkWriter,
    site: &SiteName,
    moved: &AtomicU64,
) -> Result<(), WireError> {
    let broken = |error| failure::archive(site, "sending the image", &error);
    let mut archive = ArchiveWriter::new(writer, Limits::default());
    for blob in blobs {
        let one = async {
            let mut bytes = core.site.read_blob(&blob.digest).await?;
            let channel = archive.open(&blob.digest.to_string(), &()).await.map_err(broken)?;
            while let Some(block) =
                archive.alive_while(read_block(&mut bytes, blob)).await.map_err(broken)??
            {
                moved.fetch_add(block.len() as u64, Ordering::Relaxed);
                archive.write(channel, block).await.map_err(broken)?;
            }
            archive.close(channel).await.map_err(broken).map(drop)
        };
        core.within(core.config.deadlines.blob, "send a part of the image", one).await?;
    }
    archive.finish().await.map_err(broken).map(drop)
}

async fn read_block(
    bytes: &mut (dyn AsyncRead + Send + Unpin),
    blob: &Blob,
) -> Result<Option<Block>, WireError> {
    let mut block = Vec::with_capacity(MAX_DATA);
    let mut room = bytes.take(MAX_DATA as u64);
    room.read_to_end(&mut block).await.map_err(|error| {
        WireError::new(ErrorCode::Internal, format!("cannot read {} from the store: {error}", blob.digest))
    })?;
    Ok((!block.is_empty()).then(|| block.into()))
}
