//! What must be true of each site, and of the two together.

use std::collections::BTreeSet;

use super::{Blocker, CRIU_MIN, CgroupLayout, RUNC_MIN, SiteFacts, Version, Warning};
use crate::error::ErrorCode;

/// The only architecture so far.
const ARCHITECTURE: &str = "x86_64";
/// The oldest kernel with time namespaces, without which a service's clocks would jump.
const KERNEL_MIN: Version = Version { major: 5, minor: 6, patch: 0 };

/// CPU features that a program can come to depend on by using their instructions or their registers. What only the
/// kernel uses may differ between two sites.
const USER_FEATURES: &[&str] = &[
    "3dnowprefetch",
    "abm",
    "adx",
    "aes",
    "amx_bf16",
    "amx_fp16",
    "amx_int8",
    "amx_tile",
    "avx",
    "avx2",
    "avx512_4fmaps",
    "avx512_4vnniw",
    "avx512_bf16",
    "avx512_bitalg",
    "avx512_fp16",
    "avx512_vbmi2",
    "avx512_vnni",
    "avx512_vp2intersect",
    "avx512_vpopcntdq",
    "avx512bw",
    "avx512cd",
    "avx512dq",
    "avx512er",
    "avx512f",
    "avx512ifma",
    "avx512pf",
    "avx512vbmi",
    "avx512vl",
    "avx_ifma",
    "avx_ne_convert",
    "avx_vnni",
    "avx_vnni_int8",
    "bmi1",
    "bmi2",
    "cldemote",
    "clflush",
    "clflushopt",
    "clwb",
    "clzero",
    "cmov",
    "cmpccxadd",
    "cx16",
    "cx8",
    "enqcmd",
    "f16c",
    "fma",
    "fma4",
    "fsgsbase",
    "fxsr",
    "gfni",
    "hle",
    "lahf_lm",
    "lwp",
    "mmx",
    "movbe",
    "movdir64b",
    "movdiri",
    "ospke",
    "pclmulqdq",
    "pni",
    "popcnt",
    "prefetchi",
    "rdpid",
    "rdrand",
    "rdseed",
    "rdtscp",
    "rtm",
    "serialize",
    "sha512",
    "sha_ni",
    "sm3",
    "sm4",
    "sse",
    "sse2",
    "sse4_1",
    "sse4_2",
    "sse4a",
    "ssse3",
    "syscall",
    "tbm",
    "tsxldtrk",
    "user_shstk",
    "vaes",
    "vpclmulqdq",
    "waitpkg",
    "xop",
    "xsave",
    "xsavec",
    "xsaveopt",
];

/// Tools, privileges and kernel of one site.
pub(super) fn each_site(site: &SiteFacts, blockers: &mut Vec<Blocker>, warnings: &mut Vec<Warning>) {
    let name = Some(&site.name);
    if site.arch != ARCHITECTURE {
        let message = format!("site {} is {}; only {ARCHITECTURE} is supported", site.name, site.arch);
        blockers.push(
            Blocker::new(ErrorCode::Unsupported, name, message)
                .with_remedy("choose a site with x86-64 machines"),
        );
    }
    if !site.is_root {
        let message = format!("the daemon of site {} does not run as root", site.name);
        blockers.push(Blocker::new(ErrorCode::NotRoot, name, message));
    }
    let tools = [
        ("CRIU", &site.criu, CRIU_MIN, ErrorCode::CriuMissing, ErrorCode::CriuTooOld),
        ("runc", &site.runc, RUNC_MIN, ErrorCode::RuncMissing, ErrorCode::RuncTooOld),
    ];
    blockers.extend(tools.into_iter().filter_map(|(tool, found, oldest, missing, too_old)| {
        let Some(found) = found else {
            return Some(Blocker::new(missing, name, format!("site {} has no {tool}", site.name)));
        };
        let fine = Version::find(found).is_some_and(|version| version >= oldest);
        let message = || format!("{tool} at site {} is {found:?}, needed is {oldest} or newer", site.name);
        (!fine).then(|| Blocker::new(too_old, name, message()))
    }));
    kernel(site, blockers, warnings);
    if site.durable_journal == Some(false) {
        warnings.push(Warning {
            message: format!("the journal of site {} does not survive a restart of its machine", site.name),
            site: Some(site.name.clone()),
        });
    }
}

fn kernel(site: &SiteFacts, blockers: &mut Vec<Blocker>, warnings: &mut Vec<Warning>) {
    let too_old = match Version::find(&site.kernel) {
        Some(version) => version < KERNEL_MIN,
        None => {
            let message =
                format!("the kernel of site {} has an unknown version {:?}", site.name, site.kernel);
            warnings.push(Warning { message, site: Some(site.name.clone()) });
            false
        }
    };
    if too_old || site.time_namespace == Some(false) {
        let message = format!("the kernel of site {} ({}) has no time namespaces", site.name, site.kernel);
        let blocker = Blocker::new(ErrorCode::Unsupported, Some(&site.name), message);
        blockers
            .push(blocker.with_remedy(format!("run Linux {KERNEL_MIN} or newer with CONFIG_TIME_NS there")));
    }
}

/// What must fit between the two.
pub(super) fn both_sites(
    source: &SiteFacts,
    destination: &SiteFacts,
    blockers: &mut Vec<Blocker>,
    warnings: &mut Vec<Warning>,
) {
    if source.fingerprint == destination.fingerprint {
        let message = format!("source and destination are the same site, {}", source.name);
        blockers.push(Blocker::new(ErrorCode::BadRequest, None, message));
    }
    let there: BTreeSet<&str> = destination.cpu_flags.iter().map(String::as_str).collect();
    let here: BTreeSet<&str> = source.cpu_flags.iter().map(String::as_str).collect();
    let missing: Vec<&str> =
        USER_FEATURES.iter().copied().filter(|flag| here.contains(flag) && !there.contains(flag)).collect();
    if here.is_empty() || there.is_empty() {
        let message =
            "the CPU features of a site are unknown: the service may meet an unknown instruction".to_owned();
        warnings.push(Warning { message, site: None });
    } else if !missing.is_empty() {
        let message = format!("the CPUs of site {} lack {}", destination.name, missing.join(", "));
        let remedy = "choose a site with the same or newer CPUs; programs pick instructions when they start";
        blockers
            .push(Blocker::new(ErrorCode::Unsupported, Some(&destination.name), message).with_remedy(remedy));
    }
    if (source.cgroup == CgroupLayout::V2) != (destination.cgroup == CgroupLayout::V2) {
        let message = format!(
            "control groups are {} at {} and {} at {}, and a dump from one cannot be restored into the other",
            source.cgroup, source.name, destination.cgroup, destination.name
        );
        let remedy = "choose a site with the same layout, or start one of the two hosts with the other's";
        blockers
            .push(Blocker::new(ErrorCode::Unsupported, Some(&destination.name), message).with_remedy(remedy));
    }
}
