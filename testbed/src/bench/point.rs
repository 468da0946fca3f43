//! What is measured: points, samples, and how samples become the numbers of a point.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

/// A probe's connection that does not answer so long is made anew.
pub(super) const STALL: Duration = Duration::from_secs(1);
/// How long a service may take to answer, or to check all its memory.
pub(super) const ANSWER: Duration = Duration::from_secs(60);

/// One point on one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Which axis: the word in the result line.
    pub scenario: &'static str,
    /// Random memory, all processes together.
    pub memory_mib: u64,
    /// Processes.
    pub processes: u32,
}

/// Total time over memory, one process.
pub const MEMORY: &str = "cold-memory";
/// Total time over the number of processes, with always the same memory in all of them together.
pub const PROCESSES: &str = "cold-processes";
/// That memory.
pub const PROCESSES_MIB: u64 = 128;

/// The points of `cold`.
pub fn points(quick: bool) -> Vec<Point> {
    let (sizes, counts): (&[u64], &[u32]) = match quick {
        true => (&[0, 64, 256], &[1, 4]),
        false => (&[0, 4, 16, 64, 128, 256, 512, 1024], &[1, 2, 4, 8]),
    };
    let memory = sizes.iter().map(|mib| Point { scenario: MEMORY, memory_mib: *mib, processes: 1 });
    let processes =
        counts.iter().map(|n| Point { scenario: PROCESSES, memory_mib: PROCESSES_MIB, processes: *n });
    memory.chain(processes).collect()
}

/// The numbers of one migration that succeeded and was verified.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sample {
    pub(super) approach: String,
    pub(super) frozen_ms: f64,
    pub(super) downtime_ms: f64,
    pub(super) total_ms: f64,
    pub(super) bytes_raw: u64,
    pub(super) bytes_sent: u64,
    /// Phases in their order, in milliseconds.
    pub(super) phases: Vec<(String, f64)>,
}

/// The result line of one point: medians over the runs that succeeded.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Which axis.
    pub scenario: &'static str,
    /// `cold` or `baseline`.
    pub mode: &'static str,
    /// On which level the migration was done; `none` for the baseline.
    pub approach: String,
    /// Random memory, all processes together.
    pub memory_mib: u64,
    /// Processes.
    pub processes: u32,
    /// Memory written while it moves: none.
    pub dirty_mib_s: f64,
    /// Attempts.
    pub runs: usize,
    /// Attempts that succeeded and were verified.
    pub ok: usize,
    /// From the freeze to the resume; `None` if no attempt succeeded, as all that follows.
    pub frozen_ms: Option<f64>,
    /// What a client saw.
    pub downtime_ms: Option<f64>,
    /// From the command to its end.
    pub total_ms: Option<f64>,
    /// State to be moved.
    pub bytes_raw: Option<u64>,
    /// What went over the link, without the headers of TLS and TCP.
    pub bytes_sent: Option<u64>,
    /// Median of every phase, in milliseconds.
    pub phases: BTreeMap<String, f64>,
    /// Why attempts failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}

impl Summary {
    /// The numbers of `outcomes`, one per attempt.
    pub(super) fn of(point: &Point, mode: &'static str, outcomes: &[anyhow::Result<Sample>]) -> Self {
        let samples: Vec<&Sample> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
        let middle = |number: &dyn Fn(&Sample) -> f64| {
            median(samples.iter().map(|sample| number(sample))).map(to_micro)
        };
        let mut phases: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for (name, ms) in samples.iter().flat_map(|sample| &sample.phases) {
            phases.entry(name.clone()).or_default().push(*ms);
        }
        Self {
            scenario: point.scenario,
            mode,
            approach: samples.first().map_or_else(|| "none".to_owned(), |sample| sample.approach.clone()),
            memory_mib: point.memory_mib,
            processes: point.processes,
            dirty_mib_s: 0.0,
            runs: outcomes.len(),
            ok: samples.len(),
            frozen_ms: middle(&|sample| sample.frozen_ms),
            downtime_ms: middle(&|sample| sample.downtime_ms),
            total_ms: middle(&|sample| sample.total_ms),
            bytes_raw: whole(middle(&|sample| sample.bytes_raw as f64)),
            bytes_sent: whole(middle(&|sample| sample.bytes_sent as f64)),
            phases: phases
                .into_iter()
                .filter_map(|(name, list)| Some((name, to_micro(median(list)?))))
                .collect(),
            errors: outcomes
                .iter()
                .filter_map(|outcome| Some(format!("{:#}", outcome.as_ref().err()?)))
                .collect(),
        }
    }
}

/// The middle value, or the mean of the two in the middle; `None` of nothing.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        1 => Some(values[middle]),
        _ => Some(f64::midpoint(*values.get(middle.checked_sub(1)?)?, values[middle])),
    }
}

/// A time in milliseconds, to the microsecond.
pub fn ms(time: Duration) -> f64 {
    to_micro(time.as_secs_f64() * 1000.0)
}

/// Milliseconds without the digits that nobody measured.
pub fn to_micro(ms: f64) -> f64 {
    (ms * 1000.0).round() / 1000.0
}

/// A median of whole numbers, without the half that two in the middle may leave.
pub fn whole(value: Option<f64>) -> Option<u64> {
    value.map(|value| value.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(total_ms: f64) -> Sample {
        Sample {
            approach: "container".to_owned(),
            frozen_ms: total_ms / 2.0,
            downtime_ms: total_ms / 2.0,
            total_ms,
            bytes_raw: 7,
            bytes_sent: 8,
            phases: vec![("dump".to_owned(), total_ms / 4.0)],
        }
    }

    #[test]
    fn medians_are_of_what_succeeded_and_failures_count() {
        let point = Point { scenario: MEMORY, memory_mib: 4, processes: 1 };
        let outcomes = [Ok(sample(10.0)), Err(anyhow::anyhow!("cut")), Ok(sample(30.0)), Ok(sample(1000.0))];
        let summary = Summary::of(&point, "cold", &outcomes);
        assert_eq!((summary.runs, summary.ok), (4, 3));
        assert_eq!((summary.total_ms, summary.phases["dump"]), (Some(30.0), 7.5));
        assert_eq!(summary.errors, ["cut"]);
    }

    #[test]
    fn nothing_has_no_median() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0]), Some(3.0));
        assert_eq!(median([4.0, 1.0]), Some(2.5));
        let summary = Summary::of(&points(true)[0], "cold", &[]);
        let line = serde_json::to_value(&summary).unwrap();
        for field in ["scenario", "mode", "approach", "memory_mib", "processes", "dirty_mib_s", "runs", "ok"]
        {
            assert!(!line[field].is_null(), "{field}");
        }
        assert!(line["total_ms"].is_null());
    }

    #[test]
    fn the_quick_points_are_among_the_others() {
        let all = points(false);
        assert_eq!(all.len(), 12);
        assert!(points(true).iter().all(|point| all.contains(point)));
    }
}
