//! With the disk full a decision can still be written, and a migration does not begin.

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::*;
use crate::journal::slots::{FILE_SIZE, SLOTS};

#[tokio::test]
async fn decisions_wait_in_slots_and_come_back_in_order() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("journal.db");
    let journal = Journal::open(&path).unwrap();
    assert_eq!(decisions(&path).metadata().unwrap().len(), FILE_SIZE as u64);
    decide(&journal, 0).await;
    journal.pretend_full(true).await;
    decide(&journal, 1).await;
    let two = vec![Record::Removed, Record::Created];
    journal.append(&"s1".parse().unwrap(), Some(row(7, "s1").id), two).await.unwrap();
    assert_eq!(known(&journal).await, 2, "what waits is seen");
    assert_eq!(journal.records_of(row(7, "s1").id).await.unwrap().len(), 2);
    // What can wait has to.
    let begun = journal.begin(row(1, "web"), Vec::new()).await;
    assert!(begun.as_ref().is_err_and(JournalError::is_full), "{begun:?}");
    let refused = journal.admit(0).await;
    assert!(matches!(refused, Err(JournalError::Full { .. })), "{refused:?}");
    // A daemon that dies here has lost nothing.
    let (_copy, killed) = copy_of(&path);
    assert_eq!(opened(&killed).await, (2, 4));

    journal.pretend_full(false).await;
    decide(&journal, 2).await;
    journal.admit(0).await.unwrap();
    drop(journal);
    assert_eq!(opened(&path).await, (3, 5));
}

/// Between the import and the return of the slots, a killed daemon leaves decisions in both places.
#[tokio::test]
async fn what_was_brought_back_is_not_brought_back_again() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("journal.db");
    let journal = Journal::open(&path).unwrap();
    journal.pretend_full(true).await;
    for number in 0..3 {
        decide(&journal, number).await;
    }
    let taken = std::fs::read(decisions(&path)).unwrap();
    journal.pretend_full(false).await;
    decide(&journal, 3).await;
    drop(journal);
    std::fs::write(decisions(&path), taken).unwrap();
    assert_eq!(opened(&path).await, (4, 4));
    // And what comes then finds its place behind them.
    let journal = Journal::open(&path).unwrap();
    journal.pretend_full(true).await;
    decide(&journal, 4).await;
    drop(journal);
    assert_eq!(opened(&path).await, (5, 5));
}

/// A slot whose write was cut off was told to nobody, so it is no damage; one that only was not counted yet holds.
#[tokio::test]
async fn a_torn_slot_is_nothing_and_an_uncounted_one_holds() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("journal.db");
    let journal = Journal::open(&path).unwrap();
    journal.pretend_full(true).await;
    decide(&journal, 0).await;
    let before = std::fs::read(decisions(&path)).unwrap();
    decide(&journal, 1).await;
    let after = std::fs::read(decisions(&path)).unwrap();
    let (_copy, killed) = copy_of(&path);
    // The second slot is there, whole or in part; the header that counts it is not.
    let second = 3 * 4096..4 * 4096;
    for (bytes, expected) in [(4096, 2), (100, 1), (20, 1)] {
        let mut file = before.clone();
        let part = second.start..second.start + bytes;
        file[part.clone()].copy_from_slice(&after[part]);
        let (_copy, killed) = copy_of(&killed);
        std::fs::write(decisions(&killed), file).unwrap();
        let journal = Journal::open(&killed).unwrap();
        assert_eq!(known(&journal).await, expected, "{bytes} bytes of the slot were written");
        // Its place is taken by the next one, whatever was in it.
        journal.pretend_full(true).await;
        decide(&journal, 2).await;
        drop(journal);
        assert_eq!(opened(&killed).await, (expected + 1, expected + 1));
    }
}

/// One that was found uncounted on a disk that is still full keeps its place.
#[tokio::test]
async fn an_uncounted_slot_is_counted_before_the_next() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("decisions");
    let head = chain::Head::default();
    let mut slots = slots::Slots::create(&path, [1; 16], head).unwrap();
    slots.put(b"one").unwrap();
    let before = std::fs::read(&path).unwrap();
    slots.put(b"two").unwrap();
    let mut file = std::fs::read(&path).unwrap();
    file[..2 * 4096].copy_from_slice(&before[..2 * 4096]);
    std::fs::write(&path, file).unwrap();
    let (mut slots, found) = slots::Slots::open(&path, [1; 16]).unwrap();
    assert_eq!((found.counted.len(), found.uncounted.as_deref()), (1, Some(&b"two"[..])));
    slots.count_found().unwrap();
    slots.put(b"three").unwrap();
    let (_, found) = slots::Slots::open(&path, [1; 16]).unwrap();
    assert_eq!(found.counted, [&b"one"[..], b"two", b"three"]);
}

