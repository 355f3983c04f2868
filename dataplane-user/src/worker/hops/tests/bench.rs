//! A thread's context with a listener, routes and origins of the test's making, and what was told of exchanges.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use model::digest::Digest;
use model::name::{HostName, Name};
use model::report::Leg;
use model::snapshot::{
    FORMAT, Limits, Listener, Origin, OriginGroup, OriginSecurity, PathMatch, Route, Snapshot, SnapshotId,
    TlsVersion,
};
use rustls::RootCertStore;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream};

use crate::worker::hops::{Secured, Tell, ThreadCtx, Unsecured, serve, serve_clear_text};
use crate::worker::http::guard::Flood;
use crate::worker::live::{Door, ListenerLive, Live, OriginLive};
use crate::worker::observe::Exchange;
use crate::worker::origin::reach::Unreached;
use crate::worker::origin::resolve::Known;
use crate::worker::refusal::Reason;

/// What was told of one exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) status: u16,
    pub(super) refusal: Option<Reason>,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) reused: bool,
    pub(super) attempts: u32,
}

#[derive(Default)]
pub(super) struct Log {
    pub(super) exchanges: RefCell<Vec<Told>>,
    pub(super) refused: RefCell<Vec<Reason>>,
    pub(super) floods: RefCell<Vec<Flood>>,
    pub(super) failures: RefCell<Vec<String>>,
}

impl Tell for Rc<Log> {
    fn exchange(&self, exchange: &Exchange<'_>) {
        assert_eq!(exchange.request_id.len(), 16);
        self.exchanges.borrow_mut().push(Told {
            method: exchange.method.to_owned(),
            path: exchange.path.to_owned(),
            status: exchange.status,
            refusal: exchange.refusal,
            received: exchange.received,
            sent: exchange.sent,
            reused: exchange.origin.as_ref().is_some_and(|origin| origin.reused),
            attempts: exchange.origin.as_ref().map_or(0, |origin| origin.attempts),
        });
    }

    fn passed(&self, connection: &Exchange<'_>) {
        self.exchange(connection);
    }

    fn refused(&self, reason: Reason, _listener: &Name) {
        self.refused.borrow_mut().push(reason);
    }

    fn flood(&self, flood: Flood, listener: &Name) {
        self.floods.borrow_mut().push(flood);
        self.refused(Reason::Http2Abuse, listener);
    }

    fn denied(&self, rule: u32, _listener: &Name) {
        assert_eq!(rule, 1);
        self.refused.borrow_mut().push(Reason::Denied);
    }

    fn origin(&self, _origin: &OriginLive, outcome: Result<SocketAddr, &Unreached>) {
        self.failures.borrow_mut().extend(outcome.err().map(|failure| failure.sentence.clone()));
    }

    fn resolved(&self, _name: &HostName, _known: &Known) {}
}

/// The thread under test.
pub(super) struct Bench {
    pub(super) ctx: Rc<ThreadCtx>,
    pub(super) log: Rc<Log>,
    pub(super) snapshot: Snapshot,
}

impl Bench {
    /// One route, `a.test/`, to these origins in clear text.
    pub(super) fn new(origins: &[SocketAddr]) -> Self {
        Self::with(origins, |_| {})
    }

    /// As `new`, after a change to the snapshot.
    pub(super) fn with(origins: &[SocketAddr], change: impl FnOnce(&mut Snapshot)) -> Self {
        let mut snapshot = snapshot(origins);
        change(&mut snapshot);
        let live =
            Live::build(snapshot.clone(), &Default::default(), &Arc::new(RootCertStore::empty()), None)
                .unwrap();
        let log = Rc::new(Log::default());
        let ctx =
            ThreadCtx::new(Arc::new(ArcSwap::from_pointee(live)), Box::new(Rc::clone(&log)), Arc::default());
        Self { ctx: Rc::new(ctx), log, snapshot }
    }

    /// Applies a changed snapshot, as the worker does.
    pub(super) fn apply(&mut self, change: impl FnOnce(&mut Snapshot)) {
        change(&mut self.snapshot);
        self.apply_with(&Default::default());
    }

    /// Applies the snapshot as it stands, with these private keys.
    pub(super) fn apply_with(&mut self, keys: &BTreeMap<Digest, PrivateKeyDer<'static>>) {
        self.snapshot.id.revision += 1;
        let before = self.ctx.live.load_full();
        let roots = Arc::new(RootCertStore::empty());
        let live = Live::build(self.snapshot.clone(), keys, &roots, Some(&before)).unwrap();
        self.ctx.live.store(Arc::new(live));
        self.ctx.ring();
    }

    /// A client's connection, served by the recipes.
    pub(super) fn connect(&self) -> DuplexStream {
        self.connect_as(64 * 1024, false, None)
    }

    /// With a pipe of this size, HTTP/2 or not, and this SNI.
    pub(super) fn connect_as(&self, pipe: usize, alpn_h2: bool, sni: Option<&str>) -> DuplexStream {
        let (client, stream) = tokio::io::duplex(pipe);
        let ctx = Rc::clone(&self.ctx);
        if let Door::ClearText(_) = self.listener().door {
            let unsecured = self.unsecured(stream);
            tokio::task::spawn_local(async move { serve_clear_text(unsecured, &ctx).await });
            return client;
        }
        let secured = self.secured(stream, alpn_h2, sni);
        tokio::task::spawn_local(async move { serve(secured, &ctx).await });
        client
    }

