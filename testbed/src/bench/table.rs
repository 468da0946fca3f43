//! The numbers of a benchmark for people.

use ums_model::phase::Phase;

use super::point::{MEMORY, PROCESSES, PROCESSES_MIB, Summary};
use crate::text_table::{mib, ms, render};

/// Rate of the link in bytes per millisecond.
const LINK: f64 = 125_000.0;

/// Both axes of `cold`, its phases, and what the words mean.
pub(super) fn cold(summaries: &[Summary], runs: u32) -> String {
    let on = |scenario: &str| -> Vec<&Summary> {
        summaries.iter().filter(|summary| summary.scenario == scenario).collect()
    };
    let (memory, processes) = (on(MEMORY), on(PROCESSES));
    format!(
        "Stop-and-copy of a process with random memory over 1 Gbit/s, medians of {runs} run(s), times in ms.\n\
         `cold` is UMS; `baseline` is criu dump, tar over one TLS stream, criu restore.\n\n\
         Total time over memory, 1 process\n\n{}\n\
         Total time over processes, {PROCESSES_MIB} MiB in all of them together\n\n{}\n\
         Phases (they may overlap in `cold`, so their sum can exceed the total)\n\n{}\n\
         total     from the command to its end: everything included\n\
         frozen    from the freeze at the source to the resume at the destination\n\
         downtime  what a client saw, asking every millisecond: last answer before to first answer after\n\
         link      how long the bytes alone take at 1 Gbit/s\n\
         ok        migrations after which every page of memory was compared and found right, of all attempts\n",
        numbers(&memory, "MiB", |summary| summary.memory_mib.to_string()),
        numbers(&processes, "processes", |summary| summary.processes.to_string()),
        phases(summaries),
    )
}

fn numbers(summaries: &[&Summary], axis: &str, place: impl Fn(&Summary) -> String) -> String {
    let heading = [axis, "mode", "total", "frozen", "downtime", "link", "MiB raw", "MiB sent", "ok"];
    let rows = summaries.iter().map(|summary| {
        vec![
            place(summary),
            summary.mode.to_owned(),
            ms(summary.total_ms),
            ms(summary.frozen_ms),
            ms(summary.downtime_ms),
            ms(summary.bytes_sent.map(|bytes| bytes as f64 / LINK)),
            mib(summary.bytes_raw),
            mib(summary.bytes_sent),
            format!("{}/{}", summary.ok, summary.runs),
        ]
    });
    render(&heading, &rows.collect::<Vec<_>>())
}

fn phases(summaries: &[Summary]) -> String {
    let has = |phase: &&Phase| summaries.iter().any(|summary| summary.phases.contains_key(phase.as_str()));
    let phases: Vec<&str> = Phase::ALL.iter().filter(has).map(|phase| phase.as_str()).collect();
    let mut heading = vec!["MiB", "processes", "mode"];
    heading.extend(&phases);
    let rows = summaries.iter().map(|summary| {
        let mut row =
            vec![summary.memory_mib.to_string(), summary.processes.to_string(), summary.mode.to_owned()];
        row.extend(phases.iter().map(|phase| ms(summary.phases.get(*phase).copied())));
        row
    });
    render(&heading, &rows.collect::<Vec<_>>())
}
