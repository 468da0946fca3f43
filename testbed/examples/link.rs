//! Measures the shaped link: goodput of one TCP connection, round-trip time, and the processor time it cost.
//!
//! One JSON object per line. Not a test, because a busy machine makes every number smaller.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use serde_json::json;
use ums_testbed::net::{A, B, Net};
use ums_testbed::shaper::{BitRate, Loss, Shape};

fn main() -> Result<()> {
    let seconds = std::env::args().nth(1).map_or(Ok(3), |word| word.parse()).context("seconds, please")?;
    let net = Net::new(2)?;
    let ms = Duration::from_millis;
    let gigabit = Shape::gigabit();
    let shapes = [
        ("open", Shape::open()),
        ("1 Gbit/s", gigabit),
        ("1 Gbit/s, 100 ms queue", Shape { queue: Some(ms(100)), ..gigabit }),
        ("100 Mbit/s", Shape { rate: Some(BitRate::mbit(100)), ..Shape::open() }),
        ("10 Mbit/s", Shape { rate: Some(BitRate::mbit(10)), ..Shape::open() }),
        ("1 Gbit/s, 5 ms", gigabit.with_delay(ms(5))),
        ("1 Gbit/s, 25 ms", gigabit.with_delay(ms(25))),
        ("1 Gbit/s, 0.1 % loss", gigabit.with_loss(Loss(1000))),
        ("1 Gbit/s, 5 ms, 0.1 % loss", gigabit.with_delay(ms(5)).with_loss(Loss(1000))),
        ("5 ms", Shape::open().with_delay(ms(5))),
    ];
    for (name, shape) in shapes {
        net.link(A, B).shape(shape)?;
        let busy = busy_time()?;
        let start = Instant::now();
        let mbit = goodput(&net, Duration::from_secs(seconds))?;
        let cpu = (busy_time()? - busy).as_secs_f64() / start.elapsed().as_secs_f64();
        let rtt = round_trip(&net)?;
        let line = json!({
            "scenario": "link", "shape": name, "goodput_mbit_s": mbit.round(),
            "round_trip_ms": rtt.as_secs_f64() * 1000.0, "processors_busy": (cpu * 100.0).round() / 100.0,
            "delay_line": format!("{:?}", net.link(A, B).delay_stats(B)),
        });
        println!("{line}");
    }
    Ok(())
}

fn goodput(net: &Net, time: Duration) -> Result<f64> {
    let address = (net.address(B), 5201);
    let listener = net.site(B).run(|| TcpListener::bind(address))??;
    let receiver = thread::spawn(move || -> std::io::Result<(u64, Duration)> {
        let (mut stream, _) = listener.accept()?;
        let mut buffer = vec![0; 256 * 1024];
        let (mut bytes, start) = (0, Instant::now());
        loop {
            match stream.read(&mut buffer)? {
                0 => return Ok((bytes, start.elapsed())),
                read => bytes += read as u64,
            }
        }
    });
    let mut stream = net.site(A).run(|| TcpStream::connect(address))??;
    let buffer = vec![7; 256 * 1024];
    let end = Instant::now() + time;
    while Instant::now() < end {
        stream.write_all(&buffer)?;
    }
    stream.shutdown(Shutdown::Write)?;
    let (bytes, time) = receiver.join().map_err(|_| anyhow!("the receiver panicked"))??;
    Ok(bytes as f64 * 8.0 / 1e6 / time.as_secs_f64())
}

/// Median of 21 datagrams on an idle link.
fn round_trip(net: &Net) -> Result<Duration> {
    let address = (net.address(B), 5202);
    let echo = net.site(B).run(|| UdpSocket::bind(address))??;
    echo.set_read_timeout(Some(Duration::from_millis(500)))?;
    let server = thread::spawn(move || {
        let mut buffer = [0; 16];
        while let Ok((_, sender)) = echo.recv_from(&mut buffer) {
            let _ = echo.send_to(&buffer, sender);
        }
    });
    let socket = net.site(A).run(|| UdpSocket::bind((net.address(A), 0)))??;
    socket.set_read_timeout(Some(Duration::from_millis(300)))?;
    let mut times = Vec::new();
    for _ in 0..21 {
        let start = Instant::now();
        socket.send_to(&[1], address)?;
        if socket.recv_from(&mut [0; 16]).is_ok() {
            times.push(start.elapsed());
        }
    }
    server.join().map_err(|_| anyhow!("the echo panicked"))?;
    times.sort();
    times.get(times.len() / 2).copied().context("no datagram came back")
}

/// Time that all processors together were not idle since boot.
fn busy_time() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("an empty /proc/stat")?;
    let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; a tick is 10 ms.
    let busy = ticks.iter().take(8).sum::<u64>() - ticks.get(3).unwrap_or(&0) - ticks.get(4).unwrap_or(&0);
    Ok(Duration::from_millis(busy * 10))
}
