//! Introducing this site to another one, and forgetting it.

use std::sync::Arc;

use ums_model::error::{ErrorCode, WireError};
use ums_model::names::SiteName;
use ums_sites::adapter::SiteAdapter;
use ums_transfer::pairing::{
    Announcement, Invite, InviteBook, InviteId, Paired, Refusal, Secret, pair_client, pair_server,
};
use ums_transfer::tls::Accepted;

use crate::clock::unix_ms;
use crate::core::Core;
use crate::failure;
use crate::journal::{Direction, PairedRow, Redeemed};
use crate::view::{AcceptedView, InviteView, PairedView};

/// Makes a token for the user of another site. Good for one site, until it expires.
pub(crate) async fn invite<S: SiteAdapter>(core: &Core<S>) -> Result<InviteView, WireError> {
    let addresses = core.addresses();
    let invite = Invite::new(addresses.clone(), core.identity().fingerprint()).map_err(|error| {
        WireError::new(ErrorCode::Internal, format!("cannot make an invite: {error}"))
            .with_hint("say where this site can be dialed: ums site --advertise HOST:PORT")
    })?;
    let lifetime = u64::try_from(core.config.deadlines.invite.as_millis()).unwrap_or(u64::MAX);
    let expires_unix_ms = unix_ms().saturating_add(lifetime);
    let remembered = core.journal.invite(invite.id(), invite.secret().clone(), expires_unix_ms).await;
    remembered.map_err(|error| failure::journal(&error))?;
    let fingerprint = core.identity().fingerprint();
    Ok(InviteView { token: invite.to_string(), fingerprint, addresses, expires_unix_ms })
}

/// Pairs with the site that made `token`. `Ok`: both sites know each other. Safe to repeat with the same token.
pub(crate) async fn accept<S: SiteAdapter>(core: &Core<S>, token: &str) -> Result<AcceptedView, WireError> {
    let invite: Invite = token.parse().map_err(|error| {
        WireError::new(ErrorCode::BadRequest, format!("cannot read the invite: {error}"))
            .with_hint("copy the whole token that the other site printed: ums pair invite")
    })?;
    let deadlines = core.config.deadlines.link();
    let paired = pair_client(&invite, &core.identity(), &announcement(core), &deadlines).await;
    let row = row(paired.map_err(|error| failure::pairing(&error))?);
    let clash = || {
        let message = format!(
            "cannot pair with {}: a site of this name is paired already, or it is this one's own",
            row.name
        );
        WireError::new(ErrorCode::NameTaken, message)
            .with_hint(format!("forget the other one first: ums sites rm {}", row.name))
    };
    if row.name == core.config.name {
        return Err(clash());
    }
    if !core.journal.pair(row.clone()).await.map_err(|error| failure::journal(&error))? {
        return Err(clash());
    }
    core.peers.reload(&core.journal).await.map_err(|error| failure::journal(&error))?;
    tracing::info!(site = %row.name, fingerprint = %row.fingerprint, "paired");
    Ok(AcceptedView { site: view(row), fingerprint: core.identity().fingerprint() })
}

/// Serves a site that comes with a token.
pub(crate) async fn serve<S: SiteAdapter>(core: &Arc<Core<S>>, accepted: Accepted) -> Result<(), WireError> {
    let book = Book { core };
    let deadlines = core.config.deadlines.link();
    let paired = pair_server(accepted, &core.identity(), &book, &announcement(core), &deadlines).await;
    let paired = paired.map_err(|error| failure::pairing(&error))?;
    tracing::info!(site = %paired.site.name, fingerprint = %paired.site.fingerprint, "paired");
    Ok(())
}

/// Forgets a paired site: from now on it is a stranger. Not while a migration with it is under way.
pub(crate) async fn unpair<S: SiteAdapter>(core: &Core<S>, name: &SiteName) -> Result<(), WireError> {
    let site = core.peers.by_name(name)?;
    let unfinished = core.journal.unfinished().await.map_err(|error| failure::journal(&error))?;
    if let Some(row) = unfinished.iter().find(|row| core.peers.are_one(&row.peer, &site.fingerprint)) {
        let message = format!(
            "cannot forget site {name}: migration {} of {} with it is under way",
            row.id, row.service
        );
        return Err(WireError::new(ErrorCode::AlreadyMigrating, message));
    }
    core.journal.unpair(site.fingerprint).await.map_err(|error| failure::journal(&error))?;
    core.peers.reload(&core.journal).await.map_err(|error| failure::journal(&error))?;
    core.policies.reload(&core.journal).await.map_err(|error| failure::journal(&error))?;
    core.peers.end(&site.fingerprint);
    tracing::info!(site = %name, fingerprint = %site.fingerprint, "unpaired");
    Ok(())
}

/// A paired site, as the API shows it.
pub(crate) fn view(row: PairedRow) -> PairedView {
    PairedView {
        name: row.name,
        fingerprint: row.fingerprint,
        addresses: row.addresses,
        we_can_dial: row.direction.we_can_dial,
        they_can_dial: row.direction.they_can_dial,
        paired_unix_ms: row.paired_unix_ms,
    }
}

fn announcement<S: SiteAdapter>(core: &Core<S>) -> Announcement {
    Announcement { name: core.config.name.clone(), addresses: core.addresses() }
}

fn row(paired: Paired) -> PairedRow {
    let Paired { site, we_can_dial, they_can_dial } = paired;
    PairedRow {
        fingerprint: site.fingerprint,
        name: site.name,
        addresses: site.addresses,
        direction: Direction { we_can_dial, they_can_dial },
        paired_unix_ms: unix_ms(),
    }
}

/// The invites of this site, for the pairing protocol.
struct Book<'a, S> {
    core: &'a Core<S>,
}

impl<S: SiteAdapter> InviteBook for Book<'_, S> {
    async fn secret(&self, id: InviteId) -> Option<Secret> {
        match self.core.journal.invite_secret(id).await {
            Ok(secret) => secret,
            Err(error) => {
                tracing::error!(error = failure::chain(&error), "cannot look for an invite");
                None
            }
        }
    }

    async fn redeem(&self, id: InviteId, paired: &Paired) -> Result<(), Refusal> {
        let other = |message: String| Err(Refusal::Other { message });
        let row = row(paired.clone());
        if row.name == self.core.config.name {
            return other(format!("this site is called {} itself", row.name));
        }
        let name = row.name.clone();
        match self.core.journal.redeem(id, row).await {
            Ok(Redeemed::Done) => {}
            Ok(Redeemed::Used) => return Err(Refusal::Used),
            Ok(Redeemed::Unknown) => return Err(Refusal::UnknownInvite),
            Ok(Redeemed::NameTaken) => {
                return other(format!("another site called {name} is paired with this one"));
            }
            Err(error) => return other(failure::chain(&error)),
        }
        // Before the other site hears yes: its first link may come at once.
        match self.core.peers.reload(&self.core.journal).await {
            Ok(()) => Ok(()),
            Err(error) => other(failure::chain(&error)),
        }
    }
}
