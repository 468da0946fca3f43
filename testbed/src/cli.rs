//! One call of the `ums` command line and what came of it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command::finish;
use crate::tag::{MARKER, Tag};

/// What a command printed and how it ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The exit code: 0 done, 1 failed and rolled back, 2 usage, 3 stuck or lost; `None` if a signal ended it.
    pub code: Option<i32>,
    /// The JSON objects on standard output, one per line.
    pub lines: Vec<Value>,
    /// Standard error, for people.
    pub stderr: String,
    words: String,
}

impl Outcome {
    /// This outcome if the exit code is 0; otherwise an error that quotes the program.
    pub fn success(self) -> Result<Self> {
        match self.code {
            Some(0) => Ok(self),
            _ => bail!("{}", self.told()),
        }
    }

    /// This outcome if it failed with `code` and what it said contains `part`; otherwise an error.
    pub fn failure(self, code: i32, part: &str) -> Result<Self> {
        let said = format!("{}{}", self.stderr, self.lines.iter().map(Value::to_string).collect::<String>());
        if self.code == Some(code) && said.to_lowercase().contains(&part.to_lowercase()) {
            return Ok(self);
        }
        bail!("expected exit code {code} and a word about `{part}`: {}", self.told());
    }

    /// The last JSON object: the result of commands that report progress before it.
    pub fn result(&self) -> Result<&Value> {
        self.lines.last().with_context(|| format!("no JSON on stdout: {}", self.told()))
    }

    /// The newest value of a field, in the lines themselves or one level below (as in `{"report":{...}}`).
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.lines.iter().rev().find_map(|line| {
            let nested = || line.as_object()?.values().find_map(|value| value.get(name));
            line.get(name).or_else(nested).filter(|value| !value.is_null())
        })
    }

    /// A field that is a text.
    pub fn text(&self, name: &str) -> Result<&str> {
        let found = self.field(name).and_then(Value::as_str);
        found.with_context(|| format!("no text `{name}` in the answer: {}", self.told()))
    }

    /// A field that is a number, for example `frozen_ms`.
    pub fn number(&self, name: &str) -> Result<f64> {
        let found = self.field(name).and_then(Value::as_f64);
        found.with_context(|| format!("no number `{name}` in the answer: {}", self.told()))
    }

    fn told(&self) -> String {
        let code = self.code.map_or("a signal".to_owned(), |code| format!("exit code {code}"));
        let last = self.lines.last().map(Value::to_string).unwrap_or_default();
        format!("`{}` ended with {code}: {} {last}", self.words, self.stderr.trim())
    }
}

/// Runs `program --socket SOCKET --json ARGS...`, whatever its exit code.
///
/// On `Err` it did not end within `deadline`, or printed something that is not one JSON object per line.
pub(crate) fn call(
    program: &Path,
    socket: &Path,
    tag: &Tag,
    args: &[&str],
    deadline: Duration,
) -> Result<Outcome> {
    let mut command = Command::new(program);
    command.arg("--socket").arg(socket).arg("--json").args(args).env(MARKER, tag.as_str());
    let finished = finish(command, "", deadline)?;
    let words = format!("ums {}", args.join(" "));
    let parse = |line: &str| {
        serde_json::from_str(line).with_context(|| {
            format!("`{words}` printed a line that is no JSON: {line} (stderr: {})", finished.stderr)
        })
    };
    let lines =
        finished.stdout.lines().filter(|line| !line.trim().is_empty()).map(parse).collect::<Result<_>>()?;
    Ok(Outcome { code: finished.status.code(), lines, stderr: finished.stderr.clone(), words: words.clone() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn outcome(code: i32, lines: Vec<Value>) -> Outcome {
        Outcome { code: Some(code), lines, stderr: "no such service\n".into(), words: "ums ps".into() }
    }

    #[test]
    fn the_newest_value_counts_also_inside_a_report() {
        let lines = vec![
            json!({"frozen_ms": 1.0}),
            json!({"report": {"frozen_ms": 2.5, "x": null}}),
            json!({"event": "end"}),
        ];
        let outcome = outcome(0, lines);
        assert_eq!(outcome.number("frozen_ms").unwrap(), 2.5);
        assert_eq!(outcome.text("event").unwrap(), "end");
        assert!(outcome.number("x").is_err());
    }

    #[test]
    fn a_failure_must_be_the_expected_one() {
        let failed = outcome(1, vec![]);
        assert!(failed.clone().failure(1, "No such SERVICE").is_ok());
        assert!(failed.clone().failure(1, "disk").is_err());
        assert!(failed.clone().failure(3, "service").is_err());
        assert!(failed.success().unwrap_err().to_string().contains("no such service"));
    }
}
