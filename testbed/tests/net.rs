//! The test network itself: what a cut, a delay and a loss do to packets.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::Result;
use ums_testbed::net::{A, B, Net, SiteIndex};
use ums_testbed::shaper::{BitRate, Cut, Loss, Shape};

/// Long enough for a packet that is on its way, short enough to wait for one that is not.
const SILENCE: Duration = Duration::from_millis(200);
/// For what must come: generous, because the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(10);

struct Ends {
    at_a: UdpSocket,
    at_b: UdpSocket,
}

impl Ends {
    fn new(net: &Net) -> Result<Self> {
        let open = |site: SiteIndex| net.site(site).run(|| UdpSocket::bind((net.address(site), 9000)));
        let (at_a, at_b) = (open(A)??, open(B)??);
        at_a.connect(at_b.local_addr()?)?;
        at_b.connect(at_a.local_addr()?)?;
        Ok(Self { at_a, at_b })
    }

    fn passes_to_b(&self) -> Result<bool> {
        passes(&self.at_a, &self.at_b)
    }

    fn passes_to_a(&self) -> Result<bool> {
        passes(&self.at_b, &self.at_a)
    }
}

fn passes(from: &UdpSocket, to: &UdpSocket) -> Result<bool> {
    from.send(b"x")?;
    to.set_read_timeout(Some(SILENCE))?;
    match to.recv(&mut [0; 8]) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[test]
fn a_cut_is_one_way_if_asked_and_is_mended() {
    let net = Net::new(2).unwrap();
    let ends = Ends::new(&net).unwrap();
    let cases = [
        (Cut::Nothing, true, true),
        (Cut::To(B), true, false),
        (Cut::To(A), false, true),
        (Cut::Both, false, false),
        (Cut::Nothing, true, true),
    ];
    // With and without the queue of a rate, and with the user-space part in the path.
    let delayed = Shape::gigabit().with_delay(Duration::from_millis(1));
    for shape in [Shape::open(), Shape::gigabit(), delayed] {
        net.link(A, B).shape(shape).unwrap();
        for (cut, to_a, to_b) in cases {
            net.link(A, B).cut(cut).unwrap();
            assert_eq!(ends.passes_to_a().unwrap(), to_a, "{cut:?} towards a, {shape:?}");
            assert_eq!(ends.passes_to_b().unwrap(), to_b, "{cut:?} towards b, {shape:?}");
        }
    }
}

#[test]
fn a_connection_survives_a_cut_and_goes_on_when_it_is_mended() {
    let net = Net::new(2).unwrap();
    let listener = net.site(B).run(|| TcpListener::bind((net.address(B), 9001))).unwrap().unwrap();
    let mut at_a = net.site(A).run(|| TcpStream::connect((net.address(B), 9001))).unwrap().unwrap();
    let (mut at_b, _) = listener.accept().unwrap();

    net.link(A, B).cut(Cut::Both).unwrap();
    at_a.write_all(b"sent into the void").unwrap();
    at_b.set_read_timeout(Some(SILENCE)).unwrap();
    let silent = at_b.read(&mut [0; 32]).unwrap_err();
    assert!(matches!(silent.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{silent}");

    net.link(A, B).cut(Cut::Nothing).unwrap();
    at_b.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [0; 18];
    at_b.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"sent into the void");
}

#[test]
fn what_waits_in_the_queue_of_a_cut_link_is_lost() {
    let net = Net::new(2).unwrap();
    let ends = Ends::new(&net).unwrap();
    // 64 kbit/s: a second's worth waits after a few datagrams.
    let slow = Shape { rate: Some(BitRate(64_000)), ..Shape::open() };
    net.link(A, B).shape(slow).unwrap();
    let datagrams = 100;
    for _ in 0..datagrams {
        ends.at_a.send(&[0; 1000]).unwrap();
    }
    net.link(A, B).cut(Cut::To(B)).unwrap();
    net.link(A, B).shape(Shape::open()).unwrap();
    net.link(A, B).cut(Cut::Nothing).unwrap();
    ends.at_b.set_read_timeout(Some(SILENCE)).unwrap();
    let mut arrived = 0;
    while ends.at_b.recv(&mut [0; 1500]).is_ok() {
        arrived += 1;
    }
    assert!(arrived < datagrams, "all {arrived} datagrams survived the cut");
}

#[test]
fn a_delay_holds_every_packet_that_long_and_keeps_their_order() {
    let net = Net::new(2).unwrap();
    let ends = Ends::new(&net).unwrap();
    let delay = Duration::from_millis(30);
    net.link(A, B).shape_to(B, Shape::open().with_delay(delay)).unwrap();
    let start = Instant::now();
    for number in 0..50_u8 {
        ends.at_a.send(&[number]).unwrap();
    }
    ends.at_b.set_read_timeout(Some(PATIENCE)).unwrap();
    for number in 0..50_u8 {
        let mut buffer = [0];
        ends.at_b.recv(&mut buffer).unwrap();
        assert!(start.elapsed() >= delay, "a packet came too early");
        assert_eq!(buffer[0], number);
    }
    assert!(net.link(A, B).delay_stats(B).unwrap().passed >= 50);
    assert!(net.link(A, B).delay_stats(A).is_none(), "the way back is untouched");
}

#[test]
fn loss_loses_packets_at_about_its_rate_and_counts_them() {
    let net = Net::new(2).unwrap();
    let ends = Ends::new(&net).unwrap();
    net.link(A, B).shape_to(B, Shape::open().with_loss(Loss::percent(30))).unwrap();
    let stats = || net.link(A, B).delay_stats(B).unwrap();
    ends.at_b.set_nonblocking(true).unwrap();
    let mut arrived = 0;
    for sent in 1..=1000 {
        ends.at_a.send(b"x").unwrap();
        // One at a time, so that no full socket buffer loses packets of its own.
        let end = Instant::now() + PATIENCE;
        while stats().passed + stats().lost < sent || arrived < stats().passed {
            arrived += u64::from(ends.at_b.recv(&mut [0; 8]).is_ok());
            assert!(Instant::now() < end, "packet {sent} was neither passed nor lost: {:?}", stats());
        }
    }
    assert_eq!(stats().passed + stats().lost, 1000);
    assert!((200..400).contains(&stats().lost), "{:?}", stats());
    ends.at_b.set_nonblocking(false).unwrap();
    net.link(A, B).shape(Shape::open()).unwrap();
    assert!(ends.passes_to_b().unwrap(), "the link is whole again");
}

#[test]
fn clients_reach_every_site_past_a_cut_link() {
    let net = Net::new(3).unwrap();
    net.link(A, B).cut(Cut::Both).unwrap();
    for site in net.sites() {
        let server = net.site(site).run(|| UdpSocket::bind((net.address(site), 9000))).unwrap().unwrap();
        let client = net.client().run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
        client.connect(server.local_addr().unwrap()).unwrap();
        assert!(passes(&client, &server).unwrap(), "site {site}");
    }
}
