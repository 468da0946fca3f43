//! What a soak found, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use super::history::Operation;

/// Something that must never be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// As it is counted.
    pub kind: &'static str,
    /// Whose.
    pub service: &'static str,
    /// With evidence.
    pub what: String,
    /// Everything that clients did with the key, if it is about one.
    pub history: Vec<Operation>,
}

/// The closing object of `--json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Of the choices.
    pub seed: u64,
    /// How long it ran.
    pub minutes: f64,
    /// Migrations that were tried.
    pub migrations: u64,
    /// Faults that happened.
    pub faults: u64,
    /// Violations. 0 is the aim.
    pub violations: u64,
    /// How the migrations ended.
    pub outcomes: Outcomes,
    /// Faults by step.
    pub faults_by_step: BTreeMap<&'static str, u64>,
    /// Faults by kind.
    pub faults_by_kind: BTreeMap<&'static str, u64>,
    /// Faults that were planned and did not happen, because the migration ended before their step.
    pub faults_missed: u64,
    /// Violations by kind.
    pub violations_by_kind: BTreeMap<&'static str, u64>,
    /// Operations of clients whose histories were checked.
    pub operations_checked: u64,
    /// Operations that were acknowledged, refused, and left without an answer.
    pub operations: Operations,
    /// Connections that clients made after their first.
    pub reconnects: u64,
    /// Downtimes of migrations that were done without a fault.
    pub downtime_ms: Option<Spread>,
    /// Downtimes of migrations with a fault, the repair included.
    pub downtime_with_fault_ms: Option<Spread>,
    /// From freeze to resume, as the sites measured it, of migrations that were done without a fault.
    pub frozen_ms: Option<Spread>,
    /// Times in which a site refused every migration, after a fault and without a fault of its own.
    pub refused_ms: Option<Spread>,
}

/// How migrations ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Outcomes {
    /// At the destination.
    pub done: u64,
    /// At the source.
    pub rolled_back: u64,
    /// With no copy left; allowed where a keeper was killed.
    pub lost: u64,
}

/// What became of the operations of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Operations {
    /// Answered.
    pub acknowledged: u64,
    /// Refused.
    pub refused: u64,
    /// Without an answer.
    pub unknown: u64,
}

/// A summary of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// How many.
    pub count: usize,
    /// The middle one.
    pub median: f64,
    /// The largest.
    pub most: f64,
}

impl Spread {
    /// `None` of nothing.
    pub(super) fn of(times: &[Duration]) -> Option<Self> {
        let mut ms: Vec<f64> = times.iter().map(|time| (time.as_secs_f64() * 1e4).round() / 10.0).collect();
        ms.sort_by(f64::total_cmp);
        Some(Self { count: ms.len(), median: *ms.get(ms.len() / 2)?, most: *ms.last()? })
    }
}

impl Report {
    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "{name:<16}{value}");
        };
        let Outcomes { done, rolled_back, lost } = self.outcomes;
        let counts = |map: &BTreeMap<&'static str, u64>| {
            map.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
        };
        let spread = |spread: &Option<Spread>| match spread {
            None => "none".to_owned(),
            Some(Spread { count, median, most }) => {
                format!("median {median} ms, most {most} ms (of {count})")
            }
        };
        line("seed", self.seed.to_string());
        line("time", format!("{:.1} min", self.minutes));
        line(
            "migrations",
            format!("{} ({done} done, {rolled_back} rolled back, {lost} lost)", self.migrations),
        );
        line("faults", format!("{} ({} more were planned and not met)", self.faults, self.faults_missed));
        line("  by step", counts(&self.faults_by_step));
        line("  by kind", counts(&self.faults_by_kind));
        line("operations", format!("{} checked", self.operations_checked));
        let Operations { acknowledged, refused, unknown } = self.operations;
        line("", format!("{acknowledged} acknowledged, {refused} refused, {unknown} without an answer"));
        line("reconnects", self.reconnects.to_string());
        line("downtime", spread(&self.downtime_ms));
        line("  with a fault", spread(&self.downtime_with_fault_ms));
        line("frozen", spread(&self.frozen_ms));
        line("refused", spread(&self.refused_ms));
        line(
            "violations",
            match self.violations {
                0 => "0".to_owned(),
                count => format!("{count} ({})", counts(&self.violations_by_kind)),
            },
        );
        text
    }
}

/// Writes down everything about the violations; where.
pub(super) fn write_evidence(seed: u64, violations: &[Violation]) -> Result<PathBuf> {
    let path = std::env::temp_dir().join(format!("ums-soak-{seed}-{}.txt", std::process::id()));
    let mut text = format!("seed {seed}\n");
    for Violation { kind, service, what, history } in violations {
        let _ = writeln!(text, "\n{kind} at {service}: {what}");
        let mut history = history.clone();
        history.sort_by_key(|operation| operation.begin);
        for operation in &history {
            let _ = writeln!(text, "{operation}");
        }
    }
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::super::history::examples::{read, write};
    use super::*;

    #[test]
    fn evidence_names_the_seed_and_every_operation_in_order() {
        let history = vec![read(0, 3_000_000_000, 4_000_000_000), write(7, 1_000_000_000, 2_000_000_000)];
        let violation =
            Violation { kind: "lost-write", service: "redis", what: "it is gone".to_owned(), history };
        let path = write_evidence(4711, &[violation]).unwrap();
        let text = fs::read_to_string(&path);
        fs::remove_file(&path).unwrap();
        let text = text.unwrap();
        let places = ["seed 4711", "lost-write at redis: it is gone", "write 7 Ok", "read nothing Ok"]
            .map(|part| text.find(part).unwrap_or_else(|| panic!("no `{part}` in {text}")));
        assert!(places.is_sorted(), "{text}");
    }

    #[test]
    fn a_spread_is_of_what_there_is() {
        let ms = Duration::from_millis;
        assert_eq!(Spread::of(&[]), None);
        let spread = Spread::of(&[ms(30), ms(10), ms(20)]).unwrap();
        assert_eq!((spread.count, spread.median, spread.most), (3, 20.0, 30.0));
    }
}
