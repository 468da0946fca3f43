//! The API, as clients see it.

use std::os::unix::fs::PermissionsExt;

use http_body_util::BodyExt;
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use ums_model::error::{ErrorCode, WireError};
use ums_model::spec::RestartPolicy;
use ums_sites::adapter::CopyState;
use ums_transfer::identity::Identity;
use ums_transfer::tls::{Dial, connect};

use super::client::{request, speak};
use super::lab::{Backup, Lab, wait_for, web};
use crate::view::{DoctorView, ServiceView, SiteView, TokenCreated, TokenView};

#[test]
fn a_service_lives_and_dies() {
    let lab = Lab::strangers([], []);
    let client = &lab.a.client;
    let body = json!({
        "name": "web", "image": {"image": "redis"}, "command": ["redis-server"], "env": [["A", "b"]],
        "workdir": null, "volumes": [{"name": "data", "path": "/data"}], "restart": "on-failure",
        "ports": [{"host": 80, "container": 8080}], "limits": {"memory": 1048576, "cpus": 1500},
    });
    let created: ServiceView = client.post("/v1/services", &body).unwrap();
    assert_eq!(
        (created.status.copy, created.status.spec.restart),
        (CopyState::Running, RestartPolicy::OnFailure)
    );
    let again = client.post::<Value>("/v1/services", &body).unwrap_err();
    assert_eq!(again.code, ErrorCode::NameTaken);

    let stopped: ServiceView = client.post("/v1/services/web/stop", &json!({"grace_ms": 1})).unwrap();
    assert_eq!(stopped.status.exit_code, Some(0));
    let started: ServiceView = client.post("/v1/services/web/start", &json!({})).unwrap();
    assert_eq!(started.status.copy, CopyState::Running);
    client.post::<Value>("/v1/services/web/signal", &json!({"signal": 1})).unwrap();

    let busy = client.delete("/v1/services/web").unwrap_err();
    assert_eq!(busy.code, ErrorCode::Busy);
    client.delete("/v1/services/web?force=true").unwrap();
    for path in ["/v1/services/web", "/v1/services/web/logs"] {
        assert_eq!(client.get::<Value>(path).unwrap_err().code, ErrorCode::ServiceNotFound);
    }
    let list: Vec<ServiceView> = client.get("/v1/services").unwrap();
    assert!(list.is_empty());
    // The name is free again.
    client.post::<Value>("/v1/services", &body).unwrap();
}

#[test]
fn a_service_that_does_not_start_leaves_nothing() {
    let lab = Lab::strangers([], []);
    let missing =
        lab.a.client.post::<Value>("/v1/services", &json!({"name": "web", "image": {"image": "missing"}}));
    assert_eq!(missing.unwrap_err().code, ErrorCode::ImageMissing);
    lab.a.fake.fail("run");
    assert!(lab.a.run("web").unwrap_err().message.contains("run fails"));
    let invalid = json!({"name": "web", "image": {"image": "redis"}, "env": [["", "x"]]});
    assert_eq!(
        lab.a.client.post::<Value>("/v1/services", &invalid).unwrap_err().code,
        ErrorCode::InvalidSpec
    );
    lab.a.run("web").unwrap();
}

/// A site that has services and no journal does not start by itself. Begun anew, a service that never migrated is at home.
#[test]
fn a_lost_journal_does_not_lose_a_service_that_never_moved() {
    let mut lab = Lab::new([], []);
    lab.a.stop();
    Backup::of(&lab.a).remove(&lab.a);
    let mut config = lab.a.config.clone();
    let start = |config| {
        let start = crate::Coordinator::start(config, lab.a.fake.clone(), std::future::pending());
        lab.runtime.block_on(start).unwrap_err()
    };
    for _ in 0..2 {
        let refused = start(config.clone());
        assert!(matches!(refused, crate::StartError::Lost { .. }), "{refused}");
        let told = refused.to_string();
        assert!(told.contains("(web)") && told.contains("--new-journal"), "{told}");
        assert!(!config.journal_path().exists(), "it must not be taken for one that is empty");
    }
    // Whether there are services must be known.
    config.deadlines.act = std::time::Duration::from_secs(5);
    lab.a.fake.fail("list");
    assert!(matches!(start(config), crate::StartError::Journal { .. }));

    lab.a.config.new_journal = true;
    lab.a.start([]);
    lab.a.stop();
    lab.a.config.new_journal = false;
    lab.a.start([]);
    lab.b.client.delete("/v1/sites/a").unwrap();
    lab.pair();
    lab.a.end_of(lab.a.migrate("web", "b").unwrap());
    assert_eq!(lab.settled_at(), "b");
}

