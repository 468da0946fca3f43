//! Two sites on the loopback interface, over real TCP sockets.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests do")]

mod bulk;
mod link;
mod pairing;
mod site;
mod tls;
