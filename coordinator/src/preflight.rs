//! Can it move, and what will it cost? Facts of both sites, handed to the pure checks of [`ums_model::plan`].

use ums_model::error::{ErrorCode, WireError};
use ums_model::names::{MigrationId, ServiceName, SiteName};
use ums_model::plan::{HEADROOM_PERCENT, LinkFacts, Plan, ServiceFacts, SiteFacts, plan};
use ums_model::policy::Wish;
use ums_model::spec::ServiceSpec;
use ums_sites::adapter::SiteAdapter;

use crate::control::{self, There};
use crate::core::Core;
use crate::failure;
use crate::journal::PairedRow;

/// A plan, and what it was made from.
#[derive(Debug)]
pub(crate) struct Preflight {
    /// The answer.
    pub(crate) plan: Plan,
    /// The service.
    pub(crate) spec: ServiceSpec,
    /// What it is now.
    pub(crate) service: ServiceFacts,
    /// The other site.
    pub(crate) peer: PairedRow,
    here: SiteFacts,
    there: SiteFacts,
    link: LinkFacts,
}

/// Makes the plan of moving `service` to the paired site `to`. Touches nothing. `within` is the migration that asks,
/// which is no obstacle to itself.
pub(crate) async fn preflight<S: SiteAdapter>(
    core: &Core<S>,
    service: &ServiceName,
    to: &SiteName,
    within: Option<MigrationId>,
) -> Result<Preflight, WireError> {
    let peer = core.peers.by_name(to)?;
    let spec = spec_of(core, service).await?;
    let mut facts = look_at_service(core, service, within).await?;
    let here = core.facts().await?;
    let mut wish = Wish::of(
        &spec,
        facts.memory.plus_percent(HEADROOM_PERCENT),
        (facts.files + facts.image_bytes).plus_percent(HEADROOM_PERCENT),
    );
    wish.special_files = facts.special_files.clone();
    let own = core.against_departure(&peer, service);
    let There { facts: there, image_present, link, blockers } =
        control::ask_facts(core, &peer, &wish, &spec.image.digest).await?;
    facts.image_at_destination = image_present;
    let mut plan = plan(&spec, &facts, &here, &there, Some(link));
    plan.block(own.into_iter().chain(blockers));
    Ok(Preflight { plan, spec, service: facts, peer, here, there, link })
}

impl Preflight {
    /// Looks at the service again, right before the freeze: what a program has opened meanwhile counts. The
    /// destination is not asked again; it has promised.
    pub(crate) async fn again<S: SiteAdapter>(
        &self,
        core: &Core<S>,
        within: MigrationId,
    ) -> Result<Plan, WireError> {
        let mut facts = look_at_service(core, &self.spec.name, Some(within)).await?;
        facts.image_at_destination = true;
        Ok(plan(&self.spec, &facts, &self.here, &self.there, Some(self.link)))
    }

    /// The first of what blocks, as an error; the others are counted.
    pub(crate) fn refusal(plan: &Plan, service: &ServiceName, to: &SiteName) -> Option<WireError> {
        let (first, others) = plan.blockers.split_first()?;
        let mut error = WireError::from(first.clone());
        if !others.is_empty() {
            error.message = format!("{}; and {} more", error.message, others.len());
        }
        error.hint = format!("{}; see all of it: ums plan {service} --to {to}", error.hint);
        Some(error)
    }
}

async fn spec_of<S: SiteAdapter>(core: &Core<S>, service: &ServiceName) -> Result<ServiceSpec, WireError> {
    let doing = format!("look at service {service}");
    match core.within(core.config.deadlines.facts, &doing, core.site.status(service)).await {
        Ok(status) => Ok(status.spec),
        Err(error) if error.code == ErrorCode::ServiceNotFound => {
            Err(failure::no_service(service, &core.config.name))
        }
        Err(error) => Err(error),
    }
}

async fn look_at_service<S: SiteAdapter>(
    core: &Core<S>,
    service: &ServiceName,
    within: Option<MigrationId>,
) -> Result<ServiceFacts, WireError> {
    let doing = format!("collect facts about service {service}");
    let look = core.site.service_facts(service);
    let mut facts = core.within(core.config.deadlines.facts, &doing, look).await?;
    let holder = core.desks.desk(service).holder().and_then(|holder| holder.migration);
    facts.migrating = holder.filter(|holder| Some(*holder) != within);
    Ok(facts)
}
