//! HAProxy.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::peers::{Peer, Place};
use crate::workload::GRPC_PATH;
use crate::{Result, certs, cpu};

/// Starts HAProxy with one thread, its access log on standard output, which is a file.
pub(crate) fn start(place: &Place<'_>, program: &Path, listen: SocketAddr) -> Result<Peer> {
    let dir = place.dir("haproxy")?;
    let (origin, name) = (place.origin, certs::ORIGIN);
    let ca = place.certs.ca_file.display();
    // A directory of pairs, each served by SNI; the first host's where a client sends none.
    let first = place.hosts.first().ok_or("no host")?;
    let pairs = first.pair_file.parent().ok_or("no directory of certificates")?.display();
    let map = dir.join("hosts.map");
    let lines: String = place.hosts.iter().map(|host| format!("{} origin\n", host.name)).collect();
    std::fs::write(&map, lines)?;
    let (first, map) = (first.pair_file.display(), map.display());
    let tls = format!(
        "ssl verify required ca-file {ca} verifyhost {name} sni str({name}) ssl-min-ver TLSv1.3 ciphersuites TLS_AES_128_GCM_SHA256"
    );
    // It wants two descriptors for each connection it might have; the idle ones have no origin behind them.
    let text = format!(
        "global
  nbthread 1
  maxconn 16000
  no strict-limits
  log stdout format raw local0
defaults
  mode http
  log global
  option httplog
  timeout connect 5s
  timeout client 300s
  timeout server 75s
  timeout tunnel 300s
  timeout http-request 15s
  http-reuse always
frontend front
  bind {listen} ssl crt {first} crt {pairs} alpn h2,http/1.1 ssl-min-ver TLSv1.3 curves X25519 ciphersuites TLS_AES_128_GCM_SHA256
  option forwardfor
  use_backend grpc if {{ path_beg {GRPC_PATH} }}
  use_backend %[req.hdr(host),lower,map({map})]
backend origin
  server origin {origin} {tls} alpn http/1.1 pool-max-conn 256
backend grpc
  server origin {origin} {tls} alpn h2
"
    );
    let file = dir.join("haproxy.cfg");
    std::fs::write(&file, text)?;
    let log = std::fs::File::create(dir.join("access.log"))?;
    let proxy = cpu::pinned_command(program)
        .args(["-db", "-f", &file.display().to_string()])
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(std::fs::File::create(dir.join("error.log"))?)
        .spawn()?;
    Peer::ready("HAProxy", super::version(Command::new(program).arg("-v"))?, listen, proxy, Vec::new())
}
