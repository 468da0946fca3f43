//! Filters of system calls: those of a service are kept, and ours must be among them.

use super::Refused;
use super::set::{At, Set};

/// A filter that could not be removed any more.
const MODE_FILTER: u64 = 2;
/// Longest program that the kernel takes, in instructions.
const MAX_PROGRAM: usize = 4096;
/// Most filters of all threads.
const MAX_FILTERS: usize = 4096;
/// Synchronize, log, do not mitigate: none of them lets anybody outside decide.
const FLAGS: u64 = 7;
/// The flag of a filter for all threads.
const OF_ALL: u64 = 1;
/// What a call on x86-64 looks like to a filter.
const ARCHITECTURE: u32 = 0xc000_003e;
const RETURN_ALLOW: u32 = 0x7fff_0000;
const RETURN_LOG: u32 = 0x7ffc_0000;
const RETURN_ACTION: u32 = 0xffff_0000;

#[derive(Debug, Clone, Copy)]
struct Instruction {
    code: u16,
    yes: u8,
    no: u8,
    value: u32,
}

/// All filters of a dump; each goes on with an earlier one.
#[derive(Debug, Default)]
pub(super) struct Filters(Vec<Filter>);

#[derive(Debug)]
struct Filter {
    program: Vec<Instruction>,
    /// The one that it goes on with.
    previous: Option<usize>,
    /// Whether it is put on all threads of a process at once.
    of_all: bool,
}

impl Filters {
    pub(super) fn of(set: &Set) -> Result<Self, Refused> {
        let mut filters = Vec::new();
        let Some(image) = set.maybe("seccomp") else { return Ok(Self::default()) };
        let (at, message) = image.only();
        for filter in message.list("seccomp_filters") {
            let code = filter.bytes("filter");
            let (instructions, rest) = code.as_chunks::<8>();
            let whole = rest.is_empty() && (1..=MAX_PROGRAM).contains(&instructions.len());
            at.require(
                whole && filters.len() < MAX_FILTERS,
                "filter",
                format_args!("it is no program of 1 to {MAX_PROGRAM} instructions"),
            )?;
            at.require(
                filter.number("flags") & !FLAGS == 0,
                "flags",
                format_args!("they let somebody else decide"),
            )?;
            let previous = filter.get("prev").map(|place| usize::try_from(place).unwrap_or(usize::MAX));
            at.require(
                previous.is_none_or(|place| place < filters.len()),
                "prev",
                format_args!("it is no filter before it"),
            )?;
            let program = instructions.iter().map(|[c0, c1, yes, no, v0, v1, v2, v3]| Instruction {
                code: u16::from_le_bytes([*c0, *c1]),
                yes: *yes,
                no: *no,
                value: u32::from_le_bytes([*v0, *v1, *v2, *v3]),
            });
            let of_all = filter.number("flags") & OF_ALL != 0;
            filters.push(Filter { program: program.collect(), previous, of_all });
        }
        Ok(Self(filters))
    }

    /// A thread has filters, and they keep it from these calls.
    pub(super) fn check(
        &self,
        at: At<'_>,
        mode: u64,
        filter: Option<u64>,
        denied: &[u32],
    ) -> Result<(), Refused> {
        if denied.is_empty() {
            return at.require(
                mode == 0 || mode == MODE_FILTER,
                "thread_core.seccomp_mode",
                format_args!("{mode} is no mode"),
            );
        }
        at.require(
            mode == MODE_FILTER,
            "thread_core.seccomp_mode",
            format_args!("the filter of the service is not in force"),
        )?;
        let last = filter.and_then(|place| usize::try_from(place).ok()).filter(|place| *place < self.0.len());
        let last = last.ok_or_else(|| at.refuse("thread_core.seccomp_filter", "there is no such filter"))?;
        for call in denied {
            let kept_away = self.chain(last).any(|filter| denies(&filter.program, *call));
            at.require(
                kept_away,
                "thread_core.seccomp_filter",
                format_args!("system call {call} is not kept away"),
            )?;
        }
        Ok(())
    }

    /// A thread says nothing of filters: it gets those of its process's first one, if they are for all.
    pub(super) fn are_of_all(&self, at: At<'_>, filter: Option<u64>) -> Result<(), Refused> {
        let last = filter.and_then(|place| usize::try_from(place).ok());
        let of_all =
            self.0.is_empty() || last.is_some_and(|last| self.chain(last).all(|filter| filter.of_all));
        at.require(
            of_all,
            "thread_core.seccomp_mode",
            format_args!("the filter of the service is not in force"),
        )
    }

    fn chain(&self, last: usize) -> impl Iterator<Item = &Filter> {
        std::iter::successors(self.0.get(last), |filter| self.0.get(filter.previous?))
    }
}

/// Whether a program lets a call fail, whatever its arguments. One that cannot be followed does not count.
fn denies(program: &[Instruction], call: u32) -> bool {
    run(program, call).is_some_and(|result| !matches!(result & RETURN_ACTION, RETURN_ALLOW | RETURN_LOG))
}

/// What a program returns for a call. Programs jump only forwards, so this ends.
fn run(program: &[Instruction], call: u32) -> Option<u32> {
    let (mut accumulator, mut index, mut at) = (0_u32, 0_u32, 0_usize);
    let mut memory = [0_u32; 16];
    loop {
        let Instruction { code, yes, no, value } = *program.get(at)?;
        at += 1;
        let operand = if code & 0x08 == 0 { value } else { index };
        match code {
            // Loads: the call's number and its kind of machine are known, its arguments are not.
            0x20 => {
                accumulator = match value {
                    0 => call,
                    4 => ARCHITECTURE,
                    _ => return None,
                }
            }
            0x00 => accumulator = value,
            0x01 => index = value,
            0x60 => accumulator = *memory.get(value as usize)?,
            0x61 => index = *memory.get(value as usize)?,
            0x02 => *memory.get_mut(value as usize)? = accumulator,
            0x03 => *memory.get_mut(value as usize)? = index,
            0x07 => index = accumulator,
            0x87 => accumulator = index,
            0x04 | 0x0c => accumulator = accumulator.wrapping_add(operand),
            0x14 | 0x1c => accumulator = accumulator.wrapping_sub(operand),
            0x44 | 0x4c => accumulator |= operand,
            0x54 | 0x5c => accumulator &= operand,
            0xa4 | 0xac => accumulator ^= operand,
            0x64 | 0x6c => accumulator = accumulator.checked_shl(operand)?,
            0x74 | 0x7c => accumulator = accumulator.checked_shr(operand)?,
            0x05 => at = at.checked_add(value as usize)?,
            0x15 | 0x1d => at += usize::from(if accumulator == operand { yes } else { no }),
            0x25 | 0x2d => at += usize::from(if accumulator > operand { yes } else { no }),
            0x35 | 0x3d => at += usize::from(if accumulator >= operand { yes } else { no }),
            0x45 | 0x4d => at += usize::from(if accumulator & operand != 0 { yes } else { no }),
            0x06 => return Some(value),
            0x16 => return Some(accumulator),
            _ => return None,
        }
    }
}
