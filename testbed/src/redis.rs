//! Redis under load: every acknowledged write is remembered, and all are read back.
//!
//! * [`Load`]: several connections that write unique keys on a schedule that does not wait for answers;
//! * [`Load::verify`]: reads every acknowledged write back;
//! * [`Fill`]: random values up to a given size, read back as well.
//!
//! What a key must hold follows from its name and a seed, so nothing but numbers has to be remembered. A write that
//! was sent and not answered is *uncertain*: it may be there or not, but if it is there, it must be right.

mod client;
mod fill;
mod load;
mod resp;
mod verify;

pub use self::client::{Client, greet};
pub use self::fill::Fill;
pub use self::load::{Load, LoadConfig, LoadReport};
pub use self::resp::{Reply, RespError, encode, parse};
pub use self::verify::Verified;
