//! One isolated test network: a namespace per site, one for the clients, and the *wire* between them.
//!
//! ```text
//!   site a  10.77.1.2 ── w0 ┐                 ┌ wc ── 10.77.100.2  client
//!                           ├─ wire (routes) ─┤
//!   site b  10.77.2.2 ── w1 ┘                 └ ... more sites: 10.77.3.2 ── w2
//! ```
//!
//! The wire is a router of its own, so what happens to a packet between two sites happens in a third place: a
//! cut link is a packet dropped on the way, never an interface that goes down under a site.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::command::{SETUP_DEADLINE, succeed};
use crate::ns::Ns;
use crate::shaper::Link;
use crate::sweep;
use crate::tag::Tag;

/// More sites than this do not fit the one-letter names.
const MAX_SITES: usize = 8;
/// The client's network; site networks count up from 10.77.1.0.
const CLIENT_NETWORK: u8 = 100;

/// Which site of a test network: its number and its one-letter name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SiteIndex(usize);

/// The first site of every network.
pub const A: SiteIndex = SiteIndex(0);
/// The second site.
pub const B: SiteIndex = SiteIndex(1);

impl SiteIndex {
    /// The `number`-th site, from 0; `None` beyond the largest network.
    pub fn new(number: usize) -> Option<Self> {
        (number < MAX_SITES).then_some(Self(number))
    }

    /// Its number, from 0.
    pub fn number(self) -> usize {
        self.0
    }

    /// Its one-letter name: the site's name towards the product as well.
    pub fn name(self) -> &'static str {
        &"abcdefgh"[self.0..=self.0]
    }

    fn octet(self) -> u8 {
        u8::try_from(self.0 + 1).expect("MAX_SITES is far below 255")
    }
}

impl fmt::Display for SiteIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An isolated test network. Dropping it removes its namespaces and every process in their keep.
#[derive(Debug)]
pub struct Net {
    tag: Tag,
    sites: Vec<Ns>,
    client: Ns,
    wire: Ns,
    links: Vec<Link>,
}

impl Net {
    /// Creates a network of `sites` sites (two to eight), unshaped and uncut, after sweeping away what killed
    /// runs left behind.
    ///
    /// On `Err` nothing of it is left.
    pub fn new(sites: usize) -> Result<Self> {
        ensure!((2..=MAX_SITES).contains(&sites), "a test network has 2 to {MAX_SITES} sites, not {sites}");
        ensure!(rustix::process::geteuid().is_root(), "test networks need root: run the tests as root");
        sweep::leftovers().context("cannot remove the leftovers of an earlier run")?;
        let tag = Tag::fresh();
        let name = |end: &str| Ns::named(format!("{tag}-{end}"));
        let mut net = Self {
            sites: (0..sites).map(|i| name(SiteIndex(i).name())).collect(),
            client: name("client"),
            wire: name("wire"),
            links: Vec::new(),
            tag,
        };
        net.build().context("cannot create the test network")?;
        Ok(net)
    }

    /// The name of this network on the machine; also marks the processes started for it.
    pub fn tag(&self) -> &Tag {
        &self.tag
    }

    /// How many sites it has.
    pub fn sites(&self) -> impl Iterator<Item = SiteIndex> + use<> {
        (0..self.sites.len()).map(SiteIndex)
    }

    /// The namespace of one site.
    ///
    /// # Panics
    /// If the network was made with fewer sites.
    pub fn site(&self, site: SiteIndex) -> &Ns {
        &self.sites[site.0]
    }

    /// The namespace of the clients.
    pub fn client(&self) -> &Ns {
        &self.client
    }

    /// The namespace in the middle.
    pub fn wire(&self) -> &Ns {
        &self.wire
    }

    /// The address of a site, reachable from the clients and the other sites.
    pub fn address(&self, site: SiteIndex) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, site.octet(), 2)
    }

    /// `port` at every site, in site order: where a client looks for a service that may have moved.
    pub fn everywhere(&self, port: u16) -> Vec<SocketAddr> {
        self.sites().map(|site| SocketAddr::new(IpAddr::V4(self.address(site)), port)).collect()
    }

    /// The link between two sites, in either order.
    ///
    /// # Panics
    /// If `one` and `other` are the same site or not in this network.
    pub fn link(&self, one: SiteIndex, other: SiteIndex) -> &Link {
        let ends = (one.min(other), one.max(other));
        self.links.iter().find(|link| link.ends() == ends).expect("two different sites of this network")
    }

    fn build(&mut self) -> Result<()> {
        let all = self.sites.iter().chain([&self.client, &self.wire]);
        batch(None, &all.map(|ns| format!("netns add {}", ns.name())).collect::<Vec<_>>())?;
        for (number, ns) in self.sites.iter().enumerate() {
            let site = SiteIndex(number);
            self.attach(ns, &format!("w{number}"), site.octet())?;
        }
        self.attach(&self.client, "wc", CLIENT_NETWORK)?;
        self.wire
            .run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))?
            .context("cannot switch on forwarding in the wire")?;
        for one in self.sites() {
            for other in self.sites().filter(|other| *other > one) {
                self.links.push(Link::new(self.wire.clone(), one, other));
            }
        }
        Ok(())
    }

    /// Joins `ns` to the wire: `.2` and the default route there, `.1` here.
    fn attach(&self, ns: &Ns, device: &str, network: u8) -> Result<()> {
        let subnet = format!("10.77.{network}");
        batch(
            Some(&self.wire),
            &[
                format!("link add {device} type veth peer name eth0 netns {}", ns.name()),
                format!("address add {subnet}.1/24 dev {device}"),
                format!("link set {device} up"),
                "link set lo up".to_owned(),
            ],
        )?;
        batch(
            Some(ns),
            &[
                "link set lo up".to_owned(),
                format!("address add {subnet}.2/24 dev eth0"),
                "link set eth0 up".to_owned(),
                format!("route add default via {subnet}.1"),
            ],
        )
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.links.clear();
        if let Err(error) = sweep::remove(self.tag.as_str()) {
            eprintln!("testbed: {error:#}");
        }
    }
}

fn batch(ns: Option<&Ns>, lines: &[String]) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(ns) = ns {
        command.args(["-n", ns.name()]);
    }
    command.args(["-batch", "-"]);
    succeed(command, &(lines.join("\n") + "\n"), SETUP_DEADLINE).map(drop)
}
