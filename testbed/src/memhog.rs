//! Asking `ums-workload memhog` about its memory.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::dial::Dialer;

/// A check reads all the memory: about 10 GiB/s, much less when the machine is busy.
const ANSWER: Duration = Duration::from_secs(60);

/// What a memhog says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Pages of 4 KiB it holds, in all processes.
    pub pages: u64,
    /// Pages written since it started.
    pub dirtied: u64,
    /// Processes.
    pub processes: u64,
}

/// Has the memhog compare every page with what it must hold; returns their number.
///
/// On `Err` nobody answered within `deadline`, or pages are wrong.
pub fn check(dialer: &Dialer, deadline: Duration) -> Result<u64> {
    let answer = ask(dialer, "check", deadline)?;
    match answer.split_once(' ') {
        Some(("ok", pages)) => pages.parse().with_context(|| format!("strange answer `{answer}`")),
        Some(("bad", pages)) => bail!("{pages} pages of the memhog do not hold what they must"),
        _ => bail!("the memhog cannot check its memory: {answer}"),
    }
}

/// How much it holds and has written.
pub fn stats(dialer: &Dialer, deadline: Duration) -> Result<Stats> {
    let answer = ask(dialer, "stats", deadline)?;
    let number = |name: &str| {
        let words = answer.split_whitespace().filter_map(|word| word.split_once('='));
        let mut values = words.filter(|(key, _)| *key == name).filter_map(|(_, value)| value.parse().ok());
        values.next().with_context(|| format!("no {name} in the answer `{answer}`"))
    };
    Ok(Stats { pages: number("pages")?, dirtied: number("dirtied")?, processes: number("processes")? })
}

/// Has it spoil one page (it must have been started with `--allow-corrupt yes`), to show that [`check`] finds it.
pub fn corrupt(dialer: &Dialer, deadline: Duration) -> Result<()> {
    match ask(dialer, "corrupt", deadline)?.as_str() {
        "corrupted" => Ok(()),
        other => bail!("the memhog does not corrupt its memory: {other}"),
    }
}

fn ask(dialer: &Dialer, question: &str, deadline: Duration) -> Result<String> {
    let mut answer = String::new();
    let greet = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(ANSWER))?;
        stream.write_all(format!("{question}\n").as_bytes())?;
        answer.clear();
        BufReader::new(stream).read_line(&mut answer)?;
        if answer.ends_with('\n') { Ok(()) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
    };
    dialer.connect(deadline, greet).with_context(|| format!("cannot ask the memhog to {question}"))?;
    Ok(answer.trim_end().to_owned())
}
