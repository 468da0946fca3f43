//! What the journal keeps, and what it refuses.

mod audit;
mod damage;
mod full;
mod latency;
mod versions;

use std::path::{Path, PathBuf};

use ums_model::error::{ErrorCode, WireError};
use ums_model::event::{EventKind, MigrationEvent};
use ums_model::names::{Bytes, Digest, Epoch, Fingerprint, MigrationId};
use ums_model::phase::{Approach, Mode, Outcome};
use ums_model::report::Report;
use ums_model::source::Step;
use ums_model::spec::{ImageRef, ServiceSpec};
use ums_model::standing::Record;
use ums_transfer::pairing::Secret;

use super::*;
use crate::clock::unix_ms;

fn row(id: u128, service: &str) -> MigrationRow {
    let image = ImageRef { digest: Digest::sha256([7; 32]), name: "redis".to_owned() };
    MigrationRow {
        id: MigrationId::new(uuid::Uuid::from_u128(id)),
        service: service.parse().unwrap(),
        epoch: Epoch(1),
        role: Role::Source,
        peer: Fingerprint([1; 32]),
        peer_name: "b".parse().unwrap(),
        mode: Mode::Cold,
        approach: Approach::Container,
        spec: ServiceSpec::new(service.parse().unwrap(), image),
        started_unix_ms: u64::try_from(id).unwrap(),
        told: false,
        ended: None,
    }
}

fn report(row: &MigrationRow) -> Report {
    Report {
        migration: row.id,
        service: row.service.clone(),
        epoch: row.epoch,
        source: "a".parse().unwrap(),
        destination: "b".parse().unwrap(),
        mode: row.mode,
        approach: row.approach,
        phases: Vec::new(),
        bytes_raw: Bytes(1),
        bytes_sent: Bytes(2),
        frozen_ms: None,
        downtime_ms: None,
        total_ms: 1.0,
        predicted_frozen_ms: None,
        predicted_total_ms: None,
        outcome: Outcome::RolledBack,
        error: Some(WireError::new(ErrorCode::Aborted, "x")),
    }
}

fn site(fill: u8, name: &str) -> PairedRow {
    PairedRow {
        fingerprint: Fingerprint([fill; 32]),
        name: name.parse().unwrap(),
        addresses: vec!["10.0.0.1:7443".to_owned()],
        direction: Direction { we_can_dial: true, they_can_dial: false },
        paired_unix_ms: 5,
    }
}

impl Journal {
    /// Lets every write into the database fail as on a full disk, or not any more.
    async fn pretend_full(&self, full: bool) {
        self.ask(move |store| {
            store.full = full;
            Ok(())
        })
        .await
        .unwrap();
    }
}

/// The file with the space for decisions, of the journal at `path`.
fn decisions(path: &Path) -> PathBuf {
    path.with_extension("decisions")
}

/// Copies the files of the journal at `path` as they are now.
fn copy_of(path: &Path) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    for file in [path.to_owned(), path.with_extension("db-wal"), decisions(path)] {
        if file.exists() {
            std::fs::copy(&file, dir.path().join(file.file_name().unwrap())).unwrap();
        }
    }
    let copy = dir.path().join(path.file_name().unwrap());
    (dir, copy)
}

/// Decides once about the service of this number: it is created, so every number is good for one.
async fn decide(journal: &Journal, number: u32) {
    let service = format!("s{number}").parse().unwrap();
    journal.append(&service, None, vec![Record::Created]).await.unwrap();
}

/// How many services the journal knows.
async fn known(journal: &Journal) -> usize {
    journal.standings().await.unwrap().len()
}

/// What the journal at `path` knows, and how many of it is in the database; opens it twice, so that nothing waits.
async fn opened(path: &Path) -> (usize, usize) {
    let known = known(&Journal::open(path).unwrap()).await;
    let count =
        || Connection::open(path)?.query_row("SELECT count(*) FROM records", (), |row| row.get::<_, i64>(0));
    (known, count().unwrap() as usize)
}

#[tokio::test]
async fn records_are_folded_after_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("journal.db");
    let journal = Journal::open(&path).unwrap();
    let row = row(1, "web");
    journal.append(&row.service, None, vec![Record::Created]).await.unwrap();
    journal.begin(row.clone(), vec![Record::Source(Step::Started.at(Epoch(1)))]).await.unwrap();
    drop(journal);
    let journal = Journal::open(&path).unwrap();
    let standings = journal.standings().await.unwrap();
    assert_eq!(standings[&row.service].to_string(), "source Preparing(1)");
    assert_eq!(journal.unfinished().await.unwrap().len(), 1);
    assert_eq!(journal.records_of(row.id).await.unwrap().len(), 1);
}

