//! What was promised to other sites and does not show in the facts of this one yet: two offers made at the same time
//! must not both get the last port.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ums_model::error::{ErrorCode, WireError};
use ums_model::message::Needs;
use ums_model::names::{Bytes, ServiceName};
use ums_model::plan::SiteFacts;
use ums_model::spec::PortPublish;

/// The promises of a site, by service. In memory only: what is HELD is promised again when the daemon starts.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    made: Mutex<BTreeMap<ServiceName, Needs>>,
}

impl Promises {
    /// Promises `needs` to `service`, given what the site has now. `Err`: together with what was promised before it
    /// would be too much, and nothing is promised. Safe to repeat.
    pub(crate) fn make(
        &self,
        service: &ServiceName,
        needs: &Needs,
        has: &SiteFacts,
    ) -> Result<(), WireError> {
        let mut made = self.made();
        let others: Vec<_> = made.iter().filter(|(name, _)| *name != service).collect();
        for port in &needs.ports {
            if let Some((other, _)) =
                others.iter().find(|(_, needs)| needs.ports.iter().any(|other| clash(port, other)))
            {
                let message = format!("port {}/{} is promised to service {other}", port.host, port.protocol);
                return Err(WireError::new(ErrorCode::PortTaken, message));
            }
        }
        let memory: Bytes = others.iter().map(|(_, needs)| needs.memory).sum();
        let disk: Bytes = others.iter().map(|(_, needs)| needs.disk).sum();
        let checks = [
            (needs.memory, has.memory_available, memory, ErrorCode::MemoryTooSmall, "memory"),
            (needs.disk, has.disk_available, disk, ErrorCode::DiskTooSmall, "disk space"),
        ];
        for (needed, available, promised, code, what) in checks {
            let left = Bytes(available.get().saturating_sub(promised.get()));
            if needed > left {
                let message =
                    format!("site {} has {left} of {what} left, needed are {needed} for {service}", has.name);
                return Err(WireError::new(code, message));
            }
        }
        made.insert(service.clone(), needs.clone());
        Ok(())
    }

    /// Only the ports are promised any more: the rest is in use, and shows in the facts.
    pub(crate) fn only_ports(&self, service: &ServiceName, ports: &[PortPublish]) {
        self.made().insert(service.clone(), Needs { ports: ports.to_vec(), ..Needs::default() });
    }

    /// Takes back what was promised to `service`.
    pub(crate) fn release(&self, service: &ServiceName) {
        self.made().remove(service);
    }

    fn made(&self) -> MutexGuard<'_, BTreeMap<ServiceName, Needs>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn clash(one: &PortPublish, other: &PortPublish) -> bool {
    (one.host, one.protocol) == (other.host, other.protocol)
}
