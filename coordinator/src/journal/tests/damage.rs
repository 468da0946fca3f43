//! A journal that is not what was written is refused, and the refusal says what was found.

use super::*;

const SERVICES: u32 = 40;

/// A journal with records in its database, and if wanted in slots.
async fn written(waiting: u32) -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("journal.db");
    let journal = Journal::open(&path).unwrap();
    for number in 0..SERVICES {
        decide(&journal, number).await;
    }
    journal.pretend_full(true).await;
    for number in SERVICES..SERVICES + waiting {
        decide(&journal, number).await;
    }
    // As if killed: an orderly end changes nothing of it either.
    let copy = copy_of(&path);
    drop(journal);
    copy
}

/// Does `harm` to a copy of the journal at `path`, and returns what its opening says.
fn after(path: &Path, harm: impl FnOnce(&Path)) -> String {
    let (_copy, path) = copy_of(path);
    harm(&path);
    let error = Journal::open(&path).map(drop).unwrap_err();
    assert!(matches!(error, JournalError::Damage { .. }), "{error}");
    let told = error.to_string();
    assert!(told.contains("--new-journal") && told.contains("No service was touched"), "{told}");
    told
}

fn sql(path: &Path, sql: &str) {
    assert!(Connection::open(path).unwrap().execute(sql, ()).unwrap() > 0);
}

#[tokio::test]
async fn a_record_that_was_changed_moved_or_removed_is_found() {
    let (_home, path) = written(0).await;
    let say = |told: String, expected: &str| assert!(told.contains(expected), "{told}");
    say(
        after(&path, |path| {
            sql(path, "UPDATE records SET record = '{\"record\":\"removed\"}' WHERE seq = 7");
        }),
        "record 7",
    );
    say(after(&path, |path| sql(path, "UPDATE records SET migration = '' WHERE seq = 9")), "record 9");
    say(after(&path, |path| sql(path, "UPDATE records SET chain = NULL WHERE seq = 8")), "record 8");
    say(after(&path, |path| sql(path, "DELETE FROM records WHERE seq = 20")), "record 20 is missing");
    say(after(&path, |path| sql(path, "DELETE FROM records WHERE seq = 1")), "record 1 is missing");
    say(after(&path, |path| sql(path, "DELETE FROM records WHERE seq > 37")), "records 38 to 40 are missing");
    say(after(&path, |path| sql(path, "DELETE FROM records")), "records 1 to 40 are missing");
    let swap = |path: &Path| {
        sql(path, "UPDATE records SET seq = 100 WHERE seq = 5");
        sql(path, "UPDATE records SET seq = 5 WHERE seq = 6");
        sql(path, "UPDATE records SET seq = 6 WHERE seq = 100");
    };
    say(after(&path, swap), "record 5");
}

#[tokio::test]
async fn a_file_that_was_cut_off_or_lost_is_found() {
    let (_home, path) = written(2).await;
    // All of it in one file.
    drop(Journal::open(&path).unwrap());
    let cut = |path: &Path, part: u64| {
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_len(file.metadata().unwrap().len() * part / 4).unwrap();
    };
    for part in 0..4 {
        after(&path, |path| cut(path, part));
    }
    after(&path, |path| std::fs::remove_file(path).unwrap());
    let told = after(&path, |path| cut(&decisions(path), 3));
    assert!(told.contains("bytes instead of"), "{told}");
    let told = after(&path, |path| std::fs::remove_file(decisions(path)).unwrap());
    assert!(told.contains("the file is missing"), "{told}");
    let (_other, other) = written(0).await;
    let told = after(&path, |path| {
        std::fs::copy(decisions(&other), decisions(path)).unwrap();
    });
    assert!(told.contains("belongs to another"), "{told}");
}

