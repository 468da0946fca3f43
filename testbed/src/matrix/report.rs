//! The tables: step by fault, in text and in Markdown.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::json;

use super::faults::Fault;
use super::run::Held;
use super::sense::{End, senseless};
use super::steps::side;
use crate::fault::Step;

/// Results, ready to be shown.
#[derive(Debug)]
pub struct Report<'a> {
    results: &'a [Held],
    took: Duration,
}

/// A report of `results`; `took` is how long the last run took.
pub fn of(results: &[Held], took: Duration) -> Report<'_> {
    Report { results, took }
}

impl Report<'_> {
    /// How many cells did not hold.
    pub fn failed(&self) -> usize {
        self.results.iter().filter(|result| result.end.is_none()).count()
    }

    /// The closing object of `--json`.
    pub fn closing(&self) -> serde_json::Value {
        json!({
            "cells": self.results.len(),
            "failed": self.failed(),
            "ends": self.ends(),
            "seconds": self.took.as_secs_f64(),
        })
    }

    /// For a terminal: faults down, steps across would be too wide, so one line per fault and count.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let width = Fault::ALL.map(|fault| fault.word().len()).into_iter().max().unwrap_or(0);
        for step in Step::ALL {
            let _ = writeln!(text, "{} ({})", step.word(), side(step));
            for fault in Fault::ALL {
                let how = self.cell(step, fault);
                let _ = writeln!(text, "  {:<width$}  {how}", fault.word());
            }
        }
        let _ = write!(text, "{}", self.summary());
        text
    }

    /// For docs/reliability.md: the table, the summary, and why cells are empty.
    pub fn markdown(&self) -> String {
        let mut text = String::from("| step |");
        Fault::ALL.iter().for_each(|fault| {
            let _ = write!(text, " {fault} |");
        });
        text.push_str("\n| --- |");
        Fault::ALL.iter().for_each(|_| text.push_str(" --- |"));
        text.push('\n');
        for step in Step::ALL {
            let _ = write!(text, "| `{}` |", step.word());
            for fault in Fault::ALL {
                let _ = write!(text, " {} |", self.cell(step, fault));
            }
            text.push('\n');
        }
        let _ = write!(text, "\n{}\n\nEmpty cells (`-`):\n\n", self.summary());
        let mut reasons = BTreeMap::<(Fault, &str), Vec<&str>>::new();
        for (step, fault) in Step::ALL.iter().flat_map(|step| Fault::ALL.map(|fault| (*step, fault))) {
            if let Some(reason) = senseless(step, fault) {
                reasons.entry((fault, reason)).or_default().push(step.word());
            }
        }
        for ((fault, reason), steps) in reasons {
            let _ = writeln!(text, "- `{fault}` at {}: {reason}.", steps.join(", "));
        }
        text
    }

    fn cell(&self, step: Step, fault: Fault) -> &str {
        let name = format!("{}/{fault}", step.word());
        if senseless(step, fault).is_some() {
            return "-";
        }
        // The newest counts.
        match self.results.iter().rev().find(|result| result.cell == name) {
            Some(Held { end: Some(end), .. }) => end,
            Some(_) => "FAILED",
            None => "not run",
        }
    }

    fn ends(&self) -> BTreeMap<&str, usize> {
        let mut ends = BTreeMap::new();
        for result in self.results {
            *ends.entry(result.end.as_deref().unwrap_or("FAILED")).or_default() += 1;
        }
        ends
    }

    fn summary(&self) -> String {
        let ends: Vec<String> = self.ends().iter().map(|(end, count)| format!("{count} {end}")).collect();
        let killed = [End::Lost, End::Died, End::Resolved].map(End::word).join(", ");
        format!(
            "{} cells: {}. {} only where the fault killed a copy from outside.",
            self.results.len(),
            ends.join(", "),
            killed
        )
    }
}
