//! Making images: layers compressed for the store, and the documents around them.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use oci_spec::image::{Descriptor, ImageManifestBuilder, MediaType, SCHEMA_VERSION};
use ums_model::names::{Bytes, Digest};

use super::blobs::BlobSink;
use super::document::{BlobInfo, LayerBlob};
use super::error::StoreError;
use super::hash::Hashing;
use super::{ImageId, Inner, Store};

/// zstd's fastest ordinary level. Of a Debian root it leaves 37 %; level 3 leaves 31 % and takes nearly twice as long.
const LEVEL: i32 = 1;

/// Small writes, such as an archive's headers, are collected up to this size before they are hashed and compressed.
const COLLECT_BYTES: usize = 128 << 10;

/// Takes a layer's plain archive and makes it a compressed blob. Dropped before [`finish`](Self::finish), it leaves
/// nothing.
///
/// The store keeps such layers compressed because that is how they travel: less to write, and several times less to
/// send over a link between two sites.
pub(super) struct LayerSink {
    inner: Arc<Inner>,
    writer: BufWriter<Hashing<zstd::stream::write::Encoder<'static, BlobSink>>>,
}

impl LayerSink {
    pub(super) fn create(inner: &Arc<Inner>) -> Result<Self, StoreError> {
        let sink = BlobSink::create(inner, inner.limits.blob)?;
        let encoder = zstd::stream::write::Encoder::new(sink, LEVEL)
            .map_err(StoreError::io("compress into", inner.place.temporary()))?;
        let hashing = Hashing::new(encoder, inner.limits.unpacked);
        Ok(Self { inner: Arc::clone(inner), writer: BufWriter::with_capacity(COLLECT_BYTES, hashing) })
    }

    /// Puts the blob into the store, durably.
    pub(super) fn finish(self) -> Result<LayerBlob, StoreError> {
        let failed = StoreError::io("write a layer to", self.inner.place.temporary());
        let whole = || -> io::Result<_> {
            let hashing = self.writer.into_inner().map_err(io::IntoInnerError::into_error)?;
            let (encoder, diff_id, _) = hashing.finish();
            Ok((encoder.finish()?, diff_id))
        };
        let (sink, diff_id) = whole().map_err(failed)?;
        let (digest, size) = sink.commit(None)?;
        let blob = BlobInfo { digest, size, media_type: MediaType::ImageLayerZstd.to_string() };
        Ok(LayerBlob { blob, diff_id })
    }
}

impl Write for LayerSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Puts the configuration and a manifest for it and its `layers` (bottom first) into the store.
pub(super) fn assemble(store: &Store, config: &[u8], layers: &[BlobInfo]) -> Result<ImageId, StoreError> {
    let bad = |error: &dyn std::fmt::Display| StoreError::BadImage {
        what: "new manifest".to_owned(),
        reason: error.to_string(),
    };
    let describe = |media_type: MediaType, digest: &Digest, size: Bytes| {
        let digest: oci_spec::image::Digest = digest.to_string().parse().map_err(|error| bad(&error))?;
        Ok::<_, StoreError>(Descriptor::new(media_type, size.get(), digest))
    };
    let (digest, size) = store.put_blob(config)?;
    let layers = layers
        .iter()
        .map(|layer| describe(MediaType::from(layer.media_type.as_str()), &layer.digest, layer.size))
        .collect::<Result<Vec<_>, _>>()?;
    let manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .config(describe(MediaType::ImageConfig, &digest, size)?)
        .layers(layers)
        .build()
        .map_err(|error| bad(&error))?;
    let content = serde_json::to_vec(&manifest).map_err(|error| bad(&error))?;
    Ok(ImageId(store.put_blob(&content)?.0))
}