#[tokio::test]
async fn slots_that_were_harmed_are_found() {
    let (_home, path) = written(5).await;
    let page = |number: usize| number * 4096..(number + 1) * 4096;
    let with = |path: &Path, harm: &dyn Fn(&mut Vec<u8>)| {
        let mut file = std::fs::read(decisions(path)).unwrap();
        harm(&mut file);
        std::fs::write(decisions(path), file).unwrap();
    };
    for slot in 0..5 {
        let told = after(&path, |path| with(path, &|file| file[page(2 + slot)].fill(0)));
        assert!(told.contains(&format!("slot {slot}")), "{told}");
        for byte in [0, 8, 40, 44, 100, 4095] {
            after(&path, |path| with(path, &|file| file[page(2 + slot).start + byte] ^= 4));
        }
    }
    let told = after(&path, |path| {
        with(path, &|file| {
            let (one, two) = (file[page(3)].to_vec(), file[page(4)].to_vec());
            file[page(3)].copy_from_slice(&two);
            file[page(4)].copy_from_slice(&one);
        });
    });
    assert!(told.contains("slot 1") && told.contains("missing"), "{told}");
    after(&path, |path| with(path, &|file| file[..2 * 4096].fill(0)));
    // One header may be lost: it is the other's turn.
    let (_copy, copy) = copy_of(&path);
    with(&copy, &|file| file[page(1)].fill(0));
    assert_eq!(known(&Journal::open(&copy).unwrap()).await, SERVICES as usize + 5);
}

/// Whatever byte of the database changes: it is refused, or says what it said before.
#[tokio::test]
async fn no_flipped_byte_changes_what_a_journal_says() {
    let (_home, path) = written(0).await;
    drop(Journal::open(&path).unwrap());
    let whole = std::fs::read(&path).unwrap();
    let said = Journal::open(&path).unwrap().standings().await.unwrap();
    let mut refused = 0;
    // Every part of every page is met; a step that shares no factor with the size of a page.
    for place in (0..whole.len()).step_by(211) {
        let (_copy, copy) = copy_of(&path);
        let mut bytes = whole.clone();
        bytes[place] ^= 0x55;
        std::fs::write(&copy, bytes).unwrap();
        match Journal::open(&copy) {
            Ok(journal) => match journal.standings().await {
                Ok(standings) => assert_eq!(standings, said, "byte {place}"),
                Err(_) => refused += 1,
            },
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 10, "{refused}");
}

/// A whole that was rolled back is whole; a part of it is not.
#[tokio::test]
async fn a_journal_that_was_rolled_back_as_a_whole_opens_and_in_parts_does_not() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("journal.db");
    let journal = Journal::open(&path).unwrap();
    decide(&journal, 0).await;
    drop(journal);
    let (_old, old) = copy_of(&path);
    let journal = Journal::open(&path).unwrap();
    decide(&journal, 1).await;
    drop(journal);
    // What the next start notes.
    drop(Journal::open(&path).unwrap());
    assert_eq!(known(&Journal::open(&old).unwrap()).await, 1);
    let told = after(&path, |path| {
        std::fs::copy(&old, path).unwrap();
    });
    assert!(told.contains("ends with record 1, but had 2"), "{told}");
    std::fs::copy(decisions(&old), decisions(&path)).unwrap();
    std::fs::copy(&old, &path).unwrap();
    assert_eq!(known(&Journal::open(&path).unwrap()).await, 1);
}

/// The log of the database is gone, and with it what was decided last.
#[tokio::test]
async fn a_lost_log_is_found() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("journal.db");
    let journal = Journal::open(&path).unwrap();
    decide(&journal, 0).await;
    drop(journal);
    let journal = Journal::open(&path).unwrap();
    decide(&journal, 1).await;
    let mark = |store: &mut Store| {
        store.mark();
        Ok(())
    };
    journal.ask(mark).await.unwrap();
    let (_killed, killed) = copy_of(&path);
    let told = after(&killed, |path| std::fs::remove_file(path.with_extension("db-wal")).unwrap());
    assert!(told.contains("ends with record 1, but had 2"), "{told}");
}
