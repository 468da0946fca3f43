//! `tar` over one TLS stream, from a directory at one site to a directory at another.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use ums_model::names::Bytes;

use crate::command;
use crate::net::{Net, SiteIndex};
use crate::tag::MARKER;

/// Where the receiving end listens at a site; only while a transfer runs.
const PORT: u16 = 19_443;
/// Name in the certificate.
const NAME: &str = "baseline.test";
/// Bytes handed over at a time. More is not faster, less costs a wake-up of `tar` each.
const CHUNK: usize = 256 * 1024;
/// Blocks of 512 bytes that `tar` writes at a time: as much as a pipe holds.
const TAR_BLOCKS: &str = "128";
/// No byte for so long, and the transfer has failed.
const STALL: Duration = Duration::from_secs(30);
/// How long `tar` may take to end after its last byte.
const TAR_END: Duration = Duration::from_secs(30);
/// Between two looks for a connection.
const POLL: Duration = Duration::from_millis(1);

/// Keys for transfers: a certificate made for this run, known to the sending end beforehand.
#[derive(Debug, Clone)]
pub(super) struct Wire {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Wire {
    /// Makes the keys.
    pub(super) fn new() -> Result<Self> {
        let pair = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).context("cannot make a key")?;
        let certificate = CertificateDer::from(pair.cert.der().to_vec());
        let key = PrivatePkcs8KeyDer::from(pair.signing_key.serialize_der());
        let provider = Arc::new(aws_lc_rs::default_provider());
        let versions = [&rustls::version::TLS13];
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).context("cannot trust the certificate just made")?;
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key.into())?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { server: Arc::new(server), client: Arc::new(client) })
    }

    /// Copies the content of `from` at the site `source` into `to` at `destination`; returns the size of the archive,
    /// which is what went over the link without the headers of TLS and TCP.
    ///
    /// On `Ok` everything is unpacked. On `Err` `to` may hold a part.
    pub(super) fn copy(
        &self,
        net: &Net,
        (source, from): (SiteIndex, &Path),
        (destination, to): (SiteIndex, &Path),
    ) -> Result<Bytes> {
        let address = (net.address(destination), PORT);
        let listener = net.site(destination).run(|| TcpListener::bind(address))?;
        let listener = listener.context("cannot listen for the archive")?;
        thread::scope(|scope| {
            let receiver = scope.spawn(|| self.receive(&listener, to));
            let sent = net.site(source).run(|| self.send(address, from))?;
            let received = receiver.join().map_err(|_| anyhow!("the receiver panicked"))?;
            // Where both failed, the receiver's reason is the better one: a sender only sees a broken pipe.
            let (received, sent) = (received.context("cannot receive")?, sent.context("cannot send")?);
            if sent != received {
                bail!("{sent} bytes were sent, {received} received");
            }
            Ok(Bytes(sent))
        })
    }

    fn send(&self, address: (Ipv4Addr, u16), from: &Path) -> Result<u64> {
        let socket = TcpStream::connect(address).context("cannot connect")?;
        let connection = ClientConnection::new(Arc::clone(&self.client), ServerName::try_from(NAME)?)?;
        let mut stream = StreamOwned::new(connection, patient(socket)?);
        let mut tar = Tar(tar(["-c", "-f", "-", "."], from).stdout(Stdio::piped()).spawn()?);
        let mut archive = tar.0.stdout.take().context("tar without an output")?;
        let bytes = pass(&mut archive, &mut stream).context("cannot send the archive")?;
        tar.end()?;
        stream.conn.send_close_notify();
        stream.flush()?;
        // The other end closes when it has unpacked everything.
        let mut rest = [0; 1];
        match stream.read(&mut rest) {
            Ok(0) => Ok(bytes),
            Ok(_) => bail!("the receiver talks back"),
            Err(error) => Err(error).context("the receiver did not say that it has everything"),
        }
    }

    fn receive(&self, listener: &TcpListener, to: &Path) -> Result<u64> {
        let socket = accept(listener)?;
        let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&self.server))?, patient(socket)?);
        let mut tar = Tar(tar(["-x", "-f", "-"], to).stdin(Stdio::piped()).spawn()?);
        let mut archive = tar.0.stdin.take().context("tar without an input")?;
        let bytes = pass(&mut stream, &mut archive).context("cannot receive the archive")?;
        drop(archive);
        tar.end()?;
        stream.conn.send_close_notify();
        stream.flush()?;
        Ok(bytes)
    }
}

/// A running `tar`, ended with its guard.
struct Tar(Child);

impl Tar {
    fn end(&mut self) -> Result<()> {
        match command::wait(&mut self.0, TAR_END)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("tar ended with {status}"),
            None => bail!("tar did not end within {TAR_END:?}"),
        }
    }
}

impl Drop for Tar {
    fn drop(&mut self) {
        // Fails only if it has ended, which is the aim.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn tar<const N: usize>(words: [&str; N], directory: &Path) -> Command {
    let mut command = Command::new("tar");
    command.args(["-b", TAR_BLOCKS, "-C"]).arg(directory).args(words);
    command.env_remove(MARKER).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
    command
}

fn accept(listener: &TcpListener) -> Result<TcpStream> {
    listener.set_nonblocking(true)?;
    let end = Instant::now() + STALL;
    loop {
        match listener.accept() {
            Ok((socket, _)) => {
                socket.set_nonblocking(false)?;
                return Ok(socket);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < end => {
                thread::sleep(POLL);
            }
            Err(error) => return Err(error).context("nobody connects"),
        }
    }
}

fn patient(socket: TcpStream) -> io::Result<TcpStream> {
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(STALL))?;
    socket.set_write_timeout(Some(STALL))?;
    Ok(socket)
}

fn pass(from: &mut impl Read, to: &mut impl Write) -> io::Result<u64> {
    let mut buffer = vec![0; CHUNK];
    let mut bytes = 0;
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            to.flush()?;
            return Ok(bytes);
        }
        to.write_all(&buffer[..read])?;
        bytes += read as u64;
    }
}
