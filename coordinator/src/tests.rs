//! Two Coordinators in one process, over real TLS, with fake sites behind them.

mod client;
mod fake;
mod lab;
mod proxy;

mod crashes;
mod moves;
mod trouble;

pub(crate) use fake::Fake;
