//! What a plan needs to know of this machine and of one process tree, read without stopping or changing either.
//!
//! Everything comes from `/proc`, `/sys` and questions to the kernel that create nothing. A fact that could not be
//! found out is `None` or listed as unchecked, never a guess: the plan warns of it.
//!
//! `host`: the machine, its tools, its room. `processes`: how large a service is, and what it holds that CRIU
//! cannot dump or restore.

mod error;
mod host;
mod processes;

pub use error::FactsError;
pub use host::{HostFacts, HostQuery, host_facts};
pub use processes::{ServiceProcesses, ServiceQuery, service_facts};
