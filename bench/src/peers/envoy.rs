//! Envoy.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::peers::{Peer, Place};
use crate::workload::GRPC_PATH;
use crate::{Result, certs, cpu};

/// Starts Envoy with one worker; its access log is its default format, in a file.
pub(crate) fn start(place: &Place<'_>, program: &Path, listen: SocketAddr) -> Result<Peer> {
    let dir = place.dir("envoy")?;
    let program = program
        .canonicalize()
        .map_err(|error| format!("{}: {error}; bench/install-peers installs it", program.display()))?;
    let file = dir.join("envoy.json");
    let text = json!({ "static_resources": {
        "listeners": [listener(place, listen, &dir.join("access.log"))],
        "clusters": [cluster(place, "origin", "http/1.1"), cluster(place, "calls", "h2")],
    }});
    std::fs::write(&file, text.to_string())?;
    let proxy = cpu::pinned_command(&program)
        .args(["-c", &file.display().to_string(), "--concurrency", "1", "--disable-hot-restart"])
        .args(["--log-level", "warning"])
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(dir.join("out.log"))?)
        .stderr(std::fs::File::create(dir.join("error.log"))?)
        .spawn()?;
    Peer::ready("Envoy", version(&program)?, listen, proxy, Vec::new())
}

fn version(program: &Path) -> Result<String> {
    let output = Command::new(program).arg("--version").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let parts: Vec<_> = text.trim().rsplit('/').take(4).collect();
    Ok(format!("envoy {}", parts.into_iter().rev().collect::<Vec<_>>().join(" ")))
}

fn parameters() -> Value {
    json!({
        "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3",
        "ecdh_curves": ["X25519"],
    })
}

fn listener(place: &Place<'_>, listen: SocketAddr, log: &Path) -> Value {
    let pairs: Vec<_> = place
        .hosts
        .iter()
        .map(|host| {
            json!({
                "certificate_chain": { "filename": host.chain_file }, "private_key": { "filename": host.key_file },
            })
        })
        .collect();
    let hosts: Vec<_> = place
        .hosts
        .iter()
        .map(|host| {
            json!({
                "name": host.name, "domains": [host.name],
                "routes": [
                    { "match": { "prefix": GRPC_PATH }, "route": { "cluster": "calls" } },
                    { "match": { "prefix": "/" }, "route": { "cluster": "origin", "timeout": "0s" } },
                ],
            })
        })
        .collect();
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "front", "codec_type": "AUTO", "use_remote_address": true,
        "upgrade_configs": [{ "upgrade_type": "websocket" }],
        "access_log": [{ "name": "file", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": log,
        }}],
        "route_config": { "name": "hosts", "virtual_hosts": hosts },
        "http_filters": [{ "name": "router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        }}],
    });
    json!({
        "name": "front",
        "address": { "socket_address": { "address": listen.ip(), "port_value": listen.port() } },
        "filter_chains": [{
            "transport_socket": { "name": "tls", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {
                    "tls_params": parameters(), "alpn_protocols": ["h2", "http/1.1"], "tls_certificates": pairs,
                },
            }},
            "filters": [{ "name": "http", "typed_config": manager }],
        }],
    })
}

fn cluster(place: &Place<'_>, name: &str, alpn: &str) -> Value {
    let protocol = if alpn == "h2" { "http2_protocol_options" } else { "http_protocol_options" };
    json!({
        "name": name, "type": "STATIC", "connect_timeout": "5s",
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": {
            "socket_address": { "address": place.origin.ip(), "port_value": place.origin.port() },
        }}}]}]},
        "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": { protocol: {} },
        }},
        "transport_socket": { "name": "tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": certs::ORIGIN,
            "common_tls_context": {
                "tls_params": parameters(), "alpn_protocols": [alpn],
                "validation_context": {
                    "trusted_ca": { "filename": place.certs.ca_file },
                    "match_typed_subject_alt_names": [{ "san_type": "DNS", "matcher": { "exact": certs::ORIGIN } }],
                },
            },
        }},
    })
}