    fn listener(&self) -> Arc<ListenerLive> {
        Arc::clone(self.ctx.live.load().listeners.values().next().unwrap())
    }

    /// A stream in clear text as the listener hands it over.
    fn unsecured<S>(&self, stream: S) -> Unsecured<S> {
        let [peer, local] = ["192.0.2.9:1234", "127.0.0.1:80"].map(|at| at.parse::<SocketAddr>().unwrap());
        Unsecured { stream, listener: self.listener(), peer: peer.into(), local }
    }

    /// A stream as the listener hands it over.
    pub(super) fn secured<S>(&self, stream: S, alpn_h2: bool, sni: Option<&str>) -> Secured<S> {
        Secured {
            stream,
            listener: self.listener(),
            peer: "192.0.2.9:1234".parse::<SocketAddr>().unwrap().into(),
            local: "127.0.0.1:443".parse().unwrap(),
            sni: sni.map(|sni| sni.parse().unwrap()),
            alpn_h2,
            leg: Arc::new(leg()),
        }
    }

    /// Sends `request` on a new connection and reads until it closes.
    pub(super) async fn ask(&self, request: &str) -> String {
        let mut client = self.connect();
        client.write_all(request.as_bytes()).await.unwrap();
        read_all(&mut client).await
    }

    /// What was told, once `count` exchanges are over.
    pub(super) async fn told(&self, count: usize) -> Vec<Told> {
        for _ in 0..200 {
            if self.log.exchanges.borrow().len() >= count {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let told = self.log.exchanges.borrow().clone();
        assert_eq!(told.len(), count, "{told:?}");
        told
    }
}

fn leg() -> Leg {
    let text = |text: &str| text.to_owned();
    Leg {
        version: text("TLSv1.3"),
        suite: text("x"),
        group: text("y"),
        sni: text("a.test"),
        verified: text(""),
    }
}

fn snapshot(origins: &[SocketAddr]) -> Snapshot {
    let name = |text: &str| text.parse::<Name>().unwrap();
    let origin = |address: &SocketAddr| Origin {
        address: address.to_string().parse().unwrap(),
        security: OriginSecurity::ClearText,
        share: Default::default(),
    };
    Snapshot {
        format: FORMAT,
        node: name("node"),
        id: SnapshotId { epoch: 1, revision: 1 },
        listeners: vec![Listener {
            name: name("https"),
            addresses: Vec::new(),
            port: "443".parse().unwrap(),
            take_over: false,
            clear_text: None,
            min_version: TlsVersion::V12,
            default_certificate: None,
            certificates: Vec::new(),
            trusted_prefixes: Vec::new(),
            proxy_protocol: Vec::new(),
            limits: Limits::default(),
            error_pages: Vec::new(),
        }],
        certificates: Vec::new(),
        routes: vec![Route {
            name: name("all"),
            listeners: vec![name("https")],
            hostnames: vec!["a.test".parse().unwrap()],
            passthrough: false,
            paths: vec![PathMatch::Prefix("/".to_owned())],
            matches: Vec::new(),
            certificate: None,
            origin_group: Some(name("group")),
            allow_encoded_slash: false,
            response_timeout_ms: 5_000,
            transform: Default::default(),
            upgrades: model::upgrade::usual(),
        }],
        origin_groups: vec![OriginGroup {
            name: name("group"),
            origins: origins.iter().map(origin).collect(),
            connect_timeout_ms: 1_000,
            protocols: Default::default(),
            http2: Default::default(),
            choice: Default::default(),
            client_certificate: None,
            proxy_protocol: None,
            sni: None,
        }],
        trust_bundles: Vec::new(),
        filter: Vec::new(),
        filter_protocols: Vec::new(),
        filter_budgets: Default::default(),
        trial_ms: None,
    }
}

/// Runs a test on a thread like a worker's.
pub(super) fn local<F: Future>(test: impl FnOnce() -> F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let limit = std::time::Duration::from_secs(20);
    tokio::task::LocalSet::new()
        .block_on(&runtime, async { tokio::time::timeout(limit, test()).await.expect("the test hangs") })
}

/// An origin that runs `script` on each connection; the number says which it is.
pub(super) async fn origin<F: Future<Output = ()> + 'static>(
    script: impl Fn(usize, TcpStream) -> F + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        for at in 0.. {
            let Ok((stream, _)) = listener.accept().await else { break };
            tokio::task::spawn_local(script(at, stream));
        }
    });
    address
}

/// An origin that answers every request with `answer` and keeps the connection; the requests are kept too.
pub(super) async fn answering(answer: &'static str) -> (SocketAddr, Rc<RefCell<Vec<String>>>) {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let kept = Rc::clone(&seen);
    let address = origin(move |_, mut stream| {
        let seen = Rc::clone(&kept);
        async move {
            while let Some(head) = read_head(&mut stream).await {
                seen.borrow_mut().push(head);
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    break;
                }
            }
        }
    })
    .await;
    (address, seen)
}

/// Reads to the end of a head, byte by byte; nothing at the end of the stream.
pub(super) async fn read_head<S: tokio::io::AsyncRead + Unpin>(stream: &mut S) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

/// Reads until the stream ends.
pub(super) async fn read_all<S: tokio::io::AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all).await;
    String::from_utf8_lossy(&all).into_owned()
}

/// Reads exactly as much as `expected` has.
pub(super) async fn read_some<S: tokio::io::AsyncRead + Unpin>(stream: &mut S, count: usize) -> Vec<u8> {
    let mut some = vec![0; count];
    stream.read_exact(&mut some).await.unwrap();
    some
}
