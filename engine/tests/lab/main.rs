//! The engine on a real kernel, with the real CRIU and runc: needs root, and says so where it is missing.
//!
//! [`machine`] prepares a mount namespace, [`service`] a tree of processes in a cgroup, [`container`] one in runc;
//! the other modules are the tests.

mod machine;

mod container;
mod service;

mod callbacks;
mod cgroup;
mod dump;
mod held;
mod mend;
mod spawn;
