//! Deadlines that a user sets reach whoever waits: also the nest of a service that runs already.

use anyhow::{Result, ensure};
use ums_model::error::ErrorCode;
use ums_model::names::Bytes;
use ums_model::phase::Outcome;
use ums_testbed::net::{A, B, SiteIndex};
use ums_testbed::service::Service;
use ums_testbed::workload::Workload;

use crate::histories::{agreed, report};
use crate::rig::Rig;
use crate::verdict::failed;

/// With `hasty` in the configuration of `site`, the migration is rolled back with an error that names the deadline, and
/// the service runs on; without it the same service moves.
fn too_short(
    rig: &Rig,
    service: &Service<'_>,
    site: SiteIndex,
    hasty: &str,
    code: ErrorCode,
    named: &str,
) -> Result<()> {
    rig.configure(site, hasty)?;
    rig.site(site).restart()?;
    let outcome = service.try_migrate(B)?;
    failed(&outcome, 1, code, &[service.name(), named])?;
    ensure!(report(&outcome)?.outcome == Outcome::RolledBack, "{outcome:?}");
    service.check()?;
    ensure!(agreed(rig, service.name())? == Outcome::RolledBack, "the sites do not agree");
    rig.configure(site, "")?;
    rig.site(site).restart()
}

#[test]
fn a_nest_that_runs_learns_of_its_deadlines() {
    let rig = &Rig::new().unwrap();
    let service = &rig.start(A, &Workload::memhog(Bytes::mib(4))).unwrap();
    let nest = rig.a().nest_pid(service.name()).unwrap();
    let hasty = "[deadlines.nest.dump]\nstep = 0.002\n";
    too_short(rig, service, A, hasty, ErrorCode::DumpFailed, "within 0.002 s").unwrap();
    assert_eq!(rig.a().nest_pid(service.name()).unwrap(), nest, "it was the same nest");
    let hasty = "[deadlines.nest.restore]\nrestore = 0.005\n";
    too_short(rig, service, B, hasty, ErrorCode::RestoreFailed, "0.005 s").unwrap();
    service.migrate(B).unwrap();
    service.check().unwrap();
}

#[test]
fn a_deadline_that_does_not_exist_is_told_before_the_site_starts() {
    let rig = &Rig::new().unwrap();
    rig.configure(A, "[deadlines.nest.dump]\nfreze = 1\n").unwrap();
    let error = rig.a().restart().unwrap_err();
    assert!(format!("{error:#}").contains("freze"), "{error:#}");
}
