//! The proxies: each started with one worker on core 0, its access log on, verifying the origin.

pub(crate) mod envoy;
pub(crate) mod haproxy;
pub(crate) mod nginx;
pub(crate) mod sallyport;

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::certs::{Certs, Host};
use crate::{Result, cpu};

/// What every peer is given.
pub(crate) struct Place<'a> {
    pub(crate) work: &'a Path,
    pub(crate) certs: &'a Certs,
    /// What is routed to the origin; the first is the one that most workloads ask for.
    pub(crate) hosts: &'a [Host],
    pub(crate) origin: SocketAddr,
}

impl Place<'_> {
    /// A fresh directory for one peer.
    pub(crate) fn dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.work.join(name);
        std::fs::create_dir_all(&dir)?;
        Ok(dir)
    }
}

/// A proxy that runs; it ends with this value.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) version: String,
    pub(crate) listen: SocketAddr,
    /// The process whose family is the proxy.
    proxy: Child,
    /// What else it needs and is not measured (Sallyport's console).
    _others: Vec<Guard>,
}

impl Peer {
    /// Waits until the proxy answers on its port.
    pub(crate) fn ready(
        name: &'static str,
        version: String,
        listen: SocketAddr,
        proxy: Child,
        others: Vec<Guard>,
    ) -> Result<Self> {
        let mut peer = Self { name, version, listen, proxy, _others: others };
        let until = Instant::now() + Duration::from_secs(120);
        while TcpStream::connect(listen).is_err() {
            if let Some(status) = peer.proxy.try_wait()? {
                return Err(format!("ended with {status} before it listened on {listen}").into());
            }
            if Instant::now() > until {
                return Err(format!("does not listen on {listen} after two minutes").into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(peer)
    }

    /// Its processes.
    pub(crate) fn processes(&self) -> Result<Vec<u32>> {
        cpu::family(self.proxy.id())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        end(&mut self.proxy);
    }
}

/// A process that ends with this value.
pub(crate) struct Guard(pub(crate) Child);

impl Drop for Guard {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

/// Asks first, so that children and control groups go too.
fn end(child: &mut Child) {
    if let Some(pid) = rustix::process::Pid::from_raw(child.id() as i32) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    let until = Instant::now() + Duration::from_secs(5);
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// The first line that a version command prints, on either stream.
fn version(command: &mut Command) -> Result<String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let text = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned())
}
