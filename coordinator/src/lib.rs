//! draft
mod act;
mod addresses;
mod api;
mod chronicle;
mod clock;
pub mod config;
mod control;
mod core;
mod daemon;
mod desk;
mod destination;
mod failure;
pub mod fault;
mod journal;
mod migrations;
mod pairing;
mod peers;
mod preflight;
mod promises;
mod recovery;
mod services;
mod settle;
mod source;
pub mod view;
pub use daemon::{Coordinator, Running, StartError};
#[cfg(test)]
mod tests;
