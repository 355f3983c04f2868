//! A node's part, played over a real connection: TLS, HTTP/2, frames.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::labels::Labels;
use model::link::{ConsoleMessage, EnrolmentToken, NodeMessage, TOKEN_PREFIX};
use model::report::Report;
use model::snapshot::{FORMAT, SignedSnapshot, Snapshot, SnapshotId};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;

mod trial;

use crate::clock;
use crate::ops::{Actor, Ops, OpsError, PublishOptions};
use crate::server::testing::serve_nodes;
use crate::testing::{Directory, object, operator, publish, shop};

struct Console {
    ops: Ops,
    address: SocketAddr,
    directory: Directory,
    _stop: watch::Sender<bool>,
}

async fn console() -> Console {
    let directory = Directory::new();
    let ops = directory.open().await;
    let (address, stop) = serve_nodes(&ops).await;
    Console { ops, address, directory, _stop: stop }
}

/// A certificate with its key.
#[derive(Clone)]
struct Identity(Vec<u8>, String);

impl Console {
    async fn connect(
        &self,
        identity: Option<&Identity>,
    ) -> Result<SendRequest<Body>, Box<dyn std::error::Error>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ops.authority().pem().as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config = match identity {
            Some(Identity(key, pem)) => {
                let chain = vec![CertificateDer::from_pem_slice(pem.as_bytes())?];
                builder.with_client_auth_cert(
                    chain,
                    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.clone())),
                )?
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![model::link::ALPN.to_vec()];
        let stream = TcpStream::connect(self.address).await?;
        let stream =
            TlsConnector::from(Arc::new(config)).connect(ServerName::from(self.address.ip()), stream).await?;
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn token(&self, name: &str) -> EnrolmentToken {
        let text = self.ops.enrol_node(name, &Labels::default(), false, &Actor::console()).await.unwrap();
        let json = URL_SAFE_NO_PAD.decode(text.strip_prefix(TOKEN_PREFIX).unwrap()).unwrap();
        serde_json::from_slice(&json).unwrap()
    }

    async fn post(&self, identity: Option<&Identity>, path: &str, body: Value) -> (StatusCode, Bytes) {
        let mut sender = self.connect(identity).await.unwrap();
        send(&mut sender, path, &body).await
    }

    async fn enrol(&self, name: &str) -> Identity {
        let token = self.token(name).await;
        let (key, csr) = request();
        let (status, body) = self
            .post(None, "/node/v1/enrol", json!({ "secret": token.secret, "csr": csr, "labels": {} }))
            .await;
        assert_eq!(status, StatusCode::OK, "{body:?}");
        let answer: Value = serde_json::from_slice(&body).unwrap();
        Identity(key, answer["certificate"].as_str().unwrap().to_owned())
    }
}

fn request() -> (Vec<u8>, String) {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::new(vec![]).unwrap().serialize_request(&key).unwrap();
    (key.serialize_der(), csr.pem().unwrap())
}

async fn send(sender: &mut SendRequest<Body>, path: &str, body: &Value) -> (StatusCode, Bytes) {
    let request = Request::post(format!("https://console{path}")).body(Body::from(body.to_string())).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let status = answer.status();
    (status, answer.into_body().collect().await.unwrap().to_bytes())
}

