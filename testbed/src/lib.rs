//! The testbed: a library in which a migration test is four lines (start, load, migrate, check).
//!
//! ```no_run
//! use ums_model::names::Bytes;
//! use ums_testbed::{lab::Lab, net::{A, B}, workload::Workload};
//!
//! # fn main() -> anyhow::Result<()> {
//! let lab = Lab::two_sites()?;
//! let hog = lab.start(A, &Workload::memhog(Bytes::mib(64)))?;
//! hog.migrate(B)?;
//! hog.check()?;
//! # Ok(())
//! # }
//! ```
//!
//! Read in this order:
//! 1. [`lab`], [`site`], [`service`]: two sites that know each other, and a service that is moved between them;
//! 2. [`workload`], [`rootfs`]: what the services are (the program `ums-workload` plays most of them);
//! 3. [`witness`]: the proof that one copy ran at all times; [`memhog`], [`tcp_check`], [`redis`], [`postgres`], [`probe`]: what
//!    clients check and measure, through a [`dial::Dialer`] that looks for the service at every site;
//! 4. [`fault`], [`tracer`], [`watch`]: what goes wrong, and exactly when; [`histories`], [`traces`]: what must be true
//!    afterwards; [`rig`], [`patience`]: sites that notice faults quickly; [`mod@matrix`]: every fault at every step;
//! 5. [`net`], [`shaper`]: namespaces, and the link between two sites (rate, delay, loss, cuts);
//! 6. [`tag`], [`sweep`]: how everything is named, so that nothing stays behind even if a test is killed;
//! 7. [`cli`], [`programs`], [`command`], [`ns`], [`clock`], [`pattern`]: what the rest stands on.
//!
//!
//! Two programs for people stand on all this:
//! 8. [`demo`]: a service moves to and fro under load, and every claim about it is checked;
//! 9. [`mod@bench`]: the product measured against what one gets without it; [`interrupt`] lets them clean up on Ctrl-C;
//! 10. [`soak`]: databases move to and fro for an hour, with a fault in almost every migration.
//!
//! The testbed must never know how the product works: it drives it from outside, through the `ums` command and its
//! JSON, so that a test proves what a user would see. It takes only words (types) from the model. It is for
//! development; nothing in the product depends on it.

pub mod lab;
pub mod service;
pub mod site;

pub mod rootfs;
pub mod workload;

pub mod dial;
pub mod memhog;
pub mod postgres;
pub mod probe;
pub mod redis;
pub mod tcp_check;
pub mod witness;

pub mod fault;
pub mod histories;
pub mod tracer;
pub mod traces;
pub mod watch;

pub mod matrix;
pub mod patience;
pub mod rig;

pub mod net;
pub mod shaper;

mod cgroups;
pub mod disk;
mod processes;
pub mod sweep;
pub mod tag;

pub mod cli;
pub mod clock;
pub mod command;
pub mod ns;
pub mod pattern;
pub mod programs;

pub mod bench;
pub mod demo;
pub mod interrupt;
pub mod soak;
mod text_table;
