//! draft
mod clock;
pub mod config;
pub mod fault;
mod journal;
