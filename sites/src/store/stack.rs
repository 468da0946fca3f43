//! When an overlay can show layers as they are.
//!
//! It cannot
//! - when there are many: overlay's `lowerdir=` has to fit in the one page that mount(2) takes as options, and every
//!   look-up of a name that is not there asks each layer;
//! - when a layer does not name its own directories: the overlay would show invented attributes where a lower layer has
//!   the right ones;
//! - when a layer hides everything below it by an opaque root: overlayfs never looks for that;
//! - when a layer hides something in a directory that no layer below has: overlayfs then passes that directory through
//!   as it is, and lists a name that cannot be opened.
//!
//! The last three do not happen in images that a builder made layer by layer, but do after squashing and the like.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::error::StoreError;
use super::layers::UnpackedLayer;
use super::merge::{Found, look};

/// Most layers that are stacked.
const MOST_STACKED: usize = 20;

/// Longest `lowerdir=` value: a page, less what upper and work directory and the other options take.
const LONGEST_OPTION: usize = 3000;

/// Whether an overlay of `layers`, bottom first, shows what the image means.
pub(super) fn shows_the_image(layers: &[UnpackedLayer]) -> Result<bool, StoreError> {
    let option: usize = layers.iter().map(|layer| layer.tree.as_os_str().len() + 1).sum();
    let is_plain = |layer: &UnpackedLayer| layer.record.unnamed.is_empty() && !layer.record.opaque_root;
    if layers.len() > MOST_STACKED || option > LONGEST_OPTION || !layers.iter().skip(1).all(is_plain) {
        return Ok(false);
    }
    for (index, layer) in layers.iter().enumerate() {
        for name in &layer.record.whiteouts {
            if !is_merged(&layers[..index], Path::new(OsStr::from_bytes(name)))? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Whether the directory of `whiteout` shows something of the layers `below` as well, so that overlayfs looks at its
/// entries one by one.
fn is_merged(below: &[UnpackedLayer], whiteout: &Path) -> Result<bool, StoreError> {
    let directory = whiteout.parent().unwrap_or(Path::new(""));
    'layers: for layer in below.iter().rev() {
        let mut path = PathBuf::new();
        let mut last_layer = false;
        for component in directory {
            path.push(component);
            match look(&layer.tree.join(&path))? {
                Some(Found::Directory { opaque }) => last_layer |= opaque,
                Some(Found::Whiteout | Found::Other) => return Ok(false),
                None if last_layer => return Ok(false),
                None => continue 'layers,
            }
        }
        return Ok(true);
    }
    Ok(false)
}
