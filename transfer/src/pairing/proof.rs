//! Proving that one knows the invite's secret, to exactly this other site, in exactly this session.

use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};
use ums_model::names::Fingerprint;

use super::Secret;

/// Who makes a proof. In the proof, so that neither side can return the other's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Invited,
    Inviting,
}

/// The two sites and their session: what a proof is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Session {
    pub(super) invited: Fingerprint,
    pub(super) inviting: Fingerprint,
    /// Derived by TLS from the keys of this connection; another connection has another.
    pub(super) binding: [u8; 32],
}

/// Under which TLS derives the binding.
const EXPORT_LABEL: &[u8] = b"EXPORTER-ums-pairing-1";

/// An HMAC-SHA256.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Proof([u8; 32]);

impl Session {
    pub(super) fn new(
        invited: Fingerprint,
        inviting: Fingerprint,
        stream: &crate::tls::TlsStream,
    ) -> Result<Self, rustls::Error> {
        let binding = match stream {
            tokio_rustls::TlsStream::Client(stream) => {
                stream.get_ref().1.export_keying_material([0; 32], EXPORT_LABEL, None)
            }
            tokio_rustls::TlsStream::Server(stream) => {
                stream.get_ref().1.export_keying_material([0; 32], EXPORT_LABEL, None)
            }
        };
        Ok(Self { invited, inviting, binding: binding? })
    }

    pub(super) fn prove(&self, secret: &Secret, role: Role) -> Proof {
        let tag = hmac::sign(&key(secret), &self.message(role));
        Proof(tag.as_ref().try_into().expect("HMAC-SHA256 has 32 bytes"))
    }

    /// Compares in constant time.
    pub(super) fn verify(&self, secret: &Secret, role: Role, proof: &Proof) -> bool {
        hmac::verify(&key(secret), &self.message(role), &proof.0).is_ok()
    }

    /// Fixed lengths throughout, so that no two sessions share a message.
    fn message(&self, role: Role) -> Vec<u8> {
        let label: &[u8; 16] = match role {
            Role::Invited => b"ums-pair invited",
            Role::Inviting => b"ums-pairinviting",
        };
        [label.as_slice(), &self.invited.0, &self.inviting.0, &self.binding].concat()
    }
}

fn key(secret: &Secret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_good_for_one_role_session_and_secret() {
        let secret = Secret::from_bytes([1; 16]);
        let session =
            Session { invited: Fingerprint([2; 32]), inviting: Fingerprint([3; 32]), binding: [4; 32] };
        let proof = session.prove(&secret, Role::Invited);
        assert!(session.verify(&secret, Role::Invited, &proof));

        assert!(!session.verify(&secret, Role::Inviting, &proof), "reflected");
        assert!(!session.verify(&Secret::from_bytes([9; 16]), Role::Invited, &proof), "another secret");
        let replayed = Session { binding: [9; 32], ..session };
        assert!(!replayed.verify(&secret, Role::Invited, &proof), "another session");
        let swapped = Session { invited: session.inviting, inviting: session.invited, ..session };
        assert!(!swapped.verify(&secret, Role::Invited, &proof), "swapped sites");
        let between = Session { inviting: Fingerprint([9; 32]), ..session };
        assert!(!between.verify(&secret, Role::Invited, &proof), "somebody in between");
    }
}
