//! The one-time token that one site's user hands to the other's.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::{digest, rand};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use ums_model::names::Fingerprint;

use super::base32;
use crate::tls::host_port;

/// Most addresses in an invite or an announcement.
pub const MAX_ADDRESSES: usize = 8;
const PREFIX: &str = "ums1-";
const SECRET_LEN: usize = 16;
const ID_LEN: usize = 8;
const CHECK_LEN: usize = 4;
/// Longest `host:port` in bytes: a full DNS name and a port.
const MAX_ADDRESS: usize = 253 + 6;

/// An invitation to pair with the site that made it. Whoever holds its text can pair with that site, once, until it
/// expires there: treat it like a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invite {
    addresses: Vec<String>,
    fingerprint: Fingerprint,
    secret: Secret,
}

/// Names an invite without giving it away; derived from its secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InviteId([u8; ID_LEN]);

/// What only the two sites know: 128 random bits. Never printed by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; SECRET_LEN]);

/// A text is no invite, or an invite cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are what the messages say")]
pub enum InvalidInvite {
    /// Something else was pasted.
    #[error("this is no invite; invites start with {PREFIX}")]
    Foreign,
    /// A part is missing or mistyped.
    #[error("the invite is damaged or incomplete; copy all of it")]
    Damaged,
    /// Not `host:port`.
    #[error("{address:?} is no address; wanted is HOST:PORT")]
    Address { address: String },
    /// None, or too many.
    #[error("an invite needs 1 to {MAX_ADDRESSES} addresses, not {count}")]
    Addresses { count: usize },
    /// The system has no randomness.
    #[error("cannot get random bytes from the system")]
    Random,
}

impl Invite {
    /// A new invite to the site with this fingerprint, which listens at `addresses` (`host:port`, best first).
    pub fn new(addresses: Vec<String>, fingerprint: Fingerprint) -> Result<Self, InvalidInvite> {
        check_addresses(&addresses)?;
        let mut secret = [0; SECRET_LEN];
        rand::fill(&mut secret).map_err(|_| InvalidInvite::Random)?;
        Ok(Self { addresses, fingerprint, secret: Secret(secret) })
    }

    /// Where the inviting site listens.
    #[must_use]
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Whom to expect there.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// What to look the invite up by.
    #[must_use]
    pub fn id(&self) -> InviteId {
        self.secret.id()
    }

    /// What the inviting site must remember, besides when the invite expires.
    #[must_use]
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&self.secret.0);
        bytes.extend_from_slice(&self.fingerprint.0);
        for address in &self.addresses {
            // Checked when the invite was made.
            let length = u16::try_from(address.len()).expect("an address is at most 259 bytes long");
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(address.as_bytes());
        }
        let check = digest::digest(&digest::SHA256, &bytes);
        bytes.extend_from_slice(&check.as_ref()[..CHECK_LEN]);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (bytes, check) = bytes.split_at_checked(bytes.len().checked_sub(CHECK_LEN)?)?;
        if digest::digest(&digest::SHA256, bytes).as_ref()[..CHECK_LEN] != *check {
            return None;
        }
        let (secret, bytes) = bytes.split_first_chunk::<SECRET_LEN>()?;
        let (fingerprint, mut bytes) = bytes.split_first_chunk::<32>()?;
        let mut addresses = Vec::new();
        while !bytes.is_empty() {
            let (length, rest) = bytes.split_first_chunk::<2>()?;
            let (address, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            addresses.push(String::from_utf8(address.to_vec()).ok()?);
            bytes = rest;
        }
        check_addresses(&addresses).ok()?;
        Some(Self { addresses, fingerprint: Fingerprint(*fingerprint), secret: Secret(*secret) })
    }
}

pub(super) fn check_addresses(addresses: &[String]) -> Result<(), InvalidInvite> {
    if addresses.is_empty() || addresses.len() > MAX_ADDRESSES {
        return Err(InvalidInvite::Addresses { count: addresses.len() });
    }
    match addresses.iter().find(|address| address.len() > MAX_ADDRESS || host_port(address).is_none()) {
        Some(address) => {
            let address = address.chars().take(MAX_ADDRESS).collect();
            Err(InvalidInvite::Address { address })
        }
        None => Ok(()),
    }
}

