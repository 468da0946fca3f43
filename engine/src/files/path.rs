//! Names of things in a tree.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::text;

/// Longest path that Linux takes in one call, without the final NUL.
const MAX_BYTES: usize = 4095;
/// Longest name in a directory.
const MAX_NAME: usize = 255;

/// A path relative to the root of a tree, as bytes: no `..`, no `.`, no empty part, no NUL, at most 4095 bytes.
///
/// As text (on the wire, in messages) it is UTF-8 with `%XX` for everything that is none; the root is `.`. Ordered as
/// a tree is walked: a directory before its content, names by their bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TreePath(Vec<u8>);

/// A text that names nothing inside of a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid path {path:?} in a file tree: {reason}")]
pub struct InvalidTreePath {
    /// The path as it was given, cut after 200 characters.
    pub path: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl TreePath {
    /// The root of the tree.
    pub fn root() -> Self {
        Self(Vec::new())
    }

    /// Checks `path`; an empty one is the root.
    pub fn new(path: &[u8]) -> Result<Self, InvalidTreePath> {
        match Self::fault(path) {
            None => Ok(Self(path.to_vec())),
            Some(reason) => Err(InvalidTreePath::new(path, reason)),
        }
    }

    fn fault(path: &[u8]) -> Option<&'static str> {
        if path.is_empty() {
            return None;
        }
        if path.len() > MAX_BYTES {
            return Some("longer than 4095 bytes");
        }
        path.split(|byte| *byte == b'/').find_map(|name| match name {
            b"" => Some("it is absolute or has an empty part"),
            b"." | b".." => Some("it has a part that is . or .."),
            name if name.len() > MAX_NAME => Some("a part is longer than 255 bytes"),
            name if name.contains(&0) => Some("it contains NUL"),
            _ => None,
        })
    }

    /// The path of `name` in this directory.
    pub fn join(&self, name: &[u8]) -> Result<Self, InvalidTreePath> {
        let mut path = self.0.clone();
        if !self.is_root() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        if name.is_empty() || name.contains(&b'/') {
            return Err(InvalidTreePath::new(&path, "a part is empty or contains a slash"));
        }
        Self::new(&path)
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path as bytes; empty for the root.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path as system calls take it, relative to the root: `.` for the root itself.
    pub fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(if self.is_root() { b"." } else { &self.0 })
    }

    /// The directory that it is in, and its name there; `None` for the root.
    pub fn split(&self) -> Option<(Self, &OsStr)> {
        if self.is_root() {
            return None;
        }
        let (parent, name) = match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&self.0[..slash], &self.0[slash + 1..]),
            None => (&self.0[..0], &self.0[..]),
        };
        Some((Self(parent.to_vec()), OsStr::from_bytes(name)))
    }

    /// Number of its parts; 0 for the root.
    pub fn depth(&self) -> usize {
        self.parts().count()
    }

    /// Whether this is `ancestor` or lies below it.
    pub fn is_within(&self, ancestor: &Self) -> bool {
        match self.0.strip_prefix(&*ancestor.0) {
            Some(rest) => ancestor.is_root() || rest.is_empty() || rest[0] == b'/',
            None => false,
        }
    }

    fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|part| !part.is_empty())
    }
}

impl InvalidTreePath {
    fn new(path: &[u8], reason: &'static str) -> Self {
        Self { path: text::encode(path).chars().take(200).collect(), reason }
    }
}

impl Ord for TreePath {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(other.parts())
    }
}

impl PartialOrd for TreePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() { f.write_str(".") } else { text::write(f, &self.0) }
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TreePath({self})")
    }
}

impl FromStr for TreePath {
    type Err = InvalidTreePath;

    fn from_str(text: &str) -> Result<Self, InvalidTreePath> {
        if text == "." {
            return Ok(Self::root());
        }
        let wrong = |reason| InvalidTreePath::new(text.as_bytes(), reason);
        if text.is_empty() {
            return Err(wrong("it is empty"));
        }
        let path =
            text::decode(text).ok_or_else(|| wrong("a % is not followed by two hexadecimal digits"))?;
        Self::new(&path)
    }
}

impl Serialize for TreePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TreePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
