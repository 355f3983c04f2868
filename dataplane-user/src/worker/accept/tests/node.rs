//! One worker thread with everything around it.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use model::digest::Digest;
use model::name::Name;
use model::snapshot::{
    Certificate, FORMAT, Limits, Listener, Origin, OriginGroup, OriginSecurity, PathMatch, Route, Snapshot,
    SnapshotId, TlsVersion,
};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::client::TlsStream;

use crate::worker::live::Live;
use crate::worker::observe::Observe;
use crate::worker::refusal::Reason;
use crate::worker::thread::{SocketChange, Stop, ThreadStart, run};
use crate::worker::tls::tests::Ca;
use crate::worker::tls::verify::Unjudged;

/// A CA and the keys of what it issued.
pub(super) struct Pki {
    pub(super) ca: Ca,
    keys: BTreeMap<Digest, PrivateKeyDer<'static>>,
}

impl Pki {
    /// Issues a certificate and puts it into the snapshot.
    pub(super) fn certificate(&mut self, snapshot: &mut Snapshot, name: &str, hosts: &[&str]) -> Name {
        let (chain, key, digest) = self.ca.issue(hosts);
        self.keys.insert(digest, key);
        let hostnames = hosts.iter().map(|host| host.parse().unwrap()).collect();
        snapshot.certificates.push(Certificate {
            name: name.parse().unwrap(),
            chain,
            key: digest,
            hostnames,
        });
        name.parse().unwrap()
    }
}

pub(super) struct Node {
    pub(super) pki: Pki,
    pub(super) observe: Arc<Observe>,
    snapshot: Snapshot,
    live: Arc<ArcSwap<Live>>,
    changed: watch::Sender<SnapshotId>,
    stop: watch::Sender<Stop>,
    _sockets: mpsc::UnboundedSender<SocketChange>,
    thread: JoinHandle<std::io::Result<()>>,
    log: Arc<Mutex<String>>,
    v4: SocketAddr,
    v6: SocketAddr,
}

impl Node {
    /// A listener `https` with the certificate `main` for `a.test` and the route `all`, after `change`.
    pub(super) async fn start(change: impl FnOnce(&mut Snapshot, &mut Pki)) -> Self {
        let mut pki = Pki { ca: Ca::new("test"), keys: BTreeMap::new() };
        let origin = origin().await;
        let (v4, v6) = sockets();
        let mut snapshot = snapshot(v4.local_addr().unwrap().port(), origin);
        let main = pki.certificate(&mut snapshot, "main", &["a.test"]);
        snapshot.listeners[0].certificates = vec![main];
        change(&mut snapshot, &mut pki);
        let live = Live::build(snapshot.clone(), &pki.keys, &Arc::new(RootCertStore::empty()), None).unwrap();
        let live = Arc::new(ArcSwap::from_pointee(live));
        let (mut lines, sink) = std::io::pipe().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let read = Arc::clone(&log);
        std::thread::spawn(move || {
            let mut buffer = [0; 65536];
            while let Ok(count @ 1..) = lines.read(&mut buffer) {
                read.lock().unwrap().push_str(std::str::from_utf8(&buffer[..count]).unwrap());
            }
        });
        let observe = Arc::new(Observe::new(1, Arc::clone(&live), Some(sink.into())).unwrap());
        let (changed, seen) = watch::channel(snapshot.id);
        let (stop, stopped) = watch::channel(Stop::Run);
        let (sender, sockets) = mpsc::unbounded_channel();
        let addresses = (v4.local_addr().unwrap(), v6.local_addr().unwrap());
        sender.send(SocketChange::Add { id: 1, socket: v4 }).unwrap();
        sender.send(SocketChange::Add { id: 2, socket: v6 }).unwrap();
        let start = ThreadStart {
            index: 0,
            live: Arc::clone(&live),
            sockets,
            stop: stopped,
            observe: Arc::clone(&observe),
            changed: seen,
        };
        let thread = std::thread::spawn(move || run(start));
        let (v4, v6) = addresses;
        Self { pki, observe, snapshot, live, changed, stop, _sockets: sender, thread, log, v4, v6 }
    }

