//! Many services at once: a site is emptied.

use serde_json::Value;
use ums_model::error::ErrorCode;
use ums_testbed::net::{A, B};
use ums_testbed::workload::Workload;

use crate::rig::Rig;
use crate::verdict::failed;

fn results(answer: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let services = answer["services"].as_array().cloned().unwrap_or_default();
    let mut results: Vec<_> =
        services.iter().map(|service| (text(&service["service"]), text(&service["result"]))).collect();
    results.sort();
    results
}

#[test]
fn a_site_is_drained_and_what_cannot_move_stays_and_says_why() {
    let rig = &Rig::new().unwrap();
    let services: Vec<_> = (0..4).map(|_| rig.start(A, &Workload::counter()).unwrap()).collect();
    let ended = rig.start(A, &Workload::counter()).unwrap();
    rig.a().ums(&["stop", ended.name()]).unwrap().success().unwrap();
    let elsewhere = rig.a().ums(&["drain", "b", "--to", "a"]).unwrap();
    failed(&elsewhere, 2, ErrorCode::BadRequest, &["site a", "not to b"]).unwrap();

    let planned = rig.a().ums(&["drain", "a", "--to", "b", "--plan"]).unwrap().success().unwrap();
    let planned = results(planned.result().unwrap());
    assert_eq!(planned.iter().filter(|(_, result)| result == "can-move").count(), 4, "{planned:?}");
    assert!(
        services.iter().all(|service| rig.a().service_pid(service.name()).is_ok()),
        "a plan moves nothing"
    );

    let drained = rig.a().ums(&["drain", "a", "--to", "b", "--parallel", "3"]).unwrap().success().unwrap();
    let drained = results(drained.result().unwrap());
    assert_eq!(drained.iter().filter(|(_, result)| result == "moved").count(), 4, "{drained:?}");
    assert_eq!(drained.iter().filter(|(_, result)| result == "skipped").count(), 1, "{drained:?}");
    for service in &services {
        assert_eq!(service.settle().unwrap(), B);
        service.check().unwrap();
    }

    // Where they cannot go they stay.
    let (first, last) = (&services[0], &services[3]);
    let blocked = rig.b().ums(&["drain", "b", "--to", "nowhere"]).unwrap();
    assert_eq!(blocked.code, Some(1), "{blocked:?}");
    assert!(rig.b().service_pid(first.name()).is_ok() && rig.b().service_pid(last.name()).is_ok());
}
