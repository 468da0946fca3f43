//! A server that sends back what it receives.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;

use anyhow::{Context, Result};

use crate::args::Args;

const BUFFER: usize = 64 * 1024;

pub(crate) fn run(args: &Args) -> Result<()> {
    let port: u16 = args.required("port")?;
    args.finish()?;
    listen(port)
}

/// Echoes for ever; returns only if it cannot listen or accept.
pub(crate) fn listen(port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).context("cannot listen")?;
    println!("listening");
    loop {
        let (stream, _) = listener.accept().context("cannot accept")?;
        thread::spawn(move || serve(stream));
    }
}

fn serve(mut stream: TcpStream) {
    // A connection that breaks is the other side's to notice.
    let _ = stream.set_nodelay(true);
    let mut buffer = vec![0; BUFFER];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..read]).is_err() {
            return;
        }
    }
}
