//! The vocabulary and the rules of UMS: names, service specs, phases, events, errors, the two-party commit and the
//! checks of a plan. Everything that crosses a wire or is written into a journal is defined here, once.
//!
//! Read in this order:
//! 1. [`names`]: the newtypes that everything else is made of;
//! 2. [`spec`]: what a service is, the same at every site;
//! 3. [`phase`], [`event`], [`report`], [`error`]: what a migration says about itself;
//! 4. [`facts`], [`action`], [`source`], [`destination`], [`standing`], [`nest`]: who may run a service, as pure state
//!    machines. This is the safety core;
//! 5. [`message`]: what two Coordinators say to each other;
//! 6. [`plan`]: whether a service can move, and what it will cost; [`policy`]: what a paired site may do.
//!
//! This crate never does I/O, never waits, never looks at a clock and contains no `unsafe`: a function here gets all
//! it may know as arguments, so that every one of its answers can be replayed and tested without a machine.
//! It must never know an orchestrator, CRIU, a socket or a file.

#[macro_use]
mod words;

pub mod names;
pub mod seconds;
pub mod spec;
pub mod text;

pub mod error;
pub mod event;
pub mod phase;
pub mod report;

pub mod action;
pub mod destination;
pub mod facts;
mod illegal;
pub mod nest;
pub mod source;
pub mod standing;

pub mod message;
pub mod plan;
pub mod policy;

pub use illegal::IllegalEvent;
