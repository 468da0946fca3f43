//! Who may use which route: every route, for every role, over TLS and over a socket of a group.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use hyper::Method;
use serde_json::{Value, json};
use ums_model::error::ErrorCode;

use super::Fake;
use super::client::Client;
use super::lab::Lab;
use super::users::over_tls;
use crate::api::table;
use crate::config::GroupSocket;
use crate::view::{TokenCreated, TokenRole, TokenView};

const ROLES: [TokenRole; 3] = [TokenRole::Viewer, TokenRole::Operator, TokenRole::Admin];

/// The path with something in it that there is not: nothing happens to anything.
fn path_of(pattern: &str) -> String {
    pattern.replace("{name}", "nobody").replace("{id}", "0198f0a4-0000-7000-8000-000000000001")
}

fn token(lab: &Lab, name: &str, role: TokenRole, expires_in_s: Option<u64>) -> TokenCreated {
    let body = json!({"name": name, "role": role, "expires_in_s": expires_in_s});
    lab.a.client.post("/v1/tokens", &body).unwrap()
}

/// Whether the door was shut; anything else that was answered came from behind it.
fn is_shut(status: u16, answer: &Value) -> bool {
    let by_the_door = status == 403 && answer["code"] == "refused";
    assert_eq!(by_the_door, answer["hint"].as_str().is_some_and(|hint| hint.contains("--role")), "{answer}");
    by_the_door
}

#[test]
fn every_route_for_every_role() {
    let lab = Lab::strangers([], []);
    let tokens = ROLES.map(|role| (role, token(&lab, role.as_str(), role, None).token));
    let mut shut = 0;
    for (method, pattern, needed) in table::<Fake>() {
        let (method, path) = (method.parse::<Method>().unwrap(), path_of(pattern));
        assert_eq!(over_tls(&lab, method.clone(), &path, None).0, 401, "{method} {path}");
        for (role, token) in &tokens {
            let (status, answer) = over_tls(&lab, method.clone(), &path, Some(token));
            assert_ne!(status, 401, "{method} {path}");
            assert_eq!(is_shut(status, &answer), *role < needed, "{method} {path} as {role:?}: {answer}");
            shut += usize::from(*role < needed);
        }
    }
    assert!(shut > 20, "a table that lets everybody do everything is none: {shut}");
}

#[test]
fn a_socket_for_a_group() {
    let mut lab = Lab::strangers([], []);
    lab.a.stop();
    let path = lab.dir.path().join("viewers.sock");
    lab.a.config.sockets =
        vec![GroupSocket { path: path.clone(), group: "12345".to_owned(), role: TokenRole::Viewer }];
    lab.a.start([]);
    let found = path.metadata().unwrap();
    assert_eq!((found.permissions().mode() & 0o777, found.gid()), (0o660, 12345));
    let viewer = Client::new(lab.runtime.handle(), &path);
    for (method, pattern, needed) in table::<Fake>() {
        let (status, text) = viewer.raw(method.parse().unwrap(), &path_of(pattern), None, &[]);
        // An endless stream has no JSON, and is nothing that is shut.
        let answer = serde_json::from_slice(&text).unwrap_or_default();
        assert_eq!(is_shut(status, &answer), TokenRole::Viewer < needed, "{method} {pattern}: {answer}");
    }
    lab.a.stop();
    assert!(!path.exists(), "its clients see that nobody is there");

    // A file that is no socket is somebody's, and a group must be one.
    std::fs::write(&path, "mine").unwrap();
    let start = |config| crate::Coordinator::start(config, lab.a.fake.clone(), std::future::pending());
    let error = lab.runtime.block_on(start(lab.a.config.clone())).unwrap_err();
    assert!(matches!(error, crate::StartError::NoSocket { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
}

#[test]
fn a_group_that_there_is_not() {
    let mut lab = Lab::strangers([], []);
    lab.a.stop();
    let path = lab.dir.path().join("operators.sock");
    let mut config = lab.a.config.clone();
    config.sockets = vec![GroupSocket { path, group: "no such group".to_owned(), role: TokenRole::Operator }];
    let start = crate::Coordinator::start(config, lab.a.fake.clone(), std::future::pending());
    let error = lab.runtime.block_on(start).unwrap_err();
    assert!(matches!(error, crate::StartError::NoGroup { .. }), "{error}");
    lab.a.start([]);
}

/// What an operator starts is the service's, not the host's.
#[test]
fn an_operator_is_not_the_root_of_the_host() {
    let mut lab = Lab::strangers([], []);
    lab.a.stop();
    let path = lab.dir.path().join("operators.sock");
    lab.a.config.sockets =
        vec![GroupSocket { path: path.clone(), group: "0".to_owned(), role: TokenRole::Operator }];
    lab.a.start([]);
    let operator = Client::new(lab.runtime.handle(), &path);
    for body in [
        json!({"name": "x", "image": {"rootfs": "/"}}),
        json!({"name": "x", "image": {"image": "/etc"}}),
        json!({"name": "x", "image": {"image": "../etc"}}),
        json!({"name": "x", "image": {"image": "redis"}, "user_namespace": false}),
    ] {
        let error = operator.post::<Value>("/v1/services", &body).unwrap_err();
        assert!(error.code == ErrorCode::Refused && error.message.contains("admin"), "{body}: {error}");
    }
    operator.post::<Value>("/v1/services", &json!({"name": "x", "image": {"image": "redis"}})).unwrap();
    operator.delete("/v1/services/x?force=true").unwrap();
}

#[test]
fn a_token_expires() {
    let lab = Lab::strangers([], []);
    let long = token(&lab, "long", TokenRole::Viewer, Some(3600));
    let over = token(&lab, "over", TokenRole::Viewer, Some(0));
    let for_ever = token(&lab, "for-ever", TokenRole::Viewer, Some(u64::MAX));
    let status = |token: &TokenCreated| over_tls(&lab, Method::GET, "/v1/site", Some(&token.token)).0;
    assert_eq!((status(&long), status(&over), status(&for_ever)), (200, 401, 200));
    let tokens: Vec<TokenView> = lab.a.client.get("/v1/tokens").unwrap();
    assert!(tokens.iter().all(|token| token.expires_unix_ms.is_some()), "{tokens:?}");
    assert_eq!(token(&lab, "old", TokenRole::Viewer, None).about.expires_unix_ms, None);
}

/// The word by which a role was called before.
#[test]
fn an_old_word_for_a_role() {
    let lab = Lab::strangers([], []);
    let body = json!({"name": "screen", "role": "read"});
    let made: TokenCreated = lab.a.client.post("/v1/tokens", &body).unwrap();
    assert_eq!(made.about.role, TokenRole::Viewer);
}
