//! A service that notices by itself when something was done to it: processes whose threads check their memory, their
//! registers, a connection and their signals all the time, and write `alive` after each round that
//! was well. The first thing that is not ends the process with a word on what it is.

use std::arch::asm;
use std::fs::{self, OpenOptions};
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Processes besides the first.
const PROCESSES: usize = 3;
/// Threads in each that check memory and registers.
const THREADS: u64 = 2;
/// Numbers in the memory of each of these threads.
const NUMBERS: usize = 1 << 16;

static SIGNALS: AtomicU64 = AtomicU64::new(0);

/// Starts the processes, each with a file of its own, and is one itself.
pub(crate) fn parent(file: &str) -> ExitCode {
    raise_loopback();
    let own = std::env::current_exe().expect("own program file");
    let start = |number| {
        let name = format!("{file}.{number}");
        Command::new(&own).args(["checked-one", &name]).spawn().expect("start a process")
    };
    let _children: Vec<_> = (1..=PROCESSES).map(start).collect();
    one(file)
}

/// One process.
pub(crate) fn one(file: &str) -> ExitCode {
    let mask = blocked();
    catch_signals();
    let (sender, rounds) = mpsc::channel::<Result<(), String>>();
    for number in 0..THREADS {
        let sender = sender.clone();
        thread::spawn(move || repeat(&sender, memory(number)));
    }
    let mut connection = Connection::new();
    let mut output = OpenOptions::new().create(true).append(true).open(file).expect("open the file");
    let mut number = 0_u64;
    loop {
        let checked = connection.check(number).and_then(|()| signalled());
        let checked = checked.and_then(|()| same("blocked signals", &mask, &blocked()));
        // Every thread has to say that it was well since the last round.
        let checked = checked.and_then(|()| {
            let mut told = (0..THREADS).map(|_| rounds.recv().unwrap_or_else(|error| Err(error.to_string())));
            told.find(Result::is_err).unwrap_or(Ok(()))
        });
        if let Err(wrong) = checked {
            let _ = writeln!(output, "BAD {wrong}");
            return ExitCode::FAILURE;
        }
        output.write_all(b"alive\n").expect("write the file");
        number += 1;
        thread::sleep(Duration::from_millis(1));
    }
}

fn repeat(sender: &mpsc::Sender<Result<(), String>>, mut check: impl FnMut() -> Result<(), String>) {
    while sender.send(check()).is_ok() {
        thread::sleep(Duration::from_micros(700));
    }
}

/// Memory that grows from one number, and registers that must hold while it is looked through.
fn memory(seed: u64) -> impl FnMut() -> Result<(), String> {
    let next = move |number: u64| number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(seed);
    let mut begin = seed;
    let mut numbers = vec![0_u64; NUMBERS];
    let fill = move |numbers: &mut [u64], begin| {
        numbers.iter_mut().fold(begin, |last, number| {
            *number = next(last);
            *number
        })
    };
    fill(&mut numbers, begin);
    move || {
        let mut last = begin;
        for number in &numbers {
            last = next(last);
            same("memory", &last, black_box(number))?;
        }
        begin = begin.wrapping_add(1);
        fill(&mut numbers, begin);
        registers()
    }
}

/// Floating point registers, over a system call that waits.
#[allow(unsafe_code)]
fn registers() -> Result<(), String> {
    let wait = libc::timespec { tv_sec: 0, tv_nsec: 300_000 };
    let (value, mut answer) = (0x1234_5678_9abc_def0_u64, 0_u64);
    // SAFETY: `nanosleep` reads `wait`, which is alive, and writes nothing; the registers that a system call and these
    // lines change are named.
    unsafe {
        asm!(
            "movq xmm7, {value}", "syscall", "movq {answer}, xmm7",
            value = in(reg) value, answer = lateout(reg) answer,
            inlateout("rax") libc::SYS_nanosleep => _, in("rdi") &raw const wait, in("rsi") 0,
            out("rcx") _, out("r11") _, out("xmm7") _,
        );
    }
    same("a floating point register", &value, &answer)
}

/// Switches the loopback interface of this network namespace on.
#[allow(unsafe_code)]
fn raise_loopback() {
    // Name, flags, and the rest of `struct ifreq`.
    let mut request = [0_u8; 40];
    request[..2].copy_from_slice(b"lo");
    request[16..18].copy_from_slice(&(libc::IFF_UP as u16).to_ne_bytes());
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
    // SAFETY: the kernel reads a `struct ifreq`, which is 40 bytes long.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, request.as_mut_ptr()) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}

/// A connection of a process to itself. Networks fail, so that an error on it is no sign of harm; a wrong answer is.
struct Connection {
    near: TcpStream,
    far: Arc<TcpStream>,
    echo: JoinHandle<()>,
}

impl Connection {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let near = TcpStream::connect(listener.local_addr().expect("an address")).expect("connect");
        let far = Arc::new(listener.accept().expect("accept").0);
        let stream = Arc::clone(&far);
        let echo = thread::spawn(move || {
            let mut bytes = [0; 8];
            while (&*stream).read_exact(&mut bytes).is_ok() && (&*stream).write_all(&bytes).is_ok() {}
            let _ = stream.shutdown(Shutdown::Both);
        });
        Self { near, far, echo }
    }

    fn check(&mut self, number: u64) -> Result<(), String> {
        let mut answer = [0; 8];
        let done =
            self.near.write_all(&number.to_le_bytes()).and_then(|()| self.near.read_exact(&mut answer));
        match done {
            Ok(()) => same("an answer over the connection", &number, &u64::from_le_bytes(answer)),
            Err(_) => {
                let _ = (self.near.shutdown(Shutdown::Both), self.far.shutdown(Shutdown::Both));
                let old = std::mem::replace(self, Self::new());
                old.echo.join().map_err(|_| "the thread that answers has panicked".to_owned())
            }
        }
    }
}

/// A signal that this thread sends to itself must have been handled when the call returns.
#[allow(unsafe_code)]
fn signalled() -> Result<(), String> {
    let before = SIGNALS.load(Ordering::SeqCst);
    // SAFETY: it only sends a signal to this thread.
    let sent = unsafe { libc::raise(libc::SIGUSR1) };
    same("raise", &0, &sent)?;
    same("handled signals", &(before + 1), &SIGNALS.load(Ordering::SeqCst))
}

extern "C" fn count(_: libc::c_int) {
    SIGNALS.fetch_add(1, Ordering::SeqCst);
}

#[allow(unsafe_code)]
fn catch_signals() {
    // SAFETY: the handler only adds to a number.
    let before = unsafe { libc::signal(libc::SIGUSR1, count as *const () as libc::sighandler_t) };
    assert_ne!(before, libc::SIG_ERR, "{}", io::Error::last_os_error());
}

/// Blocked signals of this thread, as the kernel shows them.
fn blocked() -> String {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    status.lines().find(|line| line.starts_with("SigBlk:")).unwrap_or_default().to_owned()
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, wanted: &T, found: &T) -> Result<(), String> {
    if wanted == found { Ok(()) } else { Err(format!("{what}: {found:?} instead of {wanted:?}")) }
}
