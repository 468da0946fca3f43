//! Why CRIU failed, in words that help: found in its log, told with a remedy.
//!
//! CRIU answers a failed request with little more than "no". The reason is in its log, somewhere in a chain of
//! `Error (file.c:123): ...` lines of which the first is usually the cause and the rest its consequences.

mod causes;

use std::fmt;

use serde::{Deserialize, Serialize};

/// Errors that CRIU writes on every run without the right to raise its limit, and then goes on.
const HARMLESS: &[&str] = &["Can't setup RLIMIT_NOFILE for self"];

/// Lines at the end of the log that go with the failure.
const TAIL_LINES: usize = 40;

/// Longest line that is kept, in bytes: paths in a log can come from the other site.
const LINE_BYTES: usize = 500;

/// Why CRIU failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CriuFailure {
    /// In plain words.
    pub cause: String,
    /// What can be done about it.
    pub remedy: String,
    /// The line of CRIU's log that says so; empty if there is none.
    pub line: String,
    /// The end of that log.
    pub log_tail: String,
}

impl CriuFailure {
    /// Finds the reason in a log, which may be incomplete.
    pub fn from_log(log: &str) -> Self {
        let errors = || log.lines().filter(|line| is_error(line));
        let known = errors().find_map(|line| Some((line, causes::explain(line)?)));
        let (line, cause, remedy) = match known {
            Some((line, known)) => (line, known.cause, known.remedy),
            None => match errors().next() {
                Some(line) => (line, causes::UNKNOWN.cause, causes::UNKNOWN.remedy),
                None => ("", causes::SILENT.cause, causes::SILENT.remedy),
            },
        };
        Self {
            cause: cause.to_owned(),
            remedy: remedy.to_owned(),
            line: shorten(line.trim()),
            log_tail: tail(log),
        }
    }

    /// A failure that was found by us and not by CRIU.
    pub fn ours(cause: String, remedy: &str, log: &str) -> Self {
        Self { cause, remedy: remedy.to_owned(), line: String::new(), log_tail: tail(log) }
    }
}

impl fmt::Display for CriuFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)?;
        if !self.line.is_empty() {
            write!(f, " (CRIU: {})", self.line)?;
        }
        write!(f, "; {}", self.remedy)
    }
}

impl std::error::Error for CriuFailure {}

fn is_error(line: &str) -> bool {
    line.contains("Error (") && !HARMLESS.iter().any(|harmless| line.contains(harmless))
}

fn tail(log: &str) -> String {
    let mut lines: Vec<_> = log.lines().rev().take(TAIL_LINES).map(shorten).collect();
    lines.reverse();
    lines.join("\n")
}

fn shorten(line: &str) -> String {
    if line.len() <= LINE_BYTES {
        return line.to_owned();
    }
    let end = (0..=LINE_BYTES).rev().find(|end| line.is_char_boundary(*end)).unwrap_or(0);
    format!("{}...", &line[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    const RLIMIT: &str = "(00.000667) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted";

    #[test]
    fn the_cause_is_not_the_harmless_line_before_it() {
        let log = format!(
            "{RLIMIT}\n(00.1) Dumping\n\
             (00.2) Error (criu/files-ext.c:98): Can't dump file 4 of that type [600] (unknown anon_inode:[io_uring])\n\
             (00.3) Error (criu/cr-dump.c:1685): Dump files (pid: 5) failed with -1\n"
        );
        let failure = CriuFailure::from_log(&log);
        assert!(failure.cause.contains("io_uring"), "{failure}");
        assert!(failure.line.contains("files-ext.c"), "{failure}");
        assert!(failure.log_tail.ends_with("failed with -1"));
    }

    #[test]
    fn an_unknown_error_is_quoted() {
        let failure = CriuFailure::from_log("(00.2) Error (criu/new.c:1): Something new\n");
        assert_eq!(failure.line, "(00.2) Error (criu/new.c:1): Something new");
        assert!(failure.to_string().contains("Something new"));
    }

    #[test]
    fn a_log_without_errors_and_a_long_line_do_no_harm() {
        assert_eq!(CriuFailure::from_log(RLIMIT).line, "");
        let long = format!("Error (x): {}", "ä".repeat(2000));
        assert!(CriuFailure::from_log(&long).line.len() <= LINE_BYTES + 3);
    }
}
