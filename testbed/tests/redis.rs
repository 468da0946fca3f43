//! The Redis load and the probe against a Redis on the loopback interface: they must find what is lost, wrong or late.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use ums_model::names::Bytes;
use ums_testbed::dial::Dialer;
use ums_testbed::probe::{Probe, Question};
use ums_testbed::redis::{Client, Fill, Load, LoadConfig, Reply};

/// For what must come: generous, because the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(20);

struct Redis {
    process: Child,
    address: SocketAddr,
}

/// The server of the machine, or else the one in the image that the migration tests use.
fn server() -> Result<Command> {
    if Command::new("redis-server").arg("--version").output().is_ok() {
        return Ok(Command::new("redis-server"));
    }
    let root = ums_testbed::rootfs::redis_rootfs()
        .context("no redis-server in the PATH (apt-get install redis-server), nor in an image")?;
    let mut command = Command::new("chroot");
    command.arg(root).arg("/usr/bin/redis-server");
    Ok(command)
}

impl Redis {
    fn start() -> Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let process = server()?
            .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
            .args(["--save", "", "--appendonly", "no"])
            .args(["--dir", "/tmp"])
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start redis-server")?;
        let redis = Self { process, address };
        redis.dialer().connect(PATIENCE, ums_testbed::redis::greet)?;
        Ok(redis)
    }

    fn dialer(&self) -> Dialer {
        Dialer::outside(vec![self.address])
    }

    fn client(&self) -> Result<Client> {
        Client::connect(&self.dialer(), PATIENCE)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.process.id().cast_signed()).context("a pid of 0")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Some key of the load.
    fn some_key(&self) -> Result<Vec<u8>> {
        let mut client = self.client()?;
        loop {
            if let Reply::Bulk(Some(key)) = client.call(&[b"RANDOMKEY"])?
                && key.starts_with(b"w:")
            {
                return Ok(key);
            }
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn everything_acknowledged_is_read_back_while_the_load_goes_on() {
    let redis = Redis::start().unwrap();
    let fill = Fill::put(&redis.dialer(), Bytes::mib(8), 1, PATIENCE).unwrap();
    assert!(fill.size() >= Bytes::mib(8));
    let mut load = Load::start(&redis.dialer(), &LoadConfig::default(), PATIENCE).unwrap();
    load.wait_for_more(1000, PATIENCE).unwrap();
    let verified = load.verify(&redis.dialer(), PATIENCE).unwrap();
    assert!(verified.present >= 1000, "{verified:?}");
    let report = load.stop();
    assert!(report.acknowledged >= verified.present);
    assert_eq!((report.refused, report.reconnects), (0, 0));
    let verified = load.verify(&redis.dialer(), PATIENCE).unwrap();
    assert_eq!(verified.present, report.acknowledged);
    assert_eq!(Bytes(fill.verify(&redis.dialer(), PATIENCE).unwrap().bytes), fill.size());
}

#[test]
fn a_lost_write_and_a_wrong_value_are_found() {
    let redis = Redis::start().unwrap();
    let mut load = Load::start(&redis.dialer(), &LoadConfig::default(), PATIENCE).unwrap();
    load.wait_for_more(100, PATIENCE).unwrap();
    load.stop();
    load.verify(&redis.dialer(), PATIENCE).unwrap();

    let key = redis.some_key().unwrap();
    redis.client().unwrap().call(&[b"DEL", &key]).unwrap();
    let error = load.verify(&redis.dialer(), PATIENCE).unwrap_err().to_string();
    assert!(error.starts_with("1 acknowledged writes are lost and 0 values are wrong"), "{error}");
    assert!(error.contains(&*String::from_utf8_lossy(&key)), "{error}");

    redis.client().unwrap().call(&[b"SET", &key, b"not what was written"]).unwrap();
    let error = load.verify(&redis.dialer(), PATIENCE).unwrap_err().to_string();
    assert!(error.starts_with("0 acknowledged writes are lost and 1 values are wrong"), "{error}");
}

#[test]
fn a_lost_value_of_the_fill_is_found() {
    let redis = Redis::start().unwrap();
    let fill = Fill::put(&redis.dialer(), Bytes::mib(1), 7, PATIENCE).unwrap();
    redis.client().unwrap().call(&[b"DEL", b"f:7:3"]).unwrap();
    let error = fill.verify(&redis.dialer(), PATIENCE).unwrap_err().to_string();
    assert!(error.contains("f:7:3"), "{error}");
}

#[test]
fn writes_that_nobody_answers_are_uncertain_and_the_connection_is_made_again() {
    let redis = Redis::start().unwrap();
    let config = LoadConfig { stall: Duration::from_millis(100), ..LoadConfig::default() };
    let mut load = Load::start(&redis.dialer(), &config, PATIENCE).unwrap();
    redis.signal(Signal::STOP).unwrap();
    let end = Instant::now() + PATIENCE;
    while load.report().uncertain == 0 || load.report().skipped == 0 {
        assert!(Instant::now() < end, "{:?}", load.report());
    }
    redis.signal(Signal::CONT).unwrap();
    load.wait_for_more(100, PATIENCE).unwrap();
    let report = load.stop();
    assert!(report.reconnects >= 1, "{report:?}");
    let verified = load.verify(&redis.dialer(), PATIENCE).unwrap();
    assert_eq!(verified.present, report.acknowledged);
    assert_eq!(verified.uncertain_present + verified.uncertain_absent, report.uncertain);
}

#[test]
fn the_probe_sees_how_long_nobody_answered() {
    let redis = Redis::start().unwrap();
    let probe = Probe::start(&redis.dialer(), Question::RedisPing, PATIENCE, PATIENCE).unwrap();
    let from = Instant::now();
    redis.signal(Signal::STOP).unwrap();
    let stopped = Instant::now();
    std::thread::sleep(Duration::from_millis(150));
    let away = stopped.elapsed();
    let before_the_end = Instant::now();
    assert_eq!(probe.downtime(from, before_the_end), None, "the end of the downtime is not known yet");
    redis.signal(Signal::CONT).unwrap();
    probe.wait_for_answer(PATIENCE).unwrap();
    let downtime = probe.downtime(from, before_the_end).unwrap();
    // An answer may have been on its way when Redis was stopped, hence not quite all of it.
    assert!(downtime >= away / 2, "{downtime:?} of {away:?}");
    assert_eq!(probe.reconnects(), 0);
}