#[tokio::test]
async fn records_that_cannot_follow_each_other_are_damage() {
    let home = tempfile::tempdir().unwrap();
    let journal = Journal::open(&home.path().join("journal.db")).unwrap();
    let service = "web".parse().unwrap();
    journal.append(&service, None, vec![Record::Created, Record::Created]).await.unwrap();
    let error = journal.standings().await.unwrap_err();
    assert!(matches!(&error, JournalError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn a_newer_journal_and_a_foreign_file_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("journal.db");
    drop(Journal::open(&path).unwrap());
    Connection::open(&path).unwrap().execute("UPDATE schema SET version = 99", ()).unwrap();
    assert!(matches!(Journal::open(&path), Err(JournalError::Newer { found: 99, .. })));
    let foreign = home.path().join("foreign.db");
    std::fs::write(
        &foreign,
        "this is no database, but long enough to be taken for something else".repeat(100),
    )
    .unwrap();
    assert!(matches!(Journal::open(&foreign), Err(JournalError::Damage { .. })));
}

#[tokio::test]
async fn a_finished_migration_is_kept_and_old_ones_go() {
    let home = tempfile::tempdir().unwrap();
    let journal = Journal::open(&home.path().join("journal.db")).unwrap();
    let rows: Vec<_> = (1..=4).map(|id| row(id, "web")).collect();
    for row in &rows {
        journal.begin(row.clone(), Vec::new()).await.unwrap();
        let kind = EventKind::Note { text: "hello".to_owned() };
        let (migration, service) = (row.id, row.service.clone());
        let event = MigrationEvent { seq: 1, migration, service, epoch: Epoch(1), at_unix_ms: 1, kind };
        journal.keep_event(event).await;
    }
    for row in &rows[..3] {
        let outcome = Outcome::RolledBack;
        let kind = EventKind::Ended { outcome, report: Box::new(report(row)) };
        let (migration, service) = (row.id, row.service.clone());
        let last = MigrationEvent { seq: 2, migration, service, epoch: Epoch(1), at_unix_ms: 1, kind };
        journal.end(last, report(row), row.id != rows[2].id, 2).await.unwrap();
    }
    let kept: Vec<_> =
        journal.history(None, 10).await.unwrap().iter().map(|row| row.started_unix_ms).collect();
    assert_eq!(kept, [4, 3], "the newest two");
    assert_eq!(journal.events(rows[3].id, 0).await.unwrap().len(), 1);
    assert_eq!(journal.events(rows[2].id, 0).await.unwrap().len(), 2);
    assert!(journal.events(rows[0].id, 0).await.unwrap().is_empty());
    let untold: Vec<_> = journal.untold().await.unwrap().iter().map(|row| row.id).collect();
    assert_eq!(untold, [rows[2].id]);
    journal.mark_told(rows[2].id).await.unwrap();
    assert!(journal.untold().await.unwrap().is_empty());
    let ended = journal.migration(rows[2].id).await.unwrap().unwrap().ended.unwrap();
    assert_eq!(ended.report, report(&rows[2]));
    assert_eq!(
        journal.migration_of(&rows[3].service, Epoch(1), Role::Source).await.unwrap().unwrap().id,
        rows[3].id
    );
    assert!(journal.migration_of(&rows[3].service, Epoch(1), Role::Destination).await.unwrap().is_none());
}

#[tokio::test]
async fn an_invite_is_good_for_one_site() {
    let home = tempfile::tempdir().unwrap();
    let journal = Journal::open(&home.path().join("journal.db")).unwrap();
    let secret = Secret::from_bytes([9; 16]);
    let id = secret.id();
    assert_eq!(journal.redeem(id, site(1, "b")).await.unwrap(), Redeemed::Unknown);
    journal.invite(id, secret.clone(), unix_ms() + 60_000).await.unwrap();
    assert_eq!(journal.invite_secret(id).await.unwrap(), Some(secret));
    assert_eq!(journal.redeem(id, site(1, "b")).await.unwrap(), Redeemed::Done);
    assert_eq!(
        journal.redeem(id, site(1, "b")).await.unwrap(),
        Redeemed::Done,
        "its answer may have been lost"
    );
    assert_eq!(journal.redeem(id, site(2, "c")).await.unwrap(), Redeemed::Used);
    assert!(!journal.pair(site(2, "b")).await.unwrap(), "the name is taken");
    assert_eq!(journal.sites().await.unwrap(), [site(1, "b")]);
    assert!(journal.unpair(Fingerprint([1; 32])).await.unwrap());
    assert_eq!(journal.invite_secret(id).await.unwrap(), None, "withdrawn with the site that used it");

    let expired = Secret::from_bytes([8; 16]);
    journal.invite(expired.id(), expired.clone(), unix_ms()).await.unwrap();
    assert_eq!(journal.invite_secret(expired.id()).await.unwrap(), None);
}
