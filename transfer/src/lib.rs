//! Bytes between two sites: frames, archives, TLS, pairing. Without TLS the same frames and archives also run over a
//! Unix socket, between a site and its nests.
//!
//! Read in this order:
//! 1. [`frame`]: kinds, channels, bounds; reading and writing them; keep-alive;
//! 2. [`archive`]: named items with digests, while they still grow, and passing them on;
//! 3. [`identity`]: who a site is;
//! 4. [`tls`]: one port, three protocols, trust by fingerprint;
//! 5. [`link`]: the connection that two paired sites talk over;
//! 6. [`pairing`]: how two sites come to trust each other;
//! 7. [`Deadlines`]: how long all of this waits.
//!
//! This crate must never know what a service, a dump or an image is: messages are types of its callers, items are
//! names and bytes. It decides nothing about a migration, journals nothing, and nothing outside of it touches TLS.
//!
//! # The link of one migration
//!
//! Control messages and archives share one link and one order. The two Coordinators' messages are their own; here is
//! how they ride. `[..]` is one frame, `{..}` its JSON.
//!
//! ```text
//!  nest          source site                                      destination site           nest
//!   │                 │  TCP; TLS 1.3; ALPN ums/1; both pin the other     │                    │
//!   │                 ├── [control {hello: versions, purpose: migration}]►│                    │
//!   │                 │◄─────────── [control {welcome: version}] ─────────┤                    │
//!   │                 │                                                   │                    │
//!   │                 ├── [control {offer ..}] ──────────────────────────►│                    │
//!   │                 │◄───────────────────── [keep-alive] (it works) ────┤                    │
//!   │                 │◄──────────────────── [control {accept ..}] ───────┤                    │
//!   │                 │                                                   │                    │
//!   ├─[open ch 1]────►├── [open ch 1] ───────────────────────────────────►├── [open ch 1] ────►│
//!   ├─[data ch 1]────►├── [data ch 1] ───────────────────────────────────►├── [data ch 1] ────►│
//!   ├─[open ch 2]────►├── [open ch 2] ───────────────────────────────────►├── [open ch 2] ────►│
//!   ├─[data ch 2, 1]─►├── [data ch 2, 1] ────────────────────────────────►├── [data ch 2, 1] ─►│
//!   │  (still dumping)├── [keep-alive] ──────────────────────────────────►├── [keep-alive] ───►│
//!   ├─[close ch 2, 1]►├── [close ch 2, 1] ───────────────────────────────►├── [close ch 2, 1]─►│ verifies each item
//!   ├─[end]──────────►├── [end] ─────────────────────────────────────────►├── [end] ──────────►│ verifies the whole
//!   │                 │            (or [abort] instead of [end], from whoever gives up)        │
//!   │                 │                                                   │◄─[control {held}]──┤
//!   │                 │◄───────────────────── [control {held ..}] ────────┤                    │
//!   │                 ├── [control {commit ..}] ─────────────────────────►│                    │
//!   │                 │◄──────────────────── [control {running ..}] ──────┤                    │
//!   │                 ├── TLS close ──── end of stream ──── TLS close ────┤                    │
//! ```
//!
//! The sites [`archive::relay`] and hash nothing; the two nests are the ends that compare. A slow disk on the right
//! fills the buffers from right to left until the dump on the left waits: nothing in between grows. A cut shows as a
//! read error, as silence for [`Deadlines::idle`], or as no byte taken for [`Deadlines::stall`]; it is never taken
//! for an end, because an end of frames comes with TLS's own goodbye, and an end of an archive with its digest.
//!
//! # The versioning rule
//!
//! * The frame header, the ALPN names, the hello and its answers never change. New fields may be added to the two
//!   messages; what is not known is ignored.
//! * Everything after the handshake belongs to a [`link::Version`]. Software speaks its newest version and the one
//!   before; a link uses the highest that both sides know, so either side may be upgraded first.
//! * Within a version, messages may gain optional fields. A new frame kind, flag, message or meaning is a new version:
//!   inside a version the unknown is an error and never skipped, because a skipped message may be the one that
//!   matters.
//! * A pairing of version 1 is `ums-pair/1` and invites start with `ums1-`; another one will have other names.

pub mod archive;
mod deadlines;
pub mod frame;
pub mod identity;
pub mod link;
pub mod pairing;
pub mod tls;

pub use deadlines::Deadlines;
