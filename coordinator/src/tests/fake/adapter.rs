//! What the Coordinator asks of the fake.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use axum::body::Bytes as Block;
use tokio::io::{AsyncRead, AsyncReadExt};
use ums_model::error::{ErrorCode, WireError};
use ums_model::message::RestoreRequirements;
use ums_model::names::{Bytes, Digest, Epoch, Fingerprint, ServiceName};
use ums_model::phase::Approach;
use ums_model::plan::{CgroupLayout, PortInUse, ServiceFacts, SiteFacts};
use ums_model::policy::{FilePolicy, SpecialFiles};
use ums_model::spec::{ImageRef, ServiceSpec};
use ums_sites::adapter::{
    Blob, CopyState, Dump, Dumped, ImageRequest, NestStream, Restore, Restored, ServiceStatus, SiteAdapter,
    SiteResult,
};
use ums_transfer::Deadlines;
use ums_transfer::archive::{ArchiveEvent, ArchiveReader, ArchiveWriter, Limits};
use ums_transfer::frame::{FrameReader, FrameWriter};

use super::{Copy, Fake, digest_of, status, wrong};
use crate::clock::boot_ms;

/// How many tasks every service has.
const TASKS: u32 = 3;
/// How much of a dump is in flight at once; small, so that a receiver that stops stops the dump.
const PIPE: usize = 64 * 1024;

impl SiteAdapter for Fake {
    async fn facts(&self) -> SiteResult<SiteFacts> {
        self.may_fail("facts")?;
        let state = self.state();
        let mut ports_in_use = state.ports_in_use.clone();
        for copy in state.copies.values().filter(|copy| copy.open) {
            let used =
                copy.spec.ports.iter().map(|port| PortInUse { port: port.host, protocol: port.protocol });
            ports_in_use.extend(used);
        }
        Ok(SiteFacts {
            name: self.name.clone(),
            fingerprint: Fingerprint([0; 32]),
            arch: "x86_64".to_owned(),
            kernel: "6.18.0".to_owned(),
            criu: Some("4.2.1".to_owned()),
            runc: Some("1.3.6".to_owned()),
            is_root: true,
            memory_available: state.memory_available.unwrap_or(Bytes::gib(1)),
            disk_available: Bytes::gib(1),
            cgroup: CgroupLayout::V2,
            cpu_flags: vec!["avx2".to_owned()],
            ports_in_use,
            services: state.copies.keys().cloned().collect(),
            volumes: Vec::new(),
            site_mounts: Vec::new(),
            time_namespace: Some(true),
            user_namespaces: Some(true),
            userfaultfd_wp_async: None,
            soft_dirty: None,
            durable_journal: Some(!state.volatile),
        })
    }

    async fn service_facts(&self, name: &ServiceName) -> SiteResult<ServiceFacts> {
        self.may_fail("service_facts")?;
        let copy = self.found(name)?;
        let state = self.state();
        let blobs = state.images.get(&copy.spec.image.digest).cloned().unwrap_or_default();
        Ok(ServiceFacts {
            running: copy.state == CopyState::Running,
            migrating: None,
            approach: Approach::Container,
            memory: Bytes(copy.memory.len() as u64),
            files: Bytes::ZERO,
            tasks: TASKS,
            threads: TASKS,
            image_at_source: !blobs.is_empty()
                && blobs.iter().all(|blob| state.blobs.contains_key(&blob.digest)),
            image_at_destination: false,
            image_bytes: blobs.iter().map(|blob| blob.size).sum(),
            special_files: SpecialFiles::default(),
            blockers: state.blockers.clone(),
        })
    }

    async fn import_image(&self, source: &ImageRequest) -> SiteResult<ImageRef> {
        self.may_fail("import_image")?;
        let ImageRequest::Image(name) = source else {
            return Err(WireError::new(ErrorCode::Unsupported, "only names".to_owned()));
        };
        if name == "missing" {
            return Err(WireError::new(ErrorCode::ImageMissing, "no such image".to_owned()));
        }
        // A manifest and two layers, the second larger than one frame.
        let parts = [format!("manifest of {name}").into_bytes(), b"layer".to_vec(), vec![7; 300_000]];
        let blobs: Vec<_> = parts
            .iter()
            .map(|part| Blob { digest: digest_of(part), size: Bytes(part.len() as u64) })
            .collect();
        let digest = blobs[0].digest;
        let mut state = self.state();
        state.blobs.extend(parts.into_iter().map(|part| (digest_of(&part), part)));
        state.images.insert(digest, blobs);
        Ok(ImageRef { digest, name: name.clone() })
    }

