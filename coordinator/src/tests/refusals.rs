//! What cannot be done is refused before anything is touched, with its own code, and says what to do.

use serde_json::json;
use ums_model::error::{ErrorCode, WireError};
use ums_model::names::{Bytes, MigrationId};
use ums_model::plan::{BlockerKind, Plan, PortInUse, ProcessBlocker};
use ums_model::spec::Protocol;

use super::lab::{Gate, Lab, web};
use crate::fault::Step;
use crate::view::{AcceptedView, InviteView, MigrationView, PairedView, ServiceView, SiteView};

/// A migration that is refused: nothing has happened at either site.
fn refused(lab: &Lab, to: &str) -> WireError {
    let error = lab.a.migrate("web", to).expect_err("a refusal");
    assert!(!error.hint.is_empty());
    assert_eq!(lab.a.fake.memory(&web()).unwrap(), b"web");
    let history: Vec<MigrationView> = lab.a.client.get("/v1/migrations").unwrap();
    assert!(history.is_empty(), "a refusal leaves no migration behind");
    error
}

#[test]
fn a_site_that_is_not_there() {
    let mut lab = Lab::new([], []);
    assert_eq!(refused(&lab, "nowhere").code, ErrorCode::UnknownSite);
    lab.b.stop();
    let error = refused(&lab, "b");
    assert_eq!(error.code, ErrorCode::Unreachable);
    assert!(error.retryable && error.message.contains("site b"), "{error}");
}

#[test]
fn a_site_that_does_not_know_us_any_more() {
    let lab = Lab::new([], []);
    lab.b.client.delete("/v1/sites/a").unwrap();
    assert_eq!(refused(&lab, "b").code, ErrorCode::NotPaired);
    let error = lab.b.client.delete("/v1/sites/a").unwrap_err();
    assert_eq!(error.code, ErrorCode::UnknownSite);
}

#[test]
fn a_site_with_another_identity() {
    let mut lab = Lab::new([], []);
    lab.b.stop();
    std::fs::remove_dir_all(lab.b.config.state_dir.join("identity")).unwrap();
    lab.b.start([]);
    let error = refused(&lab, "b");
    assert_eq!(error.code, ErrorCode::WrongIdentity);
    assert!(error.message.contains(&lab.b.fingerprint().to_string()), "{error}");
}

#[test]
fn a_service_that_is_not_there() {
    let lab = Lab::new([], []);
    let error = lab.a.migrate("nginx", "b").unwrap_err();
    assert_eq!(error.code, ErrorCode::ServiceNotFound);
    let error = lab.a.client.get::<Plan>("/v1/plan?service=nginx&to=b").unwrap_err();
    assert_eq!(error.code, ErrorCode::ServiceNotFound);
}

#[test]
fn what_blocks_is_in_the_plan_and_refuses_the_migration() {
    type Change = fn(&Lab);
    let cases: [(ErrorCode, Change); 5] = [
        (ErrorCode::NameTaken, |lab| {
            let body = json!({"name": "web", "image": {"image": "redis"}});
            lab.b.client.post::<ServiceView>("/v1/services", &body).unwrap();
        }),
        (ErrorCode::PortTaken, |lab| lab.b.fake.use_port(PortInUse { port: 8080, protocol: Protocol::Tcp })),
        (ErrorCode::MemoryTooSmall, |lab| lab.b.fake.has_memory(Bytes(1))),
        (ErrorCode::ImageMissing, |lab| lab.a.fake.forget_blobs()),
        (ErrorCode::ProcessBlocked, |lab| {
            lab.a.fake.block(ProcessBlocker {
                pid: 7,
                kind: BlockerKind::IoUring,
                detail: "fd 5".to_owned(),
            });
        }),
    ];
    for (code, change) in cases {
        let lab = Lab::new([], []);
        change(&lab);
        let plan: Plan = lab.a.client.get("/v1/plan?service=web&to=b").unwrap();
        assert_eq!(plan.blockers.iter().map(|blocker| blocker.code).collect::<Vec<_>>(), [code]);
        assert_eq!(refused(&lab, "b").code, code);
    }
}

/// A program opens something that cannot be dumped after the plan was made: found before the freeze.
#[test]
fn a_blocker_that_appears_late_is_found_before_the_freeze() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::new(&dir, "gate");
    let mut lab = Lab::new([(Step::Arm, gate.act())], []);
    let id = lab.a.migrate("web", "b").unwrap();
    gate.reached();
    lab.a.fake.block(ProcessBlocker { pid: 7, kind: BlockerKind::IoUring, detail: "fd 5".to_owned() });
    gate.open();
    let report = lab.a.end_of(id).report.unwrap();
    assert_eq!(report.error.unwrap().code, ErrorCode::ProcessBlocked);
    assert_eq!(report.frozen_ms, None, "it was never frozen");
    assert_eq!(lab.settled_at(), "a");
}

