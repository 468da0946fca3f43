//! Decoders of images as functions of bytes, for those who feed them nonsense.

use std::io::Read as _;

use ums_model::names::Digest;

use super::archive::ArchiveReader;
use super::document::{parse_config, parse_manifest};
use super::oci::parse_index;
use super::policy::Limits;

/// Reads an archive of a layer or of an image to its end or its first defect, bodies too: whether it came to its end.
pub fn archive(bytes: &[u8]) -> bool {
    let limits = Limits::default();
    let mut reader = ArchiveReader::new(bytes, &limits);
    loop {
        match reader.next_entry() {
            Ok(Some(_)) => {}
            end => return end.is_ok(),
        }
        let mut body = [0; 512];
        while reader.body().read(&mut body).is_ok_and(|length| length > 0) {}
    }
}

/// Reads a manifest, a configuration and an index: whether it is one of them.
pub fn documents(bytes: &[u8]) -> bool {
    let digest = Digest::sha256([0; 32]);
    let manifest = parse_manifest(bytes, &digest).is_ok();
    let config = parse_config(bytes, &digest).is_ok();
    parse_index(bytes, "the index").is_ok() | manifest | config
}
