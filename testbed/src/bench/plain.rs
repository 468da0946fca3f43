//! The outside baseline: what one gets today without UMS, by hand.
//!
//! ```text
//! source                      link                     destination
//! criu dump to a tmpfs
//! tar -c ──────────────── one TLS stream ────────────► tar -x to a tmpfs
//!                                                      criu restore
//! ```
//!
//! Three programs one after the other, each started anew; nothing of the product takes part. Everything that can be
//! ready is: the root directory is at both sites, the network namespaces and port forwardings stand, nothing is paired,
//! planned, journaled or fenced. So where the two differ, the difference is not in the baseline's disfavour.

mod container;
mod criu;
mod stats;
mod wire;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, mount, mount_bind};

use self::container::{Container, Restored};
pub use self::container::{INIT, init};
use self::wire::Wire;
use super::point::{ANSWER, Point, STALL, Sample, ms};
use crate::dial::Dialer;
use crate::net::{A, B, Net, SiteIndex};
use crate::ns::Ns;
use crate::probe::{Probe, Question};
use crate::{memhog, rootfs};

/// Ports of the memhog inside: questions about its memory, and echo.
const INNER_PORTS: [u16; 2] = [7000, 7001];
/// The same at the sites.
const OUTER_PORTS: [u16; 2] = [19_000, 19_001];
/// How long the source's process may take to be gone after a dump.
const GONE: Duration = Duration::from_secs(20);

/// What the baseline needs at both sites.
#[derive(Debug)]
pub(super) struct Plain<'a> {
    net: &'a Net,
    criu: PathBuf,
    wire: Wire,
}

/// A process, and where it is.
#[derive(Debug)]
pub(super) struct Running {
    site: SiteIndex,
    copy: Copy,
}

#[derive(Debug)]
enum Copy {
    Started(Container),
    Restored(Restored),
}

impl<'a> Plain<'a> {
    /// Prepares both sites of `net`. What it makes is named after the network and goes with it.
    pub(super) fn prepare(net: &'a Net) -> Result<Self> {
        let plain = Self { net, criu: criu::program()?, wire: Wire::new()? };
        let root = plain.root();
        rootfs::static_rootfs(&root)?;
        fs::write(root.join(container::NULL), "").context("cannot prepare /dev/null")?;
        for site in [A, B] {
            plain.connect(site).with_context(|| format!("cannot prepare the network at site {site}"))?;
            let images = plain.images(site);
            fs::create_dir_all(&images).with_context(|| format!("cannot create {}", images.display()))?;
            mount("tmpfs", &images, "tmpfs", MountFlags::empty(), None)
                .with_context(|| format!("cannot mount a tmpfs at {}", images.display()))?;
        }
        // CRIU wants the root directory of what it restores to be a mount point.
        mount_bind(&root, &root).context("cannot bind the root directory")?;
        Ok(plain)
    }

    /// Starts a memhog at site A.
    ///
    /// On `Ok` it holds all its memory and answers.
    pub(super) fn start(&self, point: &Point) -> Result<Running> {
        let options = [
            ("mib", point.memory_mib),
            ("processes", point.processes.into()),
            ("port", INNER_PORTS[0].into()),
            ("echo-port", INNER_PORTS[1].into()),
        ];
        let options = options.iter().flat_map(|(name, value)| [format!("--{name}"), value.to_string()]);
        let words: Vec<String> =
            [rootfs::WORKLOAD.to_owned(), "memhog".to_owned()].into_iter().chain(options).collect();
        let log = self.net.tag().directory().join("plain/start.log");
        let container = Container::start(self.net.tag(), &self.ns(A), &self.root(), &words, &log)?;
        let running = Running { site: A, copy: Copy::Started(container) };
        memhog::check(&self.dialer(OUTER_PORTS[0]), ANSWER)?;
        Ok(running)
    }

