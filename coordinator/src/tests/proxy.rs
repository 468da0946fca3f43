//! A link that can be cut: every connection to a site goes through one of these.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// The way to one site.
#[derive(Debug, Clone)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    to: Option<SocketAddr>,
    whole: bool,
    cut: CancellationToken,
}

impl Proxy {
    pub(crate) fn start(runtime: &Handle) -> Self {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let state = Arc::new(Mutex::new(State { to: None, whole: true, cut: CancellationToken::new() }));
        let proxy = Self { address: listener.local_addr().unwrap(), state: Arc::clone(&state) };
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, Arc::clone(&state)));
            }
        });
        proxy
    }

    /// Where the site listens now.
    pub(crate) fn lead_to(&self, address: SocketAddr) {
        self.state.lock().unwrap().to = Some(address);
    }

    /// Breaks every connection and lets no new one through.
    pub(crate) fn cut(&self) {
        let mut state = self.state.lock().unwrap();
        state.whole = false;
        state.cut.cancel();
    }

    /// Lets new connections through.
    pub(crate) fn heal(&self) {
        let mut state = self.state.lock().unwrap();
        state.whole = true;
        state.cut = CancellationToken::new();
    }
}

async fn carry(mut client: TcpStream, state: Arc<Mutex<State>>) {
    let (to, cut) = {
        let state = state.lock().unwrap();
        (state.to.filter(|_| state.whole), state.cut.clone())
    };
    let Some(to) = to else { return };
    let Ok(mut server) = TcpStream::connect(to).await else { return };
    // The sites do not wait for more to send; neither may what is between them.
    if client.set_nodelay(true).and(server.set_nodelay(true)).is_err() {
        return;
    }
    tokio::select! {
        biased;
        () = cut.cancelled() => {}
        _ = copy_bidirectional(&mut client, &mut server) => {}
    }
}
