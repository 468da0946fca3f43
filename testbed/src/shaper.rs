//! The link between two sites: rate, delay, loss, and cuts, all changeable while traffic flows.
//!
//! Everything is done to packets in the wire namespace, so that TCP at both ends sees what it would see on a
//! real link: a cut is silence, a lost segment is sent again, and nothing is acknowledged that did not arrive.
//!
//! ```text
//! from site a ─► w0 ─► forward hook ───────────────────────────────► w1 ─► to site b
//!                      │ priority mangle │ priority filter │        HTB class per sending site, with a
//!                      │ delay and loss: │ cut: one nft    │        byte-bounded drop-tail queue: rate
//!                      │ user space      │ drop rule       │
//! ```
//!
//! Rate and cuts cost only kernel time. The user-space part exists because many kernels have no
//! `netem`; it is in the path only while delay or loss are asked for.

mod delay;
mod netlink;
mod rate;

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

pub use self::delay::DelayStats;
use self::delay::{DelayLine, Impairment};
use crate::net::SiteIndex;
use crate::ns::Ns;

/// Shortest queue in front of a rate: a switch port's buffer rather than a long-distance line's.
const SHORTEST_QUEUE: Duration = Duration::from_millis(10);

/// Bits per second, counted at the Ethernet layer (headers included, preamble and gap not).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BitRate(pub u64);

impl BitRate {
    /// 1 Gbit/s.
    pub const GIGABIT: Self = Self(1_000_000_000);

    /// `n` Mbit/s.
    pub const fn mbit(n: u64) -> Self {
        Self(n * 1_000_000)
    }

    /// How many bytes pass in `time`, saturating.
    pub fn bytes_in(self, time: Duration) -> u64 {
        let bytes = u128::from(self.0) * time.as_nanos() / 8_000_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

/// Share of packets lost, in parts per million.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Loss(pub u32);

impl Loss {
    /// `n` percent.
    pub const fn percent(n: u32) -> Self {
        Self(n * 10_000)
    }
}

/// What one direction of a link does to packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shape {
    /// Rate limit; `None` is as fast as the machine goes.
    pub rate: Option<BitRate>,
    /// One-way delay.
    pub delay: Duration,
    /// Random, independent loss.
    pub loss: Loss,
    /// Time that a full queue in front of `rate` takes to drain; `None` is the longer of 10 ms and twice the
    /// delay. A packet that finds it full is lost.
    pub queue: Option<Duration>,
}

impl Shape {
    /// An unlimited, perfect link.
    pub fn open() -> Self {
        Self::default()
    }

    /// 1 Gbit/s, no delay, no loss: the link of the baselines.
    pub fn gigabit() -> Self {
        Self { rate: Some(BitRate::GIGABIT), ..Self::default() }
    }

    /// The same with a one-way delay.
    pub fn with_delay(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// The same with loss.
    pub fn with_loss(self, loss: Loss) -> Self {
        Self { loss, ..self }
    }

    fn queue_bytes(&self, rate: BitRate) -> u64 {
        let time = self.queue.unwrap_or_else(|| SHORTEST_QUEUE.max(self.delay * 2));
        // One full super-packet must fit, or a slow link would pass nothing of a bulk sender.
        rate.bytes_in(time).max(128 * 1024)
    }
}

/// Which directions of a link are black holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Neither: the link works.
    Nothing,
    /// Packets towards this end vanish; those from it still pass.
    To(SiteIndex),
    /// Nothing passes.
    Both,
}

/// The link between two sites of a [`crate::net::Net`].
#[derive(Debug)]
pub struct Link {
    wire: Ns,
    ends: (SiteIndex, SiteIndex),
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    towards_first: OneWay,
    towards_second: OneWay,
}

/// What is set up in one direction.
#[derive(Debug, Default)]
struct OneWay {
    rate: Option<(BitRate, u64)>,
    delay: Option<DelayLine>,
}

impl Link {
    pub(crate) fn new(wire: Ns, first: SiteIndex, second: SiteIndex) -> Self {
        Self { wire, ends: (first, second), state: Mutex::default() }
    }

