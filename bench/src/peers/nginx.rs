//! nginx.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::peers::{Peer, Place};
use crate::{Result, certs, cpu};

/// Starts nginx; the temporary-file spill is off, because a disk is no part of this hop.
pub(crate) fn start(place: &Place<'_>, program: &Path, listen: SocketAddr) -> Result<Peer> {
    let dir = place.dir("nginx")?;
    let program = program
        .canonicalize()
        .map_err(|error| format!("{}: {error}; bench/install-peers installs it", program.display()))?;
    let (front, origin, name) = (certs::FRONT, place.origin, certs::ORIGIN);
    let (chain, key, ca) = (
        place.certs.front_chain_file.display(),
        place.certs.front_key_file.display(),
        place.certs.ca_file.display(),
    );
    let text = format!(
        "daemon off; worker_processes 1; pid nginx.pid; error_log error.log warn; user root;
events {{ worker_connections 4096; }}
http {{
  access_log access.log combined;
  keepalive_requests 100000000; keepalive_timeout 75s;
  proxy_max_temp_file_size 0;
  upstream origin {{ server {origin}; keepalive 256; keepalive_requests 100000000; }}
  server {{
    listen {listen} ssl backlog=4096; server_name {front};
    ssl_certificate {chain}; ssl_certificate_key {key};
    ssl_protocols TLSv1.3; ssl_ecdh_curve X25519; ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
    location / {{
      proxy_pass https://origin; proxy_http_version 1.1;
      proxy_set_header Connection ''; proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr;
      proxy_ssl_verify on; proxy_ssl_trusted_certificate {ca}; proxy_ssl_name {name}; proxy_ssl_server_name on;
      proxy_ssl_protocols TLSv1.3; proxy_ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
    }}
  }}
}}
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
