//! The Coordinator: one per site. It arranges migrations with the other site's Coordinator, keeps the journal that
//! decides who may run a service, and serves the API.
//!
//! ```text
//!                       users                                     other sites
//!          Unix socket │ TLS + token                     TLS, both sides pinned │
//!                      ▼                                                        ▼
//!   api ──► services, migrations, pairing        control (questions)   destination (a service comes)
//!                      │ source (a service goes)                │                │
//!                      └──────────────┬────────────────────────┴────────────────┘
//!                                     ▼
//!             settle, recovery: look, ask, do what ums_model::standing says
//!                                     ▼
//!          desk (who may act)   act: journal first, then ums_sites::adapter::SiteAdapter
//! ```
//!
//! Read in this order:
//! 1. [`config`]: all that can be set; [`fault`]: failures on purpose, in builds for development;
//! 2. `journal`: what must not be forgotten; `desk`: where each service stands, and who may act on it; `act`: doing
//!    what the rules say; `chronicle`: what a migration tells, and what its numbers mean;
//! 3. `source`: a migration at the site that gives, as a list of steps; `destination`: at the site that takes;
//! 4. `settle`: from the commit, or from a failure, to the end; `recovery`: the same after a restart; `overtaken`: a nest
//!    that knows more than the journal; `restart`: services whose keepers have ended;
//! 5. `peers`, `pairing`, `revoke`, `rotation`, `policies`, `control`, `preflight`, `promises`, `queue`: whom to trust, and what
//!    to know before anything begins;
//! 6. `services`, `migrations`, [`audit`], `api`, [`view`]: what users ask for; `daemon`: all of it put together.
//!
//! Two rules hold everywhere. *Write first, act second*: a decision is durable before anything is done about it, and
//! everything that is done is safe to repeat. *One holder*: only who holds a service's lane writes its records or
//! touches its copy.
//!
//! This crate must never know an orchestrator, CRIU, a process or a cgroup: a site is what [`ums_sites::adapter`]
//! says. It must never decide who may run a service: that is [`ums_model::standing`]'s. It knows of TLS only that
//! `ums_transfer` gives it authenticated streams.

pub mod audit;
pub mod config;
pub mod fault;

mod act;
mod chronicle;
mod clock;
mod core;
mod desk;
mod failure;
mod journal;

mod destination;
mod source;

mod overtaken;
mod recovery;
mod resolve;
mod restart;
mod settle;

mod addresses;
mod control;
mod pairing;
mod peers;
mod policies;
mod preflight;
mod promises;
mod queue;
mod revoke;
mod rotation;

mod api;
mod daemon;
mod migrations;
mod services;
pub mod view;

#[cfg(test)]
mod tests;

pub use daemon::{Coordinator, Running, StartError};
