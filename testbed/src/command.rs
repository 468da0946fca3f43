//! Running a program to its end, with a deadline, and with its own words in the error.

use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Set-up commands (`ip`, `nft`, `tc`) answer in milliseconds; a longer wait means a hung kernel lock.
pub const SETUP_DEADLINE: Duration = Duration::from_secs(20);

/// How long the output of a program that has ended may take to arrive.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// How often a child is asked whether it ended.
const POLL: Duration = Duration::from_millis(2);

/// What a program that ended left behind.
#[derive(Debug, Clone)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// Runs `command` to its end, whatever its exit code, with `input` as its standard input.
///
/// On `Err` the program could not be started or was killed because `deadline` passed.
pub fn finish(mut command: Command, input: &str, deadline: Duration) -> Result<Finished> {
    let words = describe(&command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().with_context(|| format!("cannot start `{words}`"))?;
    collect(child, input, deadline).with_context(|| format!("while running `{words}`"))
}

/// Like [`finish`], but an exit code other than 0 is an error that quotes the program's standard error.
pub fn succeed(command: Command, input: &str, deadline: Duration) -> Result<String> {
    let words = describe(&command);
    let finished = finish(command, input, deadline)?;
    if !finished.status.success() {
        let input = if input.is_empty() { String::new() } else { format!(" with input:\n{input}") };
        bail!("`{words}` ended with {}: {}{input}", finished.status, finished.stderr.trim());
    }
    Ok(finished.stdout)
}

/// Waits until `child` ends or `deadline` passes; in the latter case the child stays untouched.
pub fn wait(child: &mut Child, deadline: Duration) -> Result<Option<ExitStatus>> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for a child")? {
            return Ok(Some(status));
        }
        if Instant::now() >= end {
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

fn collect(mut child: Child, input: &str, deadline: Duration) -> Result<Finished> {
    let stdout = child.stdout.take().map(drain);
    let stderr = child.stderr.take().map(drain);
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input ends with a closed pipe; its exit code tells the story.
        let _ = stdin.write_all(input.as_bytes());
    }
    let Some(status) = wait(&mut child, deadline)? else {
        child.kill().context("cannot kill a program past its deadline")?;
        child.wait().context("cannot reap a killed program")?;
        bail!("no end within {deadline:?}, killed");
    };
    Ok(Finished { status, stdout: text(stdout)?, stderr: text(stderr)? })
}

/// Reads a pipe to its end on a thread of its own.
fn drain(mut pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // A read error leaves what came before it, which is all there is to report.
        let _ = pipe.read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    });
    receiver
}

fn text(reader: Option<Receiver<Vec<u8>>>) -> Result<String> {
    let Some(reader) = reader else { return Ok(String::new()) };
    let bytes = reader
        .recv_timeout(LAST_WORDS)
        .context("it ended, but a program that it started still holds its standard output or error")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_quotes_the_program() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo why >&2; exit 3"]);
        let error = succeed(command, "", SETUP_DEADLINE).unwrap_err().to_string();
        assert!(error.contains("why") && error.contains('3'), "{error}");
    }

    #[test]
    fn a_program_past_its_deadline_is_killed() {
        let mut command = Command::new("sleep");
        command.arg("1000");
        let error = finish(command, "", Duration::from_millis(20)).unwrap_err();
        assert!(format!("{error:#}").contains("killed"), "{error:#}");
    }

    #[test]
    fn input_and_output_larger_than_a_pipe_do_not_block() {
        let input = "x".repeat(1 << 20);
        let finished = finish(Command::new("cat"), &input, SETUP_DEADLINE).unwrap();
        assert_eq!(finished.stdout.len(), input.len());
    }
}
