//! Migrations that go well, and what they tell.

use serde_json::json;
use ums_model::event::{EventKind, MigrationEvent};
use ums_model::names::{Bytes, Epoch};
use ums_model::phase::{Outcome, Phase};
use ums_model::plan::Plan;

use super::lab::{Backup, Lab, web};
use crate::view::{MigrationView, ServiceView};

/// The events in a whole event stream, with the ids beside them.
fn events(text: &[u8]) -> Vec<MigrationEvent> {
    let text = String::from_utf8(text.to_vec()).unwrap();
    text.split("\n\n")
        .filter_map(|block| {
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name).map(str::trim));
            let event: MigrationEvent = serde_json::from_str(field("data:")?).unwrap();
            assert_eq!(field("id:").unwrap(), event.seq.to_string());
            Some(event)
        })
        .collect()
}

#[test]
fn there_and_back() {
    let mut lab = Lab::new([], []);
    lab.a.fake.write(&web(), b"state");

    let plan: Plan = lab.a.client.get("/v1/plan?service=web&to=b").unwrap();
    assert!(plan.feasible, "{plan:?}");
    assert!(plan.predicted.is_some());
    assert_eq!(lab.a.fake.memory(&web()).unwrap(), b"webstate", "a plan touches nothing");

    let first = lab.a.migrate("web", "b").unwrap();
    let ended = lab.a.end_of(first);
    assert_eq!(ended.outcome, Some(Outcome::Done), "{:?}", ended.report);
    assert_eq!(lab.b.fake.memory(&web()).unwrap(), b"webstate");
    assert_eq!((ended.source.as_str(), ended.destination.as_str(), ended.epoch), ("a", "b", Epoch(1)));

    let report = ended.report.unwrap();
    let phases: Vec<Phase> = report.phases.iter().map(|time| time.phase).collect();
    assert_eq!(phases, Phase::ALL);
    assert!(report.frozen_ms.unwrap() > 0.0 && report.frozen_ms.unwrap() <= report.total_ms);
    assert!(report.predicted_frozen_ms.is_some());
    // The whole image and the whole state had to go.
    assert!(report.bytes_raw >= Bytes(300_000 + 8) && report.bytes_sent > report.bytes_raw, "{report:?}");
    assert_eq!((report.downtime_ms, report.error), (None, None));

    lab.b.end_of(first);
    let service: ServiceView = lab.b.client.get("/v1/services/web").unwrap();
    assert_eq!((service.status.epoch, service.migration), (Epoch(1), None));
    let gone = lab.a.client.get::<ServiceView>("/v1/services/web").unwrap_err();
    assert!(gone.message.contains("moved to b"), "{gone}");

    lab.b.fake.write(&web(), b"!");
    let second = lab.b.migrate("web", "a").unwrap();
    let ended = lab.b.end_of(second);
    assert_eq!((ended.outcome, ended.epoch), (Some(Outcome::Done), Epoch(2)));
    // This time nothing of the image was missing.
    assert!(ended.report.unwrap().bytes_raw < Bytes(1000));
    assert_eq!(lab.a.fake.memory(&web()).unwrap(), b"webstate!");

    let history: Vec<MigrationView> = lab.a.client.get("/v1/migrations?service=web").unwrap();
    let ids: Vec<_> = history.iter().map(|view| view.migration).collect();
    assert_eq!(ids, [second, first]);
    assert_eq!(lab.settled_at(), "a");
}

#[test]
fn a_large_state_is_told_as_it_moves() {
    let lab = Lab::new([], []);
    lab.a.fake.dump_size(48 << 20);
    let id = lab.a.migrate("web", "b").unwrap();
    let ended = lab.a.end_of(id);
    assert_eq!(ended.outcome, Some(Outcome::Done), "{:?}", ended.report);
    assert!(ended.report.unwrap().bytes_sent > Bytes(48 << 20));
}

#[test]
fn events_are_numbered_and_replayed() {
    let lab = Lab::new([], []);
    let id = lab.a.migrate("web", "b").unwrap();
    // Live, while it goes on.
    let path = format!("/v1/migrations/{id}/events");
    let (status, text) = lab.a.client.raw(hyper::Method::GET, &path, None, &[]);
    assert_eq!(status, 200);
    let live = events(&text);
    let numbers: Vec<u64> = live.iter().map(|event| event.seq).collect();
    assert_eq!(numbers, (1..=live.len() as u64).collect::<Vec<_>>());
    assert!(matches!(live.last().unwrap().kind, EventKind::Ended { outcome: Outcome::Done, .. }));
    assert!(
        live.iter().all(|event| event.migration == id && event.service == web() && event.epoch == Epoch(1))
    );
    let begun: Vec<Phase> = live
        .iter()
        .filter_map(|event| match event.kind {
            EventKind::PhaseStarted { phase } => Some(phase),
            _ => None,
        })
        .collect();
    assert_eq!(begun, Phase::ALL);
    // Again, and from the middle.
    let (_, text) = lab.a.client.raw(hyper::Method::GET, &path, None, &[]);
    assert_eq!(events(&text), live);
    let (_, text) = lab.a.client.raw(hyper::Method::GET, &path, None, &[("last-event-id", "5")]);
    assert_eq!(events(&text), live[5..]);
    // The destination tells its own half.
    lab.b.end_of(id);
    let (_, text) = lab.b.client.raw(hyper::Method::GET, &path, None, &[]);
    assert!(matches!(events(&text).last().unwrap().kind, EventKind::Ended { outcome: Outcome::Done, .. }));
}

/// B has seen epochs of this name that A never heard of.
#[test]
fn a_newer_epoch_at_the_destination_is_adopted() {
    let mut lab = Lab::new([], []);
    lab.a.stop();
    let before = Backup::of(&lab.a);
    lab.a.start([]);
    for _ in 0..2 {
        lab.a.end_of(lab.a.migrate("web", "b").unwrap());
        lab.b.end_of(lab.b.migrate("web", "a").unwrap());
    }
    // A is put back to a copy of before, nest and all: it knows its service, but of no migration.
    lab.a.stop();
    before.put_back(&lab.a);
    lab.a.fake.forget_epoch(&web());
    lab.a.start([]);
    let id = lab.a.migrate("web", "b").unwrap();
    let ended = lab.a.end_of(id);
    assert_eq!(ended.outcome, Some(Outcome::Done), "{:?}", ended.report);
    assert!(ended.epoch > Epoch(4));
    lab.b.end_of(id);
    let stop: ServiceView = lab.b.client.post("/v1/services/web/stop", &json!({"grace_ms": 0})).unwrap();
    assert_eq!(stop.status.exit_code, Some(0));
}
