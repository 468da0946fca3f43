//! Two embedded sites on one host move services between them, without Coordinators: the mechanics below every
//! migration, and what is left of them when something dies. Needs root, runc, CRIU and the `ums` and `ums-workload`
//! programs (`cargo xtask test` provides them).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod broken;
mod crashes;
mod exec;
mod moves;
mod network;
mod pair;
