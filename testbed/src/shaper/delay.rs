//! Delay and loss of one direction: a thread that decides when each packet may go on.
//!
//! The wire's forward hook hands every packet of this direction to a kernel queue; this thread hears its number,
//! and later says "drop" or "go on". Should the thread die, the queue has no owner and the link is a black hole:
//! it fails as a link would.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::netlink::{PacketId, PacketQueue};
use super::{Loss, Way};
use crate::ns::Ns;
use crate::pattern::Random;

/// Longest sleep, so that a changed delay or the end is noticed.
const LONGEST_SLEEP: Duration = Duration::from_millis(20);

/// What happens to packets besides the rate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Impairment {
    pub(super) delay: Duration,
    pub(super) loss: Loss,
}

impl Impairment {
    pub(super) fn is_none(&self) -> bool {
        self.delay.is_zero() && self.loss == Loss(0)
    }
}

/// What the user-space part of a link has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DelayStats {
    /// Packets that went on after their delay. A packet is what the sender's kernel handed over: up to 64 KiB
    /// without loss, one segment with loss.
    pub passed: u64,
    /// Packets lost on purpose.
    pub lost: u64,
    /// Announcements that found the socket full; their packets were lost.
    pub overflows: u64,
}

#[derive(Debug)]
struct Shared {
    delay_micros: AtomicU64,
    loss: AtomicU32,
    stop: AtomicBool,
    passed: AtomicU64,
    lost: AtomicU64,
    overflows: AtomicU64,
}

/// A running delay line. Dropping it takes it out of the path; the packets that wait in it are lost.
#[derive(Debug)]
pub(super) struct DelayLine {
    wire: Ns,
    way: Way,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl DelayLine {
    /// Starts the thread and leads the packets of `way` through it.
    pub(super) fn start(wire: &Ns, way: Way, impairment: Impairment) -> Result<Self> {
        let shared = Arc::new(Shared {
            delay_micros: AtomicU64::new(0),
            loss: AtomicU32::new(0),
            stop: AtomicBool::new(false),
            passed: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            overflows: AtomicU64::new(0),
        });
        let (ready, is_ready) = mpsc::sync_channel(1);
        let thread = thread::Builder::new().name(format!("delay {way}")).spawn({
            let (wire, shared) = (wire.clone(), Arc::clone(&shared));
            move || {
                let queue = match wire.enter().and_then(|()| PacketQueue::bind(way.number())) {
                    Ok(queue) => queue,
                    Err(error) => return drop(ready.send(Err(error))),
                };
                // The receiver waits until it has this answer.
                let _ = ready.send(Ok(()));
                if let Err(error) = serve(&queue, &shared, u64::from(way.number())) {
                    eprintln!("testbed: the delay line {way} ended, the link is now cut: {error:#}");
                }
            }
        })?;
        let line = Self { wire: wire.clone(), way, shared, thread: Some(thread) };
        line.change(impairment);
        is_ready.recv().map_err(|_| anyhow!("the delay thread died"))??;
        line.rule("-A").context("cannot queue packets (is the package iptables installed?)")?;
        Ok(line)
    }

    /// Treats packets that arrive from now on differently. They never overtake earlier ones.
    pub(super) fn change(&self, impairment: Impairment) {
        let micros = u64::try_from(impairment.delay.as_micros()).unwrap_or(u64::MAX);
        self.shared.delay_micros.store(micros, Ordering::Relaxed);
        self.shared.loss.store(impairment.loss.0, Ordering::Relaxed);
    }

    pub(super) fn stats(&self) -> DelayStats {
        DelayStats {
            passed: self.shared.passed.load(Ordering::Relaxed),
            lost: self.shared.lost.load(Ordering::Relaxed),
            overflows: self.shared.overflows.load(Ordering::Relaxed),
        }
    }

    /// Adds (`-A`) or deletes (`-D`) the rule. By `iptables` because `nft`'s own queue statement needs a kernel
    /// option that is often off where the older target is there.
    fn rule(&self, verb: &str) -> Result<()> {
        let (from, to, number) =
            (self.way.device_from(), self.way.device_to(), self.way.number().to_string());
        let rule = ["-i", &from, "-o", &to, "-j", "NFQUEUE", "--queue-num", &number];
        let args = [&["-w", "-t", "mangle", verb, "FORWARD"], &rule[..]].concat();
        self.wire.command("iptables", &args, "").map(drop)
    }
}

impl Drop for DelayLine {
    fn drop(&mut self) {
        // Fails only if the rule or the whole namespace is gone already, which is the aim.
        let _ = self.rule("-D");
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(queue: &PacketQueue, shared: &Shared, seed: u64) -> Result<()> {
    let mut waiting: VecDeque<(Instant, PacketId)> = VecDeque::new();
    let mut random = Random::new(seed);
    let mut buffer = vec![0; 64 * 1024];
    let mut doomed = Vec::new();
    let mut large_packets = false;
    while !shared.stop.load(Ordering::Relaxed) {
        let loss = shared.loss.load(Ordering::Relaxed);
        // With loss every segment has its own fate; without it large packets save nearly all of the work.
        if large_packets != (loss == 0) {
            queue.keep_large_packets(loss == 0)?;
            large_packets = loss == 0;
        }
        let delay = Duration::from_micros(shared.delay_micros.load(Ordering::Relaxed));
        let due = Instant::now() + delay;
        let overflows = queue.announced(&mut buffer, |id| {
            if loss > 0 && random.below(1_000_000) < u64::from(loss) {
                doomed.push(id);
            } else {
                let due = waiting.back().map_or(due, |(last, _)| due.max(*last));
                waiting.push_back((due, id));
            }
        })?;
        shared.overflows.fetch_add(overflows, Ordering::Relaxed);
        for id in doomed.drain(..) {
            queue.drop_packet(id)?;
            shared.lost.fetch_add(1, Ordering::Relaxed);
        }
        let now = Instant::now();
        let ripe = waiting.partition_point(|(due, _)| *due <= now);
        if let Some((_, last)) = waiting.drain(..ripe).next_back() {
            // Counted first, so that nobody holds a packet that is not counted yet.
            shared.passed.fetch_add(ripe as u64, Ordering::Relaxed);
            queue.accept_up_to(last)?;
        }
        let next =
            waiting.front().map_or(LONGEST_SLEEP, |(due, _)| due.saturating_duration_since(Instant::now()));
        sleep_until_readable(queue, next.min(LONGEST_SLEEP))?;
    }
    Ok(())
}

fn sleep_until_readable(queue: &PacketQueue, longest: Duration) -> Result<()> {
    let timeout = Timespec::try_from(longest).context("a sleep of at most 20 ms")?;
    let mut fds = [PollFd::from_borrowed_fd(queue.fd(), PollFlags::IN)];
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error).context("cannot wait for packets"),
    }
}
