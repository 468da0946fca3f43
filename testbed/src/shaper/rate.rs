//! The rate of one direction: an HTB class on the receiving site's device in the wire.
//!
//! Only packets of the sending site are put into the class (by source address), everything else that goes to the
//! same site, clients' requests above all, passes it by: the link *between sites* is the bottleneck, not the
//! site's whole access.

use anyhow::Result;

use super::{BitRate, Way};
use crate::ns::Ns;

/// A class may send this long at full speed after a pause. Shorter costs timer wake-ups, longer lets bursts pass
/// that no real link would.
const BURST: std::time::Duration = std::time::Duration::from_millis(1);
/// Smallest burst: a few full packets.
const SMALLEST_BURST: u64 = 16 * 1024;

/// Sets, changes (`present`) or removes the rate of `way`; the queue's bound is in bytes.
pub(super) fn apply(wire: &Ns, way: Way, present: bool, rate: Option<(BitRate, u64)>) -> Result<()> {
    let device = way.device_to();
    let class = class(way);
    let filter = format!("protocol ip prio {}", priority(way));
    let Some((rate, queue)) = rate else {
        return tc(
            wire,
            &[
                format!("filter del dev {device} parent 1: {filter}"),
                format!("class del dev {device} classid {class}"),
            ],
        );
    };
    let burst = rate.bytes_in(BURST).max(SMALLEST_BURST);
    let bits = rate.0;
    let mut lines = vec![
        format!(
            "class replace dev {device} parent 1: classid {class} \
             htb rate {bits} ceil {bits} burst {burst} cburst {burst} quantum 60000"
        ),
        queue_line("replace", way, queue),
    ];
    if !present {
        if !has_root(wire, &device)? {
            lines.insert(0, format!("qdisc add dev {device} root handle 1: htb default 0"));
        }
        let network = way.from.number() + 1;
        lines.push(format!(
            "filter add dev {device} parent 1: {filter} u32 match ip src 10.77.{network}.0/24 flowid {class}"
        ));
    }
    tc(wire, &lines)
}

/// Throws away what waits in the queue of `way`.
pub(super) fn discard_queue(wire: &Ns, way: Way, (_, queue): (BitRate, u64)) -> Result<()> {
    let device = way.device_to();
    let class = class(way);
    tc(wire, &[format!("qdisc del dev {device} parent {class}"), queue_line("add", way, queue)])
}

fn queue_line(verb: &str, way: Way, bytes: u64) -> String {
    let (device, class, handle) = (way.device_to(), class(way), priority(way));
    format!("qdisc {verb} dev {device} parent {class} handle {handle}: bfifo limit {bytes}")
}

fn class(way: Way) -> String {
    format!("1:{}", priority(way))
}

/// Also the handle of the queue and the minor number of the class (`tc` reads both as hexadecimal).
fn priority(way: Way) -> usize {
    way.from.number() + 10
}

fn has_root(wire: &Ns, device: &str) -> Result<bool> {
    let list = wire.command("tc", &["qdisc", "show", "dev", device, "root"], "")?;
    Ok(list.contains("htb 1:"))
}

fn tc(wire: &Ns, lines: &[String]) -> Result<()> {
    wire.command("tc", &["-batch", "-"], &(lines.join("\n") + "\n")).map(drop)
}
