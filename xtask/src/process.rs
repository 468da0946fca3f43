//! Child processes: started with a clean environment, never waited for without an end, and explained when they fail.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

/// How often a child with a deadline is looked at: short against every deadline, long against the cost of a look.
const LOOK: Duration = Duration::from_millis(20);

/// How many of the last lines of a failed child's output are repeated in the error.
const TAIL_LINES: usize = 15;

/// Where administrators' programs live that a plain user's `PATH` often lacks.
const SYSTEM_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Variables that `cargo run` adds for this process and that must not leak into the programs that it starts: they
/// would change what a nested cargo builds, or which libraries a service finds.
const CARGO_RUN_PREFIXES: [&str; 4] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];

/// Tells a person what is going on. Standard output belongs to the programs that are started.
pub(crate) fn say(line: &str) {
    eprintln!("xtask: {line}");
}

/// A command without what `cargo run` added to the environment, with the system's own folders in its `PATH`.
pub(crate) fn command(program: impl Into<OsString>) -> Command {
    let mut command = Command::new(program.into());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text == "LD_LIBRARY_PATH" || CARGO_RUN_PREFIXES.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    if let Ok(path) = std::env::join_paths(search_path()) {
        command.env("PATH", path);
    }
    command
}

/// The cargo that started this process.
pub(crate) fn cargo() -> Command {
    command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Where the program is that a shell would start for `name`, the system's own folders included.
pub(crate) fn find_tool(name: &str) -> Option<PathBuf> {
    search_path().into_iter().map(|folder| folder.join(name)).find(|candidate| is_program(candidate))
}

fn search_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> =
        std::env::split_paths(&path).filter(|folder| !folder.as_os_str().is_empty()).collect();
    for folder in SYSTEM_FOLDERS.map(PathBuf::from) {
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders
}

/// Whether a file is there and may be executed by anyone.
pub(crate) fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
}

/// Runs a child whose output a person should see as it comes. `Ok` means that it exited with 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot start `{shown}`"))?;
    check(&shown, status)
}

/// Runs a child that answers at once, and returns what it wrote to stdout; its stderr is part of the error.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{shown}`"))?;
    if let Err(error) = check(&shown, output.status) {
        bail!("{error}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{shown}` did not answer in UTF-8"))
}

/// Runs a long child whose output is of interest only when it fails: it goes to the file `log`, and its end into
/// the error. The child is killed when it takes longer than `deadline`.
pub(crate) fn run_logged(command: &mut Command, log: &Path, deadline: Duration) -> Result<()> {
    let shown = shown(command);
    if let Some(folder) = log.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    let file = File::create(log).with_context(|| format!("cannot write the log {}", log.display()))?;
    let second = file.try_clone().with_context(|| format!("cannot write the log {}", log.display()))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(second)
        .spawn()
        .with_context(|| format!("cannot start `{shown}`"))?;
    match wait(&mut child, deadline).with_context(|| format!("cannot wait for `{shown}`"))? {
        Some(status) => check(&shown, status),
        None => Err(anyhow!("`{shown}` did not end within {} s and was killed", deadline.as_secs())),
    }
    .map_err(|error| anyhow!("{error}; the end of its output ({}):\n{}", log.display(), tail(log)))
}

fn check(shown: &str, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    Ok(())
}

/// `None` when the deadline passed; the child is dead and reaped then.
fn wait(child: &mut Child, deadline: Duration) -> std::io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        sleep(LOOK);
    }
}

/// The command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    command.get_args().fold(name, |line, argument| format!("{line} {}", argument.to_string_lossy()))
}

fn tail(log: &Path) -> String {
    let text =
        std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("xtask-{}-{name}.log", std::process::id()))
    }

    #[test]
    fn a_failure_is_told_with_the_end_of_the_output() {
        let log = log("failure");
        let mut child = command("sh");
        child.args(["-c", "for i in $(seq 40); do echo line $i; done; echo why >&2; exit 3"]);
        let error = run_logged(&mut child, &log, Duration::from_secs(60)).unwrap_err().to_string();
        std::fs::remove_file(&log).unwrap();
        assert!(error.contains("exit status: 3"), "{error}");
        assert!(error.ends_with("line 40\nwhy"), "{error}");
        assert!(!error.contains("line 20\n"), "{error}");
    }

    #[test]
    fn a_child_past_its_deadline_is_killed_and_told() {
        let log = log("deadline");
        let error = run_logged(command("sleep").arg("1000"), &log, Duration::ZERO).unwrap_err().to_string();
        std::fs::remove_file(&log).unwrap();
        assert!(error.contains("`sleep 1000` did not end within 0 s"), "{error}");
    }

    #[test]
    fn what_cannot_be_started_is_named() {
        let error = run(&mut command("xtask-no-such-program")).unwrap_err().to_string();
        assert_eq!(error, "cannot start `xtask-no-such-program`");
    }

    #[test]
    fn a_tool_is_found_where_a_shell_would_find_it() {
        assert!(find_tool("sh").is_some_and(|path| path.is_absolute()));
        assert_eq!(find_tool("xtask-no-such-program"), None);
    }
}
