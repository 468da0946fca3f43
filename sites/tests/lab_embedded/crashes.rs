//! Nests, keepers and daemons that die, and requests that come twice.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use ums_model::error::ErrorCode;
use ums_model::names::{Epoch, ServiceName};
use ums_model::spec::RestartPolicy;
use ums_sites::adapter::{CopyState, SiteAdapter};
use ums_sites::embedded::Embedded;

use crate::pair::{
    Pair, arm, assert_nothing_left, copy, dump, eventually, hold, kill, kill_nest, log_has, mounts,
    nest_below, restore, status_with,
};

const E: Epoch = Epoch(1);
/// Before anything moved.
const AT_HOME: Epoch = Epoch::ZERO;

#[tokio::test(flavor = "multi_thread")]
async fn lab_a_nest_that_dies_changes_nothing_and_every_request_may_come_twice() {
    let pair = Pair::new();
    let Pair { a, b, .. } = &pair;
    let name = pair.run("signals", &["signals"]).await;
    let before = a.status(&name).await.unwrap();
    kill_nest(a, &name).await;
    let after = a.status(&name).await.unwrap();
    assert_eq!((after.copy, after.pid), (CopyState::Running, before.pid));
    assert_eq!(after.since_unix_ms, before.since_unix_ms);

    arm(a, b, &name, E).await.unwrap();
    let (archive, dumped) = dump(a, &name, E).await;
    dumped.unwrap();
    kill_nest(a, &name).await;
    assert_eq!(copy(a, &name).await, CopyState::Frozen);
    restore(b, &name, E, &archive).await.unwrap();
    kill_nest(b, &name).await;
    assert_eq!(copy(b, &name).await, CopyState::Held);

    // Of another epoch: nothing of it is here, and what is here stays.
    assert_eq!(b.resume(&name, Epoch(2)).await.unwrap_err().code, ErrorCode::Refused);
    assert_eq!(a.release(&name, Epoch(2)).await.unwrap_err().code, ErrorCode::Refused);
    for _ in 0..2 {
        b.resume(&name, E).await.unwrap();
    }
    kill_nest(b, &name).await;
    assert_eq!(copy(b, &name).await, CopyState::Running);
    for _ in 0..2 {
        b.open(&name, E).await.unwrap();
    }
    assert_eq!(b.discard(&name, E).await.unwrap_err().code, ErrorCode::Refused, "it runs");
    for _ in 0..2 {
        a.release(&name, E).await.unwrap();
        a.discard(&name, E).await.unwrap();
    }
    b.signal(&name, 1).await.unwrap();
    log_has(b, &name, "HUP").await;
    assert_nothing_left(&pair.state("a"), 0xa1);
}

