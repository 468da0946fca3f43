//! How answers look: aligned columns for people, one JSON object per line for programs.

use serde_json::Value;
use ums_model::error::WireError;
use ums_model::event::{EventKind, MigrationEvent};
use ums_model::names::Bytes;
use ums_model::report::Report;
use ums_model::text::{printable, printable_json};

/// Prints a table; nothing but the heading if there are no rows. Another site may have chosen what is in a cell.
pub(crate) fn table(heading: &[&str], rows: &[Vec<String>]) {
    let shown = |row: &Vec<String>| row.iter().map(|cell| printable(cell).into_owned()).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(shown).collect();
    let mut widths: Vec<usize> = heading.iter().map(|cell| cell.len()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<&str>| {
        let cells = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    };
    line(heading.to_vec());
    for row in &rows {
        line(row.iter().map(String::as_str).collect());
    }
}

/// Prints one JSON object on one line.
pub(crate) fn json(value: &Value) {
    println!("{}", printable_json(&value.to_string()));
}

/// Prints an error where it belongs: on stderr for people, on stdout as an object for programs.
pub(crate) fn error(error: &WireError, as_json: bool) {
    if as_json {
        json(&serde_json::json!({ "error": error }));
    } else {
        eprintln!("error: {}", error.message);
        eprintln!("hint: {}", error.hint);
    }
}

/// One line per finished phase, one at the end.
pub(crate) fn event(event: &MigrationEvent) {
    match &event.kind {
        EventKind::PhaseDone { phase, ms, bytes } => {
            let bytes = bytes.map(|bytes| format!("  {bytes}")).unwrap_or_default();
            println!("{:<9} {ms:>9.1} ms{bytes}", phase.as_str());
        }
        EventKind::Note { text } => println!("note      {text}"),
        EventKind::Ended { report, .. } => ended(report),
        EventKind::PhaseStarted { .. } | EventKind::Progress { .. } | EventKind::Unknown => {}
    }
}

fn ended(report: &Report) {
    let ms = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1} ms"));
    println!(
        "{} {}: {} -> {}, total {:.1} ms, frozen {} (predicted {}), sent {}",
        report.outcome.as_str(),
        report.service,
        report.source,
        report.destination,
        report.total_ms,
        ms(report.frozen_ms),
        ms(report.predicted_frozen_ms),
        report.bytes_sent
    );
    if let Some(cause) = &report.error {
        eprintln!("error: {}", cause.message);
        eprintln!("hint: {}", cause.hint);
    }
}

/// Seconds ago as people say it.
pub(crate) fn age(since_unix_ms: u64, now_unix_ms: u64) -> String {
    if since_unix_ms == 0 {
        return "-".to_owned();
    }
    match now_unix_ms.saturating_sub(since_unix_ms) / 1000 {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// A number of bytes in a JSON field.
pub(crate) fn bytes(value: &Value) -> String {
    value.as_u64().map_or_else(|| "-".to_owned(), |bytes| Bytes(bytes).to_string())
}
