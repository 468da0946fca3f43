//! The nest: owns one service and can freeze, dump, restore and move it.
//!
//! ```text
//! ums site ──spawns──► keeper (pid 1 of its own pid, mount and network namespace; the network namespace is the place)
//!                        ├─ nest     child, restarted when it dies; answers on DIR/nest.sock
//!                        └─ service  created or restored by runc in its own namespaces below the keeper
//! ```
//!
//! Read in this order:
//! 1. [`recipe`]: what a nest must know to build its service here; [`layout`]: where everything is; [`deadlines`]: how
//!    long it waits;
//! 2. [`protocol`] and [`client`]: what a site asks a nest (the Migration Interface);
//! 3. [`keeper`]: the life line; [`right`]: the durable record of what the nest may
//!    do, by the rules of [`ums_model::nest`]; [`stopped`]: a user's word that it shall not run;
//! 4. [`server`]: one request per connection, dispatched to `lifecycle` (start, stop, signals), `source` (freeze
//!    and dump), `destination` (arm, restore, resume) and [`exec`];
//! 5. `mounts`, `bundle`, `runc`: how a container comes to be; `admission`: what another site's images may ask for.
//!
//! A nest never decides whether a service may run: it executes what its run-right grants. It must never know another
//! site, an orchestrator, a journal or TLS.

pub mod deadlines;
pub mod layout;
pub mod recipe;

pub mod client;
pub mod protocol;

pub mod keeper;
pub mod right;
pub mod stopped;

mod admission;
mod bundle;
mod destination;
pub mod exec;
mod facts;
mod harm;
mod lifecycle;
mod mounts;
mod outcome;
mod parcel;
mod quiesce;
mod restart;
mod runc;
pub mod server;
mod source;
mod state;