    /// Moves it to the other site and checks every page there.
    ///
    /// On `Err` the process is gone.
    pub(super) fn migrate(&self, running: Running) -> Result<(Running, Sample)> {
        let Running { site: source, copy } = running;
        let destination = if source == A { B } else { A };
        let (from, to) = (self.empty(source)?, self.empty(destination)?);
        let probe = Probe::start(&self.dialer(OUTER_PORTS[1]), Question::Echo, STALL, ANSWER)?;

        let begin = Instant::now();
        let dumped = criu::dump(&self.criu, self.net.tag(), copy.pid(), &from)?;
        let dump = begin.elapsed();
        let sent = self.wire.copy(self.net, (source, &from), (destination, &to))?;
        let transfer = begin.elapsed() - dump;
        let pid = criu::restore(&self.criu, self.net.tag(), &self.ns(destination), &self.root(), &to)?;
        let total = begin.elapsed();

        let restored = Restored { pid };
        if let Copy::Started(container) = copy {
            container.reap(GONE)?;
        }
        let end = begin + total;
        probe.wait_for_answer(ANSWER)?;
        let downtime = probe.downtime(begin, end).context("the probe did not see the end of the downtime")?;
        drop(probe);
        memhog::check(&self.dialer(OUTER_PORTS[0]), ANSWER)?;
        let sample = Sample {
            approach: "none".to_owned(),
            frozen_ms: ms(dumped.frozen + (total - dump)),
            downtime_ms: ms(downtime),
            total_ms: ms(total),
            bytes_raw: dumped.images.get(),
            bytes_sent: sent.get(),
            phases: vec![
                ("dump".to_owned(), ms(dump)),
                ("transfer".to_owned(), ms(transfer)),
                ("restore".to_owned(), ms(total - dump - transfer)),
            ],
        };
        self.empty(source)?;
        self.empty(destination)?;
        Ok((Running { site: destination, copy: Copy::Restored(restored) }, sample))
    }

    /// A network namespace like a container's: the same address at both sites, two ports forwarded to it.
    fn connect(&self, site: SiteIndex) -> Result<()> {
        let (outer, inner) = (self.net.site(site), self.ns(site));
        outer.command("ip", &["netns", "add", inner.name()], "")?;
        let lines = format!(
            "link add plain type veth peer name eth0 netns {}\n\
             address add 10.88.0.1/24 dev plain\n\
             link set plain up\n",
            inner.name()
        );
        outer.command("ip", &["-batch", "-"], &lines)?;
        let lines = "link set lo up\n\
                     address add 10.88.0.2/24 dev eth0\n\
                     link set eth0 up\n\
                     route add default via 10.88.0.1\n";
        inner.command("ip", &["-batch", "-"], lines)?;
        outer
            .run(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1"))?
            .context("cannot switch on forwarding")?;
        let rules: String = OUTER_PORTS
            .iter()
            .zip(INNER_PORTS)
            .map(|(outer, inner)| format!("tcp dport {outer} dnat to 10.88.0.2:{inner}\n"))
            .collect();
        let table = format!(
            "table ip baseline {{\n\
             chain prerouting {{ type nat hook prerouting priority dstnat;\n{rules}}}\n\
             }}\n"
        );
        outer.command("nft", &["-f", "-"], &table).map(drop)
    }

    fn ns(&self, site: SiteIndex) -> Ns {
        Ns::named(format!("{}-plain-{site}", self.net.tag()))
    }

    fn root(&self) -> PathBuf {
        self.net.tag().directory().join("plain/root")
    }

    fn images(&self, site: SiteIndex) -> PathBuf {
        self.net.tag().directory().join(format!("plain/images-{site}"))
    }

    /// The directory for images at a site, emptied.
    fn empty(&self, site: SiteIndex) -> Result<PathBuf> {
        let images = self.images(site);
        for entry in fs::read_dir(&images).context("cannot list the images")? {
            fs::remove_file(entry?.path()).context("cannot remove an image")?;
        }
        Ok(images)
    }

    fn dialer(&self, port: u16) -> Dialer {
        Dialer::inside(self.net.client(), self.net.everywhere(port))
    }
}

impl Copy {
    fn pid(&self) -> i32 {
        match self {
            Self::Started(container) => container.pid,
            Self::Restored(restored) => restored.pid,
        }
    }
}