/// What is wrong with the journal is said, and no service is touched.
#[test]
fn a_damaged_journal_is_told() {
    let mut lab = Lab::new([], []);
    lab.a.stop();
    let sql = "UPDATE records SET service = 'wen'";
    rusqlite::Connection::open(lab.a.config.journal_path()).unwrap().execute(sql, ()).unwrap();
    let start = crate::Coordinator::start(lab.a.config.clone(), lab.a.fake.clone(), std::future::pending());
    let told = lab.runtime.block_on(start).unwrap_err().to_string();
    assert!(told.contains("damaged: record 1") && told.contains("docs/decisions/journal.md"), "{told}");
    assert_eq!(lab.a.fake.memory(&web()).unwrap(), b"web");
}

/// Both sites keep an audit of what moved, each in its own words, and a reader may check it.
#[test]
fn the_audit_tells_who_gave_what_to_whom() {
    let lab = Lab::new([], []);
    let id = lab.a.migrate("web", "b").unwrap();
    lab.a.end_of(id);
    lab.b.end_of(id);
    for (node, role) in [(&lab.a, "source"), (&lab.b, "destination")] {
        let records: Vec<Value> = node.client.get("/v1/audit").unwrap();
        assert_eq!(records.len(), 1);
        let record = &records[0];
        assert_eq!(
            (&record["role"], &record["outcome"], &record["epoch"]),
            (&json!(role), &json!("done"), &json!(1))
        );
        assert_eq!(record["migration"], json!(id));
        let check: Value = node.client.get("/v1/audit/verify").unwrap();
        assert_eq!((&check["ok"], &check["head"]), (&json!(true), &record["hash"]));
        let kept = record["hash"].as_str().unwrap();
        let check: Value = node.client.get(&format!("/v1/audit/verify?head={kept}")).unwrap();
        assert_eq!(check["ok"], true);
        let other = "00".repeat(31) + "01";
        let check: Value = node.client.get(&format!("/v1/audit/verify?head={other}")).unwrap();
        assert_eq!((&check["ok"], &check["broken"]["seq"]), (&json!(false), &json!(2)));
        assert!(node.client.get::<Vec<Value>>("/v1/audit?after=1").unwrap().is_empty());
        let wrong = node.client.get::<Value>("/v1/audit/verify?head=abc").unwrap_err();
        assert_eq!(wrong.code, ErrorCode::BadRequest);
    }
}

#[test]
fn nonsense_is_told_in_our_own_words() {
    let lab = Lab::strangers([], []);
    let cases = [
        (Method::GET, "/v1/nothing", None, 404),
        (Method::PUT, "/v1/site", None, 405),
        (Method::GET, "/v1/services/..%2Fetc", None, 400),
        (Method::GET, "/v1/migrations/7", None, 400),
        (Method::GET, "/v1/migrations?limit=x", None, 400),
        (Method::GET, "/v1/plan?service=web", None, 400),
        (Method::POST, "/v1/migrations", Some(json!({"service": "web"})), 400),
        (
            Method::POST,
            "/v1/services",
            Some(json!({"name": "web", "image": {"image": "x"}, "prots": []})),
            400,
        ),
        (Method::POST, "/v1/services/web/exec", None, 400),
        (Method::POST, "/v1/tokens", Some(json!({"name": ""})), 400),
    ];
    for (method, path, body, expected) in cases {
        let (status, text) = lab.a.client.raw(method, path, body.as_ref(), &[]);
        let error: WireError = serde_json::from_slice(&text).unwrap_or_else(|_| panic!("{path}: {text:?}"));
        assert_eq!((status, error.code), (expected, ErrorCode::BadRequest), "{path}: {error}");
    }
}

