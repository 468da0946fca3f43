//! What the services of one paired site may do here, and which services may go there: pure checks of a wish against a
//! policy.
//!
//! Pairing says *who* somebody is; the policy says *what* that allows. Each site has one policy per paired site and
//! checks it by itself, before anything is touched: the destination [`Policy::incoming`], the source
//! [`Policy::outgoing`]. Neither has to believe that the other one did. The defaults ([`Policy::default`]) allow what
//! does no harm to a host and nothing else.

mod files;
mod glob;
mod ports;

use serde::{Deserialize, Serialize};

use crate::error::ErrorCode;
use crate::names::{Bytes, MountName, ServiceName, SiteName};
use crate::plan::Blocker;
use crate::spec::{PortPublish, ServiceSpec};

pub use files::{FilePolicy, SpecialFiles};
pub use glob::Glob;
pub use ports::PortRange;

/// What one paired site may do. Every field that is left out where it is read has its default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Names of the services that may come from there. Default: all.
    pub incoming: Vec<Glob>,
    /// Names of the services that may go there. Default: all.
    pub outgoing: Vec<Glob>,
    /// Services from there that may be here at once. Default 64.
    pub max_services: u32,
    /// Services from there that may be on their way here at once; a site that offers more is asked to wait. Default 4.
    pub max_migrations: u32,
    /// Memory for all services from there together. One that has a memory limit of its own counts with that, any other
    /// with what it was said to need when it came. Default: what the site has left.
    pub max_memory: Option<Bytes>,
    /// Disk space for all services from there together, as they were said to need when they came. Default: what the
    /// site has left.
    pub max_disk: Option<Bytes>,
    /// Ports of this site that services from there may publish. Default: 1024-65535.
    pub ports: Vec<PortRange>,
    /// Site mounts of this site that services from there may use. Default: none.
    pub site_mounts: Vec<Glob>,
    /// Whether services from there may run without a user namespace of their own. The root of such a service is the root
    /// of this host within its capabilities, and its memory was written by the other site. Default: no.
    pub allow_no_user_namespace: bool,
    /// Whether services from there that have no user namespace may bring set-uid and set-gid programs and file
    /// capabilities. Services that have one always may. Default: no.
    pub allow_set_uid: bool,
    /// Whether services from there may bring device nodes. Default: no.
    pub allow_devices: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            incoming: vec![Glob::any()],
            outgoing: vec![Glob::any()],
            max_services: 64,
            max_migrations: 4,
            max_memory: None,
            max_disk: None,
            ports: vec![PortRange::unprivileged()],
            site_mounts: Vec::new(),
            allow_no_user_namespace: false,
            allow_set_uid: false,
            allow_devices: false,
        }
    }
}

/// What a service would take of a site. Everything of it comes from the other site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Its name.
    pub service: ServiceName,
    /// Whether it has a user namespace of its own. One that does not say so has none.
    #[serde(default)]
    pub user_namespace: bool,
    /// Ports that it publishes.
    #[serde(default)]
    pub ports: Vec<PortPublish>,
    /// Site mounts that it uses.
    #[serde(default)]
    pub site_mounts: Vec<MountName>,
    /// Memory that it counts with.
    #[serde(default)]
    pub memory: Bytes,
    /// Disk space that it counts with.
    #[serde(default)]
    pub disk: Bytes,
    /// Files of its own that are not accepted everywhere.
    #[serde(default)]
    pub special_files: SpecialFiles,
}

impl Wish {
    /// What the service of `spec` wants, if it needs so much memory and disk space now.
    pub fn of(spec: &ServiceSpec, memory: Bytes, disk: Bytes) -> Self {
        Self {
            service: spec.name.clone(),
            user_namespace: spec.user_namespace,
            ports: spec.ports.clone(),
            site_mounts: spec.site_mounts.iter().map(|mount| mount.name.clone()).collect(),
            memory: spec.limits.memory.map_or(memory, |limit| memory.max(limit)),
            disk,
            special_files: SpecialFiles::default(),
        }
    }
}

/// What a paired site has here already, without the service in question.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Services from there.
    pub services: u32,
    /// Their memory.
    pub memory: Bytes,
    /// Their disk space.
    pub disk: Bytes,
    /// Services that are on their way here from there.
    pub migrations: u32,
}