/// The destination looks again when the offer comes: what the plan saw may be gone.
#[test]
fn a_port_that_is_taken_late_is_found_by_the_offer() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::new(&dir, "gate");
    let mut lab = Lab::new([], [(Step::DestinationReserve, gate.act())]);
    let id = lab.a.migrate("web", "b").unwrap();
    gate.reached();
    lab.b.fake.use_port(PortInUse { port: 8080, protocol: Protocol::Tcp });
    gate.open();
    assert_eq!(lab.a.end_of(id).report.unwrap().error.unwrap().code, ErrorCode::PortTaken);
    assert_eq!(lab.settled_at(), "a");
}

#[test]
fn while_it_migrates_it_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::new(&dir, "gate");
    let mut lab = Lab::new([(Step::Restore, gate.act())], []);
    let id = lab.a.migrate("web", "b").unwrap();
    gate.reached();
    let shown: ServiceView = lab.a.client.get("/v1/services/web").unwrap();
    assert_eq!(shown.migration, Some(id));
    let none = json!({});
    let client = &lab.a.client;
    let attempts: Vec<(&str, Result<serde_json::Value, WireError>)> = vec![
        ("stop", client.post("/v1/services/web/stop", &none)),
        ("start", client.post("/v1/services/web/start", &none)),
        ("signal", client.post("/v1/services/web/signal", &json!({"signal": 15}))),
        ("remove", client.delete("/v1/services/web?force=true")),
        ("create", client.post("/v1/services", &json!({"name": "web", "image": {"image": "redis"}}))),
        ("migrate", client.post("/v1/migrations", &json!({"service": "web", "to": "b"}))),
        (
            "at the destination",
            lab.b.client.post("/v1/services", &json!({"name": "web", "image": {"image": "redis"}})),
        ),
    ];
    for (what, attempt) in attempts {
        let error = attempt.expect_err(what);
        assert_eq!(error.code, ErrorCode::AlreadyMigrating, "{what}: {error}");
        assert!(error.message.contains(&id.to_string()), "{what} does not name the migration: {error}");
    }
    let blocked: Plan = client.get("/v1/plan?service=web&to=b").unwrap();
    assert_eq!(blocked.blockers[0].code, ErrorCode::AlreadyMigrating);
    let error = lab.a.client.delete("/v1/sites/b").unwrap_err();
    assert_eq!(error.code, ErrorCode::AlreadyMigrating);
    gate.open();
    assert!(lab.a.end_of(id).outcome.is_some());
    assert_eq!(lab.settled_at(), "b");
}

#[test]
fn only_so_many_migrations_at_once_and_none_waits_where_there_is_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::new(&dir, "gate");
    let mut lab = Lab::new([], []);
    lab.a.stop();
    lab.a.config.limits.migrations = 1.try_into().unwrap();
    lab.a.config.limits.queue = 0;
    lab.a.start([(Step::Arm, gate.act())]);
    lab.a
        .client
        .post::<ServiceView>("/v1/services", &json!({"name": "other", "image": {"image": "redis"}}))
        .unwrap();
    let id = lab.a.migrate("web", "b").unwrap();
    gate.reached();
    let error = lab.a.migrate("other", "b").unwrap_err();
    assert!(error.code == ErrorCode::Busy && error.retryable, "{error}");
    gate.open();
    lab.a.end_of(id);
    lab.a.end_of(lab.a.migrate("other", "b").unwrap());
    assert_eq!(lab.settled_at(), "b");
}

/// Two offers of the last port at the same time: one gets it.
#[test]
fn a_promised_port_is_not_promised_twice() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::new(&dir, "gate");
    let lab = Lab::new([], [(Step::DestinationArm, gate.act())]);
    let body =
        json!({"name": "other", "image": {"image": "redis"}, "ports": [{"host": 8080, "container": 1}]});
    lab.a.client.post::<ServiceView>("/v1/services", &body).unwrap();
    let first = lab.a.migrate("web", "b").unwrap();
    gate.reached();
    let second = lab.a.migrate("other", "b").unwrap();
    let error = lab.a.end_of(second).report.unwrap().error.unwrap();
    assert!(
        error.code == ErrorCode::PortTaken && error.message.contains("promised to service web"),
        "{error}"
    );
    gate.open();
    assert!(lab.a.end_of(first).report.unwrap().error.is_none());
}

#[test]
fn a_site_that_takes_nothing() {
    let mut lab = Lab::new([], []);
    lab.b.stop();
    lab.b.config.incoming = false;
    lab.b.start([]);
    let error = lab.a.migrate("web", "b").unwrap_err();
    assert!(error.code == ErrorCode::Refused && error.hint.contains("incoming"), "{error}");
    assert_eq!(lab.settled_at(), "a");
}

#[test]
fn only_cold_is_known() {
    let lab = Lab::new([], []);
    let body = json!({"service": "web", "to": "b", "mode": "precopy"});
    let error = lab.a.client.post::<serde_json::Value>("/v1/migrations", &body).unwrap_err();
    assert_eq!(error.code, ErrorCode::Unsupported);
}