    /// Puts a changed snapshot in force.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut Snapshot, &mut Pki)) {
        change(&mut self.snapshot, &mut self.pki);
        self.snapshot.id.revision += 1;
        let before = self.live.load_full();
        let roots = Arc::new(RootCertStore::empty());
        let live = Live::build(self.snapshot.clone(), &self.pki.keys, &roots, Some(&before)).unwrap();
        self.live.store(Arc::new(live));
        self.changed.send(self.snapshot.id).unwrap();
    }

    pub(super) fn stop(&self, stop: Stop) {
        self.stop.send(stop).unwrap();
    }

    pub(super) async fn joined(self) {
        within(tokio::task::spawn_blocking(|| self.thread.join())).await.unwrap().unwrap().unwrap();
    }

    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.v4).await.unwrap()
    }

    pub(super) async fn connect_v6(&self) -> TcpStream {
        TcpStream::connect(self.v6).await.unwrap()
    }

    pub(super) async fn shake(
        &self,
        config: &Arc<ClientConfig>,
        name: &str,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(self.v4).await?;
        within(shake(config, tcp, name)).await
    }

    pub(super) async fn shake_v6(&self, config: &Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(self.v6).await?;
        within(shake(config, tcp, "a.test")).await
    }

    /// Shakes hands behind these bytes.
    pub(super) async fn shake_behind(
        &self,
        config: &Arc<ClientConfig>,
        first: &[u8],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        behind(self.v4, config, first).await
    }

    pub(super) async fn shake_v6_behind(
        &self,
        config: &Arc<ClientConfig>,
        first: &[u8],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        behind(self.v6, config, first).await
    }

    pub(super) async fn shake_unverified(&self, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let mut config = (*client(&self.pki.ca)).clone();
        config.dangerous().set_certificate_verifier(Arc::new(Unjudged::new()));
        config.resumption = rustls::client::Resumption::disabled();
        self.shake(&Arc::new(config), name).await
    }

    /// A whole request on a new connection.
    pub(super) async fn get_ok(&self, config: &Arc<ClientConfig>) {
        let mut stream = self.shake(config, "a.test").await.unwrap();
        let answer = get(&mut stream, "a.test", "/").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
    }

    /// Waits until so many refusals for a reason have been counted since the start.
    pub(super) async fn refused(&self, reason: Reason, count: u64) {
        let sample = format!("reason=\"{}\"", reason.name());
        let told = until(|| {
            let text = self.observe.metrics_text();
            let line = text
                .lines()
                .find(|line| line.starts_with("sallyport_refusals_total") && line.contains(&sample));
            line.is_some_and(|line| line.ends_with(&format!(" {count}")))
        });
        assert!(told.await, "{reason:?} {count}\n{}", self.observe.metrics_text());
    }

    /// Waits until so many connections are open.
    pub(super) async fn open(&self, count: u32) {
        assert!(until(|| self.observe.connections() == count).await, "{}", self.observe.connections());
    }

    /// Waits for a line of the access log.
    pub(super) async fn log_line(&self, wanted: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let mut found = None;
        until(|| {
            let text = self.log.lock().unwrap();
            found = text.lines().map(|line| serde_json::from_str(line).unwrap()).find(&wanted);
            found.is_some()
        })
        .await;
        found.unwrap()
    }
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(5), future).await.expect("nothing happens")
}

async fn until(mut done: impl FnMut() -> bool) -> bool {
    for _ in 0..500 {
        if done() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    false
}

/// Sends `first` in two pieces, then shakes hands.
async fn behind(
    target: SocketAddr,
    config: &Arc<ClientConfig>,
    first: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut tcp = TcpStream::connect(target).await?;
    let (one, two) = first.split_at(first.len() / 2);
    tcp.write_all(one).await?;
    tokio::time::sleep(Duration::from_millis(20)).await;
    tcp.write_all(two).await?;
    within(shake(config, tcp, "a.test")).await
}

async fn shake(
    config: &Arc<ClientConfig>,
    tcp: TcpStream,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    tokio_rustls::TlsConnector::from(Arc::clone(config)).connect(name, tcp).await
}

pub(super) fn client(ca: &Ca) -> Arc<ClientConfig> {
    client_with(ca, rustls::DEFAULT_VERSIONS, |_| {})
}

pub(super) fn client_with(
    ca: &Ca,
    versions: &[&'static SupportedProtocolVersion],
    change: impl FnOnce(&mut ClientConfig),
) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(crate::worker::tls::provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(ca.roots())
        .with_no_client_auth();
    change(&mut config);
    Arc::new(config)
}

/// A request and its answer, which ends with `hello`, or whatever comes before the end.
pub(super) async fn get(stream: &mut TlsStream<TcpStream>, host: &str, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let _ = stream.write_all(request.as_bytes()).await;
    let _ = stream.flush().await;
    let mut answer = Vec::new();
    let read = async {
        while !answer.ends_with(b"hello") {
            match stream.read_buf(&mut answer).await {
                Ok(0) | Err(_) => break,
                Ok(_) if answer.starts_with(b"HTTP/1.1 4") => break,
                Ok(_) => {}
            }
        }
    };
    within(read).await;
    String::from_utf8(answer).unwrap()
}

/// An origin that says hello, and takes its time at `/slow`.
async fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while tcp.read_buf(&mut head).await.is_ok_and(|count| count > 0) {
                    if head.ends_with(b"\r\n\r\n") {
                        if head.starts_with(b"GET /slow") {
                            tokio::time::sleep(Duration::from_millis(300)).await;
                        }
                        head.clear();
                        let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await;
                    }
                }
            });
        }
    });
    address
}

/// One port on both families.
fn sockets() -> (std::net::TcpListener, std::net::TcpListener) {
    for _ in 0..50 {
        let v4 = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        if let Ok(v6) = std::net::TcpListener::bind(("::1", v4.local_addr().unwrap().port())) {
            return (v4, v6);
        }
    }
    panic!("no port is free on both families");
}

fn snapshot(port: u16, origin: SocketAddr) -> Snapshot {
    let name = |text: &str| text.parse::<Name>().unwrap();
    Snapshot {
        format: FORMAT,
        node: name("node"),
        id: SnapshotId { epoch: 1, revision: 1 },
        listeners: vec![Listener {
            name: name("https"),
            addresses: Vec::new(),
            port: u64::from(port).try_into().unwrap(),
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
            origins: vec![Origin {
                address: origin.to_string().parse().unwrap(),
                security: OriginSecurity::ClearText,
                share: Default::default(),
            }],
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
