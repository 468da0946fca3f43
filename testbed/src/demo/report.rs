//! What was found, for people and for programs.

use anyhow::Result;
use serde_json::json;
use ums_model::names::Bytes;
use ums_model::phase::Phase;

use super::Options;
use super::moves::Made;
use super::reader::Reads;
use crate::bench::point::{median, to_micro, whole};
use crate::redis::{LoadReport, Verified};
use crate::text_table::{mib, ms, render};

/// What this demonstration is called in result lines.
const SCENARIO: &str = "demo";
/// All of Redis is one process.
const PROCESSES: u32 = 1;

/// Heading of the table of what counts; the other one has a column per phase.
const NUMBERS: [&str; 8] =
    ["move", "MiB raw", "MiB sent", "frozen", "downtime", "total", "reconnects", "writes checked"];
/// Name of the last row.
const MEDIAN: &str = "median";

/// A demonstration in which every check passed.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) options: Options,
    pub(super) filled: Bytes,
    pub(super) moves: Vec<Made>,
    pub(super) written: LoadReport,
    pub(super) verified: Verified,
    pub(super) reads: Reads,
    /// Acknowledged writes per second while Redis ran.
    pub(super) rate: f64,
    pub(super) connections: u32,
}

impl Finding {
    /// One result line per move, then one with the medians.
    pub(super) fn lines(&self) -> Result<String> {
        let mut text = String::new();
        for made in &self.moves {
            let mut line = self.line(std::slice::from_ref(made));
            line["move"] = made.number.into();
            line["source"] = serde_json::to_value(&made.report.source)?;
            line["destination"] = serde_json::to_value(&made.report.destination)?;
            text += &format!("{line}\n");
        }
        let mut line = self.line(&self.moves);
        line["checked"] = json!({
            "writes_acknowledged": self.written.acknowledged,
            "writes_read_back": self.verified.present,
            "writes_lost": 0,
            "writes_unanswered": self.written.uncertain,
            "reads_right": self.reads.right,
            "writes_per_second": self.rate.round(),
            "connections": self.connections,
            "copies_running_at_the_end": 1,
            "left_behind": 0,
        });
        Ok(text + &format!("{line}\n"))
    }

    /// The fields of every result line; medians over `moves`.
    fn line(&self, moves: &[Made]) -> serde_json::Value {
        let middle = |number: &dyn Fn(&Made) -> f64| median(moves.iter().map(number)).map(to_micro);
        let phases: serde_json::Map<String, serde_json::Value> = Phase::ALL
            .iter()
            .filter_map(|phase| {
                let ms = median(moves.iter().filter_map(|made| made.report.phase_ms(*phase)))?;
                Some((phase.to_string(), to_micro(ms).into()))
            })
            .collect();
        json!({
            "scenario": SCENARIO,
            "mode": moves.first().map(|made| made.report.mode.as_str()),
            "approach": moves.first().map(|made| made.report.approach.as_str()),
            "memory_mib": self.options.fill.get() >> 20,
            "processes": PROCESSES,
            "dirty_mib_s": self.dirty_mib_s(),
            "runs": moves.len(),
            "ok": moves.len(),
            "frozen_ms": middle(&|made| made.frozen_ms),
            "downtime_ms": middle(&|made| made.downtime_ms),
            "total_ms": middle(&|made| made.total_ms),
            "bytes_raw": whole(middle(&|made| made.report.bytes_raw.get() as f64)),
            "bytes_sent": whole(middle(&|made| made.report.bytes_sent.get() as f64)),
            "phases": phases,
            "reconnects": moves.iter().map(|made| made.reconnects).sum::<u64>(),
            "writes_checked": moves.iter().map(|made| made.writes_checked).sum::<u64>(),
            "values_checked": moves.iter().map(|made| made.values_checked).sum::<u64>(),
        })
    }

    /// Payload written per second. Redis itself touches more memory for it.
    fn dirty_mib_s(&self) -> f64 {
        let mean = self.verified.bytes as f64 / self.verified.present.max(1) as f64;
        (self.rate * mean / f64::from(1 << 20) * 100.0).round() / 100.0
    }

