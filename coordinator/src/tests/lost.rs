//! No copy survived: both sites say so, whatever was cut, crashed or begun anew in between, and none says it otherwise.

use ums_model::action::{Alarm, Word};
use ums_model::destination;
use ums_model::error::ErrorCode;
use ums_model::facts::Answer;
use ums_model::message::PeerMessage;
use ums_model::names::{Epoch, MigrationId};
use ums_model::phase::Outcome;
use ums_model::standing::Record;
use ums_sites::adapter::CopyState;
use ums_transfer::link::{Purpose, Version};

use super::lab::{Gate, Lab, Node, wait_for, web};
use super::strangers::{Stranger, about, new_id, offer};
use crate::audit::{AuditCheck, AuditRecord};
use crate::fault::Step;
use crate::journal::Journal;
use crate::view::{MigrationState, MigrationView, ServiceView};

fn outcome(node: &Node, id: MigrationId) -> Option<Outcome> {
    node.migration(id).outcome
}

/// Waits until a site says that `id` ended as lost, and checks everything in which it says so.
fn says_lost(node: &Node, id: MigrationId) {
    let name = &node.fake.name;
    wait_for(&format!("the word at {name}"), || (outcome(node, id) == Some(Outcome::Lost)).then_some(()));
    let view = node.migration(id);
    assert_eq!(view.state, MigrationState::Ended);
    assert_eq!(view.report.unwrap().error.unwrap().code, ErrorCode::Lost, "{name}");
    // Who watches it ends with what `ums watch` makes an exit code of.
    let (status, told) =
        node.client.raw(axum::http::Method::GET, &format!("/v1/migrations/{id}/events"), None, &[]);
    let told = String::from_utf8(told).unwrap();
    let last = told.lines().rfind(|line| line.starts_with("data:")).unwrap();
    assert!(status == 200 && last.contains("\"ended\"") && last.contains("\"lost\""), "{name}: {last}");
    let audit: Vec<AuditRecord> = node.client.get("/v1/audit").unwrap();
    let last = audit.iter().rfind(|record| record.entry.migration == id).unwrap();
    assert_eq!(
        (last.entry.outcome, last.entry.error),
        (Some(Outcome::Lost), Some(ErrorCode::Lost)),
        "{name}"
    );
    let check: AuditCheck = node.client.get("/v1/audit/verify").unwrap();
    assert!(check.ok, "{check:?}");
}

fn alarm(node: &Node, id: MigrationId) -> Option<Alarm> {
    node.migration(id).alarm
}

/// The link is cut in the middle of the dump, and the original dies in its thaw: only A knows.
fn lost_behind_a_cut() -> (Lab, MigrationId) {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::new(&dir, "gate");
    let lab = Lab::new([(Step::Transfer, gate.act())], []);
    let id = lab.a.migrate("web", "b").unwrap();
    gate.reached();
    lab.cut();
    lab.a.fake.fail("thaw.half");
    gate.open();
    assert_eq!(lab.a.end_of(id).outcome, Some(Outcome::Lost));
    assert_eq!(lab.b.end_of(id).outcome, Some(Outcome::RolledBack), "it cannot know better");
    (lab, id)
}

/// The service is started anew where it was, and moves.
fn goes_on(mut lab: Lab) {
    lab.a.run("web").unwrap();
    let id = lab.a.migrate("web", "b").unwrap();
    let ended = lab.a.end_of(id);
    assert_eq!(ended.outcome, Some(Outcome::Done), "{:?}", ended.report);
    assert!(alarm(&lab.a, id).is_none() && alarm(&lab.b, id).is_none());
    assert_eq!(lab.settled_at(), "b");
}

