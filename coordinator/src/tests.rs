//! Two Coordinators in one process, over real TLS, with fake sites behind them.

mod client;
mod fake;
mod lab;
mod proxy;

mod crashes;
mod doubles;
mod hostile;
mod keys;
mod lost;
mod moves;
mod policies;
mod refusals;
mod resolve;
mod restarts;
mod roles;
mod rollback;
mod strangers;
mod trouble;
mod turns;
mod users;

pub(crate) use fake::Fake;
