use std::collections::HashMap;
use std::sync::Mutex;

use serde_json::json;
use tokio::io::split;
use ums_model::names::Fingerprint;
use ums_transfer::frame::{Conversation, FrameError};
use ums_transfer::pairing::{
    Announcement, Invite, InviteBook, InviteId, Paired, PairingError, Refusal, Secret, pair_client,
    pair_server,
};
use ums_transfer::tls::{self, Dial, TlsError};

use crate::site::Site;

/// The invites of a site, as its journal would keep them.
#[derive(Default)]
struct Book {
    invites: Mutex<HashMap<InviteId, (Secret, Option<Fingerprint>)>>,
}

impl Book {
    fn with(invite: &Invite) -> Self {
        let book = Self::default();
        book.invites.lock().unwrap().insert(invite.id(), (invite.secret().clone(), None));
        book
    }
}

impl InviteBook for Book {
    async fn secret(&self, id: InviteId) -> Option<Secret> {
        self.invites.lock().unwrap().get(&id).map(|(secret, _)| secret.clone())
    }

    async fn redeem(&self, id: InviteId, paired: &Paired) -> Result<(), Refusal> {
        let mut invites = self.invites.lock().unwrap();
        let (_, by) = invites.get_mut(&id).ok_or(Refusal::UnknownInvite)?;
        if by.is_some_and(|by| by != paired.site.fingerprint) {
            return Err(Refusal::Used);
        }
        *by = Some(paired.site.fingerprint);
        Ok(())
    }
}

fn announcement(site: &Site, addresses: &[&str]) -> Announcement {
    Announcement {
        name: site.greeting.site.clone(),
        addresses: addresses.iter().map(|address| (*address).to_owned()).collect(),
    }
}

fn invite(to: &Site) -> Invite {
    // The first address does not answer: the client must get to the second.
    Invite::new(vec!["127.0.0.1:1".into(), to.address.clone()], to.fingerprint()).unwrap()
}

async fn serve(site: &Site, book: &Book) -> Result<Paired, PairingError> {
    let accepted = site.accept().await.unwrap();
    let announcement = announcement(site, &[&site.address]);
    pair_server(accepted, &site.identity, book, &announcement, &site.deadlines).await
}

/// `b` redeems at `a`, while both serve their ports.
async fn redeem(
    a: &Site,
    b: &Site,
    invite: &Invite,
    book: &Book,
) -> (Result<Paired, PairingError>, Result<Paired, PairingError>) {
    let announcement = announcement(b, &["127.0.0.1:1", &b.address]);
    let client = pair_client(invite, &b.identity, &announcement, &b.deadlines);
    tokio::select! {
        both = async { tokio::join!(client, serve(a, book)) } => both,
        () = async { loop { let _ = b.accept().await; } } => unreachable!("it never ends"),
    }
}

