//! Which paths of an archive are acceptable: relative ones that never go up.

use super::Refusal;
use crate::store::policy::Limits;

/// Longest component of a path; all Linux file systems agree on it.
const COMPONENT_BYTES: usize = 255;

/// A path below the root of an archive: no leading `/`, no `.`, no `..`, no empty component. The root itself is empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::store) struct Name(Vec<u8>);

impl Name {
    /// `raw` without `.` and empty components.
    ///
    /// Absolute paths and `..` are refused rather than repaired: no image builder writes them, so whoever did wanted
    /// something else than an image.
    pub(in crate::store) fn parse(raw: &[u8], limits: &Limits) -> Result<Self, Refusal> {
        if raw.is_empty() || raw.contains(&0) {
            return Err(Refusal::NotAName);
        }
        if raw[0] == b'/' {
            return Err(Refusal::Absolute);
        }
        let too_long = Refusal::TooLong { limit: limits.path_bytes };
        if raw.len() > limits.path_bytes {
            return Err(too_long);
        }
        let mut clean = Vec::with_capacity(raw.len());
        let mut depth = 0;
        for component in raw.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => continue,
                b".." => return Err(Refusal::Parent),
                long if long.len() > COMPONENT_BYTES => return Err(too_long),
                _ => depth += 1,
            }
            if depth > limits.path_depth {
                return Err(Refusal::TooDeep { limit: limits.path_depth });
            }
            if !clean.is_empty() {
                clean.push(b'/');
            }
            clean.extend_from_slice(component);
        }
        Ok(Self(clean))
    }

    pub(in crate::store) fn root() -> Self {
        Self(Vec::new())
    }

    pub(in crate::store) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(in crate::store) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Parent directory and last component; the root has neither.
    pub(in crate::store) fn split(&self) -> Option<(Self, &[u8])> {
        if self.is_root() {
            return None;
        }
        match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => Some((Self(self.0[..slash].to_vec()), &self.0[slash + 1..])),
            None => Some((Self::root(), &self.0)),
        }
    }

    /// The directories on the way to it, the nearest first and the root last.
    pub(in crate::store) fn ancestors(&self) -> impl Iterator<Item = Self> {
        std::iter::successors(self.split().map(|(parent, _)| parent), |name| {
            name.split().map(|(parent, _)| parent)
        })
    }

    /// This path with its last component replaced. The caller vouches for `last`.
    pub(in crate::store) fn with_last(&self, last: &[u8]) -> Self {
        let kept = self.0.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let mut path = self.0[..kept].to_vec();
        path.extend_from_slice(last);
        Self(path)
    }

    pub(in crate::store) fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|component| !component.is_empty())
    }
}
