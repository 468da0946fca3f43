//! The product's own cold mode.

use std::time::Instant;

use anyhow::{Context, Result};
use ums_model::names::Bytes;
use ums_model::report::Report;

use super::point::{ANSWER, Point, Sample, ms};
use crate::lab::Lab;
use crate::net::{A, B};
use crate::service::Service;
use crate::workload::{Memhog, Workload};

/// Starts a memhog at site A.
pub(super) fn start<'a>(lab: &'a Lab, point: &Point) -> Result<Service<'a>> {
    let hog = Memhog {
        size: Bytes::mib(point.memory_mib),
        processes: point.processes,
        threads: 1,
        dirty_per_second: Bytes::ZERO,
    };
    lab.start(A, &Workload::Memhog(hog))
}

/// Moves it to the other site, and checks there every page and that one copy ran at all times.
pub(super) fn migrate(service: &Service<'_>) -> Result<Sample> {
    let destination = if service.site().index() == A { B } else { A };
    let probe = service.probe()?;
    let begin = Instant::now();
    let outcome = service.migrate(destination)?;
    let end = Instant::now();
    probe.wait_for_answer(ANSWER)?;
    let downtime = probe.downtime(begin, end).context("the probe did not see the end of the downtime")?;
    drop(probe);
    service.check()?;
    let report = report(outcome.field("report").context("`ums migrate --json` printed no report")?)?;
    Ok(Sample {
        approach: report.approach.to_string(),
        frozen_ms: report.frozen_ms.context("the report has no frozen_ms")?,
        downtime_ms: ms(downtime),
        total_ms: ms(end - begin),
        bytes_raw: report.bytes_raw.get(),
        bytes_sent: report.bytes_sent.get(),
        phases: report.phases.iter().map(|time| (time.phase.to_string(), time.ms)).collect(),
    })
}

/// Takes it away. Failing to do so does not spoil a measurement, so it is only told.
pub(super) fn end(service: &Service<'_>) {
    let outcome = service.site().ums(&["rm", "--force", service.name()]);
    if let Err(error) = outcome.and_then(|outcome| outcome.success()) {
        eprintln!("bench: cannot remove {}: {error:#}", service.name());
    }
}

/// The report in the last event of a migration.
pub(crate) fn report(value: &serde_json::Value) -> Result<Report> {
    serde_json::from_value(value.clone()).context("the report of `ums migrate --json` has another form")
}