/// There are enough slots for every migration that was let begin, and an end of them is told.
#[tokio::test]
async fn migrations_are_refused_before_slots_run_out() {
    let home = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = home.path().join("journal.db");
    let journal = Journal::open(&path).unwrap();
    journal.admit(84).await.unwrap();
    let refused = journal.admit(85).await.unwrap_err();
    assert!(refused.to_string().contains("85 migrations have not ended"), "{refused}");
    journal.pretend_full(true).await;
    for number in 0..SLOTS as u32 {
        decide(&journal, number).await;
    }
    let error = journal.append(&"more".parse().unwrap(), None, vec![Record::Created]).await.unwrap_err();
    assert!(matches!(error, JournalError::Slots { .. }), "{error}");
    drop(journal);
    assert_eq!(opened(&path).await, (SLOTS, SLOTS));
}

/// A file system of this size and of its own.
struct Small {
    dir: tempfile::TempDir,
}

impl Small {
    fn new(size: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = std::ffi::CString::new(format!("size={size},mode=700")).unwrap();
        mount("ums-test", dir.path(), "tmpfs", MountFlags::empty(), Some(options.as_c_str())).unwrap();
        Self { dir }
    }

    /// Others fill it to the last byte.
    fn fill(&self) -> PathBuf {
        use std::io::Write;
        let path = self.dir.path().join("others");
        let mut file = std::fs::File::create(&path).unwrap();
        for size in [1 << 20, 4096, 1] {
            let block = vec![7; size];
            while file.write_all(&block).is_ok() {}
        }
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        if let Err(error) = unmount(self.dir.path(), UnmountFlags::DETACH) {
            eprintln!("cannot unmount {}: {error}", self.dir.path().display());
        }
    }
}

/// The real thing: no byte is free, and every decision is kept, also over a restart; afterwards they are in the database
/// in their order.
#[tokio::test]
async fn lab_a_full_disk_does_not_prevent_a_decision() {
    const DECISIONS: u32 = 200;
    let small = Small::new("16m");
    let path = small.dir.path().join("journal.db");
    let journal = Journal::open(&path).unwrap();
    journal.admit(0).await.unwrap();
    let web = row(1, "web");
    journal.append(&web.service, None, vec![Record::Created]).await.unwrap();
    journal.begin(web.clone(), vec![Record::Source(Step::Started.at(Epoch(1)))]).await.unwrap();
    let others = small.fill();

    let steps = [
        Step::FreezeBegun,
        Step::HeldArrived,
        Step::CommitDecided,
        Step::RunningArrived,
        Step::StateReleased,
    ];
    for step in &steps[..3] {
        let record = Record::Source(step.at(Epoch(1)));
        journal.append(&web.service, Some(web.id), vec![record]).await.unwrap();
    }
    for number in 0..DECISIONS {
        decide(&journal, number).await;
    }
    let refused = journal.admit(1).await.unwrap_err();
    assert!(matches!(refused, JournalError::Full { .. }), "{refused}");
    let again = journal.begin(row(2, "s0"), vec![Record::Source(Step::Started.at(Epoch(1)))]).await;
    assert!(again.is_err(), "there is no place for a new migration");
    let committed = journal.standings().await.unwrap()[&web.service].to_string();
    assert!(committed.starts_with("source Committed"), "{committed}");

    // Killed here, on a disk that has room again.
    let (_copy, killed) = copy_of(&path);
    assert_eq!(opened(&killed).await, (1 + DECISIONS as usize, 5 + DECISIONS as usize));

    // Ended and started again, with the disk as full as before.
    drop(journal);
    small.fill();
    let journal = Journal::open(&path).unwrap();
    assert_eq!(journal.standings().await.unwrap()[&web.service].to_string(), committed);
    for step in &steps[3..] {
        let record = Record::Source(step.at(Epoch(1)));
        journal.append(&web.service, Some(web.id), vec![record]).await.unwrap();
    }
    for number in DECISIONS..2 * DECISIONS {
        decide(&journal, number).await;
    }
    assert!(journal.admit(0).await.is_err());

    std::fs::remove_file(others).unwrap();
    journal.append(&"last".parse().unwrap(), None, vec![Record::Created]).await.unwrap();
    journal.admit(0).await.unwrap();
    let released = journal.records_of(web.id).await.unwrap();
    let expected: Vec<_> =
        std::iter::once(Step::Started).chain(steps).map(|step| Record::Source(step.at(Epoch(1)))).collect();
    assert_eq!(released, expected);
    drop(journal);
    let all = 2 * DECISIONS as usize;
    assert_eq!(opened(&path).await, (all + 2, all + 8));
}
