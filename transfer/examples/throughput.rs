//! How fast an archive crosses a link: two sites on the loopback interface, TLS and all digests included.
//!
//! `cargo run -p ums-transfer --example throughput [MIB]` prints one JSON object. Both ends run on this machine and
//! share its processors, so a link between two machines is faster, if the network is.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use bytes::Bytes;
use tokio::net::{TcpListener, UnixStream};
use ums_model::names::SiteName;
use ums_transfer::Deadlines;
use ums_transfer::archive::{ArchiveEvent, ArchiveReader, ArchiveWriter, Limits, Totals};
use ums_transfer::frame::{FrameReader, FrameWriter, MAX_DATA};
use ums_transfer::identity::Identity;
use ums_transfer::link::{self, Greeting, Purpose};
use ums_transfer::tls::server_config;

/// What is sent if nothing else is asked for, in MiB.
const MIB: u64 = 1024;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mib =
        std::env::args().nth(1).map_or(Ok(MIB), |text| text.parse()).context("usage: throughput [MIB]")?;
    let over_tls = tls(mib).await?;
    let over_unix = unix(mib).await?;
    println!(
        "{}",
        serde_json::json!({ "mib": mib, "tls_bytes_per_s": over_tls, "unix_bytes_per_s": over_unix })
    );
    Ok(())
}

async fn tls(mib: u64) -> anyhow::Result<u64> {
    let deadlines = Deadlines::default();
    let (near, far) = (Identity::ephemeral()?, Identity::ephemeral()?);
    let expected = near.fingerprint();
    let server = server_config(&far, Arc::new(move |fingerprint| *fingerprint == expected))?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let receiving = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await?;
        let accepted = server.accept(tcp, &deadlines).await?;
        let mut link = link::accept(accepted, &Greeting::new(SiteName::new("far")?), &deadlines).await?;
        receive(&mut link.frames.reader).await
    });
    let greeting = Greeting::new(SiteName::new("near")?);
    let mut link =
        link::connect(&address, &near, far.fingerprint(), Purpose::Probe, &greeting, &deadlines).await?;
    let start = Instant::now();
    let sent = send(&mut link.frames.writer, mib).await?;
    rate(sent, receiving.await??, start)
}

async fn unix(mib: u64) -> anyhow::Result<u64> {
    let deadlines = Deadlines::default();
    let (near, far) = UnixStream::pair()?;
    let receiving = tokio::spawn(async move { receive(&mut FrameReader::new(far, &deadlines)).await });
    let start = Instant::now();
    let sent = send(&mut FrameWriter::new(near, &deadlines), mib).await?;
    rate(sent, receiving.await??, start)
}

fn rate(sent: Totals, received: Totals, start: Instant) -> anyhow::Result<u64> {
    ensure!(sent == received, "what arrived is not what was sent");
    Ok((sent.bytes as f64 / start.elapsed().as_secs_f64()) as u64)
}

async fn send<W: tokio::io::AsyncWrite + Unpin>(
    frames: &mut FrameWriter<W>,
    mib: u64,
) -> anyhow::Result<Totals> {
    let mut noise = vec![0; MAX_DATA];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let noise = Bytes::from(noise);
    let mut archive = ArchiveWriter::new(frames, Limits::default());
    let channel = archive.open("noise", &()).await?;
    for _ in 0..mib * 1024 * 1024 / MAX_DATA as u64 {
        archive.write(channel, noise.clone()).await?;
    }
    archive.close(channel).await?;
    Ok(archive.finish().await?)
}

async fn receive<R: tokio::io::AsyncRead + Unpin>(frames: &mut FrameReader<R>) -> anyhow::Result<Totals> {
    let mut archive = ArchiveReader::new(frames, Limits::default());
    loop {
        if let ArchiveEvent::End { totals } = archive.next().await? {
            return Ok(totals);
        }
    }
}