async fn get(sender: &mut SendRequest<Body>, path: &str) -> (StatusCode, Bytes) {
    let request = Request::get(format!("https://console{path}")).body(Body::empty()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let status = answer.status();
    (status, answer.into_body().collect().await.unwrap().to_bytes())
}

/// The node's end of an exchange.
struct Link {
    sender: SendRequest<Body>,
    say: mpsc::Sender<Result<Bytes, std::convert::Infallible>>,
    heard: Incoming,
    buffer: BytesMut,
}

impl Link {
    async fn open(console: &Console, identity: &Identity, applied: Option<SnapshotId>) -> Self {
        let link = Self::silent(console, identity).await.unwrap();
        let hello = NodeMessage::Hello {
            version: "test".to_owned(),
            formats: vec![FORMAT],
            applied,
            labels: BTreeMap::new(),
        };
        link.tell(&hello).await;
        link
    }

    async fn silent(console: &Console, identity: &Identity) -> Result<Self, (StatusCode, Bytes)> {
        Self::seen_from(console, identity, "").await
    }

    /// One that says which ends it sees.
    async fn seen_from(
        console: &Console,
        identity: &Identity,
        ends: &str,
    ) -> Result<Self, (StatusCode, Bytes)> {
        let mut sender = console.connect(Some(identity)).await.unwrap();
        let (say, said) = mpsc::channel::<Result<Bytes, std::convert::Infallible>>(4);
        let request = Request::post("https://console/node/v1/link")
            .header(model::link::ENDS, ends)
            .body(Body::from_stream(ReceiverStream::new(said)))
            .unwrap();
        let answer: Response<Incoming> = sender.send_request(request).await.unwrap();
        if answer.status() != StatusCode::OK {
            return Err((answer.status(), answer.into_body().collect().await.unwrap().to_bytes()));
        }
        Ok(Self { sender, say, heard: answer.into_body(), buffer: BytesMut::new() })
    }

    async fn tell(&self, message: &NodeMessage) {
        let json = serde_json::to_vec(message).unwrap();
        let mut frame = (json.len() as u32).to_be_bytes().to_vec();
        frame.extend(json);
        // In two parts: a frame does not end where a chunk does.
        let rest = frame.split_off(3);
        self.say.send(Ok(frame.into())).await.unwrap();
        self.say.send(Ok(rest.into())).await.unwrap();
    }

    async fn next(&mut self) -> Option<ConsoleMessage> {
        loop {
            if let Some(head) = self.buffer.first_chunk::<4>() {
                let length = u32::from_be_bytes(*head) as usize;
                if self.buffer.len() >= 4 + length {
                    self.buffer.advance(4);
                    let message = serde_json::from_slice(&self.buffer.split_to(length)).unwrap();
                    // Every exchange begins with it.
                    if message != (ConsoleMessage::Drain { on: false }) {
                        return Some(message);
                    }
                    continue;
                }
            }
            match tokio::time::timeout(Duration::from_secs(20), self.heard.frame()).await.unwrap()? {
                Ok(frame) => self.buffer.extend_from_slice(frame.data_ref().unwrap()),
                Err(_) => return None,
            }
        }
    }

    async fn snapshot(&mut self, ops: &Ops) -> Snapshot {
        loop {
            if let ConsoleMessage::Snapshot(signed) = self.next().await.expect("a snapshot") {
                return verified(ops, &signed);
            }
        }
    }
}

fn verified(ops: &Ops, signed: &SignedSnapshot) -> Snapshot {
    let public = *ops.signer().public().unwrap().as_bytes();
    let signature = STANDARD.decode(&signed.signature).unwrap();
    let bytes = SignedSnapshot::signed_bytes(&signed.body);
    UnparsedPublicKey::new(&ED25519, public).verify(&bytes, &signature).unwrap();
    Snapshot::from_verified_json(&signed.body).unwrap()
}

async fn until(mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..200 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it did not happen");
}

#[tokio::test]
async fn a_token_enrols_once_and_names_its_console() {
    let console = console().await;
    let token = console.token("n1").await;
    assert_eq!(token.ca, console.ops.authority().fingerprint());
    assert_eq!(Some(token.snapshot_key), console.ops.signer().public());
    let (_, csr) = request();
    let enrol = |secret: &str| json!({ "secret": secret, "csr": csr, "labels": { "zone": "a" } });
    let (status, _) = console.post(None, "/node/v1/enrol", enrol("guess")).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let (status, _) = console
        .post(None, "/node/v1/enrol", json!({ "secret": token.secret, "csr": "x", "labels": {} }))
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, _) = console.post(None, "/node/v1/enrol", enrol(&token.secret)).await;
    assert_eq!(status, StatusCode::OK);
    let (status, body) = console.post(None, "/node/v1/enrol", enrol(&token.secret)).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(String::from_utf8_lossy(&body).contains("sallyport node enrol"));
    let node = &console.ops.nodes().await.unwrap()[0];
    assert!(
        node.enrolled && node.labels.is_empty() && node.said_labels["zone"] == "a",
        "its word is only shown"
    );
    let week = node.certificate_ends.unwrap() - clock::now();
    assert!((6..=7).contains(&week.whole_days()));
}

