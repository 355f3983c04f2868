//! HAProxy.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::peers::{Peer, Place};
use crate::{Result, certs, cpu};

/// Starts HAProxy with one thread, its access log on standard output, which is a file.
pub(crate) fn start(place: &Place<'_>, program: &Path, listen: SocketAddr) -> Result<Peer> {
    let dir = place.dir("haproxy")?;
    let (origin, name) = (place.origin, certs::ORIGIN);
    let (pair, ca) = (place.certs.front_pair_file.display(), place.certs.ca_file.display());
    let text = format!(
        "global
  nbthread 1
  maxconn 4096
  log stdout format raw local0
defaults
  mode http
  log global
  option httplog
  timeout connect 5s
  timeout client 75s
  timeout server 75s
  timeout http-request 15s
  http-reuse always
frontend front
  bind {listen} ssl crt {pair} alpn http/1.1 ssl-min-ver TLSv1.3 curves X25519 ciphersuites TLS_AES_128_GCM_SHA256
  option forwardfor
  default_backend origin
backend origin
  server origin {origin} ssl verify required ca-file {ca} verifyhost {name} sni str({name}) alpn http/1.1 ssl-min-ver TLSv1.3 ciphersuites TLS_AES_128_GCM_SHA256 pool-max-conn 256
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
