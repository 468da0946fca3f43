//! A stock Redis under load: no acknowledged write is lost.

use ums_model::names::Bytes;
use ums_model::phase::Outcome;
use ums_testbed::net::{A, B};
use ums_testbed::redis::{Fill, Load, LoadConfig};
use ums_testbed::workload::Workload;

use crate::PATIENCE;
use crate::histories::agreed;
use crate::rig::Rig;

#[test]
fn redis_moves_three_times_and_keeps_every_acknowledged_write() {
    let rig = &Rig::new().unwrap();
    let redis = rig.start(A, &Workload::Redis).unwrap();
    let dialer = redis.dialer().unwrap();
    let fill = Fill::put(&dialer, Bytes::mib(16), 7, PATIENCE).unwrap();
    let mut load = Load::start(&dialer, &LoadConfig::default(), PATIENCE).unwrap();
    for destination in [B, A, B] {
        load.wait_for_more(2000, PATIENCE).unwrap();
        redis.migrate(destination).unwrap();
        load.wait_for_more(2000, PATIENCE).unwrap();
        load.verify(&dialer, PATIENCE).unwrap();
        fill.verify(&dialer, PATIENCE).unwrap();
    }
    let report = load.stop();
    assert!(report.acknowledged > 12_000 && report.refused == 0, "{report:?}");
    let verified = load.verify(&dialer, PATIENCE).unwrap();
    assert_eq!(verified.present, report.acknowledged);
    assert_eq!(agreed(rig, redis.name()).unwrap(), Outcome::Done);
}
