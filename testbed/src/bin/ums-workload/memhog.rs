//! A service that is mostly memory, spread over processes and threads.
//!
//! ```text
//! memhog ──┬─ workers (its own part of the memory)
//!  │ TCP   ├─ memhog-part ─ workers      asked over stdin, answers on stdout
//!  client  └─ memhog-part ─ workers
//! ```
//!
//! On the port, one line per question: `check` is answered `ok PAGES` or `bad PAGES-THAT-ARE-WRONG`, `stats` with
//! `pages=N dirtied=N processes=N`, `corrupt` (only if allowed) with `corrupted`, all else with `error ...`.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::args::Args;
use crate::counter;
use crate::echo;
use crate::memory::PAGE;
use crate::workers::{Plan, Question, Tally, Workers};

/// Name of the command of all processes but the first.
pub(crate) const PART: &str = "memhog-part";
/// A connection that says nothing makes room for the next one.
const IDLE: Duration = Duration::from_secs(5);
const MIB: u64 = 1 << 20;

pub(crate) fn run(args: &Args) -> Result<()> {
    let bytes = args.required::<u64>("mib")? * MIB;
    let processes = args.or("processes", 1_usize)?.max(1);
    let threads = args.or("threads", 1)?;
    let dirty = args.or("dirty-mib-s", 0_u64)? * MIB;
    let seed = args.or("seed", 1)?;
    let port: Option<u16> = args.optional("port")?;
    let echo_port: Option<u16> = args.optional("echo-port")?;
    let witness: Option<PathBuf> = args.optional("witness")?;
    let interval = args.millis("interval-ms", 10)?;
    let allow_corrupt = args.or("allow-corrupt", "no".to_owned())? == "yes";
    args.finish()?;

    let pages = usize::try_from(bytes / PAGE as u64)?;
    let part = |number: usize| {
        let first = pages * number / processes;
        Plan {
            seed,
            first: first as u64,
            pages: pages * (number + 1) / processes - first,
            threads,
            dirty_per_second: dirty / processes as u64,
        }
    };
    let parts = (1..processes).map(|number| Part::start(&part(number))).collect::<Result<Vec<_>>>()?;
    let mut hog = Hog { own: Workers::start(&part(0))?, parts, allow_corrupt };
    hog.ask(Question::Count).context("while filling the memory")?;
    println!("ready");

    if let Some(path) = witness {
        beside(move || counter::count(interval, Some(&path)));
    }
    if let Some(port) = echo_port {
        beside(move || echo::listen(port));
    }
    match port {
        Some(port) => hog.serve(port),
        None => loop {
            thread::park();
        },
    }
}

/// Does something for ever on a thread of its own. Should it fail, the service ends: it could not do its duty.
fn beside(duty: impl FnOnce() -> Result<()> + Send + 'static) {
    thread::spawn(move || {
        if let Err(error) = duty() {
            eprintln!("memhog: {error:#}");
            std::process::exit(1);
        }
    });
}

/// One of the other processes: answers on stdout what is asked on stdin, until that closes.
pub(crate) fn run_part(args: &Args) -> Result<()> {
    let plan = Plan {
        seed: args.required("seed")?,
        first: args.required("first")?,
        pages: args.required("pages")?,
        threads: args.required("threads")?,
        dirty_per_second: args.required("dirty")?,
    };
    args.finish()?;
    let workers = Workers::start(&plan)?;
    for line in std::io::stdin().lines() {
        let question = match line.context("cannot read a question")?.as_str() {
            "check" => Question::Check,
            "count" => Question::Count,
            other => bail!("unknown question {other}"),
        };
        let tally = workers.ask(question)?;
        println!("{} {} {}", tally.pages, tally.bad, tally.dirtied);
    }
    Ok(())
}

struct Hog {
    own: Workers,
    parts: Vec<Part>,
    allow_corrupt: bool,
}

impl Hog {
    fn serve(&mut self, port: u16) -> Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).context("cannot listen")?;
        println!("listening");
        loop {
            let (stream, _) = listener.accept().context("cannot accept")?;
            // One at a time; a connection that breaks is the client's to notice.
            let _ = self.converse(&stream);
        }
    }

    fn converse(&mut self, mut stream: &TcpStream) -> Result<()> {
        stream.set_read_timeout(Some(IDLE))?;
        for line in BufReader::new(stream).lines() {
            let answer = match self.answer(&line?) {
                Ok(answer) => answer,
                Err(error) => format!("error {error:#}"),
            };
            stream.write_all((answer + "\n").as_bytes())?;
        }
        Ok(())
    }

    fn answer(&mut self, question: &str) -> Result<String> {
        Ok(match question {
            "check" => match self.ask(Question::Check)? {
                Tally { bad: 0, pages, .. } => format!("ok {pages}"),
                Tally { bad, .. } => format!("bad {bad}"),
            },
            "stats" => {
                let tally = self.ask(Question::Count)?;
                let processes = self.parts.len() + 1;
                format!("pages={} dirtied={} processes={processes}", tally.pages, tally.dirtied)
            }
            "corrupt" if self.allow_corrupt => {
                self.own.ask(Question::Corrupt)?;
                "corrupted".to_owned()
            }
            _ => bail!("unknown question"),
        })
    }

    fn ask(&mut self, question: Question) -> Result<Tally> {
        for part in &mut self.parts {
            part.ask(question)?;
        }
        let mut sum = self.own.ask(question)?;
        for part in &mut self.parts {
            sum = sum.add(part.answer()?);
        }
        Ok(sum)
    }
}

struct Part {
    process: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Part {
    fn start(plan: &Plan) -> Result<Self> {
        let mut process = Command::new("/proc/self/exe")
            .arg(PART)
            .args(["--seed", &plan.seed.to_string(), "--first", &plan.first.to_string()])
            .args(["--pages", &plan.pages.to_string(), "--threads", &plan.threads.to_string()])
            .args(["--dirty", &plan.dirty_per_second.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start another process")?;
        let questions = process.stdin.take().context("a child without stdin")?;
        let answers = BufReader::new(process.stdout.take().context("a child without stdout")?);
        Ok(Self { process, questions, answers })
    }

    fn ask(&mut self, question: Question) -> Result<()> {
        let word = if question == Question::Check { "check\n" } else { "count\n" };
        self.questions.write_all(word.as_bytes()).with_context(|| self.gone())
    }

    fn answer(&mut self) -> Result<Tally> {
        let mut line = String::new();
        self.answers.read_line(&mut line).with_context(|| self.gone())?;
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let mut next = || numbers.next().and_then(Result::ok);
        let tally = (next(), next(), next());
        let (Some(pages), Some(bad), Some(dirtied)) = tally else { bail!("{}", self.gone()) };
        ensure!(next().is_none(), "a process gave a strange answer: {line}");
        Ok(Tally { pages, bad, dirtied })
    }

    fn gone(&self) -> String {
        format!("process {} does not answer", self.process.id())
    }
}
