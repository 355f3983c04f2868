//! Snapshots that a node must not believe, provoked by changing what the node has on its disk.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Signal;
use sallyport_tests::eventually;
use sallyport_tests::objects::packet_filter;
use sallyport_tests::product::Role;
use serde_json::{Value, json};

use crate::place::Place;

impl Place {
    fn node_file(&self, name: &str) -> PathBuf {
        self.product.dir().join("state/node").join(name)
    }

    fn change_node_file(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let path = self.node_file(name);
        let mut value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut value);
        fs::write(&path, value.to_string()).unwrap();
    }

    /// `up` starts another keeper, and that another worker.
    fn restart_node(&self) {
        let old = self.product.pids(Role::Keeper)[0];
        for role in [Role::Keeper, Role::Worker] {
            self.product.pids(role).into_iter().for_each(|pid| self.product.signal(pid, Signal::KILL));
        }
        eventually("another keeper takes over", Duration::from_secs(20), || {
            let status = self.product.node_status()?;
            let keeper = status["keeper"].as_u64();
            let new = keeper != Some(old.into()) && status["worker"].is_u64();
            if new { Ok(()) } else { Err(status.to_string()) }
        });
    }

    fn deny(&self, prefix: &str) -> u64 {
        self.api.apply(&[packet_filter("deny", "Deny", &[prefix.to_owned()])])
    }
}

#[test]
fn a_bad_signature_is_refused_and_what_is_in_force_stays() {
    let place = Place::new("inputsign");
    let browser = place.administrator();
    // The node now trusts another console's key; its own stored snapshot was signed before that.
    let mut real = Value::Null;
    place.change_node_file("node.json", |node| {
        real = node["snapshotKey"].clone();
        node["previousKey"] = real.clone();
        node["snapshotKey"] = json!("ab".repeat(32));
    });
    place.restart_node();
    place.served();
    let before = place.api.get("/api/v1/nodes")["items"][0]["applied"]["revision"].clone();
    let revision = place.deny("192.0.2.0/24");
    let sentence = "the snapshot's signature is not by this node's console; enrol the node again";
    place.told(&browser, &[sentence]);
    assert_eq!(place.api.get("/api/v1/nodes")["items"][0]["applied"]["revision"], before);
    assert!(place.api.revisions().contains(&revision), "the revision is not lost");
    place.served();
    place.change_node_file("node.json", |node| node["snapshotKey"] = real);
    place.restart_node();
    place.product.applied(revision);
    place.served();
}

#[test]
fn a_stored_snapshot_from_a_newer_format_is_left_aside_and_said() {
    let place = Place::new("inputformat");
    let browser = place.administrator();
    // What a node that was a newer release leaves for an older one: properly signed, in a format it does not read.
    let pair = Ed25519KeyPair::generate().unwrap();
    let key: String = pair.public_key().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    // The console is away, so that its answer does not hide what the node says.
    let up = place.product.pids(Role::Up)[0];
    place.product.signal(up, Signal::STOP);
    let console = place.product.pids(Role::Console)[0];
    place.product.signal(console, Signal::STOP);
    place.change_node_file("node.json", |node| node["previousKey"] = json!(key));
    place.change_node_file("snapshot.json", |stored| {
        let body = stored["body"].as_str().unwrap().replace("\"format\":1", "\"format\":2");
        let signed = [b"sallyport snapshot v1\0".as_slice(), body.as_bytes()].concat();
        *stored = json!({ "body": body, "signature": STANDARD.encode(pair.sign(&signed)) });
    });
    for role in [Role::Keeper, Role::Worker] {
        place.product.pids(role).into_iter().for_each(|pid| place.product.signal(pid, Signal::KILL));
    }
    place.product.signal(up, Signal::CONT);
    eventually("the node's status says why the stored snapshot is not used", Duration::from_secs(20), || {
        let status = place.product.node_status()?.to_string();
        let words =
            ["snapshot.json is left aside", "the snapshot has format 2, this node reads 1: upgrade the node"];
        if words.iter().all(|word| status.contains(word)) { Ok(()) } else { Err(status) }
    });
    // The console has the last word: it sends what is in force, and the complaint goes.
    place.product.signal(console, Signal::CONT);
    place.served();
    eventually("the complaint goes", Duration::from_secs(10), || {
        let status = place.product.node_status()?.to_string();
        if status.contains("left aside") { Err(status) } else { Ok(()) }
    });
    let revision = place.deny("192.0.2.0/24");
    place.product.applied(revision);
    assert!(!browser.read("/nodes").contains("left aside"));
}
