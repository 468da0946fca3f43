use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use ums_transfer::Deadlines;
use ums_transfer::identity::Identity;
use ums_transfer::link::{LinkError, Purpose};
use ums_transfer::tls::{self, Alpn, Dial, TlsError, refused_by_peer};

use crate::site::{Site, pair};

/// A client's check that believes everything: what an attacker would use.
#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        unreachable!("TLS 1.2 was negotiated")
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

fn name() -> ServerName<'static> {
    ServerName::try_from("anything").unwrap()
}

/// A foreign client: with this certificate or without one, with this protocol or without one.
async fn foreign(
    address: &str,
    certified: Option<Arc<CertifiedKey>>,
    alpn: Option<&str>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible));
    let mut config = match certified {
        Some(certified) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.into_iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsConnector::from(Arc::new(config)).connect(name(), TcpStream::connect(address).await?).await
}

/// Somebody who has a site's certificate, which is no secret, but another key.
async fn impostor_of(site: &Site) -> Arc<CertifiedKey> {
    let (client, server) = tokio::join!(foreign(&site.address, None, None), site.accept());
    server.unwrap();
    let client = client.unwrap();
    let stolen = client.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned();
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let key = aws_lc_rs::default_provider().key_provider.load_private_key(key).unwrap();
    Arc::new(CertifiedKey::new(vec![stolen], key))
}

#[tokio::test]
async fn both_sides_know_each_other() {
    let (a, b) = pair().await;
    for (dial, alpn) in [
        (Dial::Link(b.fingerprint()), Alpn::Link),
        (Dial::Pair(b.fingerprint()), Alpn::Pairing),
        (Dial::Api(b.fingerprint()), Alpn::Api),
    ] {
        let (near, far) = tokio::join!(tls::connect(&b.address, &a.identity, dial, &a.deadlines), b.accept());
        let (mut near, mut far) = (near.unwrap(), far.unwrap());
        assert_eq!((far.alpn, far.peer), (alpn, Some(a.fingerprint())));
        near.write_all(b"ping").await.unwrap();
        near.flush().await.unwrap();
        let mut heard = [0; 4];
        far.stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"ping");
    }
}

#[tokio::test]
async fn a_wrong_server_is_named_and_learns_nothing() {
    let (a, b) = pair().await;
    let other = Identity::ephemeral().unwrap().fingerprint();
    let dial = tls::connect(&b.address, &a.identity, Dial::Link(other), &a.deadlines);
    let (near, far) = tokio::join!(dial, b.accept());
    let error = near.unwrap_err();
    let right = matches!(error, TlsError::WrongIdentity { expected, got, .. } if expected == other && got == b.fingerprint());
    assert!(right, "{error:?}");
    far.unwrap_err();
}

#[tokio::test]
async fn an_unknown_site_is_refused_and_told() {
    let (a, b) = pair().await;
    b.distrust(a.fingerprint());
    let (near, far) = tokio::join!(a.dial(&b, Purpose::Probe), b.accept());
    let error = near.unwrap_err();
    assert!(matches!(error, LinkError::Tls { source: TlsError::NotPaired { .. } }), "{error:?}");
    let error = far.unwrap_err();
    let named = matches!(error, TlsError::UnknownSite { fingerprint, .. } if fingerprint == a.fingerprint());
    assert!(named, "{error:?}");
    // A revoked site is out at once: nothing of the earlier session may help it.
    b.trust(a.fingerprint());
    let (near, far) = tokio::join!(a.dial(&b, Purpose::Probe), b.accept_link());
    near.unwrap();
    far.unwrap();
    b.distrust(a.fingerprint());
    let (near, _far) = tokio::join!(a.dial(&b, Purpose::Probe), b.accept());
    near.unwrap_err();
}

