//! A site, a place and a service's namespace, made for real and looked at with packets. Needs root, iproute2, nftables
//! and util-linux. Everything happens in mount and network namespaces of its own, so nothing can be left on the host.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::thread::move_into_link_name_space;
use ums_frontman::layout::PlaceLayout;
use ums_frontman::{Deadlines, fence, host, place};
use ums_model::spec::InnerNetwork;

/// Set in the process that has the namespaces.
const INSIDE: &str = "UMS_FRONTMAN_INSIDE";
/// How long a connection may take to come about; one that is dropped never does.
const CONNECT: Duration = Duration::from_millis(400);
const PATIENCE: Duration = Duration::from_secs(10);
/// Where the service listens, and where the site publishes it.
const CONTAINER: u16 = 80;
const HOST: u16 = 8080;

#[test]
fn lab_a_place_carries_packets_as_far_as_fence_and_site_let_them() {
    if std::env::var_os(INSIDE).is_none() {
        let status = Command::new("unshare")
            .args(["--mount", "--net", "--"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "lab_a_place_carries_packets_as_far_as_fence_and_site_let_them", "--nocapture"])
            .env(INSIDE, "1")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    must("mount", &["-t", "tmpfs", "tmpfs", "/run"]);
    must("ip", &["link", "set", "lo", "up"]);
    let keeper = Keeper::start();
    let layout = PlaceLayout {
        service: "my-web".parse().unwrap(),
        site: "0123abcd".into(),
        index: 5,
        ports: vec![format!("{HOST}:{CONTAINER}").parse().unwrap()],
        inner: InnerNetwork::default(),
        resolver: None,
    };

    // Everything twice: it has to be safe to repeat.
    for _ in 0..2 {
        assert!(!run(host::is_connected(&layout, &Deadlines::default())));
        for _ in 0..2 {
            run(host::connect(&layout, keeper.pid(), &Deadlines::default()));
        }
        assert!(run(host::is_connected(&layout, &Deadlines::default())));
        assert_eq!(run(host::taken(&Deadlines::default())), [5]);
        for _ in 0..2 {
            within(&keeper.network(), || {
                run(place::build(&layout, place::Inner::Make, &Deadlines::default()));
            });
        }
        host_and_fence(&layout);
        for _ in 0..2 {
            run(host::disconnect(&layout, &Deadlines::default()));
        }
        assert_eq!(said("nft", &["list", "tables"]), "");
        assert!(!said("ip", &["link", "show"]).contains(&layout.link()));
    }
    pieces_are_made_again(&keeper, &layout);
}

fn host_and_fence(layout: &PlaceLayout) {
    let service = Listener::start(place::inner_namespace(), SocketAddr::from(([0, 0, 0, 0], CONTAINER)));
    let outside = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let outside_port = outside.local_addr().unwrap().port();
    // From the service to the site, at the address of its own link.
    let out = || {
        let address = SocketAddr::from((layout.host_address(), outside_port));
        within(&place::inner_namespace(), || TcpStream::connect_timeout(&address, CONNECT).is_ok())
    };
    let into = || echoes(SocketAddr::from((Ipv4Addr::LOCALHOST, HOST)));
    let link = || echoes(SocketAddr::from((layout.host_address(), HOST)));

    assert!(!into(), "nothing is published yet");
    assert!(out(), "the service can reach out");
    for _ in 0..2 {
        run(host::publish(layout, &Deadlines::default()));
    }
    eventually("it is published on the loopback", into);
    assert!(link(), "and at the site's other addresses");
    for _ in 0..2 {
        run(host::withdraw(layout, &Deadlines::default()));
    }
    assert!(!into(), "it was withdrawn");
    assert!(out(), "the service can still reach out");
    run(host::publish(layout, &Deadlines::default()));

    assert!(!run(fence::is_closed(&Deadlines::default())));
    // A connection that exists hears nothing any more either, and goes on when the fence opens.
    let mut established = TcpStream::connect((Ipv4Addr::LOCALHOST, HOST)).unwrap();
    established.set_read_timeout(Some(CONNECT)).unwrap();
    established.write_all(b"x").unwrap();
    established.read_exact(&mut [0]).unwrap();
    for _ in 0..2 {
        run(fence::close(&Deadlines::default()));
    }
    assert!(run(fence::is_closed(&Deadlines::default())));
    assert!(!into(), "nothing comes in");
    assert!(!out(), "nothing goes out");
    established.write_all(b"x").unwrap();
    assert!(established.read(&mut [0]).is_err(), "an existing connection is silent");
    let own = SocketAddr::from((Ipv4Addr::LOCALHOST, CONTAINER));
    assert!(within(&place::inner_namespace(), || echoes(own)), "the service can talk to itself");
    for _ in 0..2 {
        run(fence::open(&Deadlines::default()));
    }
    assert!(!run(fence::is_closed(&Deadlines::default())));
    established.set_read_timeout(Some(PATIENCE)).unwrap();
    established.read_exact(&mut [0]).unwrap();
    assert!(into() && out());
    service.stop();
}

/// A nest that was killed while it built leaves a part; the next one makes the rest.
fn pieces_are_made_again(keeper: &Keeper, layout: &PlaceLayout) {
    run(host::connect(layout, keeper.pid(), &Deadlines::default()));
    run(host::publish(layout, &Deadlines::default()));
    let build =
        || within(&keeper.network(), || run(place::build(layout, place::Inner::Make, &Deadlines::default())));
    let works = |what: &str| {
        build();
        let service = Listener::start(place::inner_namespace(), SocketAddr::from(([0, 0, 0, 0], CONTAINER)));
        eventually(what, || echoes(SocketAddr::from((Ipv4Addr::LOCALHOST, HOST))));
        service.stop();
    };
    works("everything is there");
    within(&keeper.network(), || must("ip", &["link", "delete", "in0"]));
    works("without the link of the service");
    must("ip", &["-netns", "inner", "route", "flush", "table", "main"]);
    must("ip", &["-netns", "inner", "address", "flush", "dev", "eth0"]);
    works("without addresses");
    within(&keeper.network(), || must("ip", &["link", "delete", "in0"]));
    must("umount", &["/run/netns/inner"]);
    assert!(place::inner_namespace().exists());
    works("without a namespace behind its name");
    // An uplink that was plugged in anew.
    run(host::connect(layout, keeper.pid(), &Deadlines::default()));
    run(host::publish(layout, &Deadlines::default()));
    works("with another uplink");
}

/// A process in a network namespace of its own: the place.
struct Keeper(Child);

impl Keeper {
    fn start() -> Self {
        let child = Command::new("unshare").args(["--net", "sleep", "600"]).spawn().unwrap();
        let keeper = Self(child);
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        eventually("the place has a namespace", || {
            std::fs::read_link(keeper.network()).is_ok_and(|found| found != own)
        });
        keeper
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn network(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.pid()).into()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A service that sends back what it receives.
struct Listener {
    namespace: PathBuf,
    address: SocketAddr,
    thread: std::thread::JoinHandle<()>,
}

impl Listener {
    fn start(namespace: PathBuf, address: SocketAddr) -> Self {
        let listener = within(&namespace, || TcpListener::bind(address).unwrap());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut first = [0];
                match stream.read_exact(&mut first) {
                    Ok(()) if first == *b"q" => return,
                    // One at a time would be held up by a connection that says nothing.
                    _ => drop(std::thread::spawn(move || {
                        let _ = stream.write_all(&first);
                        let _ = std::io::copy(&mut stream.try_clone().unwrap(), &mut stream);
                    })),
                }
            }
        });
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()));
        Self { namespace, address, thread }
    }

    fn stop(self) {
        within(&self.namespace, || TcpStream::connect(self.address).unwrap().write_all(b"q").unwrap());
        self.thread.join().unwrap();
    }
}

/// Whether a byte comes back from there.
fn echoes(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<u8> {
        let mut stream = TcpStream::connect_timeout(&address, CONNECT)?;
        stream.set_read_timeout(Some(CONNECT))?;
        stream.write_all(b"e")?;
        let mut answer = [0];
        stream.read_exact(&mut answer)?;
        Ok(answer[0])
    };
    ask().is_ok_and(|answer| answer == b'e')
}

/// Does something in another network namespace, and so do the processes that it starts.
fn within<T: Send>(namespace: &Path, work: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(namespace).unwrap();
    std::thread::scope(|scope| {
        let work = move || {
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), None).unwrap();
            work()
        };
        scope.spawn(work).join().unwrap()
    })
}

/// On this thread, whose network namespace counts.
fn run<T, E: std::fmt::Debug>(work: impl Future<Output = Result<T, E>>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(work).unwrap()
}

fn must(program: &str, args: &[&str]) {
    assert!(Command::new(program).args(args).status().unwrap().success(), "{program} {args:?}");
}

fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).stderr(Stdio::inherit()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn eventually(what: &str, wanted: impl Fn() -> bool) {
    let started = Instant::now();
    while !wanted() {
        assert!(started.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
