//! Images of the embedded site: its store, in the adapter's terms.

use std::path::Path;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use ums_model::error::{ErrorCode, WireError};
use ums_model::names::Digest;
use ums_model::spec::ImageRef;

use super::{Embedded, blocking, chained, internal};
use crate::adapter::{Blob, ImageRequest, SiteResult};
use crate::store::{ImageId, ImageName, ImageSource, StoreError};

/// How much of a blob is written at once, in bytes.
const CHUNK: usize = 1024 * 1024;

impl Embedded {
    /// A stored image by name or digest, else one that lies at a path, which is copied into the store first.
    pub(super) async fn import(&self, request: ImageRequest) -> SiteResult<ImageRef> {
        let store = self.store.clone();
        blocking(move || {
            let missing = |error: StoreError| chained(ErrorCode::ImageMissing, &error);
            let (id, name) = match &request {
                ImageRequest::Rootfs(path) => {
                    let id =
                        store.import(&ImageSource::RootDir { path: path.clone() }, None).map_err(missing)?;
                    (id, path.display().to_string())
                }
                ImageRequest::Image(reference) => match store.resolve(reference).map_err(missing)? {
                    Some(id) => (id, reference.clone()),
                    None if Path::new(reference).exists() => {
                        let source = store.detect(Path::new(reference), None).map_err(missing)?;
                        (store.import(&source, None).map_err(missing)?, reference.clone())
                    }
                    None => {
                        let message =
                            format!("there is no image {reference} in the store and no file of that name");
                        return Err(WireError::new(ErrorCode::ImageMissing, message).with_hint(
                            "give a path to an OCI layout or a `docker save` archive (ums run --image PATH), or a directory (ums run --rootfs DIR)",
                        ));
                    }
                },
            };
            Ok(ImageRef { digest: id.0, name })
        })
        .await
    }

    pub(super) async fn blobs(&self, digest: Digest) -> SiteResult<Vec<Blob>> {
        let store = self.store.clone();
        blocking(move || {
            let blobs =
                store.blobs_of(&ImageId(digest)).map_err(|error| chained(ErrorCode::ImageMissing, &error))?;
            Ok(blobs.into_iter().map(|blob| Blob { digest: blob.digest, size: blob.size }).collect())
        })
        .await
    }

    pub(super) fn missing(&self, blobs: &[Blob]) -> Vec<Blob> {
        let digests: Vec<Digest> = blobs.iter().map(|blob| blob.digest).collect();
        let missing = self.store.missing(&digests);
        blobs.iter().filter(|blob| missing.contains(&blob.digest)).cloned().collect()
    }

    pub(super) fn open_blob(&self, digest: &Digest) -> SiteResult<Box<dyn AsyncRead + Send + Unpin>> {
        let file = self.store.open_blob(digest).map_err(|error| chained(ErrorCode::ImageMissing, &error))?;
        Ok(Box::new(tokio::fs::File::from_std(file)))
    }

    pub(super) async fn store_blob(
        &self,
        blob: &Blob,
        bytes: &mut (dyn AsyncRead + Send + Unpin),
    ) -> SiteResult<()> {
        let failed = |error: StoreError| chained(ErrorCode::Internal, &error);
        let (store, digest, size) = (self.store.clone(), blob.digest, blob.size);
        let mut writer = blocking(move || store.blob_writer(digest, size).map_err(failed)).await?;
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(CHUNK);
            let count = bytes
                .read_buf(&mut buffer)
                .await
                .map_err(|error| internal(&format!("receive blob {}", blob.digest), &error))?;
            if count == 0 && buffer.is_empty() {
                break;
            }
            if count > 0 && buffer.len() < CHUNK {
                continue;
            }
            let chunk = buffer.split();
            writer = blocking(move || {
                writer.write(&chunk).map_err(failed)?;
                Ok(writer)
            })
            .await?;
        }
        blocking(move || writer.commit().map_err(failed)).await
    }

    pub(super) async fn register(&self, image: ImageRef) -> SiteResult<()> {
        let store = self.store.clone();
        blocking(move || {
            // A path is a name only to the site where it was typed.
            let name = image.name.parse::<ImageName>().ok();
            store
                .register(name.as_ref(), ImageId(image.digest))
                .map_err(|error| chained(ErrorCode::ImageMissing, &error))
        })
        .await
    }
}
