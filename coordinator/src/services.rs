//! What users do to the services of this site: each request holds the service's lane, so none meets a migration.

use std::time::Duration;

use ums_model::action::Alarm;
use ums_model::error::{ErrorCode, WireError};
use ums_model::names::{MigrationId, ServiceName};
use ums_model::source;
use ums_model::standing::{Record, Role as Half};
use ums_sites::adapter::{NestStream, ServiceStatus, SiteAdapter};

use crate::core::Core;
use crate::desk::{Hold, Lane};
use crate::failure;
use crate::settle::is_settled;
use crate::source::must_be_home;
use crate::view::{CreateService, ServiceView};

/// Starts a new service. `Err`: nothing is left of it.
pub(crate) async fn create<S: SiteAdapter>(
    core: &Core<S>,
    wanted: CreateService,
) -> Result<ServiceView, WireError> {
    let (service, deadlines) = (wanted.name.clone(), core.config.deadlines);
    let mut lane = core.take(&service, core.holder(None, "being started", Hold::Firm)).await?;
    let before = name_is_free(core, &lane).await?;
    let image = core.site.import_image(&wanted.image);
    let image = core.within(deadlines.import, "import the image", image).await?;
    let spec = wanted.on(image);
    spec.check().map_err(|error| {
        WireError::new(ErrorCode::InvalidSpec, format!("the description of {service} is invalid: {error}"))
    })?;
    core.is_own(&service).await?;
    core.write(&mut lane, None, [before, vec![Record::Created]].concat()).await?;
    let doing = format!("start service {service}");
    match core.within(deadlines.change, &doing, core.site.run(&spec)).await {
        Ok(status) => Ok(view(core, status)),
        Err(error) => {
            if error.code == ErrorCode::Timeout {
                // Nobody knows how far it got.
                let clear = core.within(deadlines.change, &doing, core.site.remove(&service, true)).await;
                if let Err(error) = clear {
                    tracing::warn!(%service, %error, "cannot clear away a service that did not start in time");
                }
            }
            core.write(&mut lane, None, vec![Record::Removed]).await?;
            Err(error)
        }
    }
}

/// The records that must come first so that a service of this name can be created; an error if there is one.
async fn name_is_free<S: SiteAdapter>(core: &Core<S>, lane: &Lane) -> Result<Vec<Record>, WireError> {
    let (service, standing) = (lane.service(), lane.standing());
    let taken = || {
        let message = format!("site {} has a service named {service} already", core.config.name);
        WireError::new(ErrorCode::NameTaken, message)
            .with_hint(format!("remove it, or choose another name: ums rm {service}"))
    };
    match standing.role() {
        Half::Destination(half) if half.is_resting() => Ok(Vec::new()),
        Half::Source(half) if matches!(half.stage(), source::Stage::Released | source::Stage::Lost) => {
            Ok(vec![Record::Removed])
        }
        _ if !standing.is_home() => {
            Err(must_be_home(core, &standing, service).await.err().unwrap_or_else(taken))
        }
        // At home, as far as the journal knows; a daemon that died while it removed the service did not write so.
        _ if core.look(service).await.remains => Err(taken()),
        _ => Ok(vec![Record::Removed]),
    }
}

/// All services of this site.
pub(crate) async fn list<S: SiteAdapter>(core: &Core<S>) -> Result<Vec<ServiceView>, WireError> {
    let list = core.within(core.config.deadlines.facts, "list the services", core.site.list()).await?;
    Ok(list.into_iter().map(|status| view(core, status)).collect())
}

/// One service of this site.
pub(crate) async fn show<S: SiteAdapter>(
    core: &Core<S>,
    service: &ServiceName,
) -> Result<ServiceView, WireError> {
    let doing = format!("look at service {service}");
    match core.within(core.config.deadlines.facts, &doing, core.site.status(service)).await {
        Ok(status) => Ok(view(core, status)),
        Err(error) if error.code == ErrorCode::ServiceNotFound => Err(gone(core, service).await),
        Err(error) => Err(error),
    }
}

/// Ends a service; it stays listed.
pub(crate) async fn stop<S: SiteAdapter>(
    core: &Core<S>,
    service: &ServiceName,
    grace: Duration,
) -> Result<ServiceView, WireError> {
    let _lane = at_home(core, service, "being stopped", Hold::Firm).await?;
    let doing = format!("stop service {service}");
    let within = core.config.deadlines.change.saturating_add(grace);
    Ok(view(core, core.within(within, &doing, core.site.stop(service, grace)).await?))
}

/// Starts a stopped service again.
pub(crate) async fn start<S: SiteAdapter>(
    core: &Core<S>,
    service: &ServiceName,
) -> Result<ServiceView, WireError> {
    let lane = at_home(core, service, "being started", Hold::Firm).await?;
    Ok(view(core, start_at_home(core, &lane).await?))
}

