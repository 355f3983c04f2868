//! The snapshot in force, in the shape the path needs. Built once per snapshot, shared by all threads, never changed.
//!
//! What two snapshots have in common is the same `Arc` in both: pools, tickets, counters and parsed certificates of
//! what did not change live on. [`Live::build`] (in `build.rs`) decides that.

mod build;
mod judge;
mod listeners;
mod open;
mod origins;
mod routes;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

pub use build::LiveError;
pub use open::{Network, Open};

use bytes::Bytes;
use model::clear_text::OpenAnswer;
use model::error_page::ErrorPage;
use model::filter::Index;
use model::header::FieldValue;
use model::listen::Atlas;
use model::name::{HostName, HostPattern, Name};
use model::net::{OriginAddress, Prefix};
use model::route::{Hosts, NormalPath, Table};
use model::snapshot::{Limits, Probe, Protocols, ProxyVersion, SnapshotId};
use model::transform::{Redirect, Transform};
use model::upgrade::Protocol;
use rustls_pki_types::ServerName;

use crate::worker::origin::gate::Gate;
use crate::worker::origin::health::{self, Health};
use crate::worker::origin::http2;
use crate::worker::tls::dial::Clients;

/// Everything in force. Threads load it once per connection and once per request from an `arc_swap::ArcSwap<Live>`.
#[derive(Debug)]
pub struct Live {
    /// Which snapshot.
    pub id: SnapshotId,
    /// By name.
    pub listeners: HashMap<Name, Arc<ListenerLive>>,
    /// Local address and port of an accepted socket -> listener; see [`Live::listener_at`].
    pub places: Atlas<Arc<ListenerLive>>,
    /// For live connections that a new snapshot denies.
    pub filter: Index,
    /// By group name.
    pub groups: HashMap<Name, Arc<GroupLive>>,
    /// What the next snapshot may take over.
    kept: build::Kept,
}

impl Live {
    /// The listener an accepted socket's own address belongs to (IPv4-mapped addresses are taken as IPv4).
    pub fn listener_at(&self, local: SocketAddr) -> Option<&Arc<ListenerLive>> {
        self.places.get(local)
    }
}

/// One listener.
pub struct ListenerLive {
    /// Its name.
    pub name: Name,
    /// Bounds on what clients control.
    pub limits: Limits,
    /// What refused clients see instead of our pages.
    pub error_pages: Vec<ErrorPage>,
    /// How clients come in.
    pub door: Door,
    /// Open connections, all threads together. Shared by all of this listener's generations.
    pub open: Arc<Open>,
    /// Which certificate SNI chooses: exact, then wildcard, then the default; `None` refuses the handshake.
    pub certificates: CertificateTable,
    /// Routes by host and path.
    pub routes: Table<Arc<RouteLive>>,
    /// Routes that pass TLS on, by SNI; absent where there is none, and nobody looks at a ClientHello first.
    pub passthrough: Option<Passthrough>,
    /// Whose forwarding headers are believed.
    pub trusted: Vec<Prefix>,
    /// TCP peers whose connections begin with a PROXY header.
    pub proxies: Vec<Prefix>,
}

/// The routes that pass TLS on, among all hosts of a listener: a terminated host that is more specific has its own entry.
#[derive(Debug, Default)]
pub struct Passthrough(Hosts<Option<Arc<RouteLive>>>);

impl Passthrough {
    /// Enters a route's hosts; nothing where they are terminated.
    pub fn add(&mut self, hosts: &[HostPattern], route: Option<&Arc<RouteLive>>) {
        hosts.iter().for_each(|host| self.0.add(host, route.cloned()));
    }

    /// The route that passes connections for this host on.
    pub fn choose(&self, host: &HostName) -> Option<&Arc<RouteLive>> {
        self.0.choose(host)?.as_ref()
    }
}

impl ListenerLive {
    /// The route that passes connections for this host on, if they are not terminated.
    pub fn passed(&self, host: &HostName) -> Option<&Arc<RouteLive>> {
        self.passthrough.as_ref()?.choose(host)
    }

    /// Whether connections of this TCP peer begin with a PROXY header.
    pub fn proxied(&self, tcp: IpAddr) -> bool {
        self.proxies.iter().any(|prefix| prefix.contains(tcp))
    }
}