impl Policy {
    /// What the policy of site `here` for the site `peer` has against a service that wants to come from there. Empty: it
    /// may come.
    pub fn incoming(&self, wish: &Wish, usage: &Usage, peer: &SiteName, here: &SiteName) -> Vec<Blocker> {
        let service = &wish.service;
        let mut found = Vec::new();
        let mut refuse = |why: String, change: String| found.push(refusal(here, peer, why, &change));
        if !self.incoming.iter().any(|glob| glob.matches(service.as_str())) {
            let why = format!("site {here} takes no service named {service} from site {peer}");
            refuse(why, format!("--incoming {}", with(&self.incoming, service.as_str())));
        }
        if !wish.user_namespace && !self.allow_no_user_namespace {
            let why = format!(
                "service {service} has no user namespace, and site {here} takes no such service from site {peer}"
            );
            refuse(why, "--allow-no-user-namespace yes".to_owned());
        }
        let allowed = |port: &PortPublish| self.ports.iter().any(|range| range.contains(port.host));
        if let Some(port) = wish.ports.iter().find(|port| !allowed(port)) {
            let why = format!(
                "service {service} publishes port {}, which site {here} does not give to services of site {peer}",
                port.host
            );
            refuse(why, format!("--ports {}", with(&self.ports, &port.host.to_string())));
        }
        let given = |name: &&MountName| !self.site_mounts.iter().any(|glob| glob.matches(name.as_str()));
        if let Some(mount) = wish.site_mounts.iter().find(given) {
            let why = format!(
                "service {service} uses the site mount {mount}, which site {here} does not give to services of site {peer}"
            );
            refuse(why, format!("--site-mounts {}", with(&self.site_mounts, mount.as_str())));
        }
        for (path, what, option) in self.unaccepted(wish) {
            let why = format!(
                "{path} of service {service} is {what}, which site {here} does not accept from site {peer}"
            );
            refuse(why, option.to_owned());
        }
        if usage.services >= self.max_services {
            let why = format!(
                "site {here} has {} services of site {peer} already and allows {}",
                usage.services, self.max_services
            );
            refuse(why, format!("--max-services {}", usage.services.saturating_add(1)));
        }
        let quotas = [
            (self.max_memory, usage.memory, wish.memory, "memory", "--max-memory"),
            (self.max_disk, usage.disk, wish.disk, "disk space", "--max-disk"),
        ];
        for (most, used, wanted, what, option) in quotas {
            if let Some(most) = most.filter(|most| used + wanted > *most) {
                let why = format!(
                    "service {service} needs {wanted} of {what}; site {here} gives services of site {peer} {most}, of \
                     which {used} are taken"
                );
                refuse(why, format!("{option} {}", (used + wanted).get()));
            }
        }
        found
    }

    /// What the policy of site `here` for the site `peer` has against a service that is to go there. `None`: it may go.
    pub fn outgoing(&self, service: &ServiceName, peer: &SiteName, here: &SiteName) -> Option<Blocker> {
        let goes = self.outgoing.iter().any(|glob| glob.matches(service.as_str()));
        (!goes).then(|| {
            let why = format!("site {here} gives no service named {service} to site {peer}");
            refusal(here, peer, why, &format!("--outgoing {}", with(&self.outgoing, service.as_str())))
        })
    }

    /// Why one more service may not begin its way here now. It may later, so a plan says nothing of it.
    pub fn busy(&self, usage: &Usage, peer: &SiteName, here: &SiteName) -> Option<Blocker> {
        (usage.migrations >= self.max_migrations).then(|| {
            let message = format!(
                "{} services of site {peer} are on their way to site {here}, which allows {}",
                usage.migrations, self.max_migrations
            );
            let remedy = format!(
                "wait for one of them, or at site {here}: ums sites policy {peer} --max-migrations {}",
                usage.migrations.saturating_add(1)
            );
            Blocker::new(ErrorCode::Busy, Some(here), message).with_remedy(remedy)
        })
    }
}

fn refusal(here: &SiteName, peer: &SiteName, why: String, change: &str) -> Blocker {
    Blocker::new(ErrorCode::Refused, Some(here), why).with_remedy(remedy(here, peer, change))
}

fn remedy(here: &SiteName, peer: &SiteName, change: &str) -> String {
    format!("at site {here}, if that is meant to be allowed: ums sites policy {peer} {change}")
}

/// The list with one more, as the command line takes it.
fn with<T: std::fmt::Display>(list: &[T], more: &str) -> String {
    let mut words: Vec<String> = list.iter().map(T::to_string).collect();
    words.push(more.to_owned());
    words.join(",")
}

#[cfg(test)]
mod tests;
