//! The fence: a copy without run-right is cut off in both directions.
//!
//! One nft table in the inner namespace drops every packet that comes in or goes out, except on `lo`: the service's
//! processes may still talk to each other. It must be closed before restored sockets exist, because they answer
//! packets from then on, and before a copy is killed, because the kernel then sends resets for it.

use crate::deadlines::Deadlines;
use crate::layout::INNER_NAMESPACE;
use crate::tool::{NetError, run};

const TABLE: &str = "ums_fence";

/// Cuts the service off. Ok = the kernel drops everything from now on. Safe to repeat.
pub async fn close(deadlines: &Deadlines) -> Result<(), NetError> {
    inner_nft(deadlines, &format!(
        "table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n\
         \x20 chain inbound {{ type filter hook prerouting priority -450; policy drop; iifname \"lo\" accept; }}\n\
         \x20 chain outbound {{ type filter hook output priority -450; policy drop; oifname \"lo\" accept; }}\n}}\n"
    ))
    .await
}

/// Lets packets pass again. Ok also when it was open.
pub async fn open(deadlines: &Deadlines) -> Result<(), NetError> {
    inner_nft(deadlines, &format!("table inet {TABLE}\ndelete table inet {TABLE}\n")).await
}

/// Whether the fence is closed, read back from the kernel.
pub async fn is_closed(deadlines: &Deadlines) -> Result<bool, NetError> {
    let tables =
        run(deadlines, "ip", &["netns", "exec", INNER_NAMESPACE, "nft", "list", "tables"], "").await?;
    Ok(tables.lines().any(|line| line.trim() == format!("table inet {TABLE}")))
}

async fn inner_nft(deadlines: &Deadlines, script: &str) -> Result<(), NetError> {
    run(deadlines, "ip", &["netns", "exec", INNER_NAMESPACE, "nft", "-f", "-"], script).await.map(drop)
}