/// How a listener's clients come in.
pub enum Door {
    /// The TLS server: certificates by SNI, versions, ALPN, tickets.
    Tls(Arc<rustls::ServerConfig>),
    /// No TLS: an operator's visible choice.
    ClearText(ClearTextLive),
}

impl Door {
    /// Whether both are of one kind.
    pub fn like(&self, other: &Self) -> bool {
        matches!(self, Self::Tls(_)) == matches!(other, Self::Tls(_))
    }

    /// Whether its clients say by their first bytes that they speak HTTP/2. Behind TLS that is ALPN's to say.
    pub fn tells_http2(&self) -> bool {
        match self {
            Self::Tls(_) => false,
            Self::ClearText(clear) => !clear.h2c.is_empty(),
        }
    }

    /// Whether a client reaches routes in clear text.
    pub fn trusts(&self, client: IpAddr) -> bool {
        match self {
            Self::Tls(_) => false,
            Self::ClearText(clear) => clear.trusts(client),
        }
    }
}

/// What is answered in clear text.
#[derive(Debug)]
pub struct ClearTextLive {
    /// What every request gets that nothing below serves.
    pub answer: OpenAnswer,
    /// Answers whether the node serves.
    pub health: Option<NormalPath>,
    /// Where ACME's challenges go. It is in no table, and no host or path of its own leads to it.
    pub challenges: Option<Arc<RouteLive>>,
    /// Who reaches the listener's routes, with HTTP/2; mostly nobody.
    pub h2c: Vec<Prefix>,
}

impl ClearTextLive {
    /// Whether a client reaches routes.
    pub fn trusts(&self, client: IpAddr) -> bool {
        self.h2c.iter().any(|prefix| prefix.contains(client))
    }
}

impl std::fmt::Debug for ListenerLive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ListenerLive").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Which certificate belongs to which host, by name.
pub type CertificateTable = BySni<Name>;

/// What SNI chooses: exact host, then wildcard (exactly one label), then the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BySni<T> {
    /// By exact host.
    pub exact: HashMap<HostName, T>,
    /// By the host behind `*.`.
    pub wildcard: HashMap<HostName, T>,
    /// When nothing matches.
    pub default: Option<T>,
}

impl<T> Default for BySni<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), wildcard: HashMap::new(), default: None }
    }
}

impl<T> BySni<T> {
    /// What belongs to a name the client sent, or to none.
    pub fn choose(&self, sni: Option<&HostName>) -> Option<&T> {
        let named = sni.and_then(|sni| {
            self.exact.get(sni).or_else(|| {
                let (_, parent) = sni.as_str().split_once('.')?;
                self.wildcard.get(&parent.parse::<HostName>().ok()?)
            })
        });
        named.or(self.default.as_ref())
    }

    /// The same table of something else; what `f` has no answer for is left out.
    pub(crate) fn map<U>(&self, f: impl Fn(&T) -> Option<U>) -> BySni<U> {
        let table = |table: &HashMap<HostName, T>| {
            table.iter().filter_map(|(host, value)| Some((host.clone(), f(value)?))).collect()
        };
        BySni {
            exact: table(&self.exact),
            wildcard: table(&self.wildcard),
            default: self.default.as_ref().and_then(&f),
        }
    }

    /// Enters `value` for `host`, unless something already stands there.
    pub fn add(&mut self, host: &HostPattern, value: T) {
        let (table, host) = match host {
            HostPattern::Exact(host) => (&mut self.exact, host),
            HostPattern::Wildcard(host) => (&mut self.wildcard, host),
        };
        table.entry(host.clone()).or_insert(value);
    }
}

/// One route.
#[derive(Debug)]
pub struct RouteLive {
    /// Its name.
    pub name: Name,
    /// For per-thread counters; no other name of this process has or had it.
    pub slot: usize,
    /// Where requests go.
    pub target: Target,
    /// Let `%2F` through.
    pub allow_encoded_slash: bool,
    /// Until the origin's response head.
    pub response_timeout: Duration,
    /// What happens to requests and responses on the way; absent where nothing does.
    pub transform: Option<Box<Transform>>,
    /// Protocols a connection may change to.
    pub upgrades: Vec<Protocol>,
}