    /// The tables, and what they mean.
    pub(super) fn table(&self) -> String {
        let phases: Vec<Phase> = Phase::ALL
            .iter()
            .copied()
            .filter(|phase| self.moves.iter().any(|made| made.report.phase_ms(*phase).is_some()))
            .collect();
        let mut numbers: Vec<Vec<String>> = self.moves.iter().map(numbers_of).collect();
        numbers.push(self.numbers_in_the_middle());
        let ms_of = |phase: Phase, moves: &[Made]| {
            ms(median(moves.iter().filter_map(|made| made.report.phase_ms(phase))))
        };
        let row = |name: String, moves: &[Made]| {
            [name].into_iter().chain(phases.iter().map(|phase| ms_of(*phase, moves))).collect::<Vec<_>>()
        };
        let mut times: Vec<Vec<String>> =
            self.moves.iter().map(|made| row(made.name(), std::slice::from_ref(made))).collect();
        times.push(row(MEDIAN.to_owned(), &self.moves));
        let mut words = vec!["move"];
        words.extend(phases.iter().map(|phase| phase.as_str()));
        format!("{}\n{}\n{}", render(&words, &times), render(&NUMBERS, &numbers), self.words())
    }

    fn numbers_in_the_middle(&self) -> Vec<String> {
        let middle = |number: &dyn Fn(&Made) -> f64| median(self.moves.iter().map(number));
        vec![
            MEDIAN.to_owned(),
            mib(whole(middle(&|made| made.report.bytes_raw.get() as f64))),
            mib(whole(middle(&|made| made.report.bytes_sent.get() as f64))),
            ms(middle(&|made| made.frozen_ms)),
            ms(middle(&|made| made.downtime_ms)),
            ms(middle(&|made| made.total_ms)),
            middle(&|made| made.reconnects as f64).unwrap_or_default().to_string(),
        ]
    }

    fn words(&self) -> String {
        let bytes: u64 = self.moves.iter().map(|made| made.bytes_checked).sum();
        format!(
            "A Redis holding {filled} of random values moved {moves} times between two sites (link: 1 Gbit/s) while \
             {connections} clients\n\
             wrote to it, {rate:.0} writes per second, every one to a key of its own. All times are in milliseconds.\n\
             \n\
             plan ... release  the phases of one migration, in order; some overlap, so they may add up to more than the total\n\
             raw, sent         state that had to move, and what went over the link for it, before TLS and TCP headers\n\
             frozen            from the freeze at the source to the resume at the destination, as the sites measure it\n\
             downtime          what a client saw: the longest time without an answer, asked every millisecond\n\
             total             `ums migrate` from its start to its end\n\
             reconnects        connections that clients had to make anew: a stop-and-copy migration breaks them\n\
             writes checked    acknowledged writes read back from the destination and compared, after every move all of them\n\
             \n\
             Checked: {moves} of {moves} migrations done; {acknowledged} acknowledged writes, 0 lost ({uncertain} more had \
             no answer\n\
             when their connection broke, and may or may not be there: the ones that are, are right);\n\
             {compared} of values compared; a client that reads what it wrote last was right {reads} times of {reads};\n\
             at the end exactly one Redis ran, where it should, and afterwards nothing was left on this machine.\n",
            filled = self.filled,
            moves = self.moves.len(),
            connections = self.connections,
            rate = self.rate,
            acknowledged = self.written.acknowledged,
            uncertain = self.written.uncertain,
            compared = Bytes(bytes),
            reads = self.reads.right,
        )
    }
}

/// One row of [`NUMBERS`].
fn numbers_of(made: &Made) -> Vec<String> {
    vec![
        made.name(),
        mib(Some(made.report.bytes_raw.get())),
        mib(Some(made.report.bytes_sent.get())),
        ms(Some(made.frozen_ms)),
        ms(Some(made.downtime_ms)),
        ms(Some(made.total_ms)),
        made.reconnects.to_string(),
        made.writes_checked.to_string(),
    ]
}