#[tokio::test(flavor = "multi_thread")]
async fn lab_a_rollback_lets_the_original_run_again_and_may_be_repeated() {
    let pair = Pair::new();
    let Pair { a, b, .. } = &pair;
    let name = pair.run("signals", &["signals"]).await;
    let before = a.status(&name).await.unwrap();
    hold(a, b, &name, E).await;
    for _ in 0..2 {
        b.discard(&name, E).await.unwrap();
        a.thaw(&name, E).await.unwrap();
    }
    assert_nothing_left(&pair.state("b"), 0xb1);
    let after = a.status(&name).await.unwrap();
    assert_eq!((after.copy, after.pid), (CopyState::Running, before.pid));
    a.signal(&name, 1).await.unwrap();
    log_has(a, &name, "HUP").await;
    // And the next attempt goes well.
    crate::pair::move_to(a, b, &name, Epoch(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lab_a_keeper_that_dies_takes_its_copy_along() {
    let pair = Pair::new();
    let Pair { a, b, .. } = &pair;
    let name = pair.run("signals", &["signals"]).await;
    let kill_keeper = async || kill(a.status(&name).await.unwrap().keeper_pid.unwrap());

    kill_keeper().await;
    status_with(a, &name, "it is dead", |status| status.copy == CopyState::Dead).await;
    let again = a.start(&name, AT_HOME).await.unwrap();
    assert_eq!(again.copy, CopyState::Running);
    // Both at once are one start.
    kill_keeper().await;
    status_with(a, &name, "it is dead", |status| status.copy == CopyState::Dead).await;
    let (one, other) = tokio::join!(a.start(&name, AT_HOME), a.start(&name, AT_HOME));
    assert_eq!(one.unwrap().keeper_pid, other.unwrap().keeper_pid);

    // Frozen: nobody may run it, and it goes away on the word of the Coordinator.
    hold(a, b, &name, E).await;
    kill_keeper().await;
    status_with(a, &name, "it is dead", |status| status.copy == CopyState::Dead).await;
    assert_eq!(a.start(&name, AT_HOME).await.unwrap_err().code, ErrorCode::Refused);
    let held = b.status(&name).await.unwrap().keeper_pid.unwrap();
    kill(held);
    status_with(b, &name, "it is dead", |status| status.copy == CopyState::Dead).await;
    b.discard(&name, E).await.unwrap();
    a.release(&name, E).await.unwrap();
    assert_nothing_left(&pair.state("a"), 0xa1);
    assert_nothing_left(&pair.state("b"), 0xb1);
}

#[tokio::test(flavor = "multi_thread")]
async fn lab_exits_are_recorded_and_restarts_follow_the_policy() {
    let pair = Pair::new();
    let Pair { a, .. } = &pair;
    let mut spec = pair.spec("fails", &["exit", "--code", "3"]).await;
    a.run(&spec).await.unwrap();
    let status = status_with(a, &spec.name, "it has ended", |status| status.exit_code.is_some()).await;
    assert_eq!((status.copy, status.exit_code), (CopyState::Dead, Some(3)));

    // Killed from outside, again and again.
    let mut lasting = pair.spec("lasting", &["signals"]).await;
    lasting.restart = RestartPolicy::Always;
    let mut pid = a.run(&lasting).await.unwrap().pid;
    for _ in 0..2 {
        kill(pid.unwrap());
        let revived = |status: &ums_sites::adapter::ServiceStatus| {
            status.copy == CopyState::Running && status.pid.is_some() && status.pid != pid
        };
        pid = status_with(a, &lasting.name, "it runs again", revived).await.pid;
        kill_nest(a, &lasting.name).await;
    }
    let stopped = a.stop(&lasting.name, Duration::ZERO).await.unwrap();
    assert_eq!((stopped.copy, stopped.exit_code), (CopyState::Dead, Some(137)));
    kill_nest(a, &lasting.name).await;
    assert_eq!(copy(a, &lasting.name).await, CopyState::Dead, "it was stopped by its owner");

    spec.name = "nothing".parse().unwrap();
    spec.command = vec!["/bin/no-such-program".into()];
    assert_eq!(a.run(&spec).await.unwrap_err().code, ErrorCode::BadRequest);
    assert_eq!(a.list().await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn lab_a_nest_that_dies_in_the_middle_leaves_what_its_record_grants() {
    let pair = Pair::new();
    let Pair { a, b, .. } = &pair;
    let name = pair.run("hog", &["memhog", "--mib", "64"]).await;
    let pid = a.status(&name).await.unwrap().pid;
    let mounted = mounts(a, &name).await;

    // In the middle of a dump: nobody can have committed.
    let mut dumping = a.dump(&name, E).await.unwrap();
    dumping.stream.read_exact(&mut [0; 4096]).await.unwrap();
    kill_nest(a, &name).await;
    dumping.done.await.unwrap_err();
    let after = status_with(a, &name, "it runs", |status| status.copy == CopyState::Running).await;
    assert_eq!((after.pid, after.epoch), (pid, E));
    assert_eq!(mounts(a, &name).await, mounted);

    // In the middle of a restore: it was never HELD.
    let epoch = Epoch(2);
    arm(a, b, &name, epoch).await.unwrap();
    let (archive, dumped) = dump(a, &name, epoch).await;
    dumped.unwrap();
    let mut restoring = b.restore(&name, epoch).await.unwrap();
    restoring.stream.write_all(&archive[..archive.len() / 2]).await.unwrap();
    kill_nest(b, &name).await;
    drop(restoring.stream);
    restoring.done.await.unwrap_err();
    assert_eq!(copy(b, &name).await, CopyState::Dead);
    b.discard(&name, epoch).await.unwrap();
    assert_nothing_left(&pair.state("b"), 0xb1);

    // Between the record and the deed: it may run, so it does.
    assert_eq!(copy(a, &name).await, CopyState::Frozen);
    let record = pair.state("a").join("services/hog/right.json");
    std::fs::write(&record, r#"{"epoch":2,"right":"run"}"#).unwrap();
    kill_nest(a, &name).await;
    let after = status_with(a, &name, "it runs", |status| status.copy == CopyState::Running).await;
    assert_eq!((after.pid, after.epoch), (pid, epoch));

    // Armed, and nothing has come yet.
    arm(a, b, &name, Epoch(3)).await.unwrap();
    kill_nest(b, &name).await;
    assert_eq!(copy(b, &name).await, CopyState::Prepared);
    restore(b, &name, Epoch(3), &archive).await.unwrap_err();
    b.discard(&name, Epoch(3)).await.unwrap();
    assert_nothing_left(&pair.state("b"), 0xb1);
    crate::pair::move_to(a, b, &name, Epoch(4)).await;
}

/// A dead copy whose nest may run it: it would be started again, by its restart policy or by whoever asks.
#[tokio::test(flavor = "multi_thread")]
async fn lab_a_dead_copy_that_is_frozen_is_started_only_by_a_newer_word_or_at_home() {
    let pair = Pair::new();
    let Pair { a, .. } = &pair;
    let name = pair.run("signals", &["signals"]).await;
    for (with_keeper, newer) in [(true, true), (false, true), (true, false), (false, false)] {
        let status = a.status(&name).await.unwrap();
        let (home, epoch) = (status.epoch, status.epoch.next());
        kill(if with_keeper { status.pid.unwrap() } else { status.keeper_pid.unwrap() });
        status_with(a, &name, "it is dead", |status| status.copy == CopyState::Dead).await;
        for _ in 0..2 {
            a.freeze(&name, epoch).await.unwrap();
        }
        if with_keeper {
            kill_nest(a, &name).await;
        }
        assert_eq!(a.start(&name, home).await.unwrap_err().code, ErrorCode::Refused);
        assert_eq!(
            a.thaw(&name, epoch).await.unwrap_err().code,
            ErrorCode::Refused,
            "a word that comes late"
        );
        assert_eq!(copy(a, &name).await, CopyState::Dead);
        if newer {
            a.thaw(&name, epoch.next()).await.unwrap();
        }
        // The freeze may have been one that a dead Coordinator had asked for.
        assert_eq!(a.start(&name, epoch).await.unwrap().copy, CopyState::Running);
    }
    a.remove(&name, true).await.unwrap();
    a.freeze(&name, E).await.unwrap();
    assert_nothing_left(&pair.state("a"), 0xa1);
}

#[tokio::test(flavor = "multi_thread")]
async fn lab_without_a_nest_a_copy_is_looked_at_from_outside_and_without_a_record_it_has_no_nest() {
    let pair = Pair::new();
    let Pair { a, .. } = &pair;
    let name = pair.run("signals", &["signals"]).await;
    let record = pair.state("a").join("services/signals/right.json");
    let kept = std::fs::read(&record).unwrap();
    std::fs::remove_file(&record).unwrap();
    let keeper = a.status(&name).await.unwrap().keeper_pid.unwrap();
    kill(crate::pair::nest_below(keeper).unwrap());
    // It runs, and whoever asks must not be told that it is dead; and one such service does not hide the others.
    assert_eq!(copy(a, &name).await, CopyState::Running);
    assert_eq!(a.list().await.unwrap().len(), 1);
    std::fs::write(&record, kept).unwrap();
    status_with(a, &name, "its nest is back", |status| status.pid.is_some()).await;
    // By force it goes even so.
    std::fs::remove_file(&record).unwrap();
    kill(crate::pair::nest_below(keeper).unwrap());
    a.remove(&name, true).await.unwrap();
    assert_nothing_left(&pair.state("a"), 0xa1);
}

#[tokio::test(flavor = "multi_thread")]
async fn lab_before_the_word_nothing_leaves_a_copy_and_nobody_starts_it_again() {
    let pair = Pair::new();
    let Pair { a, b, .. } = &pair;
    let mut spec = pair.spec("lasting", &["signals"]).await;
    spec.restart = RestartPolicy::Always;
    let name = spec.name.clone();
    a.run(&spec).await.unwrap();
    hold(a, b, &name, E).await;
    b.resume(&name, E).await.unwrap();
    let fenced = async || {
        let pid = b.status(&name).await.unwrap().pid.unwrap().to_string();
        let tables = std::process::Command::new("nsenter")
            .args(["-t", &pid, "-n", "nft", "list", "tables"])
            .output()
            .unwrap();
        assert!(tables.status.success());
        String::from_utf8(tables.stdout).unwrap().contains("ums_fence")
    };
    assert!(fenced().await);
    kill_nest(b, &name).await;
    assert!(fenced().await, "its nest was started again");
    b.open(&name, E).await.unwrap();
    assert!(!fenced().await);
    kill_nest(b, &name).await;
    assert!(!fenced().await);
    let pid = b.status(&name).await.unwrap().pid;
    kill(pid.unwrap());
    let revived = |status: &ums_sites::adapter::ServiceStatus| status.pid.is_some() && status.pid != pid;
    status_with(b, &name, "it runs again", revived).await;
    a.release(&name, E).await.unwrap();

    // What was restored and dies before the word is refused: the source still has its original, which runs again. What
    // would be started here would be a second one.
    let epoch = Epoch(2);
    hold(b, a, &name, epoch).await;
    a.resume(&name, epoch).await.unwrap();
    kill(a.status(&name).await.unwrap().pid.unwrap());
    status_with(a, &name, "it is dead", |status| status.copy == CopyState::Dead).await;
    // The nest that would start it again by its policy looks before it serves anybody.
    kill_nest(a, &name).await;
    assert_eq!(copy(a, &name).await, CopyState::Dead);
    let record = std::fs::read_to_string(pair.state("a").join("services/lasting/right.json")).unwrap();
    assert!(serde_json::from_str::<ums_model::nest::Record>(&record).is_ok_and(|record| !record.may_start()));
    a.discard(&name, epoch).await.unwrap();
    assert_nothing_left(&pair.state("a"), 0xa1);
    b.thaw(&name, epoch).await.unwrap();
    assert_eq!(copy(b, &name).await, CopyState::Running);
}

/// Nobody is left who knows how the dump ended: what CRIU was doing to the service cannot be ruled out.
#[tokio::test(flavor = "multi_thread")]
async fn lab_a_dump_that_lost_criu_and_nest_stands_still_until_it_is_begun_anew() {
    let pair = Pair::new();
    let Pair { a, .. } = &pair;
    let name = pair.run("signals", &["signals"]).await;
    let before = a.status(&name).await.unwrap();
    let (service, keeper) = (before.pid.unwrap(), before.keeper_pid.unwrap());
    // A dump that has ended before it could be caught has harmed nobody: the next one is tried.
    let mut epoch = E;
    while lose_criu(a, &name, epoch, (service, keeper), Also::Nest).await != Lost::AndHarmed {
        // Its End may have arrived.
        a.thaw(&name, epoch).await.unwrap();
        epoch = epoch.next();
        assert!(epoch.0 < 20, "no dump could be caught in its middle");
    }
    status_with(a, &name, "it stands still", |status| status.copy == CopyState::Dead).await;
    let refused = a.thaw(&name, epoch).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Stuck, "{refused}");
    assert!(refused.message.contains("ended in the middle of a dump"), "{refused}");
    // Nor is it dumped again, which would end the doubt, or move it.
    assert!(!a.service_facts(&name).await.unwrap().running);
    let (_, again) = dump(a, &name, epoch.next()).await;
    assert_eq!(again.unwrap_err().code, ErrorCode::Stuck);
    assert_eq!(copy(a, &name).await, CopyState::Dead);
    kill_nest(a, &name).await;
    assert_eq!(copy(a, &name).await, CopyState::Dead);

    let anew = a.start(&name, AT_HOME).await.unwrap();
    assert!(anew.copy == CopyState::Running && anew.pid != Some(service), "{anew:?}");
    let (_, dumped) = dump(a, &name, epoch.next()).await;
    dumped.unwrap();
}

/// The nest that sees that nobody takes the images any more still waits for CRIU, and so can mend what a killed one leaves.
#[tokio::test(flavor = "multi_thread")]
async fn lab_a_dump_that_lost_the_link_and_then_criu_lets_only_a_whole_copy_run() {
    let pair = Pair::new();
    let Pair { a, .. } = &pair;
    let name = pair.run("signals", &["signals"]).await;
    let (mut whole, mut harmed, mut caught) = (0, 0, 0);
    for epoch in (1..=12).map(Epoch) {
        let status = a.status(&name).await.unwrap();
        let (service, keeper) = (status.pid.unwrap(), status.keeper_pid.unwrap());
        let lost = lose_criu(a, &name, epoch, (service, keeper), Also::Link).await;
        caught += u32::from(lost != Lost::Not);
        if lost == Lost::AndHarmed {
            harmed += 1;
            assert_eq!(copy(a, &name).await, CopyState::Dead);
            assert_eq!(a.thaw(&name, epoch).await.unwrap_err().code, ErrorCode::Stuck);
            assert_eq!(a.start(&name, AT_HOME).await.unwrap().copy, CopyState::Running);
        } else {
            whole += 1;
            let status = a.status(&name).await.unwrap();
            assert_eq!((status.copy, status.pid), (CopyState::Running, Some(service)));
            a.signal(&name, 1).await.unwrap();
        }
    }
    println!("{whole} whole, {harmed} harmed, {caught} of them met CRIU");
    assert!(caught > 0, "CRIU was never met");
    log_has(a, &name, "HUP").await;
}

/// Whoever takes the images may stand still for as long as the link lets it: neither the service nor a thaw waits for that.
#[tokio::test(flavor = "multi_thread")]
async fn lab_a_dump_whose_criu_dies_does_not_wait_for_who_takes_the_images() {
    let pair = Pair::new();
    let Pair { a, .. } = &pair;
    let name = pair.run("hog", &["memhog", "--mib", "256"]).await;
    let service = a.status(&name).await.unwrap().pid.unwrap();
    for epoch in (1..=20).map(Epoch) {
        let mut dumping = a.dump(&name, epoch).await.unwrap();
        // From the first bytes on there is more than anybody but a reader can hold.
        dumping.stream.read_exact(&mut [0; 64 << 10]).await.unwrap();
        let criu = tracer(service);
        if criu == 0 {
            // It was too fast. The End may have arrived.
            drop(dumping);
            a.thaw(&name, epoch).await.unwrap();
            continue;
        }
        kill_criu(criu);
        let thawed = tokio::time::timeout(Duration::from_secs(30), a.thaw(&name, epoch)).await;
        let thawed = thawed.expect("a thaw waits for who takes the images");
        let expected = if thawed.is_ok() { CopyState::Running } else { CopyState::Dead };
        assert_eq!(copy(a, &name).await, expected, "{thawed:?}");
        return;
    }
    panic!("no dump could be caught in its middle");
}

/// Who traces a process; 0 is nobody.
fn tracer(process: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("TracerPid:")).unwrap();
    line.trim().parse().unwrap()
}

/// It may have ended meanwhile, and then it has said so in its log.
fn kill_criu(pid: u32) {
    let _ = kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL);
}

/// What became of a dump's CRIU.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lost {
    /// It was too fast.
    Not,
    /// It was killed, and the copy goes on.
    AndWhole,
    /// It was killed, and the copy is not let go by a thaw.
    AndHarmed,
}

/// What goes away together with CRIU.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Also {
    Nest,
    Link,
}

/// Begins a dump, and kills CRIU as soon as it traces the service.
async fn lose_criu(
    site: &Embedded,
    name: &ServiceName,
    epoch: Epoch,
    (service, keeper): (u32, u32),
    also: Also,
) -> Lost {
    let nest = nest_below(keeper).unwrap();
    let dumping = site.dump(name, epoch).await.unwrap();
    let started = Instant::now();
    let criu = loop {
        match tracer(service) {
            0 if started.elapsed() > Duration::from_secs(5) => break 0,
            0 => std::hint::spin_loop(),
            criu => break criu,
        }
    };
    let mut dumping = Some(dumping);
    if also == Also::Link {
        dumping = None;
    }
    if criu != 0 {
        if also == Also::Nest {
            kill(nest);
        }
        kill_criu(criu);
    }
    drop(dumping);
    eventually("there is another nest", async || {
        let is_there = |found| criu == 0 || also == Also::Link || found != nest;
        nest_below(keeper).is_some_and(is_there) && site.status(name).await.is_ok()
    })
    .await;
    match (criu, site.thaw(name, epoch).await) {
        (0, Ok(())) => Lost::Not,
        (_, Ok(())) => Lost::AndWhole,
        (_, Err(_)) => Lost::AndHarmed,
    }
}
