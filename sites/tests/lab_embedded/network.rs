//! Published ports: while a service runs here and the fence is open, whatever becomes of the daemon.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use ums_model::names::Epoch;
use ums_sites::adapter::{CopyState, SiteAdapter};
use ums_sites::embedded::Embedded;

use crate::pair::{Pair, eventually, fingerprint, hold, kill, status_with};

const PORT: u16 = 7123;

/// Whether the service answers on its port of this host.
fn answers() -> bool {
    let ask = || -> std::io::Result<bool> {
        let address = SocketAddr::from(([127, 0, 0, 1], PORT));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(500))?;
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        stream.write_all(b"hello")?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer)?;
        Ok(answer == *b"hello")
    };
    ask().unwrap_or(false)
}

async fn answering(what: &str) {
    eventually(what, async || tokio::task::spawn_blocking(answers).await.unwrap()).await;
}

async fn silent(what: &str) {
    assert!(!tokio::task::spawn_blocking(answers).await.unwrap(), "{what}");
}

fn nft(words: &[&str]) {
    assert!(Command::new("nft").args(words).status().unwrap().success(), "nft {words:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lab_ports_lead_to_the_copy_that_may_run() {
    let pair = Pair::new();
    let Pair { a, b, .. } = &pair;
    let mut spec = pair.spec("echo", &["tcp-echo", "--port", "80"]).await;
    spec.ports = vec![format!("{PORT}:80").parse().unwrap()];
    let name = spec.name.clone();
    a.run(&spec).await.unwrap();
    answering("it is published").await;

    // A daemon that starts again finds its rules flushed, or its link gone.
    let table = format!("ums_{}_echo", fingerprint(0xa1).short());
    nft(&["delete", "table", "inet", &table]);
    silent("the rules are gone").await;
    pair.reopen_a().await;
    answering("it is published again").await;
    let link = format!("u{}-", fingerprint(0xa1).short());
    let links = Command::new("ip").args(["-oneline", "link", "show"]).output().unwrap().stdout;
    let links = String::from_utf8(links).unwrap();
    let link = links.split_whitespace().find(|word| word.starts_with(&link)).unwrap();
    let link = link.split('@').next().unwrap();
    assert!(Command::new("ip").args(["link", "delete", link]).status().unwrap().success());
    silent("the link is gone").await;
    let a: &Embedded = &pair.reopen_a().await;
    answering("it is linked again").await;

    // The fence is closed from the dump on, and opens with the word.
    hold(a, b, &name, Epoch(1)).await;
    silent("it is frozen").await;
    b.discard(&name, Epoch(1)).await.unwrap();
    a.thaw(&name, Epoch(1)).await.unwrap();
    answering("it was thawed").await;

    // With its keeper the link goes; its rules are replaced when it starts again.
    kill(a.status(&name).await.unwrap().keeper_pid.unwrap());
    status_with(a, &name, "it is dead", |status| status.copy == CopyState::Dead).await;
    eventually("it is dead", async || !tokio::task::spawn_blocking(answers).await.unwrap()).await;
    a.start(&name, Epoch::ZERO).await.unwrap();
    answering("it was started again").await;
    a.remove(&name, true).await.unwrap();
    silent("it was removed").await;
}
