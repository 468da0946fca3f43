//! One thread, stopped and looked at by `ptrace`. All calls must come from the thread that seized it.

use std::fs::File;
use std::io;
use std::mem::{offset_of, size_of};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use libc::{PTRACE_DETACH, PTRACE_GETREGS, PTRACE_INTERRUPT, PTRACE_PEEKUSER, PTRACE_POKEUSER, PTRACE_SEIZE};
use libc::{PTRACE_GETSIGMASK, PTRACE_SETREGS, PTRACE_SETSIGMASK, PTRACE_SYSCALL};
use libc::{c_int, c_long, user, user_regs_struct};

use super::maps::mappings;
use crate::process::{Stat, text};

/// Time between two looks whether a thread has stopped.
const LOOK_EVERY: Duration = Duration::from_micros(50);

/// What a system call answers that is to be begun again; no program ever sees them.
const RESTART: [i64; 3] = [-512, -513, -514];
const RESTART_BLOCK: i64 = -516;

/// Length of a system call instruction.
const INSTRUCTION: u64 = 2;

/// `PTRACE_O_TRACESYSGOOD` and `PTRACE_O_SUSPEND_SECCOMP`.
const TRACE_SYSTEM_CALLS: usize = 1;
const SUSPEND_SECCOMP: usize = 1 << 21;

/// `PTRACE_EVENT_STOP`: it stopped because it was asked to.
const EVENT_STOP: c_int = 128;

/// A signal that makes a stop of a system call known as one.
const SYSTEM_CALL_STOP: c_int = libc::SIGTRAP | 0x80;

/// A thread that this thread traces.
#[derive(Debug)]
pub(super) struct Tracee {
    pid: i32,
    tid: i32,
    /// A signal it was about to get when it stopped.
    signal: c_int,
}

/// Why it stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    SystemCall,
    Signal(c_int),
    /// Asked to, or together with its process.
    Asked,
}