/// Starts a service whose lane is held, and which is at home here. Safe to repeat.
pub(crate) async fn start_at_home<S: SiteAdapter>(
    core: &Core<S>,
    lane: &Lane,
) -> Result<ServiceStatus, WireError> {
    let service = lane.service();
    let doing = format!("start service {service}");
    core.within(core.config.deadlines.change, &doing, core.site.start(service, lane.standing().epoch())).await
}

/// Sends a signal to a service's first process.
pub(crate) async fn signal<S: SiteAdapter>(
    core: &Core<S>,
    service: &ServiceName,
    signal: i32,
) -> Result<(), WireError> {
    let _lane = at_home(core, service, "being signalled", Hold::Brief).await?;
    let doing = format!("signal service {service}");
    core.within(core.config.deadlines.change, &doing, core.site.signal(service, signal)).await
}

/// Removes a service with its files. Safe to repeat: the second time there is none.
pub(crate) async fn remove<S: SiteAdapter>(
    core: &Core<S>,
    service: &ServiceName,
    force: bool,
) -> Result<(), WireError> {
    let mut lane = core.take(service, core.holder(None, "being removed", Hold::Firm)).await?;
    let standing = lane.standing();
    let ended = match standing.role() {
        Half::Source(half) => matches!(half.stage(), source::Stage::Lost | source::Stage::Superseded),
        Half::Destination(_) => false,
    };
    if !ended {
        must_be_home(core, &standing, service).await?;
    }
    let doing = format!("remove service {service}");
    match core.within(core.config.deadlines.change, &doing, core.site.remove(service, force)).await {
        Ok(()) => core.write(&mut lane, None, vec![Record::Removed]).await,
        Err(error) if error.code == ErrorCode::ServiceNotFound => {
            core.write(&mut lane, None, vec![Record::Removed]).await?;
            Err(failure::no_service(service, &core.config.name))
        }
        Err(error) => Err(error),
    }
}

/// A connection to the service's nest, on which the caller speaks the nest's own protocol.
pub(crate) async fn exec<S: SiteAdapter>(
    core: &Core<S>,
    service: &ServiceName,
) -> Result<Box<dyn NestStream>, WireError> {
    let _lane = at_home(core, service, "being entered", Hold::Brief).await?;
    let doing = format!("reach service {service}");
    core.within(core.config.deadlines.act, &doing, core.site.exec_stream(service)).await
}

/// Where the service's log is on this host.
pub(crate) async fn log_path<S: SiteAdapter>(
    core: &Core<S>,
    service: &ServiceName,
) -> Result<std::path::PathBuf, WireError> {
    let doing = format!("find the log of service {service}");
    match core.within(core.config.deadlines.facts, &doing, core.site.log_path(service)).await {
        Err(error) if error.code == ErrorCode::ServiceNotFound => Err(gone(core, service).await),
        result => result,
    }
}

/// The lane of a service that is at home here and in no migration.
async fn at_home<S: SiteAdapter>(
    core: &Core<S>,
    service: &ServiceName,
    doing: &'static str,
    hold: Hold,
) -> Result<Lane, WireError> {
    let lane = core.take(service, core.holder(None, doing, hold)).await?;
    must_be_home(core, &lane.standing(), service).await?;
    Ok(lane)
}

/// Why there is no such service: perhaps it only moved.
async fn gone<S: SiteAdapter>(core: &Core<S>, service: &ServiceName) -> WireError {
    let standing = core.desks.desk(service).standing();
    let home = must_be_home(core, &standing, service).await;
    home.err().unwrap_or_else(|| failure::no_service(service, &core.config.name))
}

fn view<S: SiteAdapter>(core: &Core<S>, status: ServiceStatus) -> ServiceView {
    let desk = core.desks.desk(&status.spec.name);
    let standing = desk.standing();
    let migration = migration_of(core, &status.spec.name);
    // At home and in no migration nothing is in the way any more, and a copy that is lost was another one.
    let is_over = migration.is_none() && standing.is_home();
    let alarm = desk.alarm().map(|(_, alarm)| alarm);
    let alarm = alarm.filter(|alarm| !is_over || *alarm == Alarm::Contradiction);
    ServiceView { status, migration, alarm, standing: standing.to_string() }
}

/// The migration that a service is in.
pub(crate) fn migration_of<S: SiteAdapter>(core: &Core<S>, service: &ServiceName) -> Option<MigrationId> {
    let desk = core.desks.desk(service);
    let holder = desk.holder().and_then(|holder| holder.migration);
    // HELD and waiting for a word, a migration holds nothing but its place in the journal.
    holder.or_else(|| (!is_settled(&desk.standing())).then(|| core.chronicles.of_service(service)).flatten())
}