#[test]
fn both_copies_die_after_the_commit() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::new(&dir, "gate");
    let lab = Lab::new([(Step::Committed, gate.act())], []);
    let id = lab.a.migrate("web", "b").unwrap();
    gate.reached();
    lab.a.fake.kill(&web());
    lab.b.fake.kill(&web());
    gate.open();
    says_lost(&lab.a, id);
    says_lost(&lab.b, id);
    assert_eq!((alarm(&lab.a, id), alarm(&lab.b, id)), (Some(Alarm::Lost), Some(Alarm::Lost)));
    // Neither starts it again by itself, and there is nothing to start at the destination.
    assert_eq!(lab.a.migrate("web", "b").unwrap_err().code, ErrorCode::Lost);
    assert_eq!(lab.b.migrate("web", "a").unwrap_err().code, ErrorCode::ServiceNotFound);
    goes_on(lab);
}

#[test]
fn the_original_dies_before_the_copy_is_held() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::new(&dir, "gate");
    let mut lab = Lab::new([], [(Step::DestinationRestore, gate.act())]);
    let id = lab.a.migrate("web", "b").unwrap();
    gate.reached();
    lab.a.fake.kill(&web());
    lab.b.crash();
    gate.open();
    lab.b.start([]);
    says_lost(&lab.a, id);
    says_lost(&lab.b, id);
    goes_on(lab);
}

#[test]
fn the_word_is_repeated_until_the_link_is_whole() {
    let (lab, id) = lost_behind_a_cut();
    lab.heal();
    says_lost(&lab.b, id);
    assert_eq!(lab.b.fake.copy(&web()), CopyState::Absent);
    goes_on(lab);
}

#[test]
fn the_word_survives_restarts_of_both() {
    let (mut lab, id) = lost_behind_a_cut();
    lab.a.crash();
    lab.b.crash();
    lab.a.start([]);
    lab.b.start([]);
    says_lost(&lab.a, id);
    assert_eq!(outcome(&lab.b, id), Some(Outcome::RolledBack));
    lab.heal();
    says_lost(&lab.b, id);
    // Said once more by nobody: it was heard, and both know it for good.
    lab.b.restart([]);
    lab.a.restart([]);
    says_lost(&lab.b, id);
    assert_eq!(alarm(&lab.b, id), Some(Alarm::Lost));
    goes_on(lab);
}

/// The record was durable, the history was not.
#[test]
fn a_destination_that_died_in_the_middle_of_hearing_it_finishes() {
    let (mut lab, id) = lost_behind_a_cut();
    lab.a.stop();
    lab.b.stop();
    {
        let journal = Journal::open(&lab.b.config.journal_path()).unwrap();
        let heard = Record::Destination(destination::Step::LostHeard.at(Epoch(1)));
        lab.runtime.block_on(journal.append(&web(), Some(id), vec![heard])).unwrap();
    }
    lab.b.start([]);
    says_lost(&lab.b, id);
    lab.a.start([]);
    lab.heal();
    goes_on(lab);
}

/// The user has started the service anew before the destination heard what became of the last one.
#[test]
fn a_service_that_was_started_anew_does_not_keep_the_word_back() {
    let (lab, id) = lost_behind_a_cut();
    lab.a.run("web").unwrap();
    lab.heal();
    says_lost(&lab.b, id);
    let next = lab.a.migrate("web", "b").unwrap();
    assert_eq!(lab.a.end_of(next).outcome, Some(Outcome::Done));
    assert_eq!(outcome(&lab.a, id), Some(Outcome::Lost));
}

#[test]
fn an_operator_may_run_what_was_lost_from_its_files() {
    let (mut lab, id) = lost_behind_a_cut();
    lab.heal();
    says_lost(&lab.b, id);
    let verdict = serde_json::json!({ "verdict": "run-here" });
    lab.a.client.post::<serde_json::Value>("/v1/services/web/resolve", &verdict).unwrap();
    lab.a.fake.next_nest(&web());
    assert_eq!(lab.settled_at(), "a");
}

