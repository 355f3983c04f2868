//! Configuration objects as JSON.

use serde_json::{Value, json};

use crate::pki::Pair;

/// Any object.
pub fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "sallyport.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec })
}

/// A certificate with its key.
pub fn certificate(name: &str, pair: &Pair) -> Value {
    object("Certificate", name, json!({ "chain": pair.chain, "privateKey": pair.key }))
}

/// A trust bundle.
pub fn trust_bundle(name: &str, pem: &str) -> Value {
    object("TrustBundle", name, json!({ "certificates": pem }))
}

/// An origin group of `https://` origins, verified against a bundle for a name.
pub fn origin_group(name: &str, urls: &[String], bundle: &str, expected: &str) -> Value {
    let origins: Vec<Value> = urls.iter().map(|url| json!({ "url": url })).collect();
    object(
        "OriginGroup",
        name,
        json!({ "origins": origins, "tls": { "trustBundle": bundle, "expectedName": expected } }),
    )
}

/// A route on all listeners.
pub fn route(name: &str, hosts: &[&str], certificate: &str, group: &str) -> Value {
    object("Route", name, json!({ "hostnames": hosts, "certificate": certificate, "originGroup": group }))
}

/// A route that passes connections for its hosts on as they are.
pub fn passthrough(name: &str, hosts: &[&str], group: &str) -> Value {
    object("Route", name, json!({ "hostnames": hosts, "tls": "Passthrough", "originGroup": group }))
}

/// A packet filter with one rule.
pub fn packet_filter(name: &str, action: &str, prefixes: &[String]) -> Value {
    let rule = json!({ "name": "rule", "action": action, "prefixes": prefixes });
    object("PacketFilter", name, json!({ "rules": [rule] }))
}