    async fn run(&self, spec: &ServiceSpec) -> SiteResult<ServiceStatus> {
        self.may_fail("run")?;
        let copy = Copy {
            spec: spec.clone(),
            state: CopyState::Running,
            epoch: Epoch::ZERO,
            memory: spec.name.as_str().as_bytes().to_vec(),
            open: true,
            may_start: true,
            kept: true,
            stopped: false,
        };
        self.state().copies.insert(spec.name.clone(), copy.clone());
        self.change(&spec.name, |_| ())?;
        Ok(status(&copy))
    }

    async fn stop(&self, name: &ServiceName, _grace: Duration) -> SiteResult<ServiceStatus> {
        self.may_fail("stop")?;
        self.change(name, |copy| {
            (copy.state, copy.stopped) = (CopyState::Dead, true);
            status(copy)
        })
    }

    async fn signal(&self, name: &ServiceName, _signal: i32) -> SiteResult<()> {
        self.found(name).map(drop)
    }

    async fn start(&self, name: &ServiceName, epoch: Epoch) -> SiteResult<ServiceStatus> {
        self.may_fail("start")?;
        self.change(name, |copy| {
            if !copy.may_start && epoch < copy.epoch {
                return Err(wrong(name, "start", copy.state));
            }
            (copy.state, copy.kept, copy.stopped) = (CopyState::Running, true, false);
            Ok(status(copy))
        })?
    }

    async fn keeper_ended(&self) -> ServiceName {
        loop {
            if let Some(name) = self.state().ended.pop_front() {
                return name;
            }
            self.bell.notified().await;
        }
    }

    async fn remove(&self, name: &ServiceName, force: bool) -> SiteResult<()> {
        self.may_fail("remove")?;
        let copy = self.found(name)?;
        if copy.state == CopyState::Running && !force {
            return Err(WireError::new(ErrorCode::Busy, format!("{name} runs")));
        }
        self.remove_copy(name);
        Ok(())
    }

    async fn list(&self) -> SiteResult<Vec<ServiceStatus>> {
        self.may_fail("list")?;
        Ok(self.state().copies.values().map(status).collect())
    }

    async fn status(&self, name: &ServiceName) -> SiteResult<ServiceStatus> {
        self.may_fail("status")?;
        Ok(status(&self.found(name)?))
    }

    async fn log_path(&self, name: &ServiceName) -> SiteResult<PathBuf> {
        self.found(name)?;
        Ok(self.state().logs.join(name.as_str()))
    }