#[test]
fn the_document_is_served() {
    let lab = Lab::strangers([], []);
    let document: Value = lab.a.client.get("/v1/openapi.json").unwrap();
    assert_eq!(document["openapi"], "3.1.0");
}

#[test]
fn only_the_owner_reaches_the_socket() {
    let lab = Lab::strangers([], []);
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&lab.a.config.socket_path()), 0o600);
    assert_eq!(mode(&lab.a.config.state_dir), 0o700);
    assert_eq!(mode(&lab.a.config.journal_path()), 0o600);
}

#[test]
fn the_doctor_looks_at_both() {
    let mut lab = Lab::new([], []);
    let doctor: DoctorView = lab.a.client.get("/v1/doctor").unwrap();
    assert!(doctor.ok && doctor.checks.iter().all(|check| check.ok), "{doctor:?}");
    lab.b.stop();
    let doctor: DoctorView = lab.a.client.get("/v1/doctor").unwrap();
    let peer = doctor.checks.iter().find(|check| check.name == "site b").unwrap();
    assert!(doctor.ok && !peer.ok && !peer.remedy.is_empty(), "{doctor:?}");
    lab.a.fake.has_memory(ums_model::names::Bytes::ZERO);
    assert_eq!(lab.a.client.get::<DoctorView>("/v1/doctor").unwrap().site.name.as_str(), "a");
}

/// One request over TLS, as from another machine.
pub(super) fn over_tls(lab: &Lab, method: Method, path: &str, token: Option<&str>) -> (u16, Value) {
    let address = lab.a.address().to_string();
    let identity = Identity::ephemeral().unwrap();
    // What it is now: it may have been given a new one.
    let key = lab.a.client.get::<SiteView>("/v1/site").unwrap().fingerprint;
    let bearer = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<(&str, &str)> = bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
    lab.runtime.block_on(async {
        let deadlines = lab.a.config.deadlines.link();
        let stream = connect(&address, &identity, Dial::Api(key), &deadlines).await.unwrap();
        let response = speak(stream).await.send_request(request(method, path, None, &headers)).await.unwrap();
        let status = response.status().as_u16();
        let text = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&text).unwrap_or_default())
    })
}

#[test]
fn over_tls_a_token_is_needed() {
    let lab = Lab::new([], []);
    let new = |body: Value| lab.a.client.post::<TokenCreated>("/v1/tokens", &body);
    let admin = new(json!({"name": "ci"})).unwrap();
    let reader = new(json!({"name": "screen", "role": "viewer"})).unwrap();
    assert_eq!(new(json!({"name": "ci"})).unwrap_err().code, ErrorCode::NameTaken);
    assert_ne!(admin.token, reader.token);

    let wrong = format!("{}x", admin.token);
    for token in [None, Some(""), Some("hunter2"), Some(wrong.as_str())] {
        let (status, error) = over_tls(&lab, Method::GET, "/v1/site", token);
        assert_eq!((status, error["code"].as_str()), (401, Some("refused")), "{token:?}");
        // Not even whether there is such a path.
        assert_eq!(over_tls(&lab, Method::GET, "/v1/nothing", token).0, 401);
    }
    let (status, site) = over_tls(&lab, Method::GET, "/v1/site", Some(&reader.token));
    assert_eq!((status, site["name"].as_str()), (200, Some("a")));
    assert_eq!(over_tls(&lab, Method::POST, "/v1/services/web/stop", Some(&reader.token)).0, 403);
    assert_eq!(over_tls(&lab, Method::POST, "/v1/services/web/stop", Some(&admin.token)).0, 200);

    let tokens: Vec<TokenView> = lab.a.client.get("/v1/tokens").unwrap();
    assert_eq!(tokens.iter().map(|token| token.name.as_str()).collect::<Vec<_>>(), ["ci", "screen"]);
    let journal = std::fs::read(lab.a.config.journal_path()).unwrap();
    let wal = std::fs::read(lab.a.config.journal_path().with_extension("db-wal")).unwrap_or_default();
    let holds = |file: &[u8]| file.windows(admin.token.len()).any(|window| window == admin.token.as_bytes());
    assert!(!holds(&journal) && !holds(&wal), "the token itself is kept");
    lab.a.client.delete("/v1/tokens/ci").unwrap();
    assert_eq!(over_tls(&lab, Method::GET, "/v1/site", Some(&admin.token)).0, 401);
    assert_eq!(lab.a.client.delete("/v1/tokens/ci").unwrap_err().code, ErrorCode::BadRequest);
}