fn refusal(result: Result<Paired, PairingError>) -> Refusal {
    match result.unwrap_err() {
        PairingError::Refused { reason, .. } | PairingError::Refusing { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn two_sites_meet() {
    let (a, b) = (Site::start("edge").await, Site::start("cloud").await);
    let invite: Invite = invite(&a).to_string().parse().unwrap();
    let book = Book::with(&invite);
    let (client, server) = redeem(&a, &b, &invite, &book).await;
    let (client, server) = (client.unwrap(), server.unwrap());
    assert_eq!((client.site.name.as_str(), client.site.fingerprint), ("edge", a.fingerprint()));
    assert_eq!((server.site.name.as_str(), server.site.fingerprint), ("cloud", b.fingerprint()));
    assert!(client.we_can_dial && client.they_can_dial && server.we_can_dial && server.they_can_dial);
    assert_eq!(client.site.addresses, [a.address.as_str()]);
    assert_eq!(server.site.addresses, [b.address.as_str(), "127.0.0.1:1"], "the one that works comes first");
    assert_eq!(book.invites.lock().unwrap()[&invite.id()].1, Some(b.fingerprint()));
}

#[tokio::test]
async fn an_invite_is_good_for_one_site() {
    let (a, b) = (Site::start("edge").await, Site::start("cloud").await);
    let invite = invite(&a);
    let book = Book::with(&invite);
    let (client, server) = redeem(&a, &b, &invite, &book).await;
    client.unwrap();
    server.unwrap();
    // A second site finds it used.
    let c = Site::start("late").await;
    let (client, server) = redeem(&a, &c, &invite, &book).await;
    assert_eq!((refusal(client), refusal(server)), (Refusal::Used, Refusal::Used));
    // The same site may not have heard the answer, and may come again.
    let (client, server) = redeem(&a, &b, &invite, &book).await;
    client.unwrap();
    server.unwrap();
}

#[tokio::test]
async fn an_invite_that_expired_is_unknown() {
    let (a, b) = (Site::start("edge").await, Site::start("cloud").await);
    let (client, server) = redeem(&a, &b, &invite(&a), &Book::default()).await;
    assert_eq!((refusal(client), refusal(server)), (Refusal::UnknownInvite, Refusal::UnknownInvite));
}

/// Sends `request` as it is and returns what comes back.
async fn raw(
    a: &Site,
    b: &Site,
    book: &Book,
    request: serde_json::Value,
) -> (serde_json::Value, PairingError) {
    let client = async {
        let dial = Dial::Pair(a.fingerprint());
        let stream = tls::connect(&a.address, &b.identity, dial, &b.deadlines).await.unwrap();
        let (reader, writer) = split(stream);
        let mut frames = Conversation::new(reader, writer, &b.deadlines);
        frames.send(&request).await.unwrap();
        frames.next().await.unwrap().unwrap()
    };
    let (reply, server) = tokio::join!(client, serve(a, book));
    (reply, server.unwrap_err())
}

#[tokio::test]
async fn the_id_alone_or_a_wrong_secret_proves_nothing() {
    let (a, b) = (Site::start("edge").await, Site::start("cloud").await);
    let invite = invite(&a);
    let book = Book::with(&invite);
    let request = json!({
        "invite": invite.id(), "proof": vec![0; 32],
        "announcement": {"name": "cloud", "addresses": [b.address]},
    });
    let (reply, error) = raw(&a, &b, &book, request).await;
    assert_eq!(reply, json!({"reply": "refused", "reason": "wrong-proof"}));
    assert_eq!(refusal(Err(error)), Refusal::WrongProof);
    assert_eq!(book.invites.lock().unwrap()[&invite.id()].1, None, "the invite must still be good");
}

/// What `b` says to a site of its choice, recorded by that site.
async fn record(a: &Site, b: &Site, invite: &Invite) -> serde_json::Value {
    let recording = async {
        let (reader, writer) = split(a.accept().await.unwrap().stream);
        let mut frames = Conversation::new(reader, writer, &a.deadlines);
        frames.next::<serde_json::Value>().await.unwrap().unwrap()
    };
    let announcement = announcement(b, &[&b.address]);
    let (client, request) =
        tokio::join!(pair_client(invite, &b.identity, &announcement, &b.deadlines), recording);
    client.unwrap_err();
    request
}

#[tokio::test]
async fn a_recorded_request_is_worth_nothing_in_another_connection() {
    let (a, b) = (Site::start("edge").await, Site::start("cloud").await);
    let invite = invite(&a);
    let request = record(&a, &b, &invite).await;
    // Even from the very same site to the very same site.
    let book = Book::with(&invite);
    let (reply, _) = raw(&a, &b, &book, request).await;
    assert_eq!(reply, json!({"reply": "refused", "reason": "wrong-proof"}));
}

#[tokio::test]
async fn an_answer_without_proof_is_not_believed() {
    let (a, b) = (Site::start("edge").await, Site::start("cloud").await);
    let answering = async {
        let (reader, writer) = split(a.accept().await.unwrap().stream);
        let mut frames = Conversation::new(reader, writer, &a.deadlines);
        let request: serde_json::Value = frames.next().await.unwrap().unwrap();
        // The client's own proof, sent back.
        let reply = json!({
            "reply": "accepted", "proof": request["proof"], "dialed_back": true,
            "announcement": {"name": "edge", "addresses": [a.address]},
        });
        frames.send(&reply).await.unwrap();
        let _ = frames.reader.read().await;
    };
    let (invite, announcement) = (invite(&a), announcement(&b, &[&b.address]));
    let (client, ()) =
        tokio::join!(pair_client(&invite, &b.identity, &announcement, &b.deadlines), answering);
    let error = client.unwrap_err();
    assert!(matches!(error, PairingError::NotProven { .. }), "{error:?}");
}

#[tokio::test]
async fn somebody_else_at_the_address_is_found_out_before_anything_is_said() {
    let (a, b, between) =
        (Site::start("edge").await, Site::start("cloud").await, Site::start("between").await);
    let invite = Invite::new(vec![between.address.clone()], a.fingerprint()).unwrap();
    let announcement = announcement(&b, &[&b.address]);
    let client = pair_client(&invite, &b.identity, &announcement, &b.deadlines);
    let (client, server) = tokio::join!(client, between.accept());
    let error = client.unwrap_err();
    assert!(matches!(error, PairingError::Tls { source: TlsError::WrongIdentity { .. } }), "{error:?}");
    server.unwrap_err();
}

#[tokio::test]
async fn a_site_behind_a_wall_is_paired_and_known_as_such() {
    let (a, b) = (Site::start("edge").await, Site::start("cloud").await);
    let invite = invite(&a);
    let book = Book::with(&invite);
    // Its port is not one of the announced: nobody can dial it back. A port that it does not know the host of is
    // taken to be where it comes from.
    let announcement = announcement(&b, &["0.0.0.0:1"]);
    let client = pair_client(&invite, &b.identity, &announcement, &b.deadlines);
    let (client, server) = tokio::join!(client, serve(&a, &book));
    let (client, server) = (client.unwrap(), server.unwrap());
    assert!(client.we_can_dial && !client.they_can_dial);
    assert!(!server.we_can_dial && server.they_can_dial);
    assert_eq!(server.site.addresses, ["127.0.0.1:1"]);
}

#[tokio::test]
async fn nonsense_is_refused() {
    let (a, b) = (Site::start("edge").await, Site::start("cloud").await);
    let invite = invite(&a);
    let own = pair_client(&invite, &a.identity, &announcement(&a, &[&a.address]), &a.deadlines).await;
    assert!(matches!(own, Err(PairingError::OwnInvite)));

    let book = Book::with(&invite);
    let announcement = announcement(&b, &["not an address"]);
    let client = pair_client(&invite, &b.identity, &announcement, &b.deadlines);
    let (client, server) = tokio::join!(client, serve(&a, &book));
    assert!(matches!(refusal(client), Refusal::Announcement { .. }));
    assert!(matches!(refusal(server), Refusal::Announcement { .. }));

    // A mere look whether somebody is there.
    let looking = tls::reachable(&a.address, &b.identity, a.fingerprint(), &b.deadlines);
    let (looked, server) = tokio::join!(looking, serve(&a, &book));
    looked.unwrap();
    let error = server.unwrap_err();
    assert!(matches!(error, PairingError::Frame { source: FrameError::Ended, .. }), "{error:?}");
}
