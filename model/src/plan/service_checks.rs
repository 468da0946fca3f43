//! What must be true of the service where it is, and of the place that it wants to go to.

use super::{Blocker, ServiceFacts, SiteFacts, Warning};
use crate::error::ErrorCode;
use crate::names::Bytes;
use crate::spec::ServiceSpec;

/// How much more than its present size a service must find at the destination, in percent: it may grow until it is
/// frozen, and the restore needs room beside it.
pub const HEADROOM_PERCENT: u64 = 10;

/// Its state, its spec, its image, its processes.
pub(super) fn at_the_source(
    spec: &ServiceSpec,
    service: &ServiceFacts,
    source: &SiteFacts,
    blockers: &mut Vec<Blocker>,
    warnings: &mut Vec<Warning>,
) {
    let site = Some(&source.name);
    if let Err(error) = spec.check() {
        blockers.push(Blocker::new(
            ErrorCode::InvalidSpec,
            None,
            format!("the description of {} is invalid: {error}", spec.name),
        ));
    }
    if let Some(migration) = service.migrating {
        let message = format!("service {} is already in migration {migration}", spec.name);
        let remedy = format!("watch it: ums watch {migration}");
        blockers.push(Blocker::new(ErrorCode::AlreadyMigrating, site, message).with_remedy(remedy));
    } else if !service.running {
        let message = format!("service {} does not run at {}", spec.name, source.name);
        let remedy = "start it first: only a running service can be migrated live";
        blockers.push(Blocker::new(ErrorCode::Unsupported, site, message).with_remedy(remedy));
    }
    if !service.image_at_source && !service.image_at_destination {
        let message =
            format!("image {} ({}) is complete at neither site", spec.image.name, spec.image.digest);
        blockers.push(Blocker::new(ErrorCode::ImageMissing, None, message));
    }
    blockers.extend(service.blockers.iter().map(|found| {
        let message = format!("process {} {} ({})", found.pid, found.kind.words(), found.detail);
        Blocker::new(ErrorCode::ProcessBlocked, site, message).with_remedy(found.kind.remedy())
    }));
    if spec.writes_outside() {
        let message = "a site mount is writable: what is written there stays behind, and a crash of the destination \
                       during the commit needs an operator's decision";
        warnings.push(Warning { message: message.to_owned(), site: None });
    }
}

/// Names, ports, mounts, memory and disk of the destination.
pub(super) fn at_the_destination(
    spec: &ServiceSpec,
    service: &ServiceFacts,
    destination: &SiteFacts,
    blockers: &mut Vec<Blocker>,
) {
    let site = Some(&destination.name);
    let at = &destination.name;
    if destination.services.contains(&spec.name) {
        let message = format!("site {at} has a service named {} already", spec.name);
        blockers.push(Blocker::new(ErrorCode::NameTaken, site, message));
    }
    for port in &spec.ports {
        let taken = destination
            .ports_in_use
            .iter()
            .any(|used| (used.port, used.protocol) == (port.host, port.protocol));
        if taken {
            let message = format!("port {}/{} is in use at site {at}", port.host, port.protocol);
            blockers.push(Blocker::new(ErrorCode::PortTaken, site, message));
        }
    }
    for volume in spec.volumes.iter().filter(|volume| destination.volumes.contains(&volume.name)) {
        let message = format!("site {at} has a volume named {} already", volume.name);
        blockers.push(Blocker::new(ErrorCode::VolumeTaken, site, message));
    }
    for mount in spec.site_mounts.iter().filter(|mount| !destination.site_mounts.contains(&mount.name)) {
        let message = format!("site {at} does not define the site mount {}", mount.name);
        blockers.push(Blocker::new(ErrorCode::MountMissing, site, message));
    }
    if spec.user_namespace && destination.user_namespaces == Some(false) {
        let message = format!("site {at} cannot give the service a user namespace of its own");
        let remedy = "run Linux 5.19 or newer there, with user.max_user_namespaces above 0 and the site's state on \
                      ext4, xfs or btrfs";
        blockers.push(Blocker::new(ErrorCode::Unsupported, site, message).with_remedy(remedy));
    }
    let memory = service.memory.plus_percent(HEADROOM_PERCENT);
    if memory > destination.memory_available {
        let message = too_small("memory", memory, destination.memory_available, at.as_str());
        blockers.push(Blocker::new(ErrorCode::MemoryTooSmall, site, message));
    }
    let image = if service.image_at_destination { Bytes::ZERO } else { service.image_bytes };
    let disk = (service.files + image).plus_percent(HEADROOM_PERCENT);
    if disk > destination.disk_available {
        let message = too_small("disk space", disk, destination.disk_available, at.as_str());
        blockers.push(Blocker::new(ErrorCode::DiskTooSmall, site, message));
    }
}

fn too_small(what: &str, needed: Bytes, available: Bytes, site: &str) -> String {
    format!(
        "site {site} has {available} of {what} available, needed are {needed} (with {HEADROOM_PERCENT} % headroom)"
    )
}
