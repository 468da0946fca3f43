//! Inputs that are kept: `fuzz/corpus/TARGET/`, one per file.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// Where the inputs of a target are.
pub fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// Inputs whose names begin so are such as their decoder must not take.
pub const REFUSED: &str = "refused-";

/// An input that is kept.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Name of its file.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// All kept inputs of a target, in the order of their names; at least one.
pub fn kept(target: &str) -> Result<Vec<Kept>> {
    let folder = folder(target);
    let list = || format!("cannot list {}", folder.display());
    let mut kept = Vec::new();
    for entry in fs::read_dir(&folder).with_context(list)? {
        let path = entry.with_context(list)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        kept.push(Kept { name, bytes });
    }
    anyhow::ensure!(!kept.is_empty(), "target {target} has no input to begin with");
    kept.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(kept)
}