#[test]
fn an_unknown_migration() {
    let lab = Lab::new([], []);
    let id = MigrationId::new(uuid::Uuid::now_v7());
    for path in [format!("/v1/migrations/{id}"), format!("/v1/migrations/{id}/events")] {
        assert_eq!(
            lab.a.client.get::<serde_json::Value>(&path).unwrap_err().code,
            ErrorCode::MigrationNotFound
        );
    }
    let abort = lab.a.client.post::<serde_json::Value>("/v1/services/web/abort", &json!({}));
    assert_eq!(abort.unwrap_err().code, ErrorCode::MigrationNotFound);
}

#[test]
fn pairing_shows_both_fingerprints_and_works_once() {
    let lab = Lab::strangers([], []);
    let invite: InviteView = lab.a.client.post("/v1/sites/invite", &json!({})).unwrap();
    assert_eq!(invite.fingerprint, lab.a.fingerprint());
    let own =
        lab.a.client.post::<AcceptedView>("/v1/sites/accept", &json!({"token": invite.token})).unwrap_err();
    assert_eq!(own.code, ErrorCode::BadRequest, "{own}");
    let accept = || lab.b.client.post::<AcceptedView>("/v1/sites/accept", &json!({"token": invite.token}));
    let accepted = accept().unwrap();
    assert_eq!((accepted.site.name.as_str(), accepted.site.fingerprint), ("a", lab.a.fingerprint()));
    assert_eq!(accepted.fingerprint, lab.b.fingerprint());
    assert!(accepted.site.we_can_dial && accepted.site.they_can_dial);
    accept().expect("the same site may come again: its answer may have been lost");

    let at_a: Vec<PairedView> = lab.a.client.get("/v1/sites").unwrap();
    assert_eq!((at_a.len(), at_a[0].name.as_str(), at_a[0].fingerprint), (1, "b", lab.b.fingerprint()));
    let own: SiteView = lab.b.client.get("/v1/site").unwrap();
    assert_eq!((own.name.as_str(), own.fingerprint), ("b", lab.b.fingerprint()));

    // Unpaired, the used invite opens nothing any more.
    lab.a.client.delete("/v1/sites/b").unwrap();
    assert_eq!(accept().unwrap_err().code, ErrorCode::Refused);
    let bad = lab.b.client.post::<AcceptedView>("/v1/sites/accept", &json!({"token": "ums1-nonsense"}));
    assert_eq!(bad.unwrap_err().code, ErrorCode::BadRequest);
}

#[test]
fn a_name_is_given_to_one_site() {
    let mut lab = Lab::new([], []);
    // B comes back as somebody else, under the same name.
    lab.b.stop();
    std::fs::remove_dir_all(lab.b.config.state_dir.join("identity")).unwrap();
    lab.b.start([]);
    let invite: InviteView = lab.a.client.post("/v1/sites/invite", &json!({})).unwrap();
    let accept = || lab.b.client.post::<AcceptedView>("/v1/sites/accept", &json!({"token": invite.token}));
    let error = accept().unwrap_err();
    assert!(error.code == ErrorCode::Refused && error.message.contains("another site called b"), "{error}");
    lab.a.client.delete("/v1/sites/b").unwrap();
    accept().unwrap();
}

/// An expired invite is as good as none.
#[test]
fn an_invite_expires() {
    let mut lab = Lab::strangers([], []);
    lab.a.stop();
    lab.a.config.deadlines.invite = std::time::Duration::ZERO;
    lab.a.start([]);
    let invite: InviteView = lab.a.client.post("/v1/sites/invite", &json!({})).unwrap();
    let error =
        lab.b.client.post::<AcceptedView>("/v1/sites/accept", &json!({"token": invite.token})).unwrap_err();
    assert!(error.code == ErrorCode::Refused && error.message.contains("expired"), "{error}");
}

/// Where the journal would be forgotten, a site does not start unless it is told to.
#[test]
fn volatile_storage_is_refused() {
    let mut lab = Lab::strangers([], []);
    lab.a.stop();
    lab.a.fake.is_volatile();
    let mut config = lab.a.config.clone();
    config.allow_volatile = false;
    let start = crate::Coordinator::start(config, lab.a.fake.clone(), std::future::pending());
    let error = lab.runtime.block_on(start).unwrap_err();
    assert!(matches!(error, crate::StartError::Volatile { .. }), "{error}");
    lab.a.config.allow_volatile = true;
    lab.a.start([]);
}

/// One state directory, one daemon.
#[test]
fn a_second_daemon_is_refused() {
    let lab = Lab::strangers([], []);
    let mut config = lab.a.config.clone();
    config.deadlines.drain = std::time::Duration::from_millis(50);
    let start = crate::Coordinator::start(config, lab.a.fake.clone(), std::future::pending());
    let error = lab.runtime.block_on(start).unwrap_err();
    assert!(matches!(error, crate::StartError::Running { .. }), "{error}");
}
