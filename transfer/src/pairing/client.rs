//! The invited side.

use tokio::io::split;
use tokio::time::timeout;

use super::message::{Reply, Request, concrete, with_first};
use super::proof::{Role, Session};
use super::{Announcement, Invite, Paired, PairedSite, PairingError, Refusal, invite};
use crate::Deadlines;
use crate::frame::{Conversation, FrameError};
use crate::identity::Identity;
use crate::tls::{self, Dial, TlsError, TlsStream};

/// Pairs with the site that made `invite`. Our own port must be served meanwhile, or that site cannot dial back.
///
/// `Ok`: that site proved that it made the invite and has recorded us; the caller must record it now. `Err`: see
/// [`PairingError`]; safe to repeat with the same invite and identity.
pub async fn pair_client(
    invite: &Invite,
    identity: &Identity,
    announcement: &Announcement,
    deadlines: &Deadlines,
) -> Result<Paired, PairingError> {
    if invite.fingerprint() == identity.fingerprint() {
        return Err(PairingError::OwnInvite);
    }
    let (stream, address) = dial_any(invite, identity, deadlines).await?;
    let exchange =
        timeout(deadlines.pairing, exchange(stream, &address, invite, identity, announcement, deadlines));
    exchange.await.map_err(|_| PairingError::TimedOut { with: address.clone(), after: deadlines.pairing })?
}

async fn dial_any(
    invite: &Invite,
    identity: &Identity,
    deadlines: &Deadlines,
) -> Result<(TlsStream, String), TlsError> {
    let mut failure = None;
    for address in invite.addresses() {
        match tls::connect(address, identity, Dial::Pair(invite.fingerprint()), deadlines).await {
            Ok(stream) => return Ok((stream, address.clone())),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.expect("an invite has at least one address"))
}

async fn exchange(
    stream: TlsStream,
    with: &str,
    invite: &Invite,
    identity: &Identity,
    announcement: &Announcement,
    deadlines: &Deadlines,
) -> Result<Paired, PairingError> {
    let failed = |source| PairingError::Frame { with: with.to_owned(), source };
    let seen = stream.get_ref().0.peer_addr();
    let seen = seen.map_err(|source| failed(FrameError::Read { source }))?.ip();
    let session = Session::new(identity.fingerprint(), invite.fingerprint(), &stream)
        .map_err(|source| PairingError::Binding { source })?;
    let (reader, writer) = split(stream);
    let mut frames = Conversation::new(reader, writer, deadlines);

    let proof = session.prove(invite.secret(), Role::Invited);
    let request = Request { invite: invite.id(), proof, announcement: announcement.clone() };
    frames.send(&request).await.map_err(failed)?;
    match frames.expect(deadlines.pairing).await.map_err(failed)? {
        Reply::Refused(reason) => Err(PairingError::Refused { with: with.to_owned(), reason }),
        Reply::Accepted { proof, announcement, dialed_back } => {
            if !session.verify(invite.secret(), Role::Inviting, &proof) {
                return Err(PairingError::NotProven { with: with.to_owned() });
            }
            invite::check_addresses(&announcement.addresses).map_err(|error| PairingError::Refusing {
                with: with.to_owned(),
                reason: Refusal::Announcement { message: error.to_string() },
            })?;
            let addresses = with_first(concrete(&announcement.addresses, seen), with);
            let site = PairedSite { name: announcement.name, fingerprint: invite.fingerprint(), addresses };
            Ok(Paired { site, we_can_dial: true, they_can_dial: dialed_back })
        }
    }
}
