//! CRIU: a running tree into images, and images into a frozen tree.
//!
//! Read [`version`] (which one is needed), [`swrk`] (how it is talked to; the messages are in [`rpc`]), [`dump`]
//! (the source's half), [`restore`] and [`proxy`] (the destination's half: runc restores, and the proxy stands between
//! it and CRIU), [`tree`] and [`frozen`] (are all tasks there,
//! and do they stand?), [`mend`] (a dump whose CRIU was killed), and [`failure`] (what its errors mean).

pub mod dump;
pub mod failure;
pub mod frozen;
pub mod mend;
pub mod proxy;
pub mod restore;
pub mod rpc;
pub mod running;
pub mod swrk;
pub mod tree;
pub mod version;

mod deadlines;
mod link;
mod mounts;
