//! Putting a paired site out, at once.

use futures_util::future::join_all;
use ums_model::error::WireError;
use ums_model::names::SiteName;
use ums_sites::adapter::SiteAdapter;

use crate::core::Core;
use crate::failure;
use crate::migrations::abort;
use crate::view::RevokedView;

/// Revokes a paired site. `Ok`: it is a stranger, also on connections that were open, and stays one until somebody makes
/// a new invite for it; migrations with it that were not committed are rolled back. Those that are committed, and a copy
/// that is HELD here, are named: exactly one copy must run in the end, so they go on, and the site is heard about them
/// and about nothing else. Interrupted after its first step, the rest is done by the next start.
pub(crate) async fn revoke<S: SiteAdapter>(
    core: &Core<S>,
    name: &SiteName,
) -> Result<RevokedView, WireError> {
    let site = core.peers.by_name(name)?;
    core.journal.revoke(site.clone()).await.map_err(|error| failure::journal(&error))?;
    core.peers.reload(&core.journal).await.map_err(|error| failure::journal(&error))?;
    core.policies.reload(&core.journal).await.map_err(|error| failure::journal(&error))?;
    core.peers.end(&site.fingerprint);
    tracing::warn!(site = %name, fingerprint = %site.fingerprint, "a site was revoked");
    // Nothing new begins from here on, so these are all.
    let under_way: Vec<_> = core
        .chronicles
        .under_way()
        .into_iter()
        .filter(|row| core.peers.are_one(&row.peer, &site.fingerprint))
        .map(|row| row.id)
        .collect();
    let ends = join_all(under_way.iter().map(|id| abort(core, *id))).await;
    let (mut aborted, mut going_on) = (Vec::new(), Vec::new());
    for (id, end) in under_way.into_iter().zip(ends) {
        match end {
            Ok(_) => aborted.push(id),
            Err(error) => {
                tracing::warn!(migration = %id, %error, "a migration with a revoked site goes on");
                going_on.push(id);
            }
        }
    }
    core.peers.reload(&core.journal).await.map_err(|error| failure::journal(&error))?;
    Ok(RevokedView { site: site.name, fingerprint: site.fingerprint, aborted, going_on })
}