#[tokio::test]
async fn snapshots_arrive_are_answered_and_keys_go_only_to_whom_they_concern() {
    let console = console().await;
    publish(&console.ops, shop()).await.unwrap();
    let identity = console.enrol("n1").await;
    let mut link = Link::open(&console, &identity, None).await;
    let first = link.snapshot(&console.ops).await;
    assert_eq!((first.id.revision, first.node.as_str(), first.routes.len()), (1, "n1", 1));
    let key = first.certificates[0].key;
    let (status, der) = get(&mut link.sender, &format!("/node/v1/keys/{key}")).await;
    assert_eq!(
        (status, &der[..]),
        (StatusCode::OK, console.ops.private_key(&key).await.unwrap().unwrap().as_slice())
    );
    let stranger = model::digest::Digest::of(b"another");
    assert_eq!(get(&mut link.sender, &format!("/node/v1/keys/{stranger}")).await.0, StatusCode::NOT_FOUND);
    link.tell(&NodeMessage::Applied { id: first.id, took_ms: 12 }).await;
    until(async || console.ops.nodes().await.unwrap()[0].applied == Some(first.id)).await;
    // A change wakes the node; a refusal is kept with its reason.
    publish(&console.ops, vec![object("Listener", "two", json!({ "port": 9000 }))]).await.unwrap();
    let second = link.snapshot(&console.ops).await;
    assert_eq!((second.id.revision, second.listeners.len()), (2, 2));
    link.tell(&NodeMessage::Refused { id: second.id, reason: "port 9000 is in use".to_owned() }).await;
    until(async || console.ops.nodes().await.unwrap()[0].refused.is_some()).await;
    let revision = console.ops.revision(2).await.unwrap().unwrap();
    assert_eq!(revision.nodes[0].refused.as_deref(), Some("port 9000 is in use"));
    assert!(console.ops.needs().await.unwrap()[0].message.contains("port 9000 is in use"));
    // Another node's snapshot names no key of a listener it does not have, and without a certificate there is none at all.
    let mut bare = console.connect(None).await.unwrap();
    assert_eq!(get(&mut bare, &format!("/node/v1/keys/{key}")).await.0, StatusCode::FORBIDDEN);
    let other = console.enrol("n2").await;
    let mut other = console.connect(Some(&other)).await.unwrap();
    assert_eq!(get(&mut other, &format!("/node/v1/keys/{key}")).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_node_that_has_it_is_not_sent_it_again_and_reports_are_kept() {
    let console = console().await;
    publish(&console.ops, shop()).await.unwrap();
    let identity = console.enrol("n1").await;
    let id = console.ops.current().id;
    let mut link = Link::open(&console, &identity, Some(id)).await;
    let report = Report { connections: 5, threads: 2, ..Report::default() };
    link.tell(&NodeMessage::Report(Box::new(report))).await;
    until(async || console.ops.nodes().await.unwrap()[0].connections == 5).await;
    console.ops.drain_node("n1", true, &operator()).await.unwrap();
    assert_eq!(link.next().await, Some(ConsoleMessage::Drain { on: true }));
    // A node that comes back hears of it again.
    let mut link = Link::open(&console, &identity, Some(id)).await;
    assert_eq!(link.next().await, Some(ConsoleMessage::Drain { on: true }));
    // Keys for a snapshot it already has may still be fetched (after its keeper lost them).
    let snapshot = console.ops.current().snapshot_for(&"n1".parse().unwrap(), &BTreeMap::new()).unwrap();
    let key = snapshot.certificates[0].key;
    assert_eq!(get(&mut link.sender, &format!("/node/v1/keys/{key}")).await.0, StatusCode::OK);
}

#[tokio::test]
async fn labels_are_the_consoles_word_and_choose_at_once() {
    let console = console().await;
    let selected = json!({ "port": 9000, "nodeSelector": { "matchLabels": { "zone": "a" } } });
    let mut objects = shop();
    objects.push(object("Listener", "edge", selected));
    publish(&console.ops, objects).await.unwrap();
    let identity = console.enrol("n1").await;
    let mut link = Link::silent(&console, &identity).await.unwrap();
    let said = BTreeMap::from([("zone".to_owned(), "a".to_owned())]);
    let hello =
        NodeMessage::Hello { version: "test".to_owned(), formats: vec![FORMAT], applied: None, labels: said };
    link.tell(&hello).await;
    let names =
        |snapshot: &Snapshot| snapshot.listeners.iter().map(|one| one.name.to_string()).collect::<Vec<_>>();
    let first = link.snapshot(&console.ops).await;
    assert_eq!(names(&first), ["https"], "what a node says chooses nothing");
    let labels = Labels::parse(["zone=a"]).unwrap();
    let forbidden = console.ops.label_node("n1", &labels, false, &operator()).await;
    assert!(matches!(forbidden, Err(OpsError::Forbidden(_))));
    assert!(matches!(
        console.ops.enrol_node("n2", &labels, false, &operator()).await,
        Err(OpsError::Forbidden(_))
    ));
    console.ops.label_node("n1", &labels, false, &Actor::console()).await.unwrap();
    let second = link.snapshot(&console.ops).await;
    assert!(second.id > first.id && names(&second) == ["edge", "https"], "{:?}", names(&second));
    // A token without labels keeps them, one with labels sets them; both before it is used.
    console.ops.enrol_node("n1", &Labels::default(), false, &Actor::console()).await.unwrap();
    assert_eq!(console.ops.nodes().await.unwrap()[0].labels["zone"], "a");
    console
        .ops
        .enrol_node("n1", &Labels::parse(["zone=b"]).unwrap(), false, &Actor::console())
        .await
        .unwrap();
    assert_eq!(names(&link.snapshot(&console.ops).await), ["https"]);
}

#[tokio::test]
async fn what_a_node_sees_of_its_link_is_protected_also_after_a_restart() {
    let Console { ops, address, directory, _stop } = console().await;
    publish(&ops, shop()).await.unwrap();
    let console = Console { ops, address, directory, _stop };
    let identity = console.enrol("n1").await;
    let link = Link::seen_from(&console, &identity, "10.9.8.7 203.0.113.5 and more").await.unwrap();
    let stored = async || console.ops.store().node("n1").await.unwrap().unwrap().link_ends;
    while stored().await.is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let ends: Vec<std::net::IpAddr> = ["127.0.0.1", "127.0.0.1", "10.9.8.7", "203.0.113.5"]
        .iter()
        .map(|text| text.parse().unwrap())
        .collect();
    assert_eq!(stored().await, ends);
    drop(link);
    let Console { ops, directory, _stop, .. } = console;
    drop((ops, _stop));
    let ops = directory.open().await;
    // The node is not back yet.
    for prefix in ["10.9.0.0/16", "203.0.113.5/32"] {
        let rules = json!({ "rules": [{ "name": "r", "action": "Deny", "prefixes": [prefix] }] });
        let error = publish(&ops, vec![object("PacketFilter", "f", rules)]).await.unwrap_err();
        assert!(error.needs_confirmation() && error.to_string().contains("which node n1 and"), "{error}");
    }
    // Whoever is shut out keeps nobody from anything, now and after another restart.
    ops.revoke_node("n1", &operator()).await.unwrap();
    let rules = |prefix: &str| json!({ "rules": [{ "name": "r", "action": "Deny", "prefixes": [prefix] }] });
    publish(&ops, vec![object("PacketFilter", "f", rules("10.9.0.0/16"))]).await.unwrap();
    drop(ops);
    let ops = directory.open().await;
    publish(&ops, vec![object("PacketFilter", "f", rules("203.0.113.0/24"))]).await.unwrap();
}

#[tokio::test]
async fn a_renewal_that_comes_after_an_enrolment_changes_nothing() {
    let console = console().await;
    let identity = console.enrol("n1").await;
    let old = console.ops.store().node("n1").await.unwrap().unwrap().serial.unwrap();
    let renewed = console.enrol("n1").await;
    let present = console.ops.store().node("n1").await.unwrap().unwrap();
    // The request passed its first check before the enrolment.
    assert!(!console.ops.store().renewed("n1", &old, "late", clock::now()).await.unwrap());
    assert_eq!(console.ops.store().node("n1").await.unwrap().unwrap(), present);
    assert!(Link::silent(&console, &identity).await.is_err());
    assert!(Link::silent(&console, &renewed).await.is_ok());
}

#[tokio::test]
async fn a_link_ends_when_its_certificate_is_no_longer_the_nodes() {
    let console = console().await;
    let identity = console.enrol("n1").await;
    let mut link = Link::open(&console, &identity, None).await;
    // Renewed twice: the certificate that the link was opened with is neither the newest nor the one before.
    for _ in 0..2 {
        let newest = console.ops.store().node("n1").await.unwrap().unwrap().serial.unwrap();
        let issued = console.ops.authority().node(&request().1, "n1", clock::now()).unwrap();
        assert!(console.ops.store().renewed("n1", &newest, &issued.serial, issued.ends).await.unwrap());
    }
    assert_eq!(link.next().await, None, "within a ping");
}

#[tokio::test]
async fn a_restored_database_begins_a_higher_epoch() {
    let console = console().await;
    publish(&console.ops, shop()).await.unwrap();
    let identity = console.enrol("n1").await;
    let ahead = SnapshotId { epoch: 1, revision: 40 };
    let mut link = Link::open(&console, &identity, Some(ahead)).await;
    let snapshot = link.snapshot(&console.ops).await;
    assert!(snapshot.id > ahead);
    assert_eq!((snapshot.id.epoch, snapshot.routes.len()), (2, 1));
    let message = console.ops.revision(snapshot.id.revision).await.unwrap().unwrap().message;
    assert!(message.contains("restored"), "{message}");
}

#[tokio::test]
async fn revoked_replaced_and_ended_certificates() {
    let console = console().await;
    publish(&console.ops, shop()).await.unwrap();
    let identity = console.enrol("n1").await;
    let mut link = Link::open(&console, &identity, None).await;
    link.snapshot(&console.ops).await;
    console.ops.revoke_node("n1", &operator()).await.unwrap();
    assert_eq!(link.next().await, None);
    let refused = Link::silent(&console, &identity).await.err().unwrap();
    assert_eq!(refused.0, StatusCode::FORBIDDEN);
    assert_eq!(
        console.post(Some(&identity), "/node/v1/renew", json!({ "csr": request().1 })).await.0,
        StatusCode::FORBIDDEN
    );
    // Enrolled again, the old certificate stays refused.
    let renewed = console.enrol("n1").await;
    assert!(Link::silent(&console, &identity).await.is_err());
    assert!(Link::silent(&console, &renewed).await.is_ok());
    // A certificate that ended ten days ago may renew and nothing else; one that ended 100 days ago nothing.
    for (days, renews) in [(17, true), (107, false)] {
        let (key, csr) = request();
        let issued =
            console.ops.authority().node(&csr, "n1", clock::now() - time::Duration::days(days)).unwrap();
        let shown = console.ops.store().node("n1").await.unwrap().unwrap().serial.unwrap();
        assert!(console.ops.store().renewed("n1", &shown, &issued.serial, issued.ends).await.unwrap());
        let old = Identity(key, issued.pem);
        let (new_key, new_csr) = request();
        let Ok(mut sender) = console.connect(Some(&old)).await else {
            assert!(!renews);
            continue;
        };
        if !renews {
            // TLS 1.3 tells the client of a refused certificate with its first read.
            let request = Request::get("https://console/node/v1/keys/x").body(Body::empty()).unwrap();
            assert!(sender.send_request(request).await.is_err());
            continue;
        }
        assert_eq!(Link::silent(&console, &old).await.err().unwrap().0, StatusCode::FORBIDDEN);
        let (status, body) = send(&mut sender, "/node/v1/renew", &json!({ "csr": new_csr })).await;
        assert_eq!(status, StatusCode::OK, "{body:?}");
        let answer: Value = serde_json::from_slice(&body).unwrap();
        let new = Identity(new_key, answer["certificate"].as_str().unwrap().to_owned());
        Link::open(&console, &new, None).await.snapshot(&console.ops).await;
    }
}

#[tokio::test]
async fn what_is_no_message_ends_the_exchange_and_nothing_else() {
    let console = console().await;
    publish(&console.ops, shop()).await.unwrap();
    let identity = console.enrol("n1").await;
    for wrong in [b"\0\0\0\x02{}".to_vec(), b"\xff\xff\xff\xff".to_vec(), b"\0\0\0\x01x".to_vec()] {
        let mut link = Link::silent(&console, &identity).await.unwrap();
        link.say.send(Ok(wrong.into())).await.unwrap();
        assert_eq!(link.next().await, None);
    }
    let mut old = Link::silent(&console, &identity).await.unwrap();
    old.tell(&NodeMessage::Hello {
        version: String::new(),
        formats: vec![FORMAT + 1],
        applied: None,
        labels: BTreeMap::new(),
    })
    .await;
    assert_eq!(old.next().await, None);
    Link::open(&console, &identity, None).await.snapshot(&console.ops).await;
}

#[tokio::test]
async fn after_a_restart_the_newest_revision_arrives() {
    let console = console().await;
    publish(&console.ops, shop()).await.unwrap();
    let identity = console.enrol("n1").await;
    publish(&console.ops, vec![object("Listener", "two", json!({ "port": 9000 }))]).await.unwrap();
    let options = PublishOptions::default();
    console.ops.rollback(1, &operator(), options).await.unwrap();
    // A second console on the same state: what a killed one left behind.
    let ops = console.directory.open().await;
    let (address, _stop) = serve_nodes(&ops).await;
    let restarted = Console { ops, address, directory: Directory::new(), _stop };
    let mut link = Link::open(&restarted, &identity, Some(SnapshotId { epoch: 1, revision: 2 })).await;
    let snapshot = link.snapshot(&restarted.ops).await;
    assert_eq!((snapshot.id.revision, snapshot.listeners.len()), (3, 1));
}
