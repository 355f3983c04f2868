//! What depends on the connection itself: real ones, over TLS, HTTP/1.1 and HTTP/2.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::labels::Labels;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsConnector;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::testing::serve_console;
use crate::ops::{Actor, Ops, Role};
use crate::testing::{Directory, object};

struct Console {
    ops: Ops,
    address: SocketAddr,
    token: String,
    _directory: Directory,
    _stop: watch::Sender<bool>,
}

/// One connection.
enum Wire {
    One(http1::SendRequest<Body>),
    Two(http2::SendRequest<Body>),
}

impl Console {
    async fn new() -> Self {
        let directory = Directory::new();
        let ops = directory.open().await;
        let token = ops.make_token("test", Role::Operator, &Actor::console()).await.unwrap();
        let (address, stop) = serve_console(&ops).await;
        Self { ops, address, token, _directory: directory, _stop: stop }
    }

    async fn connect(&self, h2: bool) -> Wire {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ops.authority().pem().as_bytes()).unwrap()).unwrap();
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![if h2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let tls = TokioIo::new(TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap());
        if h2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), tls).await.unwrap();
            tokio::spawn(connection);
            return Wire::Two(sender);
        }
        let (sender, connection) = http1::handshake(tls).await.unwrap();
        tokio::spawn(connection);
        Wire::One(sender)
    }

    async fn begin(&self, wire: &mut Wire, path: &str, body: Value) -> Response<Incoming> {
        let request = Request::post(format!("https://{}{path}", self.address))
            .header("host", self.address.to_string())
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()))
            .unwrap();
        match wire {
            Wire::One(sender) => sender.send_request(request).await.unwrap(),
            Wire::Two(sender) => sender.send_request(request).await.unwrap(),
        }
    }

    async fn post(&self, wire: &mut Wire, path: &str, body: Value) -> (Response<()>, Value) {
        let (head, body) = self.begin(wire, path, body).await.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (Response::from_parts(head, ()), serde_json::from_slice(&bytes).unwrap())
    }

    async fn publish(&self, wire: &mut Wire, port: u16) -> (Response<()>, Value) {
        let listener = object("Listener", "more", json!({ "port": port }));
        let body = json!({ "objects": [listener.to_value()], "rollbackAfterSeconds": 60 });
        self.post(wire, "/api/v1/apply", body).await
    }
}

/// Waits until the server has ended the connection.
async fn ended(wire: &mut Wire) {
    let ended = async {
        let gone = |ready: Result<(), hyper::Error>| ready.is_err();
        while !match wire {
            Wire::One(sender) => gone(sender.ready().await),
            Wire::Two(sender) => gone(sender.ready().await),
        } {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), ended).await.unwrap();
}

#[tokio::test]
async fn only_a_newer_connection_confirms_and_the_older_ones_end() {
    for h2 in [false, true] {
        let console = Console::new().await;
        let (mut publishing, mut older) = (console.connect(h2).await, console.connect(h2).await);
        let (answer, first) = console.publish(&mut publishing, 9000).await;
        assert_eq!(answer.status().as_u16(), 422, "there is nothing to roll back to: {first}");
        let listener = object("Listener", "https", json!({ "port": 8443 }));
        // A request over it: the server has certainly accepted it.
        console.post(&mut older, "/api/v1/apply", json!({ "objects": [listener.to_value()] })).await;
        let (answer, published) = console.publish(&mut publishing, 9001).await;
        assert_eq!((answer.status().as_u16(), published["revision"].as_u64()), (200, Some(2)), "{published}");
        if !h2 {
            assert_eq!(answer.headers()["connection"], "close");
        }
        ended(&mut publishing).await;
        let (answer, refused) = console.post(&mut older, "/api/v1/revisions/2/confirm", json!({})).await;
        assert_eq!(answer.status().as_u16(), 409, "{refused}");
        assert!(
            refused["problems"][0]["message"].as_str().unwrap().contains("confirm once more"),
            "{refused}"
        );
        ended(&mut older).await;
        assert!(console.ops.revision(2).await.unwrap().unwrap().rollback_at.is_some());
        let mut newer = console.connect(h2).await;
        let (answer, confirmed) = console.post(&mut newer, "/api/v1/revisions/2/confirm", json!({})).await;
        assert_eq!(answer.status().as_u16(), 200, "{confirmed}");
        assert!(console.ops.revision(2).await.unwrap().unwrap().rollback_at.is_none());
    }
}

#[tokio::test]
async fn a_connection_that_publishes_for_good_goes_on() {
    let console = Console::new().await;
    let mut wire = console.connect(false).await;
    for port in [9001, 9002] {
        let listener = object("Listener", "more", json!({ "port": port }));
        let (answer, _) =
            console.post(&mut wire, "/api/v1/apply", json!({ "objects": [listener.to_value()] })).await;
        assert_eq!(answer.status().as_u16(), 200);
        assert!(answer.headers().get("connection").is_none());
    }
}

