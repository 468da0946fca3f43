//! Whole sites, real services: `ums`, runc, CRIU and namespaces, seen only from outside.
//!
//! [`lifecycle`] and [`images`] are about services that stay, [`journeys`], [`content`] and [`databases`] about services
//! that move, [`refusals`] about what is refused before anything is stopped, [`rights`] about files that give rights,
//! [`breakdowns`] about what fails on the way, [`deadlines`] about what takes too long, [`faults`] about links that are cut
//! and daemons that are killed at every step, [`matrix`] about everything else that can go wrong at one,
//! [`restarts`] about keepers and hosts that die and come back.
//!
//! They stand on [`rig`] (sites with short deadlines, and with whatever is wrong with them), [`script`] (services made of a
//! line of shell or Perl), [`verdict`] (what an error must say), [`histories`] (what two sites tell about one
//! migration) and [`gate`] (a daemon that waits at a step).

mod gate;
mod histories;
mod script;
mod verdict;

mod images;
mod lifecycle;
mod namespaces;

mod content;
mod databases;
mod journeys;

mod breakdowns;
mod criu_kill;
mod crowds;
mod deadlines;
mod faults;
mod matrix;
mod meddlers;
mod operators;
mod refusals;
mod restarts;
mod rights;

use ums_testbed::patience::{PATIENCE, POLL, eventually};
use ums_testbed::{rig, traces};
