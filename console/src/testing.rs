//! What the tests of several rooms need: a console's state in a directory of its own.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use model::draft::{Object, parse};
use model::flow::{FlowEvent, Verdict};
use serde_json::{Value, json};

use crate::ops::{Actor, Changes, Ops, OpsError, PublishOptions, Published, Role};

/// A directory that goes with the test.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("sallyport-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) async fn open(&self) -> Ops {
        Ops::open(&self.0, "127.0.0.1:9444").await.unwrap()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn operator() -> Actor {
    let address = Some("192.0.2.10".parse().unwrap());
    Actor { name: "olga".to_owned(), role: Role::Operator, address, connection: None }
}

pub(crate) fn object(kind: &str, name: &str, spec: Value) -> Object {
    let api = model::draft::API_VERSION;
    parse(json!({ "apiVersion": api, "kind": kind, "metadata": { "name": name }, "spec": spec })).unwrap()
}

/// A listener, and a route with everything it needs.
pub(crate) fn shop() -> Vec<Object> {
    vec![
        object("Listener", "https", json!({ "port": 8443 })),
        object("Certificate", "shop", json!({ "internalCa": { "hostnames": ["shop.example.com"] } })),
        object("OriginGroup", "shop", json!({ "origins": [{ "url": "https://shop.internal" }] })),
        object(
            "Route",
            "shop",
            json!({ "hostnames": ["shop.example.com"], "certificate": "shop", "originGroup": "shop" }),
        ),
    ]
}

pub(crate) async fn publish(ops: &Ops, put: Vec<Object>) -> Result<Published, OpsError> {
    ops.publish(Changes { put, ..Changes::default() }, &operator(), PublishOptions::default()).await
}

/// A packet of 10.1.2.3 that this rule dropped.
pub(crate) fn dropped(rule: u32) -> FlowEvent {
    FlowEvent {
        time_ns: 1,
        interface: "eth0".to_owned(),
        verdict: Verdict::Drop,
        reason: "denied".to_owned(),
        rule,
        source: "10.1.2.3".parse().ok(),
        source_port: Some(9),
        destination: "10.0.0.1".parse().ok(),
        destination_port: Some(443),
        protocol: "tcp".parse().ok(),
        icmp_type: None,
        bytes: 60,
        one_in: 1,
        head: None,
    }
}
