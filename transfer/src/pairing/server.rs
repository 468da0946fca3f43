//! The inviting side.

use tokio::io::split;
use tokio::time::timeout;
use ums_model::names::Fingerprint;

use super::message::{Reply, Request, concrete, with_first};
use super::proof::{Role, Session};
use super::{Announcement, InviteId, Paired, PairedSite, PairingError, Refusal, Secret, invite};
use crate::Deadlines;
use crate::frame::Conversation;
use crate::identity::Identity;
use crate::tls::{self, Accepted, TlsError};

/// The invites that a site has given out.
pub trait InviteBook {
    /// The secret of an invite that has not expired or been withdrawn; also of one that was redeemed, so that a site
    /// whose reply was lost can come again.
    fn secret(&self, id: InviteId) -> impl Future<Output = Option<Secret>> + Send;

    /// Marks the invite as redeemed by this site and records the site as paired, durably and in one step.
    ///
    /// `Ok` also if this very fingerprint redeemed it before. `Err` with [`Refusal::Used`] if another one did, or
    /// with any other reason not to want the site; then nothing is recorded. Revoking a site must withdraw its
    /// invite, or the site could come back with it.
    fn redeem(&self, id: InviteId, paired: &Paired) -> impl Future<Output = Result<(), Refusal>> + Send;
}

/// Serves one connection that [`tls::ServerTls::accept`] accepted for [`tls::Alpn::Pairing`].
///
/// `Ok`: the other site proved the invite, was recorded by `book`, and was told so (whether it heard it is not
/// known). `Err` concerns this connection only; the other side was told why if it could be. A connection that is
/// closed without a request, as those that only try whether we can be reached, gives
/// [`FrameError::Ended`](crate::frame::FrameError::Ended).
pub async fn pair_server(
    accepted: Accepted,
    identity: &Identity,
    book: &impl InviteBook,
    announcement: &Announcement,
    deadlines: &Deadlines,
) -> Result<Paired, PairingError> {
    let with = accepted.address.to_string();
    let exchange =
        timeout(deadlines.pairing, exchange(accepted, &with, identity, book, announcement, deadlines));
    exchange.await.map_err(|_| PairingError::TimedOut { with: with.clone(), after: deadlines.pairing })?
}

async fn exchange(
    accepted: Accepted,
    with: &str,
    identity: &Identity,
    book: &impl InviteBook,
    announcement: &Announcement,
    deadlines: &Deadlines,
) -> Result<Paired, PairingError> {
    let failed = |source| PairingError::Frame { with: with.to_owned(), source };
    let invited = accepted.peer.ok_or_else(|| TlsError::NoCertificate { address: with.to_owned() })?;
    let seen = accepted.address.ip();
    let session = Session::new(invited, identity.fingerprint(), &accepted.stream)
        .map_err(|source| PairingError::Binding { source })?;
    let (reader, writer) = split(accepted.stream);
    let mut frames = Conversation::new(reader, writer, deadlines);
    let request: Request = frames.expect(deadlines.hello).await.map_err(failed)?;

    let decide = async {
        let secret = check(&request, &session, book).await?;
        let addresses = concrete(&request.announcement.addresses, seen);
        let paired = dial_back(&request.announcement, addresses, session.invited, identity, deadlines).await;
        book.redeem(request.invite, &paired).await?;
        Ok::<_, Refusal>((paired, session.prove(&secret, Role::Inviting)))
    };
    let decision = frames.writer.alive_while(decide).await.map_err(failed)?;
    let reply = match &decision {
        Ok((paired, proof)) => Reply::Accepted {
            proof: proof.clone(),
            announcement: announcement.clone(),
            dialed_back: paired.we_can_dial,
        },
        Err(reason) => Reply::Refused(reason.clone()),
    };
    let told = match frames.send(&reply).await {
        Ok(()) => frames.writer.close().await,
        failed => failed,
    };
    match decision {
        // What was decided stands, heard or not: a site that did not hear it comes again with the same invite.
        Ok((paired, _)) => Ok(paired),
        Err(reason) => {
            told.map_err(failed).and(Err(PairingError::Refusing { with: with.to_owned(), reason }))
        }
    }
}

/// Whether the request deserves an answer; returns the invite's secret.
async fn check(request: &Request, session: &Session, book: &impl InviteBook) -> Result<Secret, Refusal> {
    let secret = book.secret(request.invite).await.ok_or(Refusal::UnknownInvite)?;
    if !session.verify(&secret, Role::Invited, &request.proof) {
        return Err(Refusal::WrongProof);
    }
    invite::check_addresses(&request.announcement.addresses)
        .map_err(|error| Refusal::Announcement { message: error.to_string() })?;
    Ok(secret)
}

/// Tries the addresses of a site that just proved itself. Only such a site makes us dial anything.
async fn dial_back(
    announcement: &Announcement,
    addresses: Vec<String>,
    fingerprint: Fingerprint,
    identity: &Identity,
    deadlines: &Deadlines,
) -> Paired {
    let first_that_works = async {
        for address in &addresses {
            if tls::reachable(address, identity, fingerprint, deadlines).await.is_ok() {
                return Some(address.clone());
            }
        }
        None
    };
    let works = timeout(deadlines.dial_back, first_that_works).await.unwrap_or(None);
    let we_can_dial = works.is_some();
    let addresses = works.map_or(addresses.clone(), |works| with_first(addresses, &works));
    let site = PairedSite { name: announcement.name.clone(), fingerprint, addresses };
    Paired { site, we_can_dial, they_can_dial: true }
}
