//! How soon a service runs again after `ums abort`, wherever in a migration the abort comes.
//!
//! The aborts are spread evenly over the time that a whole migration takes, so that they meet every phase in proportion
//! to its length: those that last longest, and are most worth breaking off, most often.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ums_model::error::ErrorCode;
use ums_model::report::Report;

use super::own;
use super::point::{ANSWER, MEMORY, Point, median, ms, to_micro};
use super::{Options, own::report};
use crate::cli::Outcome;
use crate::interrupt;
use crate::lab::Lab;
use crate::net::{A, B};
use crate::service::Service;
use crate::shaper::Shape;
use crate::text_table::render;

/// Aborts per size of the service if nobody says how many.
const ABORTS: u32 = 24;

/// What one abort came to.
struct Sample {
    /// The last phase that had begun.
    phase: String,
    /// From the command to its end, ms.
    command_ms: f64,
    /// From the command to the end of the silence that it ended, ms; 0 if the service had not been stopped.
    answer_ms: f64,
}

/// A silence shorter than this is the machine's, not the freeze's.
const STOPPED: Duration = Duration::from_millis(20);

/// Measures and prints one line per size and phase.
pub(super) fn abort(options: Options) -> Result<()> {
    let aborts = options.runs.unwrap_or(if options.quick { 6 } else { ABORTS });
    let sizes: &[u64] = if options.quick { &[64] } else { &[64, 512] };
    eprintln!("bench: two sites, joined by a link of 1 Gbit/s");
    let lab = Lab::two_sites_over(Shape::gigabit())?;
    let mut rows = Vec::new();
    for size in sizes {
        let point = Point { scenario: MEMORY, memory_mib: *size, processes: 1 };
        let service = own::start(&lab, &point)?;
        // There and back: the image is at both sites afterwards, and the second one tells how long a move takes.
        own::migrate(&service)?;
        let whole = own::migrate(&service)?;
        let dump = whole.phases.iter().find(|(phase, _)| phase == "dump").map_or(0.0, |(_, ms)| *ms);
        eprintln!(
            "bench: {size} MiB: a whole migration takes {:.0} ms, its dump {dump:.0} ms",
            whole.total_ms
        );
        let (mut phases, mut late) = (BTreeMap::<String, Vec<Sample>>::new(), 0);
        for turn in 0..aborts {
            let after = whole.total_ms * (f64::from(turn) + 0.5) / f64::from(aborts);
            let sample = break_off(&service, Duration::from_secs_f64(after / 1e3))
                .with_context(|| format!("{size} MiB, aborted after {after:.0} ms"))?;
            interrupt::stop_here_if_interrupted();
            match sample {
                Some(sample) => {
                    let Sample { phase, command_ms, answer_ms } = &sample;
                    eprintln!(
                        "bench: after {after:.0} ms, in {phase}: {command_ms:.0} ms, answers after {answer_ms:.0} ms"
                    );
                    phases.entry(phase.clone()).or_default().push(sample);
                }
                None => late += 1,
            }
        }
        own::end(&service);
        eprintln!(
            "bench: {size} MiB: {late} of {aborts} came before the migration was known or after its commit, and were refused"
        );
        for (phase, samples) in &phases {
            rows.push(row(options.json, *size, phase, samples));
        }
    }
    if !options.json {
        let heading = ["MiB", "phase", "aborts", "command ms", "worst", "answer ms", "worst"];
        print!("{}", render(&heading, &rows));
    }
    Ok(())
}

fn row(json: bool, size: u64, phase: &str, samples: &[Sample]) -> Vec<String> {
    let of = |number: fn(&Sample) -> f64| {
        let middle = median(samples.iter().map(number)).unwrap_or_default();
        (to_micro(middle), samples.iter().map(number).fold(0.0, f64::max))
    };
    let (command, answer) = (of(|sample| sample.command_ms), of(|sample| sample.answer_ms));
    if json {
        let line = serde_json::json!({
            "scenario": "abort", "memory_mib": size, "phase": phase, "aborts": samples.len(),
            "command_ms": command.0, "command_worst_ms": command.1,
            "answer_ms": answer.0, "answer_worst_ms": answer.1,
        });
        println!("{line}");
    }
    let whole = |ms: f64| format!("{ms:.0}");
    vec![
        size.to_string(),
        phase.to_owned(),
        samples.len().to_string(),
        whole(command.0),
        whole(command.1),
        whole(answer.0),
        whole(answer.1),
    ]
}

/// Begins a migration and aborts it `after` a while; `None` if the commit was first. The service is at A afterwards.
fn break_off(service: &Service<'_>, after: Duration) -> Result<Option<Sample>> {
    ensure!(service.site().index() == A, "the service should be at its first site");
    let probe = service.probe()?;
    let source = service.site();
    let (aborted, migrated, (begin, command)) = thread::scope(|scope| {
        let migration = scope.spawn(|| service.try_migrate(B));
        thread::sleep(after);
        let begin = Instant::now();
        let aborted = source.ums(&["abort", service.name()]);
        let command = begin.elapsed();
        let migrated = migration.join().map_err(|_| anyhow::anyhow!("the migration's thread panicked"));
        anyhow::Ok((aborted?, migrated??, (begin, command)))
    })?;
    if migrated.code == Some(0) {
        drop(probe);
        service.settle()?;
        service.check()?;
        own::migrate(service).context("cannot take the service back")?;
        return Ok(None);
    }
    if aborted.code != Some(0) {
        // It came before the migration was known, and then the migration must have gone on.
        bail!("the abort was refused, and yet the migration failed: {aborted:?} {migrated:?}");
    }
    probe.wait_for_answer(ANSWER)?;
    let (last, first) =
        probe.silence(begin, begin + command).context("the service did not answer after the abort")?;
    drop(probe);
    service.check()?;
    let report = rolled_back(&migrated)?;
    let phase = report.phases.last().map_or_else(|| "plan".to_owned(), |last| last.phase.to_string());
    let stopped = first - last >= STOPPED;
    let answer = if stopped { first.saturating_duration_since(begin) } else { Duration::ZERO };
    Ok(Some(Sample { phase, command_ms: ms(command), answer_ms: ms(answer) }))
}

fn rolled_back(migrated: &Outcome) -> Result<Report> {
    let report = report(migrated.field("report").context("`ums migrate --json` printed no report")?)?;
    let code = report.error.as_ref().map(|error| error.code);
    ensure!(code == Some(ErrorCode::Aborted), "the migration ended for another reason: {report:?}");
    Ok(report)
}