/// A connection that is closed ends the capture that is followed on it, and so does a stream of HTTP/2 that is reset; one that
/// nobody follows goes on.
#[tokio::test]
async fn a_capture_ends_when_whoever_follows_it_goes_away() {
    for h2 in [false, true] {
        let console = Console::new().await;
        console.ops.enrol_node("edge", &Labels::default(), false, &Actor::console()).await.unwrap();
        let mut wire = console.connect(h2).await;
        let order = |follow: bool| json!({ "node": "edge", "reason": "denied", "follow": follow });
        let (_, alone) = console.post(&mut wire, "/api/v1/captures", order(false)).await;
        let mut followed = console.begin(&mut wire, "/api/v1/captures", order(true)).await;
        for _line in 0..2 {
            let line = followed.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
            let told: Value = serde_json::from_slice(&line).unwrap();
            assert_eq!((told["running"].as_bool(), told["node"].as_str()), (Some(true), Some("edge")));
        }
        let running = || {
            let running = console
                .ops
                .captures(&Actor::console())
                .unwrap()
                .into_iter()
                .filter(|capture| capture.running);
            running.map(|capture| json!(capture.id)).collect::<Vec<_>>()
        };
        assert_eq!(running().len(), 2);
        drop(followed);
        let ended = async {
            while running() != [alone["id"].clone()] {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap();
    }
}

#[tokio::test]
async fn a_followed_capture_says_its_end_and_then_no_more() {
    let console = Console::new().await;
    console.ops.enrol_node("edge", &Labels::default(), false, &Actor::console()).await.unwrap();
    let mut wire = console.connect(false).await;
    let order = json!({ "node": "edge", "reason": "denied", "seconds": 1, "follow": true });
    let answer = console.begin(&mut wire, "/api/v1/captures", order).await;
    assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    let lines = std::str::from_utf8(&bytes).unwrap().lines();
    let running: Vec<bool> = lines
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["running"].as_bool().unwrap())
        .collect();
    let [before @ .., false] = &running[..] else { panic!("{running:?}") };
    assert!(!before.is_empty() && before.iter().all(|running| *running), "{running:?}");
}

/// A request to `path` over HTTP/2 whose body comes from the sender, which is closed when the stream is reset.
///
/// The answer is whole although the request is not, and never without a word.
async fn refused(wire: &mut Wire, path: &str) -> (u16, mpsc::Sender<Bytes>) {
    let Wire::Two(sender) = wire else { panic!("HTTP/1.1") };
    let (body, pieces) = mpsc::channel(1);
    let pieces = ReceiverStream::new(pieces).map(Ok::<_, std::convert::Infallible>);
    let request = Request::post(format!("https://localhost{path}")).body(Body::from_stream(pieces)).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let status = answer.status().as_u16();
    let length: usize = answer.headers()["content-length"].to_str().unwrap().parse().unwrap();
    let said = tokio::time::timeout(Duration::from_secs(1), answer.into_body().collect()).await.unwrap();
    let said = said.unwrap().to_bytes();
    assert!(length > 0 && said.len() == length, "{path}: {length} {said:?}");
    (status, body)
}

#[tokio::test]
async fn no_reset_follows_a_refusal_whose_requests_body_ends_soon() {
    let console = Console::new().await;
    let mut wire = console.connect(true).await;
    for (path, expected) in [
        ("/api/v1/apply", 401),
        ("/nowhere", 403),
        ("/api/v1/nowhere", 401),
        ("/healthz", 405),
        ("/login", 403),
    ] {
        let (status, body) = refused(&mut wire, path).await;
        assert_eq!(status, expected, "{path}");
        let reset = tokio::time::timeout(Duration::from_millis(100), body.closed()).await;
        assert!(reset.is_err(), "{path}: reset");
        body.send(Bytes::from_static(&[7; 200_000])).await.unwrap();
    }
}

#[tokio::test]
async fn a_refused_body_without_end_is_cut_off() {
    let console = Console::new().await;
    let mut wire = console.connect(true).await;
    let (_, body) = refused(&mut wire, "/nowhere").await;
    let (_, silent) = refused(&mut wire, "/nowhere").await;
    let began = std::time::Instant::now();
    let mut sent = 0;
    while body.send(Bytes::from_static(&[7; 16 * 1024])).await.is_ok() {
        sent += 16 * 1024;
    }
    // At the bound, and a window of what was on its way.
    assert!((1 << 20..3 << 20).contains(&sent), "{sent}");
    tokio::time::timeout(Duration::from_secs(5), silent.closed()).await.unwrap();
    assert!(began.elapsed() > Duration::from_secs(1), "{:?}", began.elapsed());
}
