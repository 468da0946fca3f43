//! The two images that say which namespaces a restored tree gets, as this host wants them.
//!
//! A tree with a user namespace of its own is restored by CRIU into a *new* one, with the map from its image: the ids of
//! this host must be in it, and not those of the other one. Its network namespace must belong to the new user namespace,
//! so CRIU has to make that one as well. The dump left the old one out as external; an entry that says nothing has an
//! empty namespace made in no time, which is then wired from outside.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use prost::Message;

use crate::userns::IdRange;

/// First word of every image, and the second of these two.
const SERVICE: u32 = 0x5456_4319;
const USER: u32 = 0x5547_4906;
const NETWORK: u32 = 0x5593_3752;

/// The images do not fit to how the service is to live here. Nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum NamespacesError {
    /// The directory cannot be read or written.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// One image was expected.
    #[error("the images have {found} of a {kind} namespace where there must be {expected}")]
    Count {
        /// Of which kind.
        kind: &'static str,
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// It is not what it is called.
    #[error("image {name} is malformed")]
    Malformed {
        /// Its name.
        name: String,
    },
    /// The service was dumped with another map.
    #[error("the service was dumped with {found} ids and gets {expected} here")]
    Map {
        /// How many ids, in one piece from 0, the dump has; 0 if they are not in one piece.
        found: u32,
        /// How many it should have.
        expected: u32,
    },
}

/// One piece of a map.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct Extent {
    #[prost(uint32, required, tag = "1")]
    inside: u32,
    #[prost(uint32, required, tag = "2")]
    outside: u32,
    #[prost(uint32, required, tag = "3")]
    count: u32,
}

/// The map of a user namespace.
#[derive(Clone, PartialEq, Eq, Message)]
struct UserNamespace {
    #[prost(message, repeated, tag = "1")]
    users: Vec<Extent>,
    #[prost(message, repeated, tag = "2")]
    groups: Vec<Extent>,
}

/// Fits the complete images in `directory` to this host: for a tree with a user namespace of `ids`, or without one.
///
/// On `Err` nothing may be restored from them. Safe to repeat.
pub fn adopt(directory: &Path, ids: Option<IdRange>) -> Result<(), NamespacesError> {
    let expected = usize::from(ids.is_some());
    let users = named(directory, "userns-")?;
    if users.len() != expected {
        return Err(NamespacesError::Count { kind: "user", found: users.len(), expected });
    }
    let Some(ids) = ids else { return Ok(()) };
    let networks = named(directory, "netns-")?;
    let ([user], [network]) = (users.as_slice(), networks.as_slice()) else {
        return Err(NamespacesError::Count { kind: "network", found: networks.len(), expected });
    };
    read(directory, network, NETWORK)?;
    let old = UserNamespace::decode(&read(directory, user, USER)?[..]).map_err(|_| malformed(user))?;
    for map in [&old.users, &old.groups] {
        let whole = matches!(map.as_slice(), [Extent { inside: 0, count, .. }] if *count == ids.count);
        if !whole {
            let found = map.first().filter(|piece| map.len() == 1 && piece.inside == 0);
            return Err(NamespacesError::Map {
                found: found.map_or(0, |piece| piece.count),
                expected: ids.count,
            });
        }
    }
    let map = vec![Extent { inside: 0, outside: ids.first, count: ids.count }];
    write(directory, user, USER, &UserNamespace { users: map.clone(), groups: map }.encode_to_vec())?;
    write(directory, network, NETWORK, &[])
}

/// Images of namespaces of one kind: `KIND-NUMBER.img`.
fn named(directory: &Path, kind: &str) -> Result<Vec<String>, NamespacesError> {
    let failed = |source| NamespacesError::File { action: "list", path: directory.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        let number = name.strip_prefix(kind).and_then(|rest| rest.strip_suffix(".img"));
        if number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
        {
            names.push(name);
        }
    }
    Ok(names)
}