    pub(crate) fn ends(&self) -> (SiteIndex, SiteIndex) {
        self.ends
    }

    /// Shapes both directions; see [`Link::shape_to`].
    pub fn shape(&self, shape: Shape) -> Result<()> {
        self.shape_to(self.ends.0, shape)?;
        self.shape_to(self.ends.1, shape)
    }

    /// Shapes the direction towards `end`. On `Ok` every packet that leaves from now on is treated so. Packets
    /// on their way stay in order; those in the delay line are lost if the delay line is switched off. Safe to repeat.
    pub fn shape_to(&self, end: SiteIndex, shape: Shape) -> Result<()> {
        let way = self.way_to(end)?;
        let mut state = self.lock();
        let current = if end == self.ends.0 { &mut state.towards_first } else { &mut state.towards_second };
        let rate = shape.rate.map(|rate| (rate, shape.queue_bytes(rate)));
        if current.rate != rate {
            rate::apply(&self.wire, way, current.rate.is_some(), rate)
                .with_context(|| format!("cannot set the rate of link {way}"))?;
            current.rate = rate;
        }
        let impairment = Impairment { delay: shape.delay, loss: shape.loss };
        match (&current.delay, impairment.is_none()) {
            (None, true) => {}
            (Some(_), true) => current.delay = None,
            (Some(line), false) => line.change(impairment),
            (None, false) => {
                let line = DelayLine::start(&self.wire, way, impairment);
                current.delay = Some(line.with_context(|| format!("cannot delay link {way}"))?);
            }
        }
        Ok(())
    }

    /// Makes the link a black hole in the given directions, or mends it. Nothing is reset and no sender is told.
    ///
    /// On `Ok` with a cut, nothing arrives from now on in these directions: what waited in the rate's queue or in
    /// the delay line is lost too. Safe to repeat.
    pub fn cut(&self, cut: Cut) -> Result<()> {
        let (first, second) = self.ends;
        let ends = match cut {
            Cut::Nothing => vec![],
            Cut::To(end) => vec![self.way_to(end)?],
            Cut::Both => vec![Way { from: first, to: second }, Way { from: second, to: first }],
        };
        let state = self.lock();
        let chain = format!("cut-{first}{second}");
        let mut rules = format!(
            "add table inet umst\n\
             add chain inet umst {chain} {{ type filter hook forward priority filter; policy accept; }}\n\
             flush chain inet umst {chain}\n"
        );
        for way in &ends {
            let (from, to) = (way.device_from(), way.device_to());
            rules += &format!("add rule inet umst {chain} iifname {from} oifname {to} drop\n");
        }
        self.wire.command("nft", &["-f", "-"], &rules).context("cannot cut the link")?;
        for way in ends {
            let current = if way.to == first { &state.towards_first } else { &state.towards_second };
            if let Some(rate) = current.rate {
                rate::discard_queue(&self.wire, way, rate).context("cannot empty the queue of a cut link")?;
            }
        }
        Ok(())
    }

    /// What the user-space part towards `end` has done since it came into the path; `None` while it is not.
    pub fn delay_stats(&self, end: SiteIndex) -> Option<DelayStats> {
        let state = self.lock();
        let way = if end == self.ends.0 { &state.towards_first } else { &state.towards_second };
        way.delay.as_ref().map(DelayLine::stats)
    }

    fn way_to(&self, end: SiteIndex) -> Result<Way> {
        let (first, second) = self.ends;
        ensure!(end == first || end == second, "site {end} is no end of the link {first}-{second}");
        Ok(Way { from: if end == first { second } else { first }, to: end })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One direction of a link, as the kernel's rules name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Way {
    from: SiteIndex,
    to: SiteIndex,
}

impl Way {
    fn device_from(self) -> String {
        format!("w{}", self.from.number())
    }

    fn device_to(self) -> String {
        format!("w{}", self.to.number())
    }

    /// A number of its own for every direction in a network.
    fn number(self) -> u16 {
        u16::try_from(self.from.number() * 16 + self.to.number()).expect("at most eight sites")
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.from, self.to)
    }
}
