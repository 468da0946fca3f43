//! Sites: what a Coordinator can ask of the computing system that it belongs to (intra-system coordination).
//!
//! Read in this order: [`adapter`], the one shape that every site has; [`embedded`], the site that UMS is by itself,
//! with nothing but a host, and how long it waits ([`deadlines`]); [`store`], where its images are.
//!
//! Only this crate knows an orchestrator. It must never know another site, a journal, or what was decided about a
//! migration: it executes, observes and answers.

pub mod adapter;
pub mod deadlines;
pub mod embedded;
pub mod store;
