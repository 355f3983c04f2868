//! The snapshot in force, in the shape the path needs. Built once per snapshot, shared by all threads, never changed.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use model::filter::Verdict;
use model::name::{HostName, Name};
use model::net::{OriginAddress, Prefix};
use model::route::Table;
use model::snapshot::{FilterRule, Limits, SnapshotId};
use rustls_pki_types::ServerName;

/// Everything in force. Threads load it once per connection and once per request from an `arc_swap::ArcSwap<Live>`.
#[derive(Debug)]
pub struct Live {
    /// Which snapshot.
    pub id: SnapshotId,
    /// By name.
    pub listeners: HashMap<Name, Arc<ListenerLive>>,
    /// Local address and port of an accepted socket -> listener; see [`Live::listener_at`].
    pub places: Places,
    /// For live connections that a new snapshot denies.
    pub filter: Vec<FilterRule>,
}

/// Exact places come before `None` (every address).
pub type Places = HashMap<(Option<IpAddr>, u16), Arc<ListenerLive>>;

impl Live {
    /// The listener an accepted socket's own address belongs to (IPv4-mapped addresses are taken as IPv4).
    pub fn listener_at(&self, local: SocketAddr) -> Option<&Arc<ListenerLive>> {
        let address = local.ip().to_canonical();
        self.places.get(&(Some(address), local.port())).or_else(|| self.places.get(&(None, local.port())))
    }

    /// What the packet filter says of a client that reached a listener.
    pub fn verdict(&self, client: IpAddr) -> Verdict {
        model::filter::verdict(&self.filter, client, true)
    }
}

/// One listener.
pub struct ListenerLive {
    /// Its name.
    pub name: Name,
    /// Bounds on what clients control.
    pub limits: Limits,
    /// The TLS server: certificates by SNI, versions, ALPN, tickets.
    pub tls: Arc<rustls::ServerConfig>,
    /// Which certificate SNI chooses: exact, then wildcard, then the default; `None` refuses the handshake.
    pub certificates: CertificateTable,
    /// Routes by host and path.
    pub routes: Table<Arc<RouteLive>>,
    /// Whose forwarding headers are believed.
    pub trusted: Vec<Prefix>,
}

impl std::fmt::Debug for ListenerLive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ListenerLive").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Which certificate belongs to which host.
#[derive(Debug, Default)]
pub struct CertificateTable {
    /// Certificate names, by exact host.
    pub exact: HashMap<HostName, Name>,
    /// Certificate names, by the host behind `*.`.
    pub wildcard: HashMap<HostName, Name>,
    /// Served when nothing matches.
    pub default: Option<Name>,
}

/// One route.
#[derive(Debug)]
pub struct RouteLive {
    /// Its name.
    pub name: Name,
    /// A small number for per-thread counters; stable while the route's name lives in the process.
    pub slot: usize,
    /// Where requests go.
    pub group: Arc<GroupLive>,
    /// Let `%2F` through.
    pub allow_encoded_slash: bool,
    /// Until the origin's response head.
    pub response_timeout: Duration,
}

/// One origin group.
#[derive(Debug)]
pub struct GroupLive {
    /// Its name.
    pub name: Name,
    /// Never empty.
    pub origins: Vec<Arc<OriginLive>>,
    /// Connect and handshake together.
    pub connect_timeout: Duration,
}

/// One origin. The same address and security in two snapshots is the same `Arc`, so pools and state live on.
pub struct OriginLive {
    /// Its group's name, for reports.
    pub group: Name,
    /// Where.
    pub address: OriginAddress,
    /// A number no other origin of this process has or had: the pools' key.
    pub key: u64,
    /// How it is secured.
    pub security: SecurityLive,
}

impl std::fmt::Debug for OriginLive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OriginLive").field("address", &self.address).field("key", &self.key).finish_non_exhaustive()
    }
}

/// How an origin is secured.
pub enum SecurityLive {
    /// TLS with this client configuration (verified or not, as the operator chose), offering this name.
    Tls {
        /// Verifier, versions, session store; ALPN `http/1.1`.
        config: Arc<rustls::ClientConfig>,
        /// Expected name; sent as SNI when it is a DNS name.
        name: ServerName<'static>,
        /// Whether the certificate is verified.
        verified: bool,
    },
    /// No TLS: an operator's visible choice.
    ClearText,
}
