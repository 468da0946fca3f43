//! The audit is complete, and tells when it is not.

use ums_model::source::Verdict;

use super::*;
use crate::audit::{AuditCheck, AuditKind, check_offline, list_offline};
use crate::view::SideView;

/// A migration of `web`, from its begin to its end.
async fn migrate(journal: &Journal, id: u128, records: &[Record]) {
    let row = MigrationRow { epoch: Epoch(id as u64), ..row(id, "web") };
    journal.begin(row.clone(), Vec::new()).await.unwrap();
    for record in records {
        journal.append(&row.service, Some(row.id), vec![*record]).await.unwrap();
    }
    end(journal, &row, Outcome::RolledBack).await;
}

async fn end(journal: &Journal, row: &MigrationRow, outcome: Outcome) {
    let report = Report { outcome, ..report(row) };
    let kind = EventKind::Ended { outcome, report: Box::new(report.clone()) };
    let (migration, service) = (row.id, row.service.clone());
    let last = MigrationEvent { seq: 9, migration, service, epoch: row.epoch, at_unix_ms: 1, kind };
    // Only the newest stays in the history; the audit forgets none.
    journal.end(last, report, true, 1).await.unwrap();
}

async fn three() -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("journal.db");
    let journal = Journal::open(&path).unwrap();
    journal.append(&"web".parse().unwrap(), None, vec![Record::Created]).await.unwrap();
    for id in 1..=3 {
        let steps = [Step::Started, Step::AbortDecided].map(|step| Record::Source(step.at(Epoch(id as u64))));
        migrate(&journal, id, &steps).await;
    }
    (home, path)
}

fn check(path: &Path, head: Option<&str>) -> AuditCheck {
    check_offline(path, head).unwrap()
}

#[tokio::test]
async fn every_migration_leaves_one_record() {
    let (_home, path) = three().await;
    let records = list_offline(&path, 0, 10).unwrap();
    assert_eq!(records.iter().map(|record| record.seq).collect::<Vec<_>>(), [1, 2, 3]);
    let second = &records[1].entry;
    assert_eq!((second.kind, second.epoch, second.role), (AuditKind::Migration, Epoch(2), SideView::Source));
    assert_eq!((second.outcome, second.error), (Some(Outcome::RolledBack), Some(ErrorCode::Aborted)));
    assert_eq!((second.peer.as_str(), second.decisions), ("b", 2));
    assert!(second.without_user_namespace != row(1, "web").spec.user_namespace);
    assert_ne!(second.decisions_hash, records[0].entry.decisions_hash);
    assert_eq!(list_offline(&path, 1, 1).unwrap(), records[1..2]);
    let whole = check(&path, None);
    assert_eq!((whole.ok, whole.records, &whole.head), (true, 3, &records[2].hash));
    // The same through the daemon; and an end that is told twice is one.
    let journal = Journal::open(&path).unwrap();
    assert_eq!(journal.audit(0, 10).await.unwrap(), records);
    end(&journal, &MigrationRow { epoch: Epoch(3), ..row(3, "web") }, Outcome::Lost).await;
    assert_eq!(journal.audit_check(None).await.unwrap(), whole);
}

#[tokio::test]
async fn an_operators_word_is_a_record_of_its_own_also_on_a_full_disk() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("journal.db");
    let journal = Journal::open(&path).unwrap();
    let web = row(1, "web");
    let source = |step: Step| Record::Source(step.at(Epoch(1)));
    journal.append(&web.service, None, vec![Record::Created]).await.unwrap();
    journal.begin(web.clone(), vec![source(Step::Started), source(Step::FreezeBegun)]).await.unwrap();
    let steps = vec![source(Step::HeldArrived), source(Step::CommitDecided)];
    journal.append(&web.service, Some(web.id), steps).await.unwrap();
    journal.pretend_full(true).await;
    let verdict = vec![source(Step::Resolved { verdict: Verdict::RunHere })];
    journal.append(&web.service, Some(web.id), verdict).await.unwrap();
    assert!(journal.audit(0, 10).await.unwrap().is_empty(), "it comes with the record");
    journal.pretend_full(false).await;
    end(&journal, &web, Outcome::RolledBack).await;
    let records = journal.audit(0, 10).await.unwrap();
    let told: Vec<_> = records.iter().map(|record| (record.entry.kind, record.entry.verdict)).collect();
    let said = Some(Verdict::RunHere);
    assert_eq!(told, [(AuditKind::Resolve, said), (AuditKind::Migration, said)]);
    assert!(journal.audit_check(None).await.unwrap().ok);
}

#[tokio::test]
async fn the_first_broken_record_is_named() {
    let (_home, path) = three().await;
    let after = |sql: &str| {
        let (_copy, path) = copy_of(&path);
        assert!(Connection::open(&path).unwrap().execute(sql, ()).unwrap() > 0);
        // The site runs: no right to run a service rests on the audit.
        drop(Journal::open(&path).unwrap());
        let check = check(&path, None);
        assert!(!check.ok);
        check.broken.unwrap()
    };
    assert_eq!(after("UPDATE audit SET entry = replace(entry, 'rolled-back', 'done') WHERE seq = 2").seq, 2);
    assert_eq!(after("UPDATE audit SET kind = 'resolve' WHERE seq = 1").seq, 1);
    assert_eq!(after("DELETE FROM audit WHERE seq = 2").seq, 2);
    let cut = after("DELETE FROM audit WHERE seq > 1");
    assert!(cut.seq == 2 && cut.why.contains("removed from the end"), "{cut:?}");
    assert_eq!(after("DELETE FROM audit").seq, 1);
}

/// Who has the file can cut it off so that nothing shows, but not from who kept the head.
#[tokio::test]
async fn a_head_that_was_kept_tells_of_a_rollback() {
    let (_home, path) = three().await;
    let heads: Vec<_> = list_offline(&path, 0, 10).unwrap().into_iter().map(|record| record.hash).collect();
    for head in &heads {
        assert!(check(&path, Some(head)).ok, "an older one is still in it");
    }
    let db = Connection::open(&path).unwrap();
    db.execute("DELETE FROM audit WHERE seq = 3", ()).unwrap();
    db.execute("UPDATE sqlite_sequence SET seq = 2 WHERE name = 'audit'", ()).unwrap();
    drop(db);
    assert!(check(&path, None).ok && check(&path, Some(&heads[1])).ok);
    let broken = check(&path, Some(&heads[2])).broken.unwrap();
    assert!(broken.seq == 3 && broken.why.contains("kept"), "{broken:?}");
    let error = check_offline(&path, Some("abc")).unwrap_err();
    assert_eq!(error.code, ErrorCode::BadRequest);
}

#[tokio::test]
async fn a_journal_in_use_or_without_an_audit_is_told() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("old.db");
    Connection::open(&path).unwrap().execute_batch(schema::TABLES).unwrap();
    let error = list_offline(&path, 0, 1).unwrap_err();
    assert!(error.message.contains("older version"), "{error}");
    assert!(list_offline(&home.path().join("none.db"), 0, 1).is_err());
    assert!(!home.path().join("none.db").exists());
}