/// Who answers a route's requests.
#[derive(Debug)]
pub enum Target {
    /// An origin of this group.
    Origins(Arc<GroupLive>),
    /// We do, with another place.
    Redirect(Box<Redirect>),
    /// We do, always the same.
    Fixed {
        /// 200 to 599.
        status: u16,
        /// `Content-Type`.
        content_type: Option<FieldValue>,
        /// The body.
        body: Bytes,
    },
}

impl Target {
    /// Whether both are the same: the very group, or equal answers.
    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Origins(one), Self::Origins(other)) => Arc::ptr_eq(one, other),
            (Self::Redirect(one), Self::Redirect(other)) => one == other,
            (
                Self::Fixed { status, content_type, body },
                Self::Fixed { status: other_status, content_type: other_type, body: other_body },
            ) => (status, content_type, body) == (other_status, other_type, other_body),
            (Self::Origins(_) | Self::Redirect(_) | Self::Fixed { .. }, _) => false,
        }
    }
}

/// One origin group.
#[derive(Debug)]
pub struct GroupLive {
    /// Its name.
    pub name: Name,
    /// For per-thread budgets; no other name of this process has or had it.
    pub slot: usize,
    /// Never empty.
    pub members: Vec<Member>,
    /// Connect and handshake together.
    pub connect_timeout: Duration,
    /// Which versions of HTTP its origins are spoken to with.
    pub protocols: Protocols,
    /// How, where it is HTTP/2.
    pub http2: http2::Settings,
    /// How much slower than the fastest an origin may be to be chosen; nothing where latency does not matter.
    pub sensitivity: Option<Duration>,
    /// How long an origin's part of the requests grows after it has become well.
    pub slow_start: Duration,
    /// When one that fails is left alone.
    pub ejection: health::Ejection,
    /// Of requests, how many may be tried at a second origin, per cent.
    pub retry_percent: u32,
    /// How they are probed, if at all.
    pub probe: Option<Probe>,
}

impl GroupLive {
    /// Its origins.
    pub fn origins(&self) -> impl Iterator<Item = &Arc<OriginLive>> {
        self.members.iter().map(|member| &member.origin)
    }

    /// A request or a connection failed at one of them.
    pub fn failed(&self, origin: &OriginLive) {
        let enabled = self.members.iter().filter(|member| member.enabled).map(|member| &member.origin.health);
        let now = health::clock(tokio::time::Instant::now());
        if let Some(time) = origin.health.failed(&self.ejection, enabled, now) {
            tracing::warn!(group = %self.name, origin = %origin.address, ?time, "an origin that fails is left alone");
        }
    }
}

/// An origin as a group has it.
#[derive(Debug)]
pub struct Member {
    /// The origin, whose state outlives what is said of it here.
    pub origin: Arc<OriginLive>,
    /// Takes requests.
    pub enabled: bool,
    /// The lowest comes first.
    pub priority: u8,
    /// Its part of the requests.
    pub weight: u32,
    /// Its bounds, where it has any.
    pub gate: Option<Arc<Gate>>,
}

/// One origin. The same address and security in two snapshots is the same `Arc`, so pools and state live on.
pub struct OriginLive {
    /// Its group's name, for reports.
    pub group: Name,
    /// Where.
    pub address: OriginAddress,
    /// `address` as text, for the log.
    pub label: Box<str>,
    /// A number no other origin of this process has or had: the pools' key.
    pub key: u64,
    /// How it is secured.
    pub security: SecurityLive,
    /// The PROXY header that connections to it begin with, if they do.
    pub proxy: Option<ProxyVersion>,
    /// What all threads know of it.
    pub health: Health,
}

impl std::fmt::Debug for OriginLive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OriginLive")
            .field("address", &self.address)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// How an origin is secured.
pub enum SecurityLive {
    /// TLS with these client configurations (verified or not, as the operator chose), offering this name.
    Tls {
        /// Verifier, versions, session store, for each offer of ALPN.
        clients: Arc<Clients>,
        /// Sent as SNI when it is a DNS name.
        name: ServerName<'static>,
        /// Whom the certificate is verified for; nothing where it is not verified.
        verified: Option<ServerName<'static>>,
    },
    /// No TLS: an operator's visible choice.
    ClearText,
}
