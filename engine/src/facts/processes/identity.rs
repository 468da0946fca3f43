//! What a process is: its architecture, who traces it, which namespaces it is in.

use std::fs;

use ums_model::plan::BlockerKind;

use super::Tree;
use super::findings::Findings;
use super::process::{Process, path, read};

/// Namespaces that all processes of a service share. CRIU could dump some of them nested, but they would be outside of
/// what UMS prepares and fences.
const SHARED: [(&str, &str); 7] = [
    ("pid", "pid"),
    ("mnt", "mount"),
    ("net", "network"),
    ("user", "user"),
    ("uts", "host name"),
    ("ipc", "ipc"),
    ("time", "time"),
];

/// Of an ELF header: 64-bit, and for x86-64.
const ELF_CLASS_AT: usize = 4;
const ELF_CLASS_64: u8 = 2;
const ELF_MACHINE_AT: usize = 18;
const ELF_MACHINE_X86_64: u16 = 62;

/// Bits of a personality that make a 64-bit program see a 32-bit machine.
const PER_MASK: u32 = 0xff;
const PER_LINUX32: u32 = 0x08;

pub(super) fn check(tree: &Tree, findings: &mut Findings) {
    for process in tree.living() {
        architecture(process, findings);
        tracer(process, findings);
        if process.pid != tree.first {
            namespaces(tree.first, process, findings);
        }
        if let (Some(own), Some(children)) =
            (namespace(process.pid, "pid"), namespace(process.pid, "pid_for_children"))
            && own != children
        {
            let detail = "it has prepared another pid namespace for its children";
            findings.add(process, BlockerKind::NestedNamespace, detail);
        }
    }
}

fn architecture(process: &Process, findings: &mut Findings) {
    if let Ok(header) = process.program_header()
        && let Some(words) = foreign_program(&header)
    {
        findings.add(process, BlockerKind::Architecture, words);
    }
    let personality = read(process.pid, "personality");
    let personality = personality.and_then(|text| u32::from_str_radix(text.trim(), 16).ok()).unwrap_or(0);
    if personality & PER_MASK == PER_LINUX32 {
        findings.add(process, BlockerKind::Architecture, "it runs with the personality of a 32-bit machine");
    }
}

fn foreign_program(header: &[u8; 20]) -> Option<&'static str> {
    let machine = u16::from_le_bytes([header[ELF_MACHINE_AT], header[ELF_MACHINE_AT + 1]]);
    match (header[ELF_CLASS_AT], machine) {
        _ if !header.starts_with(b"\x7fELF") => Some("its program is no ELF file"),
        (ELF_CLASS_64, ELF_MACHINE_X86_64) => None,
        (ELF_CLASS_64, _) => Some("its program is for another architecture"),
        _ => Some("its program is a 32-bit program"),
    }
}

fn tracer(process: &Process, findings: &mut Findings) {
    for thread in process.threads.iter().filter(|thread| thread.tracer != 0) {
        let tracer = read(thread.tracer, "comm").unwrap_or_default();
        let detail = format!("thread {} is traced by {} ({})", thread.tid, tracer.trim(), thread.tracer);
        findings.add(process, BlockerKind::Traced, detail);
    }
}

fn namespaces(first: i32, process: &Process, findings: &mut Findings) {
    for (kind, words) in SHARED {
        if let (Some(own), Some(shared)) = (namespace(process.pid, kind), namespace(first, kind))
            && own != shared
        {
            let detail = format!("it is in another {words} namespace than the service's first process");
            findings.add(process, BlockerKind::NestedNamespace, detail);
        }
    }
}

fn namespace(pid: i32, kind: &str) -> Option<String> {
    fs::read_link(path(pid, &format!("ns/{kind}"))).ok()?.into_os_string().into_string().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_other_machines_are_known() {
        let mut header = *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0";
        assert_eq!(foreign_program(&header), None);
        header[ELF_MACHINE_AT] = 183;
        assert_eq!(foreign_program(&header), Some("its program is for another architecture"));
        header[ELF_CLASS_AT] = 1;
        assert_eq!(foreign_program(&header), Some("its program is a 32-bit program"));
        assert!(foreign_program(&[0; 20]).is_some());
    }
}