#[tokio::test]
async fn no_certificate_no_link() {
    let b = Site::start("cloud").await;
    for alpn in [Alpn::Link, Alpn::Pairing] {
        let client = async {
            let mut client = foreign(&b.address, None, Some(alpn.name())).await.unwrap();
            // More than the server has read by the time it refuses: the alert must arrive all the same.
            let _ = client.write_all(&[0; 32 * 1024]).await;
            let _ = client.flush().await;
            let heard = client.read(&mut [0; 16]).await;
            // And nothing may come after it but a clean end; a reset can overtake an alert.
            client.into_inner().0.read_to_end(&mut Vec::new()).await.unwrap();
            heard
        };
        let (heard, server) = tokio::join!(client, b.accept());
        let refusal = heard.unwrap_err();
        assert!(refused_by_peer(&refusal), "{refusal:?}");
        let error = server.unwrap_err();
        assert!(matches!(error, TlsError::NoCertificate { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_stolen_certificate_without_its_key_is_worth_nothing() {
    let (a, b) = pair().await;
    // As a client: the fingerprint is one that b accepts.
    let stolen = impostor_of(&a).await;
    for alpn in [Alpn::Link, Alpn::Pairing, Alpn::Api] {
        let client = async {
            let mut client = foreign(&b.address, Some(Arc::clone(&stolen)), Some(alpn.name())).await?;
            client.read(&mut [0; 16]).await
        };
        // Dropped at once, should it be accepted after all, so that the client does not wait.
        let (heard, server) = tokio::join!(client, async { b.accept().await.map(drop) });
        heard.unwrap_err();
        let error = server.unwrap_err();
        assert!(matches!(error, TlsError::Handshake { .. }), "{error:?}");
    }
    // As a server: the fingerprint is the one that a expects.
    let stolen = impostor_of(&b).await;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(stolen)));
    config.alpn_protocols = vec![Alpn::Link.name().into()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let impostor = async {
        let (tcp, _) = listener.accept().await.unwrap();
        TlsAcceptor::from(Arc::new(config)).accept(tcp).await
    };
    let dial = tls::connect(&address, &a.identity, Dial::Link(b.fingerprint()), &a.deadlines);
    let (near, far) = tokio::join!(dial, impostor);
    let error = near.unwrap_err();
    assert!(matches!(error, TlsError::Handshake { .. }), "{error:?}");
    far.unwrap_err();
}

#[tokio::test]
async fn the_api_takes_anybody_and_says_who() {
    let b = Site::start("cloud").await;
    for alpn in [None, Some("http/1.1")] {
        let (client, server) = tokio::join!(foreign(&b.address, None, alpn), b.accept());
        client.unwrap();
        let accepted = server.unwrap();
        assert_eq!((accepted.alpn, accepted.peer), (Alpn::Api, None));
    }
    // Somebody who shows a certificate is reported, known or not.
    let stranger = Identity::ephemeral().unwrap();
    let dial = tls::connect(&b.address, &stranger, Dial::Api(b.fingerprint()), &b.deadlines);
    let (near, far) = tokio::join!(dial, b.accept());
    near.unwrap();
    assert_eq!(far.unwrap().peer, Some(stranger.fingerprint()));
    // And somebody who speaks something else is sent away.
    let (client, server) = tokio::join!(foreign(&b.address, None, Some("h2")), b.accept());
    client.unwrap_err();
    server.unwrap_err();
}

#[tokio::test]
async fn a_server_of_another_kind_is_told_apart() {
    let a = Site::start("edge").await;
    let expected = Identity::ephemeral().unwrap().fingerprint();
    let deadlines = Deadlines { tls: std::time::Duration::from_millis(50), ..Deadlines::default() };
    let connect = async |address: &str| {
        tls::connect(address, &a.identity, Dial::Link(expected), &deadlines).await.unwrap_err()
    };

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // Listens, and says nothing.
    let error = connect(&address).await;
    assert!(matches!(error, TlsError::TimedOut { .. }), "{error:?}");
    // Nobody listens any more.
    drop(listener);
    let error = connect(&address).await;
    assert!(matches!(error, TlsError::Unreachable { .. }), "{error:?}");
    // No such name; `invalid` is reserved for that.
    let error = connect("nowhere.invalid:1").await;
    assert!(matches!(error, TlsError::Unreachable { .. }), "{error:?}");

    // Something that is not TLS.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let ssh = async {
        let (mut tcp, _) = listener.accept().await.unwrap();
        tcp.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await.unwrap();
        tcp.read_to_end(&mut Vec::new()).await.unwrap();
    };
    let dial = tls::connect(&address, &a.identity, Dial::Link(expected), &a.deadlines);
    let (error, ()) = tokio::join!(async { dial.await.unwrap_err() }, ssh);
    assert!(matches!(error, TlsError::Handshake { .. }), "{error:?}");
}

#[tokio::test]
async fn a_client_that_is_no_client_ends() {
    let mut b = Site::start("cloud").await;
    let garbage = async {
        let mut tcp = TcpStream::connect(&b.address).await.unwrap();
        tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        tcp.read_to_end(&mut Vec::new()).await.unwrap();
    };
    let ((), server) = tokio::join!(garbage, b.accept());
    let error = server.unwrap_err();
    assert!(matches!(error, TlsError::Handshake { .. }), "{error:?}");
    // One that never says anything.
    b.deadlines.tls = std::time::Duration::from_millis(50);
    let _silent = TcpStream::connect(&b.address).await.unwrap();
    let error = b.accept().await.unwrap_err();
    assert!(matches!(error, TlsError::TimedOut { .. }), "{error:?}");
}

#[tokio::test]
async fn whether_a_site_can_be_reached() {
    let (a, b) = (Site::start("edge").await, Site::start("cloud").await);
    // Not paired: still reachable, but only under its own fingerprint.
    let (reached, far) =
        tokio::join!(tls::reachable(&b.address, &a.identity, b.fingerprint(), &a.deadlines), b.accept());
    reached.unwrap();
    assert_eq!(far.unwrap().alpn, Alpn::Pairing);
    let (reached, _) =
        tokio::join!(tls::reachable(&b.address, &a.identity, a.fingerprint(), &a.deadlines), b.accept());
    assert!(matches!(reached.unwrap_err(), TlsError::WrongIdentity { .. }));
}