/// The one entry of an image.
fn read(directory: &Path, name: &str, kind: u32) -> Result<Vec<u8>, NamespacesError> {
    let path = directory.join(name);
    let image = fs::read(&path).map_err(|source| NamespacesError::File { action: "read", path, source })?;
    let word =
        |at: usize| -> Option<u32> { Some(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?)) };
    let entry = image.get(12..).unwrap_or_default();
    let whole = word(0) == Some(SERVICE)
        && word(4) == Some(kind)
        && word(8).is_some_and(|length| u64::from(length) == entry.len() as u64);
    if whole { Ok(entry.to_vec()) } else { Err(malformed(name)) }
}

fn write(directory: &Path, name: &str, kind: u32, entry: &[u8]) -> Result<(), NamespacesError> {
    let length = u32::try_from(entry.len()).expect("an entry of two extents is short");
    let mut image = Vec::with_capacity(12 + entry.len());
    for word in [SERVICE, kind, length] {
        image.extend_from_slice(&word.to_le_bytes());
    }
    image.extend_from_slice(entry);
    let path = directory.join(name);
    fs::write(&path, image).map_err(|source| NamespacesError::File { action: "write", path, source })
}

fn malformed(name: &str) -> NamespacesError {
    NamespacesError::Malformed { name: name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: IdRange = IdRange { first: 200_000, count: 65_536 };
    /// As CRIU 4.2.1 wrote them: 0 is 100000, 65536 ids, users and groups; and an external network namespace.
    const DUMPED_USER: &str = "19435654064947551800000\
        00a0a080010a08d0618808004120a080010a08d0618808004";
    const DUMPED_NETWORK: &[u8] = b"\x19CVTR7\x93U\x08\0\0\0B\x06extnet";

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
    }

    fn dump(user: Option<&[u8]>, network: &[u8]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        if let Some(user) = user {
            fs::write(directory.path().join("userns-14.img"), user).unwrap();
        }
        fs::write(directory.path().join("netns-10.img"), network).unwrap();
        fs::write(directory.path().join("netns-ct-10.img"), "another kind").unwrap();
        directory
    }

    #[test]
    fn the_map_becomes_this_hosts_and_the_network_an_empty_one() {
        let images = dump(Some(&unhex(DUMPED_USER)), DUMPED_NETWORK);
        for _ in 0..2 {
            adopt(images.path(), Some(IDS)).unwrap();
            let user = read(images.path(), "userns-14.img", USER).unwrap();
            let user = UserNamespace::decode(&user[..]).unwrap();
            assert_eq!(user.users, [Extent { inside: 0, outside: 200_000, count: 65_536 }]);
            assert_eq!(user.groups, user.users);
            assert_eq!(read(images.path(), "netns-10.img", NETWORK).unwrap(), b"");
        }
    }

    #[test]
    fn images_that_do_not_fit_are_refused() {
        let without = dump(None, DUMPED_NETWORK);
        adopt(without.path(), None).unwrap();
        assert!(matches!(adopt(without.path(), Some(IDS)), Err(NamespacesError::Count { .. })));
        let with = dump(Some(&unhex(DUMPED_USER)), DUMPED_NETWORK);
        assert!(matches!(adopt(with.path(), None), Err(NamespacesError::Count { .. })));
        let small = IdRange { count: 10, ..IDS };
        assert!(matches!(adopt(with.path(), Some(small)), Err(NamespacesError::Map { found: 65_536, .. })));
    }

    #[test]
    fn damage_is_refused_wherever_it_is() {
        let whole = unhex(DUMPED_USER);
        for cut in 0..whole.len() {
            let images = dump(Some(&whole[..cut]), DUMPED_NETWORK);
            assert!(adopt(images.path(), Some(IDS)).is_err(), "cut after {cut} bytes");
        }
        let images = dump(Some(&whole), &DUMPED_NETWORK[..DUMPED_NETWORK.len() - 1]);
        assert!(matches!(adopt(images.path(), Some(IDS)), Err(NamespacesError::Malformed { .. })));
    }
}