impl Tracee {
    /// Seizes a thread, which stops as soon as it could execute an instruction.
    pub(super) fn seize(pid: i32, tid: i32) -> io::Result<Self> {
        let status = text(pid, &format!("task/{tid}/status"))?;
        let filtered = status.lines().any(|line| line.starts_with("Seccomp:") && !line.ends_with('0'));
        // Otherwise the service's own filter would judge our calls.
        let options = TRACE_SYSTEM_CALLS | if filtered { SUSPEND_SECCOMP } else { 0 };
        ptrace(PTRACE_SEIZE as c_long, tid, 0, options)?;
        let tracee = Self { pid, tid, signal: 0 };
        ptrace(PTRACE_INTERRUPT as c_long, tid, 0, 0)?;
        Ok(tracee)
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    pub(super) fn tid(&self) -> i32 {
        self.tid
    }

    /// Waits until it has stopped.
    pub(super) fn wait(&mut self, until: Instant) -> io::Result<()> {
        if let Stop::Signal(signal) = self.next_stop(until)? {
            self.signal = signal;
        }
        Ok(())
    }

    fn next_stop(&self, until: Instant) -> io::Result<Stop> {
        loop {
            let mut status = 0;
            match wait_for(self.tid, &mut status)? {
                // The first thread of a process that dies is told of only when the others are gone.
                0 if Stat::of(self.tid).is_none_or(|thread| thread.has_ended()) => {
                    return Err(io::Error::other("it has ended"));
                }
                0 if Instant::now() < until => std::thread::sleep(LOOK_EVERY),
                0 => return Err(io::ErrorKind::TimedOut.into()),
                _ if libc::WIFSTOPPED(status) => {
                    return Ok(match libc::WSTOPSIG(status) {
                        SYSTEM_CALL_STOP => Stop::SystemCall,
                        _ if status >> 16 == EVENT_STOP => Stop::Asked,
                        signal => Stop::Signal(signal),
                    });
                }
                _ => return Err(io::Error::other("it has ended")),
            }
        }
    }

    /// Where it is.
    pub(super) fn instruction(&self) -> io::Result<u64> {
        self.registers().map(|registers| registers.rip)
    }

    /// Sets which signals it blocks.
    pub(super) fn set_mask(&self, mut mask: u64) -> io::Result<()> {
        let address = (&raw mut mask).expose_provenance();
        ptrace(PTRACE_SETSIGMASK as c_long, self.tid, size_of::<u64>(), address)
    }

    fn mask(&self) -> io::Result<u64> {
        let mut mask = 0_u64;
        let address = (&raw mut mask).expose_provenance();
        ptrace(PTRACE_GETSIGMASK as c_long, self.tid, size_of::<u64>(), address)?;
        Ok(mask)
    }

    /// Takes the debug registers back that CRIU may have set. `true` if they were.
    pub(super) fn clear_breakpoints(&self) -> io::Result<bool> {
        let control = offset_of!(user, u_debugreg) + 7 * size_of::<u64>();
        let mut value = 0_u64;
        let address = (&raw mut value).expose_provenance();
        ptrace(PTRACE_PEEKUSER as c_long, self.tid, control, address)?;
        // The even bits of the low byte switch a breakpoint on for this thread.
        if value & 0xff == 0 {
            return Ok(false);
        }
        ptrace(PTRACE_POKEUSER as c_long, self.tid, control, 0)?;
        Ok(true)
    }

    /// Lets it run until it has come back from a signal handler, as CRIU's code in a task does at its end.
    pub(super) fn run_to_sigreturn(&mut self, until: Instant) -> io::Result<()> {
        let mut returning = false;
        loop {
            ptrace(PTRACE_SYSCALL as c_long, self.tid, 0, 0)?;
            match self.next_stop(until)? {
                Stop::SystemCall if returning => return Ok(()),
                Stop::SystemCall => {
                    returning = self.registers()?.orig_rax == libc::SYS_rt_sigreturn as u64;
                }
                Stop::Asked => {}
                Stop::Signal(signal) => return Err(io::Error::other(format!("it gets signal {signal}"))),
            }
        }
    }

    /// Lets it do one system call, and puts all its registers back.
    pub(super) fn call(&mut self, number: c_long, arguments: [u64; 2], until: Instant) -> io::Result<()> {
        let (saved, mask) = (self.registers()?, self.mask()?);
        self.set_mask(u64::MAX)?;
        let call = user_regs_struct {
            rip: gate(self.pid)?,
            rax: number as u64,
            orig_rax: u64::MAX,
            rdi: arguments[0],
            rsi: arguments[1],
            ..saved
        };
        self.set_registers(call)?;
        for _ in ["entry", "exit"] {
            loop {
                ptrace(PTRACE_SYSCALL as c_long, self.tid, 0, 0)?;
                match self.next_stop(until)? {
                    Stop::SystemCall => break,
                    Stop::Asked => {}
                    Stop::Signal(signal) => {
                        return Err(io::Error::other(format!("it gets signal {signal}")));
                    }
                }
            }
        }
        let answer = self.registers()?.rax.cast_signed();
        self.set_registers(begun_again(saved))?;
        self.set_mask(mask)?;
        if answer < 0 { Err(io::Error::from_raw_os_error(-answer as i32)) } else { Ok(()) }
    }

    fn registers(&self) -> io::Result<user_regs_struct> {
        let mut registers = user_regs_struct {
            r15: 0,
            r14: 0,
            r13: 0,
            r12: 0,
            rbp: 0,
            rbx: 0,
            r11: 0,
            r10: 0,
            r9: 0,
            r8: 0,
            rax: 0,
            rcx: 0,
            rdx: 0,
            rsi: 0,
            rdi: 0,
            orig_rax: 0,
            rip: 0,
            cs: 0,
            eflags: 0,
            rsp: 0,
            ss: 0,
            fs_base: 0,
            gs_base: 0,
            ds: 0,
            es: 0,
            fs: 0,
            gs: 0,
        };
        ptrace(PTRACE_GETREGS as c_long, self.tid, 0, (&raw mut registers).expose_provenance())?;
        Ok(registers)
    }

    fn set_registers(&self, mut registers: user_regs_struct) -> io::Result<()> {
        ptrace(PTRACE_SETREGS as c_long, self.tid, 0, (&raw mut registers).expose_provenance())
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        // One that has ended, or runs, is let go by the end of this thread at the latest.
        let _ = ptrace(PTRACE_DETACH as c_long, self.tid, 0, self.signal as usize);
    }
}

/// The registers of a thread that was in the middle of a system call, so that it begins it again. The kernel does so
/// only on the way out of the stop that it was found in.
fn begun_again(registers: user_regs_struct) -> user_regs_struct {
    let in_call = registers.orig_rax.cast_signed() >= 0;
    let rax = match registers.rax.cast_signed() {
        answer if in_call && RESTART.contains(&answer) => registers.orig_rax,
        RESTART_BLOCK if in_call => libc::SYS_restart_syscall as u64,
        _ => return registers,
    };
    user_regs_struct { rax, rip: registers.rip - INSTRUCTION, orig_rax: u64::MAX, ..registers }
}

/// The address of a system call instruction in a process: the kernel's own code in it has one.
fn gate(pid: i32) -> io::Result<u64> {
    let none = || io::Error::new(io::ErrorKind::NotFound, "there is no vdso in it");
    let vdso = mappings(pid)?.into_iter().find(|one| one.name == "[vdso]").ok_or_else(none)?;
    let mut code = vec![0; usize::try_from(vdso.end - vdso.start).map_err(|_| none())?];
    File::open(format!("/proc/{pid}/mem"))?.read_exact_at(&mut code, vdso.start)?;
    let offset = code.windows(2).position(|bytes| bytes == [0x0f, 0x05]).ok_or_else(none)?;
    Ok(vdso.start + offset as u64)
}

/// `address` and `data` are numbers, or addresses of what the request reads or fills in.
#[allow(unsafe_code)]
fn ptrace(request: c_long, tid: i32, address: usize, data: usize) -> io::Result<()> {
    // SAFETY: the callers above give `data` either a number or the address of a live variable of theirs that is as
    // large as this request reads or writes; `address` is a number or a size in all of them. This is the call itself
    // and not the C library's function, which peeks in another way.
    let answer = unsafe { libc::syscall(libc::SYS_ptrace, request, c_long::from(tid), address, data) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[allow(unsafe_code)]
fn wait_for(tid: i32, status: &mut c_int) -> io::Result<i32> {
    // SAFETY: the kernel fills in one number.
    match unsafe { libc::waitpid(tid, status, libc::__WALL | libc::WNOHANG) } {
        -1 => Err(io::Error::last_os_error()),
        found => Ok(found),
    }
}
