//! Hostile bytes for every decoder that reads what somebody else wrote. Development only.
//!
//! 1. [`targets`]: the decoders, each a function of bytes;
//! 2. [`corpus`]: where inputs begin: small files, kept, also those that once broke something;
//! 3. [`mutate`]: how an input becomes another one, decided by a seed alone;
//! 4. [`run`]: one input under watch (panic, memory), a run of many, and a failing input made small.
//!
//! Nothing here knows the structure of an input. The same seed gives the same inputs in the same order, everywhere.

pub mod targets;

pub mod corpus;
pub mod mutate;
pub mod run;

#[global_allocator]
static COUNTING: ums_engine::counting::Counting = ums_engine::counting::Counting;