impl fmt::Display for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", base32::encode(&self.to_bytes()))
    }
}

impl FromStr for Invite {
    type Err = InvalidInvite;

    fn from_str(text: &str) -> Result<Self, InvalidInvite> {
        // A terminal may have broken the line.
        let text: String = text.split_whitespace().collect();
        let start = text.get(..PREFIX.len()).filter(|start| start.eq_ignore_ascii_case(PREFIX));
        start.ok_or(InvalidInvite::Foreign)?;
        base32::decode(&text[PREFIX.len()..])
            .and_then(|bytes| Self::from_bytes(&bytes))
            .ok_or(InvalidInvite::Damaged)
    }
}

impl Secret {
    /// The secret as it was remembered.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; SECRET_LEN]) -> Self {
        Self(bytes)
    }

    /// To remember it.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; SECRET_LEN] {
        &self.0
    }

    /// The id of the invite with this secret.
    #[must_use]
    pub fn id(&self) -> InviteId {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"ums invite id");
        context.update(&self.0);
        let hash = context.finish();
        InviteId(*hash.as_ref().first_chunk().expect("SHA-256 has 32 bytes"))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl fmt::Display for InviteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&base32::encode(&self.0))
    }
}

impl FromStr for InviteId {
    type Err = InvalidInvite;

    fn from_str(text: &str) -> Result<Self, InvalidInvite> {
        let bytes = base32::decode(text).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or(InvalidInvite::Damaged)
    }
}

impl Serialize for InviteId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for InviteId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn invite() -> Invite {
        let addresses =
            vec!["10.0.0.1:7443".to_owned(), "[fd75::1]:7443".to_owned(), "edge.example:7443".to_owned()];
        Invite::new(addresses, Fingerprint([7; 32])).unwrap()
    }

    #[test]
    fn the_text_is_the_invite() {
        let invite = invite();
        let text = invite.to_string();
        assert!(text.starts_with("ums1-") && text.len() < 200, "{text}");
        assert_eq!(text.parse::<Invite>().unwrap(), invite);
        let broken_by_a_terminal = format!("  {}\n{} ", &text[..40], text[40..].to_uppercase());
        assert_eq!(broken_by_a_terminal.parse::<Invite>().unwrap(), invite);
        assert_eq!(invite.id().to_string().parse::<InviteId>().unwrap(), invite.id());
        assert_ne!(invite.id(), super::tests::invite().id(), "secrets must differ");
    }

    #[test]
    fn any_mistyped_character_is_noticed() {
        let text = invite().to_string();
        for at in PREFIX.len()..text.len() {
            let other = if &text[at..=at] == "q" { "r" } else { "q" };
            let mistyped = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            assert_eq!(mistyped.parse::<Invite>(), Err(InvalidInvite::Damaged), "at {at}");
            assert!(text[..at].parse::<Invite>().is_err());
        }
        assert_eq!("hunter2".parse::<Invite>(), Err(InvalidInvite::Foreign));
    }

    #[test]
    fn debug_does_not_tell() {
        let invite = invite();
        let secret = format!("{:?}", invite.secret.as_bytes());
        assert!(!format!("{invite:?}").contains(&secret) && format!("{invite:?}").contains("Secret(..)"));
    }

    #[test]
    fn addresses_are_checked() {
        let new = |addresses: &[&str]| {
            Invite::new(addresses.iter().map(|address| (*address).to_owned()).collect(), Fingerprint([7; 32]))
        };
        assert!(matches!(new(&[]), Err(InvalidInvite::Addresses { count: 0 })));
        assert!(matches!(new(&["a:1"; 9]), Err(InvalidInvite::Addresses { count: 9 })));
        assert!(matches!(new(&["a:1", "nowhere"]), Err(InvalidInvite::Address { .. })));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "\\PC*", tail in "[a-z2-7]*") {
            let _ = text.parse::<Invite>();
            let _ = format!("{PREFIX}{tail}").parse::<Invite>();
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let check = digest::digest(&digest::SHA256, &bytes);
            bytes.extend_from_slice(&check.as_ref()[..CHECK_LEN]);
            if let Some(invite) = Invite::from_bytes(&bytes) {
                prop_assert_eq!(invite.to_bytes(), bytes);
            }
        }
    }
}
