//! `Listener`.

use std::collections::{BTreeMap, BTreeSet};

use super::notes::{At, Names};
use super::{clear_text, error_pages};
use crate::draft::{Kind, LimitsSpec, ListenerSpec, PortSpec, ProxyProtocolSpec};
use crate::listen::{Addresses, Port};
use crate::name::Name;
use crate::net::Prefix;
use crate::problem::Code;
use crate::snapshot::{Limits, Listener, TlsVersion};

/// A listener and the nodes that have it. Until [`super::Compiled`] is finished, `certificates` lacks the routes' ones.
#[derive(Debug, Clone)]
pub(super) struct Lowered {
    pub(super) listener: Listener,
    pub(super) selector: BTreeMap<String, String>,
}

pub(super) fn lower(name: &Name, spec: &ListenerSpec, names: &Names, at: &mut At<'_>) -> Option<Lowered> {
    let port = port(spec, at);
    let default_certificate = spec
        .default_certificate
        .as_ref()
        .and_then(|text| at.reference("spec.defaultCertificate", Kind::Certificate, text, names));
    let mut certificates: BTreeSet<Name> = default_certificate.iter().cloned().collect();
    for (index, text) in spec.certificates.iter().enumerate() {
        certificates.extend(at.reference(
            format!("spec.certificates[{index}]"),
            Kind::Certificate,
            text,
            names,
        ));
    }
    let min_version = spec.tls.min_version.as_ref().and_then(|text| {
        at.word("spec.tls.minVersion", text, &[("1.2", TlsVersion::V12), ("1.3", TlsVersion::V13)])
    });
    let clear_text = clear_text::lower(spec, names, at);
    let listener = Listener {
        name: name.clone(),
        addresses: addresses(&spec.addresses, at),
        port: port.unwrap_or(Port::Any),
        take_over: spec.take_over,
        clear_text,
        min_version: min_version.unwrap_or(TlsVersion::V12),
        default_certificate,
        certificates: certificates.into_iter().collect(),
        trusted_prefixes: at.prefixes("spec.trustedPrefixes", &spec.trusted_prefixes),
        proxy_protocol: proxy_protocol(spec.proxy_protocol.as_ref(), at),
        limits: limits(&spec.limits, at),
        error_pages: error_pages::lower(&spec.error_pages, at),
    };
    let selector = at.selector(&spec.node_selector);
    port.map(|_| Lowered { listener, selector })
}

fn proxy_protocol(spec: Option<&ProxyProtocolSpec>, at: &mut At<'_>) -> Vec<Prefix> {
    const FIELD: &str = "spec.proxyProtocol.prefixes";
    let Some(spec) = spec else { return Vec::new() };
    at.not_empty(FIELD, &spec.prefixes, "prefix of the load balancers that send the header");
    at.prefixes(FIELD, &spec.prefixes)
}

fn port(spec: &ListenerSpec, at: &mut At<'_>) -> Option<Port> {
    let port = match &spec.port {
        PortSpec::Number(number) => Port::try_from(u64::from(*number)).ok(),
        PortSpec::Word(word) => (word == Port::ANY).then_some(Port::Any),
    };
    match port {
        None => {
            let shown = match &spec.port {
                PortSpec::Number(number) => number.to_string(),
                PortSpec::Word(word) => super::notes::shown(word),
            };
            let message = format!("{shown} is no TCP port; write one from 1 to 65535, or any");
            at.problem("spec.port", Code::Invalid, message);
        }
        Some(Port::Any) => any_port(spec, at),
        Some(Port::One(_)) => {}
    }
    port
}

/// What a listener on any port cannot be.
fn any_port(spec: &ListenerSpec, at: &mut At<'_>) {
    if spec.addresses.is_empty() {
        let message = "any port of every address would take what services listen on that start later; list the addresses that it is for";
        at.problem("spec.port", Code::Invalid, message.to_owned());
    }
    if spec.is_clear_text() {
        let message = "any is for protocol HTTPS; a listener in clear text is found at a port, so write that";
        at.problem("spec.port", Code::Invalid, message.to_owned());
    }
    if spec.take_over {
        let message = "any port is any that nothing else listens on; take a port over with a listener for that port alone";
        at.problem("spec.takeOver", Code::Invalid, message.to_owned());
    }
}

fn addresses(texts: &[String], at: &mut At<'_>) -> Vec<Addresses> {
    let mut addresses = BTreeSet::new();
    for (index, text) in texts.iter().enumerate() {
        let field = format!("spec.addresses[{index}]");
        let wrong = match text.parse::<Addresses>() {
            Err(wrong) => wrong.to_string(),
            Ok(one) if !addresses.insert(one) => "is in this list twice; remove one".to_owned(),
            Ok(_) => continue,
        };
        at.problem(field, Code::Invalid, format!("{} {wrong}", super::notes::shown(text)));
    }
    addresses.into_iter().collect()
}

fn limits(spec: &LimitsSpec, at: &mut At<'_>) -> Limits {
    const HOUR: u64 = 3_600_000;
    const DAY: u64 = 24 * HOUR;
    let default = Limits::default();
    let most = u64::from(u32::MAX);
    let mut bound = |field: &str, value, default: u32, range| {
        at.number(&format!("spec.limits.{field}"), value, default, range)
    };
    let limits = Limits {
        connections: bound("connections", spec.connections, default.connections, 1..=10_000_000),
        connections_per_address: bound(
            "connectionsPerAddress",
            spec.connections_per_address,
            default.connections_per_address,
            1..=10_000_000,
        ),
        header_bytes: bound("headerBytes", spec.header_bytes, default.header_bytes, 256..=1_048_576),
        header_count: bound("headerCount", spec.header_count, default.header_count, 1..=10_000),
        target_bytes: bound("targetBytes", spec.target_bytes, default.target_bytes, 16..=1_048_576),
        body_bytes: spec.body_bytes.unwrap_or(default.body_bytes),
        handshake_ms: bound("handshakeMs", spec.handshake_ms, default.handshake_ms, 10..=HOUR),
        handshake_bytes: bound(
            "handshakeBytes",
            spec.handshake_bytes,
            default.handshake_bytes,
            2_048..=131_072,
        ),
        header_ms: bound("headerMs", spec.header_ms, default.header_ms, 10..=HOUR),
        idle_ms: bound("idleMs", spec.idle_ms, default.idle_ms, 10..=DAY),
        stall_ms: bound("stallMs", spec.stall_ms, default.stall_ms, 10..=DAY),
        body_bytes_per_second: bound(
            "bodyBytesPerSecond",
            spec.body_bytes_per_second,
            default.body_bytes_per_second,
            0..=1_000_000_000,
        ),
        requests_per_connection: bound(
            "requestsPerConnection",
            spec.requests_per_connection,
            default.requests_per_connection,
            0..=most,
        ),
        streams: bound("streams", spec.streams, default.streams, 1..=65_535),
        drain_ms: bound("drainMs", spec.drain_ms, default.drain_ms, 0..=DAY),
        tunnel_idle_ms: bound("tunnelIdleMs", spec.tunnel_idle_ms, default.tunnel_idle_ms, 10..=DAY),
    };
    if limits.target_bytes > limits.header_bytes {
        let message = format!(
            "{} is more than headerBytes ({}), which counts the target too; lower this or raise that",
            limits.target_bytes, limits.header_bytes
        );
        at.problem("spec.limits.targetBytes", Code::Invalid, message);
    }
    limits
}
