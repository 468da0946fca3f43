//! One migration, and what is checked after it.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use ums_model::phase::Outcome;
use ums_model::report::Report;

use super::PATIENCE;
use super::reader::Reader;
use crate::bench::point::ms;
use crate::bench::report;
use crate::dial::Dialer;
use crate::lab::Lab;
use crate::net::{A, B, SiteIndex};
use crate::probe::Probe;
use crate::redis::{Fill, Load};
use crate::service::Service;

/// Acknowledged writes that must come between two migrations: the load is under way again.
const WRITES_BETWEEN: u64 = 1000;

/// Everything a migration needs, and everybody who watches it.
pub(super) struct Mover<'a> {
    pub(super) lab: &'a Lab,
    pub(super) service: &'a Service<'a>,
    pub(super) dialer: &'a Dialer,
    pub(super) load: &'a Load,
    pub(super) fill: &'a Fill,
    pub(super) reader: &'a Reader,
    pub(super) probe: &'a Probe,
}

/// A migration that was made and found flawless.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) number: u32,
    pub(super) from: SiteIndex,
    pub(super) to: SiteIndex,
    pub(super) report: Report,
    pub(super) frozen_ms: f64,
    pub(super) downtime_ms: f64,
    pub(super) total_ms: f64,
    /// Connections of writers and of the reader that had to be made anew.
    pub(super) reconnects: u64,
    /// Acknowledged writes that were read back and compared, those of earlier moves included.
    pub(super) writes_checked: u64,
    /// Random values that were there before all writes, read back and compared.
    pub(super) values_checked: u64,
    /// Bytes compared.
    pub(super) bytes_checked: u64,
}

impl Mover<'_> {
    /// Moves the service to the other site and checks everything there.
    ///
    /// On `Ok` the migration is done and every write acknowledged before its end was read back at the destination.
    pub(super) fn make(&self, number: u32) -> Result<Made> {
        let from = self.service.site().index();
        let to = if from == A { B } else { A };
        self.load.wait_for_more(WRITES_BETWEEN, PATIENCE)?;
        let before = self.load.report().reconnects + self.reader.reads().reconnects;

        let begin = Instant::now();
        let outcome = self.service.migrate(to)?;
        let end = Instant::now();

        let field = outcome.field("report").context("`ums migrate --json` printed no report")?;
        let report = report(field)?;
        ensure!(report.outcome == Outcome::Done, "the migration ended as {}", report.outcome);
        let frozen_ms = report.frozen_ms.context("the report has no frozen_ms")?;
        // The clients are back: now the numbers of this migration are complete.
        self.probe.wait_for_answer(PATIENCE)?;
        self.reader.wait_for_more(PATIENCE)?;
        self.load.wait_for_more(1, PATIENCE)?;
        let downtime = self.probe.downtime(begin, end);
        let downtime = downtime.context("the probe did not see the end of the downtime")?;

        // Only the destination is asked: what is read back must be there.
        let here = self.dialer.only(self.dialer.addresses()[to.number()]);
        let writes = self.load.verify(&here, PATIENCE)?;
        let values = self.fill.verify(&here, PATIENCE)?;
        let after = self.load.report().reconnects + self.reader.reads().reconnects;
        ensure!(
            self.lab.site(to).service_pid(self.service.name()).is_ok(),
            "site {to} does not list the service"
        );
        Ok(Made {
            number,
            from,
            to,
            frozen_ms,
            downtime_ms: ms(downtime),
            total_ms: ms(end - begin),
            reconnects: after - before,
            writes_checked: writes.present,
            values_checked: values.present,
            bytes_checked: writes.bytes + values.bytes,
            report,
        })
    }
}

impl Made {
    /// One line of progress.
    pub(super) fn told(&self) -> String {
        format!(
            "move {}: downtime {:.0} ms, total {:.0} ms, {} acknowledged writes checked, 0 lost",
            self.name(),
            self.downtime_ms,
            self.total_ms,
            self.writes_checked
        )
    }

    /// Its number and its direction.
    pub(super) fn name(&self) -> String {
        let (from, to) = (self.from.name().to_uppercase(), self.to.name().to_uppercase());
        format!("{} {from} -> {to}", self.number)
    }
}