    async fn exec_stream(&self, name: &ServiceName) -> SiteResult<Box<dyn NestStream>> {
        self.found(name)?;
        let (near, far) = tokio::io::duplex(PIPE);
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(far);
            tokio::io::copy(&mut read, &mut write).await
        });
        Ok(Box::new(near))
    }

    async fn image_blobs(&self, digest: &Digest) -> SiteResult<Vec<Blob>> {
        self.may_fail("image_blobs")?;
        let missing = || WireError::new(ErrorCode::ImageMissing, format!("no image {digest}"));
        self.state().images.get(digest).cloned().ok_or_else(missing)
    }

    async fn missing_blobs(&self, blobs: &[Blob]) -> SiteResult<Vec<Blob>> {
        self.may_fail("missing_blobs")?;
        let state = self.state();
        Ok(blobs.iter().filter(|blob| !state.blobs.contains_key(&blob.digest)).cloned().collect())
    }

    async fn read_blob(&self, digest: &Digest) -> SiteResult<Box<dyn AsyncRead + Send + Unpin>> {
        self.may_fail("read_blob")?;
        let blob = self.state().blobs.get(digest).cloned();
        let blob =
            blob.ok_or_else(|| WireError::new(ErrorCode::ImageMissing, format!("no blob {digest}")))?;
        Ok(Box::new(io::Cursor::new(blob)))
    }

    async fn write_blob(&self, blob: &Blob, bytes: &mut (dyn AsyncRead + Send + Unpin)) -> SiteResult<()> {
        self.may_fail("write_blob")?;
        let mut content = Vec::new();
        let read = bytes.read_to_end(&mut content).await;
        if read.is_err() || digest_of(&content) != blob.digest {
            return Err(WireError::new(ErrorCode::ImageMissing, "a damaged blob".to_owned()));
        }
        self.state().blobs.insert(blob.digest, content);
        Ok(())
    }

    async fn register_image(&self, image: &ImageRef) -> SiteResult<()> {
        self.may_fail("register_image")?;
        let mut state = self.state();
        let manifest = state.blobs.get(&image.digest).map(|blob| (blob.len() as u64, image.digest));
        let (size, digest) =
            manifest.ok_or_else(|| WireError::new(ErrorCode::ImageMissing, "no manifest".to_owned()))?;
        // The fake's manifest does not name the layers; the lab's images all have the same.
        let layers = [b"layer".to_vec(), vec![7; 300_000]];
        let layers =
            layers.iter().map(|layer| Blob { digest: digest_of(layer), size: Bytes(layer.len() as u64) });
        let blobs = [Blob { digest, size: Bytes(size) }].into_iter().chain(layers).collect();
        state.images.insert(image.digest, blobs);
        Ok(())
    }

    async fn restore_requirements(&self, name: &ServiceName) -> SiteResult<RestoreRequirements> {
        self.may_fail("restore_requirements")?;
        self.found(name)?;
        Ok(RestoreRequirements { stdio_pipes: [None, None, None], tasks: TASKS })
    }

    async fn dump(&self, name: &ServiceName, epoch: Epoch) -> SiteResult<Dump> {
        self.may_fail("dump")?;
        let copy = self.found(name)?;
        if copy.state != CopyState::Running {
            return Err(wrong(name, "dump", copy.state));
        }
        let frozen_at_boot_ms = boot_ms();
        self.change(name, |copy| {
            copy.state = CopyState::Frozen;
            copy.may_start = false;
            copy.epoch = epoch;
        })?;
        let (near, far) = tokio::io::duplex(PIPE);
        let (site, name) = (self.clone(), name.clone());
        let breaks = self.may_fail("dump.stream").is_err();
        let mut memory = copy.memory.clone();
        let length = memory.len() as u64;
        memory.resize(memory.len().max(self.state().dump_size.unwrap_or(0)), 0);
        let writing = tokio::spawn(async move {
            let mut frames = FrameWriter::new(far, &Deadlines::default());
            let write = async {
                let mut archive = ArchiveWriter::new(&mut frames, Limits::default());
                let channel = archive.open("memory", &length).await?;
                archive.write(channel, Block::from(memory.clone())).await?;
                archive.close(channel).await?;
                if breaks {
                    return archive.abort("the test says so").await;
                }
                archive.finish().await.map(drop)
            };
            let written = write.await.map_err(|error| error.to_string());
            if written.is_err() || breaks {
                // A dump that nobody has read to its end cannot have been committed.
                let _ = site.change(&name, |copy| {
                    if copy.state == CopyState::Frozen {
                        copy.may_start = true;
                        copy.state = CopyState::Running;
                    }
                });
                return Err(WireError::new(ErrorCode::DumpFailed, format!("the dump broke: {written:?}")));
            }
            site.may_fail("dump.done")?;
            Ok(Dumped { tasks: TASKS, dump_ms: 1.0, frozen_at_boot_ms, memory_bytes: length, file_bytes: 0 })
        });
        let done = Box::pin(async move { writing.await.unwrap() });
        Ok(Dump { stream: Box::new(near), done })
    }

    async fn freeze(&self, name: &ServiceName, _epoch: Epoch) -> SiteResult<()> {
        self.may_fail("freeze")?;
        if self.copy(name) == CopyState::Absent {
            return Ok(());
        }
        self.change(name, |copy| {
            copy.may_start = false;
            if copy.state == CopyState::Running {
                copy.state = CopyState::Frozen;
            }
        })
    }

    async fn thaw(&self, name: &ServiceName, _epoch: Epoch) -> SiteResult<()> {
        self.may_fail("thaw")?;
        if let Err(error) = self.may_fail("thaw.half") {
            // Its nest has noted the thaw, and dies with the copy.
            self.change(name, |copy| {
                copy.may_start = true;
                copy.state = CopyState::Dead;
            })?;
            return Err(error);
        }
        self.change(name, |copy| match copy.state {
            CopyState::Running => Ok(()),
            CopyState::Frozen => {
                copy.may_start = true;
                copy.state = CopyState::Running;
                Ok(())
            }
            CopyState::Dead => {
                copy.may_start = true;
                Ok(())
            }
            other => Err(wrong(name, "thaw", other)),
        })?
    }

    async fn release(&self, name: &ServiceName, _epoch: Epoch) -> SiteResult<()> {
        self.may_fail("release")?;
        if self.copy(name) == CopyState::Running {
            self.witness.accuse(format!("{name} is released at {} while it runs there", self.name));
        }
        self.remove_copy(name);
        Ok(())
    }

    async fn arm(
        &self,
        spec: &ServiceSpec,
        epoch: Epoch,
        needs: &RestoreRequirements,
        _files: FilePolicy,
    ) -> SiteResult<()> {
        self.may_fail("arm")?;
        assert_eq!(needs.tasks, TASKS);
        if !matches!(self.copy(&spec.name), CopyState::Absent | CopyState::Prepared) {
            return Err(wrong(&spec.name, "arm", self.copy(&spec.name)));
        }
        let copy = Copy {
            spec: spec.clone(),
            state: CopyState::Prepared,
            epoch,
            memory: Vec::new(),
            open: false,
            may_start: false,
            kept: true,
            stopped: false,
        };
        self.state().copies.insert(spec.name.clone(), copy);
        Ok(())
    }

    async fn restore(&self, name: &ServiceName, epoch: Epoch) -> SiteResult<Restore> {
        self.may_fail("restore")?;
        let copy = self.found(name)?;
        if copy.state != CopyState::Prepared || copy.epoch != epoch {
            return Err(wrong(name, "restore", copy.state));
        }
        let (near, far) = tokio::io::duplex(PIPE);
        let (site, name) = (self.clone(), name.clone());
        let reading = tokio::spawn(async move {
            let mut frames = FrameReader::new(far, &Deadlines::default());
            let mut archive = ArchiveReader::new(&mut frames, Limits::default());
            let (mut memory, mut length) = (Vec::new(), 0_u64);
            loop {
                match archive.next().await {
                    Ok(ArchiveEvent::Open { meta, .. }) => length = meta.decode().unwrap(),
                    Ok(ArchiveEvent::Data { data, .. }) => {
                        memory.extend_from_slice(&data);
                        site.may_fail("restore.stream")?;
                    }
                    Ok(ArchiveEvent::Close { .. }) => {}
                    Ok(ArchiveEvent::End { .. }) => break,
                    Err(error) => return Err(WireError::new(ErrorCode::RestoreFailed, error.to_string())),
                }
            }
            site.may_fail("restore.done")?;
            memory.truncate(usize::try_from(length).unwrap());
            site.change(&name, |copy| {
                copy.memory = memory;
                copy.state = CopyState::Held;
            })?;
            let tasks = if site.may_fail("restore.count").is_err() { TASKS - 1 } else { TASKS };
            Ok(Restored { tasks, restore_ms: 1.0 })
        });
        let done = Box::pin(async move { reading.await.unwrap() });
        Ok(Restore { stream: Box::new(near), done })
    }

    async fn resume(&self, name: &ServiceName, epoch: Epoch) -> SiteResult<()> {
        self.may_fail("resume")?;
        self.change(name, |copy| match copy.state {
            CopyState::Held | CopyState::Running if copy.epoch == epoch => {
                copy.state = CopyState::Running;
                Ok(())
            }
            other => Err(wrong(name, "resume", other)),
        })?
    }

    async fn open(&self, name: &ServiceName, _epoch: Epoch) -> SiteResult<()> {
        self.may_fail("open")?;
        self.change(name, |copy| {
            if copy.state != CopyState::Running {
                return Err(wrong(name, "open", copy.state));
            }
            copy.open = true;
            copy.may_start = true;
            Ok(())
        })?
    }

    async fn discard(&self, name: &ServiceName, _epoch: Epoch) -> SiteResult<()> {
        self.may_fail("discard")?;
        if self.copy(name) == CopyState::Running {
            self.witness.accuse(format!("{name} is discarded at {} while it runs there", self.name));
        }
        self.remove_copy(name);
        Ok(())
    }
}
