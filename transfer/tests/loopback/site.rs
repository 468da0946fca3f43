//! A site for tests: an identity, a port, and the set of fingerprints that it accepts.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;
use ums_model::names::{Fingerprint, SiteName};
use ums_transfer::Deadlines;
use ums_transfer::identity::Identity;
use ums_transfer::link::{self, Greeting, Link, LinkError, Purpose};
use ums_transfer::tls::{Accepted, ServerTls, TlsError, server_config};

pub(crate) struct Site {
    pub(crate) identity: Identity,
    pub(crate) greeting: Greeting,
    pub(crate) address: String,
    pub(crate) deadlines: Deadlines,
    paired: Arc<Mutex<HashSet<Fingerprint>>>,
    tls: ServerTls,
    listener: TcpListener,
}

impl Site {
    pub(crate) async fn start(name: &str) -> Self {
        let identity = Identity::ephemeral().unwrap();
        let paired = Arc::new(Mutex::new(HashSet::new()));
        let known = Arc::clone(&paired);
        let trust = Arc::new(move |fingerprint: &Fingerprint| known.lock().unwrap().contains(fingerprint));
        let tls = server_config(&identity, trust).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let greeting = Greeting::new(SiteName::new(name).unwrap());
        Self { identity, greeting, address, deadlines: Deadlines::default(), paired, tls, listener }
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.identity.fingerprint()
    }

    pub(crate) fn trust(&self, fingerprint: Fingerprint) {
        self.paired.lock().unwrap().insert(fingerprint);
    }

    pub(crate) fn distrust(&self, fingerprint: Fingerprint) {
        self.paired.lock().unwrap().remove(&fingerprint);
    }

    /// The next connection, authenticated.
    pub(crate) async fn accept(&self) -> Result<Accepted, TlsError> {
        let (tcp, _) = self.listener.accept().await.unwrap();
        self.tls.accept(tcp, &self.deadlines).await
    }

    /// The next connection as a link.
    pub(crate) async fn accept_link(&self) -> Result<Link, LinkError> {
        link::accept(self.accept().await?, &self.greeting, &self.deadlines).await
    }

    pub(crate) async fn dial(&self, other: &Self, purpose: Purpose) -> Result<Link, LinkError> {
        let (expected, deadlines) = (other.fingerprint(), &self.deadlines);
        link::connect(&other.address, &self.identity, expected, purpose, &self.greeting, deadlines).await
    }
}

/// Two sites that accept each other.
pub(crate) async fn pair() -> (Site, Site) {
    let (a, b) = (Site::start("edge").await, Site::start("cloud").await);
    a.trust(b.fingerprint());
    b.trust(a.fingerprint());
    (a, b)
}

/// A link from the first to the second.
pub(crate) async fn linked(purpose: Purpose) -> (Link, Link) {
    let (a, b) = pair().await;
    let (near, far) = tokio::join!(a.dial(&b, purpose), b.accept_link());
    (near.unwrap(), far.unwrap())
}
