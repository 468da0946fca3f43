//! Real dumps of CRIU 4.2.1, kept beside this file without their pages: what is in them is admitted and written as it
//! was; what somebody changed in them is refused, change by change.

mod changes;
mod dump;
mod forgeries;

use std::fs;
use std::time::Instant;

use dump::Dump;

use super::*;

const SERVICES: [&str; 4] = ["zombie", "plain", "redis", "memhog"];

#[test]
fn a_real_dump_is_admitted() {
    for service in SERVICES {
        let dump = Dump::of(service);
        if let Err(error) = dump.take(&dump.admission()) {
            panic!("{service}: {error}");
        }
    }
}

#[test]
fn what_is_handed_on_was_written_here_and_says_the_same() {
    for service in SERVICES {
        let dump = Dump::of(service);
        let admission = Admission { cgroup: "another/place".into(), ..dump.admission() };
        let directory = dump.take(&admission).unwrap();
        let written = Dump::read(directory.path());
        // A second pass finds nothing left to change, so nothing was lost on the way.
        let again = written.take(&admission).unwrap();
        assert_eq!(Dump::read(again.path()).files, written.files, "{service}");
        for (name, bytes) in &written.files {
            let same = *bytes == dump.files[name];
            // What this site decides, and an archive that was packed again.
            let ours = ["cgroup", "core-", "pstree", "tmpfs-dev"].iter().any(|stem| name.starts_with(stem));
            assert!(same || ours, "{service}: {name} changed");
        }
        assert_eq!(written.files.len(), dump.files.len());
        let cgroup = String::from_utf8_lossy(&written.files["cgroup.img"]).into_owned();
        assert!(cgroup.contains("/another/place") && !cgroup.contains("clone_children"), "{service}");
    }
}

#[test]
fn nothing_stands_in_the_directory_before_all_was_checked() {
    let dump = Dump::of("zombie");
    let directory = tempfile::tempdir().unwrap();
    let mut intake = Intake::open(directory.path(), dump.admission()).unwrap();
    for (name, bytes) in &dump.files {
        intake.begin(name).unwrap();
        intake.write(name, bytes).unwrap();
        intake.end(name).unwrap();
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    assert!(intake.finish().is_err(), "its pages did not come");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn images_come_once_and_whole() {
    let dump = Dump::of("zombie");
    let directory = tempfile::tempdir().unwrap();
    let mut intake = Intake::open(directory.path(), dump.admission()).unwrap();
    for name in ["pages-1.img", "core-1.img"] {
        intake.begin(name).unwrap();
        assert!(intake.begin(name).unwrap_err().to_string().contains("it came twice"));
    }
    for name in ["../pages-1.img", "netdev-9.img", "core-1.img/x", "", "descriptors.json", "pages-01.img"] {
        assert!(intake.begin(name).is_err(), "{name}");
    }
    assert!(intake.write("core-2.img", b"x").is_err());
    assert!(intake.write("pages-2.img", b"x").is_err());
    assert!(intake.finish().unwrap_err().to_string().contains("it did not come to its end"));
}

/// Prints what the checks add to a freeze: `cargo xtask test -p ums-engine -- --no-capture many_processes`.
#[test]
fn a_dump_of_many_processes_is_admitted() {
    for (service, copies) in [("memhog", 1), ("memhog", 64)] {
        let dump = Dump::of(service).with_processes(copies);
        let directory = tempfile::tempdir().unwrap();
        let mut intake = Intake::open(directory.path(), dump.admission()).unwrap();
        dump.pages_into(&mut intake);
        let began = Instant::now();
        dump.images_into(&mut intake).unwrap();
        let decoded = began.elapsed();
        intake.finish().unwrap();
        let bytes: usize = dump.files.values().map(Vec::len).sum();
        println!(
            "{} images with {bytes} bytes: decoded in {decoded:?}, checked and written in {:?}",
            dump.files.len(),
            began.elapsed() - decoded
        );
    }
}
