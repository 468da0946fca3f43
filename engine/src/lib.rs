//! One Linux host: CRIU, the cgroup freezer, images on their way, processes in new namespaces.
//!
//! This is the only crate that runs CRIU and the only one with `unsafe` code. Read it in this order:
//!
//! 1. [`tools`]: where the programs are that the engine starts.
//! 2. [`cgroup`]: the freezer, version 1 and 2. A frozen cgroup *is* the state in which a copy does not run.
//! 3. [`criu`]: the client of `criu swrk`, the dump of a running tree, the restore into a frozen one.
//! 4. [`images`]: the image files between the two, streamed while CRIU still writes them.
//! 5. [`spawn`]: processes in new namespaces, with exactly the descriptors they shall have; [`process`]: what is known of
//!    others, and their ends.
//! 6. [`files`]: trees of files, read at one site and written at another.
//! 7. [`facts`]: what the host and a running service are like, found out without touching them.
//!
//! It knows one host and one process tree. It must never know sites, epochs, migrations, orchestrators or the wire:
//! who may run is decided above, here it is only done.

pub mod tools;
pub mod userns;

pub mod cgroup;
pub mod criu;
pub mod images;
pub mod process;
pub mod spawn;

pub mod facts;
pub mod files;

#[doc(hidden)]
pub mod counting;