#[test]
fn exec_leads_to_the_nest() {
    let lab = Lab::new([], []);
    lab.runtime.block_on(async {
        let headers = [("connection", "upgrade"), ("upgrade", "ums-exec")];
        let response = lab.a.client.send(Method::POST, "/v1/services/web/exec", None, &headers).await;
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        let mut nest = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        nest.write_all(b"echo").await.unwrap();
        let mut echo = [0; 4];
        nest.read_exact(&mut echo).await.unwrap();
        assert_eq!(&echo, b"echo");
        let response = lab.a.client.send(Method::POST, "/v1/services/nginx/exec", None, &headers).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
    });
}

#[test]
fn logs_are_read_and_followed() {
    let lab = Lab::new([], []);
    let log = lab.dir.path().join("a-logs/web");
    std::fs::write(&log, "one\ntwo\n").unwrap();
    let get = |path: &str| String::from_utf8(lab.a.client.raw(Method::GET, path, None, &[]).1).unwrap();
    assert_eq!(get("/v1/services/web/logs"), "one\ntwo\n");
    assert_eq!(get("/v1/services/web/logs?tail=1"), "two\n");
    lab.runtime.block_on(async {
        let response =
            lab.a.client.send(Method::GET, "/v1/services/web/logs?follow=true&tail=0", None, &[]).await;
        let mut body = response.into_body();
        let append = |text: &str| {
            use std::io::Write;
            std::fs::File::options().append(true).open(&log).unwrap().write_all(text.as_bytes()).unwrap();
        };
        append("three\n");
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "three\n");
        // Begun anew: the whole of the new file.
        std::fs::write(&log, "").unwrap();
        tokio::time::sleep(lab.a.config.deadlines.follow * 4).await;
        append("four\n");
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "four\n");
        std::fs::remove_file(&log).unwrap();
        assert!(body.frame().await.is_none(), "the log is gone");
    });
}

/// A daemon that ends lets its watchers go, and answers what it was asked.
#[test]
fn the_end_of_a_daemon_ends_its_streams() {
    let mut lab = Lab::new([], []);
    std::fs::write(lab.dir.path().join("a-logs/web"), "").unwrap();
    let following = lab.runtime.spawn({
        let client = lab.a.client.clone();
        async move {
            let response = client.send(Method::GET, "/v1/services/web/logs?follow=true", None, &[]).await;
            response.into_body().collect().await.map(|body| body.to_bytes().len())
        }
    });
    wait_for("the daemon to be asked", || {
        let _: ServiceView = lab.a.client.get("/v1/services/web").unwrap();
        Some(())
    });
    lab.a.stop();
    assert_eq!(lab.runtime.block_on(following).unwrap().unwrap(), 0);
    assert!(!lab.a.config.socket_path().exists());
    assert_eq!(lab.a.fake.copy(&web()), CopyState::Running, "its services live on");
}
