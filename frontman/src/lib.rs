//! Frontman: holds a service's place on the network.
//!
//! ```text
//! site's namespace (host)            place (the keeper's namespace)              inner (the service's namespace)
//!  published port ── DNAT ──► link ── veth ── up0   DNAT / SNAT   in0 ── veth ── eth0  192.0.0.2/29
//!  10.213.x.1/30                      10.213.x.2/30               192.0.0.1/29   fence (drops everything when closed)
//! ```
//!
//! Read in this order: [`layout`] (names and addresses, pure), [`host`] (what the site does in its own namespace),
//! [`place`] (what the nest does in the place), [`fence`] (a copy without run-right is cut off). What calls `ip` and `nft` is told
//! by a [`Deadlines`] how long that may take. The kernel forwards;
//! nothing here touches a packet, so the steady state costs NAT and no more.
//!
//! This crate must never know what a migration is: it is told when to close, open and publish.

mod deadlines;
pub mod fence;
pub mod host;
pub mod layout;
pub mod place;
mod tool;

pub use deadlines::Deadlines;
pub use tool::NetError;
