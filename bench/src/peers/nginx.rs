//! nginx.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::peers::{Peer, Place};
use crate::workload::{GRPC_PATH, WEBSOCKET_PATH};
use crate::{Result, certs, cpu};

/// Starts nginx; the temporary-file spill is off, because a disk is no part of this hop.
pub(crate) fn start(place: &Place<'_>, program: &Path, listen: SocketAddr) -> Result<Peer> {
    let dir = place.dir("nginx")?;
    let program = program
        .canonicalize()
        .map_err(|error| format!("{}: {error}; bench/install-peers installs it", program.display()))?;
    let (origin, name, ca) = (place.origin, certs::ORIGIN, place.certs.ca_file.display());
    let tls = |directive: &str| {
        format!(
            "{directive}_ssl_verify on; {directive}_ssl_trusted_certificate {ca}; {directive}_ssl_name {name}; {directive}_ssl_server_name on;
  {directive}_ssl_protocols TLSv1.3; {directive}_ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;"
        )
    };
    let (proxy_tls, grpc_tls) = (tls("proxy"), tls("grpc"));
    let servers: String = place
        .hosts
        .iter()
        .enumerate()
        .map(|(at, host)| {
            // Once for the address.
            let backlog = if at == 0 { "backlog=4096" } else { "" };
            let (chain, key, name) = (host.chain_file.display(), host.key_file.display(), &host.name);
            format!(
                "  server {{ listen {listen} ssl {backlog}; http2 on; server_name {name};
    ssl_certificate {chain}; ssl_certificate_key {key};
    location / {{ proxy_pass https://origin; }}
    location {WEBSOCKET_PATH} {{ proxy_pass https://origin; proxy_set_header Host $host;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; proxy_read_timeout 300s; }}
    location {GRPC_PATH} {{ grpc_pass grpcs://calls; }}
  }}
"
            )
        })
        .collect();
    // `server_names_hash_max_size` as its documentation says for many names.
    let text = format!(
        "daemon off; worker_processes 1; pid nginx.pid; error_log error.log warn; user root; worker_rlimit_nofile 20000;
events {{ worker_connections 16000; }}
http {{
  access_log access.log combined;
  keepalive_requests 100000000; keepalive_timeout 300s; client_max_body_size 0;
  http2_max_concurrent_streams 128; server_names_hash_max_size 32768; server_names_hash_bucket_size 128;
  ssl_protocols TLSv1.3; ssl_ecdh_curve X25519; ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
  proxy_max_temp_file_size 0; proxy_request_buffering off; proxy_http_version 1.1;
  proxy_set_header Connection ''; proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr;
  {proxy_tls}
  grpc_set_header X-Forwarded-For $remote_addr;
  {grpc_tls}
  upstream origin {{ server {origin}; keepalive 256; keepalive_requests 100000000; }}
  upstream calls {{ server {origin}; keepalive 256; keepalive_requests 100000000; }}
{servers}}}
"
    );
    std::fs::write(dir.join("nginx.conf"), text)?;
    let proxy = cpu::pinned_command(&program)
        .args(["-p", &dir.display().to_string(), "-c", "nginx.conf", "-e", "error.log"])
        .spawn()?;
    Peer::ready("nginx", version(&program)?, listen, proxy, Vec::new())
}

fn version(program: &Path) -> Result<String> {
    let output = Command::new(program).arg("-V").output()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = |word: &str| text.lines().find(|line| line.contains(word)).unwrap_or_default().to_owned();
    Ok(format!("{}, {}", line("nginx version").replace("nginx version: ", ""), line("built with")))
}
