//! Journals of other versions.

use super::*;

/// A journal as the first version made it, with what it had in it.
fn first_version(path: &Path) -> Vec<(String, Record)> {
    let db = Connection::open(path).unwrap();
    db.pragma_update(None, "journal_mode", "WAL").unwrap();
    db.execute_batch("CREATE TABLE schema (version INTEGER NOT NULL) STRICT").unwrap();
    db.execute_batch(schema::TABLES).unwrap();
    db.execute("INSERT INTO schema VALUES (1)", ()).unwrap();
    let records = vec![
        ("web".to_owned(), Record::Created),
        ("web".to_owned(), Record::Source(Step::Started.at(Epoch(1)))),
        ("db".to_owned(), Record::Created),
        ("web".to_owned(), Record::Source(Step::FreezeBegun.at(Epoch(1)))),
    ];
    for (service, record) in &records {
        let migration = matches!(record, Record::Source(_)).then(|| row(1, "web").id.to_string());
        let sql = "INSERT INTO records (service, migration, at_unix_ms, record) VALUES (?1, ?2, 5, ?3)";
        db.execute(sql, (service, migration, serde_json::to_string(record).unwrap())).unwrap();
    }
    let sql = "INSERT INTO tokens VALUES ('ci', 'admin', ?1, 1)";
    db.execute(sql, [[5u8; 32]]).unwrap();
    migrations::insert(&db, &row(1, "web")).unwrap();
    std::fs::write(path.with_extension("reserve"), "x").unwrap();
    records
}

#[tokio::test]
async fn a_journal_of_the_first_version_is_brought_up_to_date() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("journal.db");
    first_version(&path);
    for _ in 0..2 {
        let journal = Journal::open(&path).unwrap();
        let standings = journal.standings().await.unwrap();
        assert_eq!(standings[&"web".parse().unwrap()].to_string(), "source Frozen(1)");
        assert!(standings[&"db".parse().unwrap()].is_home());
        assert_eq!(journal.unfinished().await.unwrap().len(), 1);
        assert_eq!(journal.tokens().await.unwrap().len(), 1);
        assert!(journal.audit(0, 10).await.unwrap().is_empty());
    }
    assert!(!path.with_extension("reserve").exists(), "nobody needs it any more");
    // Its records are chained like new ones.
    let db = Connection::open(&path).unwrap();
    db.execute("UPDATE records SET service = 'bd' WHERE seq = 3", ()).unwrap();
    drop(db);
    let error = Journal::open(&path).map(drop).unwrap_err();
    assert!(error.to_string().contains("record 3"), "{error}");
}

/// Whatever a killed daemon had done of it, the next one goes on there.
#[tokio::test]
async fn an_update_that_was_cut_off_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("journal.db");
    first_version(&path);
    drop(Journal::open(&path).unwrap());
    // The tables are new, but the other file was never made, or not noted.
    Connection::open(&path).unwrap().execute("UPDATE meta SET slots = 0", ()).unwrap();
    drop(Journal::open(&path).unwrap());
    Connection::open(&path).unwrap().execute("UPDATE meta SET slots = 0", ()).unwrap();
    std::fs::remove_file(decisions(&path)).unwrap();
    std::fs::write(path.with_extension("decisions.new"), "cut off").unwrap();
    let journal = Journal::open(&path).unwrap();
    assert_eq!(known(&journal).await, 2);
}

#[tokio::test]
async fn a_newer_journal_is_not_touched() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("journal.db");
    let journal = Journal::open(&path).unwrap();
    decide(&journal, 1).await;
    drop(journal);
    Connection::open(&path).unwrap().execute("UPDATE schema SET version = 99", ()).unwrap();
    let files = || -> Vec<(PathBuf, Vec<u8>)> {
        let mut files: Vec<_> =
            std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let files = files.into_iter().map(|file| (file.clone(), std::fs::read(file).unwrap()));
        // An empty log says nothing.
        files.filter(|(_, bytes)| !bytes.is_empty()).collect()
    };
    let before = files();
    let error = Journal::open(&path).map(drop).unwrap_err();
    assert!(matches!(error, JournalError::Newer { found: 99, .. }), "{error}");
    assert!(before == files(), "it was touched");
    // Also if its daemon was killed, and its log has to be read.
    let (_copy, killed) = {
        let db = Connection::open(&path).unwrap();
        db.execute("UPDATE schema SET version = 98", ()).unwrap();
        copy_of(&path)
    };
    let log = killed.with_extension("db-wal");
    let before = (std::fs::read(&killed).unwrap(), std::fs::read(&log).unwrap());
    let error = Journal::open(&killed).map(drop).unwrap_err();
    assert!(matches!(error, JournalError::Newer { found: 98, .. }), "{error}");
    assert!(before == (std::fs::read(&killed).unwrap(), std::fs::read(&log).unwrap()), "it was touched");
}
