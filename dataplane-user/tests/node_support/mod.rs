//! What the tests of the node need: a console, an origin, a client, and the real executable.

#![expect(dead_code, reason = "each test file uses its part")]

pub(crate) mod console;
pub(crate) mod node;
pub(crate) mod traffic;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use model::name::Name;
use model::snapshot::*;

pub(crate) use console::Console;
pub(crate) use node::Node;

/// A directory that is removed in the end.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("sallyport-node-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Waits until `check` has an answer.
#[track_caller]
pub(crate) fn wait<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) fn id(revision: u64) -> SnapshotId {
    SnapshotId { epoch: 1, revision }
}

/// An empty snapshot for the node `edge`.
pub(crate) fn snapshot(revision: u64) -> Snapshot {
    Snapshot {
        format: FORMAT,
        node: name("edge"),
        id: id(revision),
        listeners: Vec::new(),
        certificates: Vec::new(),
        routes: Vec::new(),
        origin_groups: Vec::new(),
        trust_bundles: Vec::new(),
        filter: Vec::new(),
        filter_protocols: Vec::new(),
        filter_budgets: Default::default(),
        trial_ms: None,
    }
}

/// `shop.test` on `127.0.0.1:port`, answered by a clear-text origin on `127.0.0.1:origin`.
pub(crate) fn shop(console: &Console, revision: u64, port: u16, origin: u16) -> Snapshot {
    let (chain, key) = console.certificate();
    let mut snapshot = snapshot(revision);
    snapshot.listeners.push(Listener {
        name: name("https"),
        addresses: vec!["127.0.0.1".parse().unwrap()],
        port: u64::from(port).try_into().unwrap(),
        take_over: false,
        clear_text: None,
        min_version: TlsVersion::V12,
        default_certificate: None,
        certificates: vec![name("shop")],
        trusted_prefixes: Vec::new(),
        proxy_protocol: Vec::new(),
        limits: Limits { drain_ms: 2000, ..Limits::default() },
        error_pages: Vec::new(),
    });
    snapshot.certificates.push(Certificate {
        name: name("shop"),
        chain,
        key,
        hostnames: vec!["shop.test".parse().unwrap()],
    });
    snapshot.routes.push(Route {
        name: name("shop"),
        listeners: vec![name("https")],
        hostnames: vec!["shop.test".parse().unwrap()],
        passthrough: false,
        paths: vec![PathMatch::Prefix("/".to_owned())],
        matches: Vec::new(),
        certificate: Some(name("shop")),
        origin_group: Some(name("shop")),
        allow_encoded_slash: false,
        response_timeout_ms: 5000,
        transform: Default::default(),
        upgrades: model::upgrade::usual(),
    });
    snapshot.origin_groups.push(OriginGroup {
        name: name("shop"),
        origins: vec![Origin {
            address: format!("127.0.0.1:{origin}").parse().unwrap(),
            security: OriginSecurity::ClearText,
            share: Default::default(),
        }],
        connect_timeout_ms: 2000,
        protocols: Default::default(),
        http2: Default::default(),
        choice: Default::default(),
        client_certificate: None,
        proxy_protocol: None,
        sni: None,
    });
    snapshot
}