/// A stranger's word, at every place where it could do harm: it counts for his own migrations, once, and never for what
/// runs.
#[test]
fn what_a_site_may_say_is_lost() {
    let mut lab = Lab::new([], []);
    let mut c = Stranger::paired_with(&lab, &lab.b);
    let say = |c: &Stranger, id, message: &PeerMessage| c.say(&lab, Purpose::Migration { id }, message);
    let word = |id, epoch, word| PeerMessage::saying(about(id, epoch), word).unwrap();
    let answers = |id, epoch, answer| PeerMessage::State { about: about(id, epoch), answer };
    let tried = |c: &Stranger, epoch| {
        let id = new_id();
        let answer = wait_for("an accepted offer", || {
            Some(say(c, id, &offer(about(id, epoch))))
                .filter(|said| matches!(said, PeerMessage::Accept { .. }))
        });
        assert!(matches!(answer, PeerMessage::Accept { .. }));
        wait_for("the end of a try", || outcome(&lab.b, id));
        id
    };
    let first = tried(&c, 1);
    // In the words of a site that does not know this one.
    let newest = std::mem::replace(&mut c.greeting.versions, vec![Version(1)]);
    assert_eq!(say(&c, first, &word(first, 1, Word::Lost)), answers(first, 1, Answer::Aborted));
    c.greeting.versions = newest;
    for _ in 0..2 {
        assert_eq!(say(&c, first, &word(first, 1, Word::Lost)), answers(first, 1, Answer::Lost));
    }
    says_lost(&lab.b, first);
    let views: Vec<MigrationView> = lab.b.client.get("/v1/migrations").unwrap();
    assert_eq!(views.len(), 1);
    // Of one that the site has gone past, only the history can still say it.
    let second = tried(&c, 2);
    let third = tried(&c, 3);
    assert_eq!(say(&c, second, &word(second, 2, Word::Lost)), answers(second, 2, Answer::Over));
    says_lost(&lab.b, second);
    assert_eq!(outcome(&lab.b, third), Some(Outcome::RolledBack));
    // An offer that never came cannot be accepted any more.
    let early = new_id();
    assert_eq!(say(&c, early, &word(early, 5, Word::Lost)), answers(early, 5, Answer::Lost));
    assert!(matches!(say(&c, early, &offer(about(early, 5))), PeerMessage::Reject { .. }));
    // What runs is not lost, and not for another site to say.
    let done = lab.a.end_of(lab.a.migrate("web", "b").unwrap());
    assert_eq!(done.outcome, Some(Outcome::Done), "{:?}", done.report);
    for id in [done.migration, new_id()] {
        let answer = say(&c, id, &word(id, done.epoch.0, Word::Lost));
        assert!(!matches!(answer, PeerMessage::State { answer: Answer::Lost, .. }), "{answer:?}");
    }
    assert_eq!(outcome(&lab.b, done.migration), Some(Outcome::Done));
    assert_eq!(lab.settled_at(), "b");
}

/// A journal whose source died between its record and its history, before the service went on: the records count, and
/// the destination hears of it.
#[test]
fn a_source_that_could_not_end_it_ends_it_as_lost() {
    let (mut lab, id) = lost_behind_a_cut();
    lab.a.run("web").unwrap();
    lab.a.stop();
    let journal = rusqlite::Connection::open(lab.a.config.journal_path()).unwrap();
    let unended = "UPDATE migrations SET ended_unix_ms = NULL, report = NULL, told = 0 WHERE id = ?1";
    assert_eq!(journal.execute(unended, [id.to_string()]).unwrap(), 1);
    drop(journal);
    lab.heal();
    lab.a.start([]);
    wait_for("the end", || (outcome(&lab.a, id) == Some(Outcome::Lost)).then_some(()));
    says_lost(&lab.b, id);
    assert_eq!((alarm_of_service(&lab.a), outcome(&lab.b, id)), (None, Some(Outcome::Lost)));
}

/// What is said of the service that runs now.
fn alarm_of_service(node: &Node) -> Option<Alarm> {
    let view: ServiceView = node.client.get("/v1/services/web").unwrap();
    view.alarm
}
