//! draft
mod act;
mod chronicle;
mod clock;
pub mod config;
mod control;
mod core;
mod desk;
mod destination;
mod failure;
pub mod fault;
mod journal;
mod peers;
mod preflight;
mod promises;
mod recovery;
mod settle;
mod source;
