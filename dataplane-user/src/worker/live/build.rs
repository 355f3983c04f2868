//! Snapshot -> [`Live`]: parses what must be parsed, takes over from the snapshot before what did not change.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use model::clear_text::ClearText;
use model::digest::Digest;
use model::filter::{Index, Inputs, TooLarge, places};
use model::listen::Atlas;
use model::name::{HostPattern, Name};
use model::route::Table;
use model::snapshot::{Certificate, Listener, Route, Snapshot, TlsVersion};
use model::transform::{Answer, Transform};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::ProducesTickets;
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};

use super::origins::{ClientId, OriginId};
use super::{
    BySni, CertificateTable, ClearTextLive, Door, GroupLive, ListenerLive, Live, OriginLive, Passthrough,
    RouteLive, Target,
};
use crate::worker::tls::certificates::{CertificateError, Resolver, certified};
use crate::worker::tls::dial::Clients;
use crate::worker::tls::serve;

/// Until the head of the answer to an ACME challenge: its servers wait ten seconds or less.
const CHALLENGE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a snapshot cannot be put in force; the one before stays.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// A certificate cannot be served.
    #[error("certificate {name} cannot be served: {source}")]
    Certificate {
        /// Which.
        name: Name,
        /// Why.
        source: CertificateError,
    },
    /// The snapshot names something it does not bring along.
    #[error("{by} refers to {kind} {name}, which is not in the snapshot; publish again from the console")]
    Missing {
        /// `Listener/https`, `Route/shop`, ...
        by: String,
        /// `certificate`, `origin group` or `trust bundle`.
        kind: &'static str,
        /// The missing one.
        name: Name,
    },
    /// A route that leads nowhere.
    #[error("route {0} has neither an origin group nor an answer; publish again from the console")]
    NoTarget(Name),
    /// The packet filter's rules.
    #[error("the packet filter cannot be applied: {0}")]
    Filter(#[from] TooLarge),
    /// An origin group without an origin.
    #[error("origin group {0} has no origin")]
    NoOrigin(Name),
    /// rustls is stricter about names than we are.
    #[error(
        "origin group {0} expects a name that TLS cannot carry; write it with letters, digits and - only"
    )]
    Expected(Name),
    /// A trust bundle without a usable certificate.
    #[error("trust bundle {0} has no usable CA certificate; replace its PEM text")]
    Bundle(Name),
    /// This machine has no roots, and an origin group trusts them.
    #[error(
        "origin group {0} trusts this machine's own roots, and it has none; install ca-certificates or name a trust bundle"
    )]
    NoRoots(Name),
    /// rustls refused the settings.
    #[error("TLS to origin group {group} cannot be set up: {source}")]
    Client {
        /// Which.
        group: Name,
        /// Why.
        source: rustls::Error,
    },
    /// rustls refused the settings, or the machine has no randomness.
    #[error("TLS of listener {listener} cannot be set up: {source}")]
    Tls {
        /// Which.
        listener: Name,
        /// Why.
        source: rustls::Error,
    },
}

/// What the next [`Live`] may take over.
#[derive(Debug, Default)]
pub(super) struct Kept {
    certificates: HashMap<CertificateId, Arc<CertifiedKey>>,
    pub(super) clients: HashMap<ClientId, Arc<Clients>>,
    pub(super) origins: HashMap<OriginId, Arc<OriginLive>>,
    routes: HashMap<Name, Arc<RouteLive>>,
    servers: HashMap<Name, Server>,
}

/// SHA-256 of the chain's PEM, and of the public key.
pub(super) type CertificateId = (Digest, Digest);

/// A listener's TLS and everything it was made of.
#[derive(Debug)]
struct Server {
    made_of: MadeOf,
    config: Arc<ServerConfig>,
    /// Survives every change of the listener's certificates.
    tickets: Arc<dyn ProducesTickets>,
}

#[derive(Debug, PartialEq, Eq)]
struct MadeOf {
    lowest: TlsVersion,
    certificates: BySni<CertificateId>,
}

impl Live {
    /// The state before the first snapshot: nothing is accepted, nothing is served.
    pub fn empty() -> Self {
        Self {
            id: model::snapshot::SnapshotId::default(),
            listeners: HashMap::new(),
            places: Atlas::default(),
            filter: Index::default(),
            groups: HashMap::new(),
            kept: Kept::default(),
        }
    }

    /// Puts a snapshot into the shape the path needs. `roots` are this machine's own.
    ///
    /// # Errors
    /// See [`LiveError`]; `previous` stays usable as it was.
    pub fn build(
        snapshot: Snapshot,
        keys: &BTreeMap<Digest, PrivateKeyDer<'static>>,
        roots: &Arc<RootCertStore>,
        previous: Option<&Self>,
    ) -> Result<Self, LiveError> {
        let mut builder = Builder { previous, kept: Kept::default() };
        let certificates = builder.certificates(&snapshot.certificates, keys)?;
        let groups = builder.groups(&snapshot, roots, &certificates)?;
        let routes = builder.routes(&snapshot.routes, &groups)?;
        let mut listeners = HashMap::with_capacity(snapshot.listeners.len());
        let mut places = Atlas::default();
        for listener in &snapshot.listeners {
            let used = Used { certificates: &certificates, groups: &groups, routes: &routes };
            let live = Arc::new(builder.listener(listener, &snapshot, &used)?);
            listener.places().for_each(|place| places.insert(place, Arc::clone(&live)));
            listeners.insert(listener.name.clone(), live);
        }
        builder.kept.routes = routes;
        Ok(Self {
            id: snapshot.id,
            listeners,
            places,
            filter: filter(&snapshot)?,
            groups,
            kept: builder.kept,
        })
    }
}

/// The packet filter as sockets ask it.
fn filter(snapshot: &Snapshot) -> Result<Index, LiveError> {
    let (listeners, ranges) = places(&snapshot.listeners);
    let protocols = &snapshot.filter_protocols;
    let rules = &snapshot.filter;
    Ok(Index::new(Inputs { rules, protocols, listeners: &listeners, ranges: &ranges, own: &[] })?)
}

pub(super) struct Builder<'a> {
    pub(super) previous: Option<&'a Live>,
    pub(super) kept: Kept,
}

/// A certificate of the snapshot: its identity, its names, and itself ready to serve.
pub(super) struct Ready<'a> {
    pub(super) id: CertificateId,
    hosts: &'a [HostPattern],
    pub(super) certified: Arc<CertifiedKey>,
}

/// What a listener is made of.
struct Used<'a> {
    certificates: &'a HashMap<&'a Name, Ready<'a>>,
    groups: &'a HashMap<Name, Arc<GroupLive>>,
    routes: &'a HashMap<Name, Arc<RouteLive>>,
}

impl Builder<'_> {
    fn certificates<'s>(
        &mut self,
        certificates: &'s [Certificate],
        keys: &BTreeMap<Digest, PrivateKeyDer<'static>>,
    ) -> Result<HashMap<&'s Name, Ready<'s>>, LiveError> {
        let before = self.previous.map(|live| &live.kept.certificates);
        let mut ready = HashMap::with_capacity(certificates.len());
        for certificate in certificates {
            let id = (Digest::of(certificate.chain.as_bytes()), certificate.key);
            let known = self.kept.certificates.get(&id).or_else(|| before?.get(&id));
            let certified = match known {
                Some(known) => Arc::clone(known),
                None => certified(certificate, keys.get(&certificate.key))
                    .map_err(|source| LiveError::Certificate { name: certificate.name.clone(), source })?,
            };
            self.kept.certificates.insert(id, Arc::clone(&certified));
            ready.insert(&certificate.name, Ready { id, hosts: &certificate.hostnames, certified });
        }
        Ok(ready)
    }

    fn routes(
        &self,
        routes: &[Route],
        groups: &HashMap<Name, Arc<GroupLive>>,
    ) -> Result<HashMap<Name, Arc<RouteLive>>, LiveError> {
        let mut live = HashMap::with_capacity(routes.len());
        for route in routes {
            let (target, transform) = (target(route, groups)?, transform(route));
            let response_timeout = Duration::from_millis(route.response_timeout_ms.into());
            let before = self.previous.and_then(|live| live.kept.routes.get(&route.name));
            let same = before.filter(|before| {
                before.target.same(&target)
                    && before.transform == transform
                    && before.allow_encoded_slash == route.allow_encoded_slash
                    && before.response_timeout == response_timeout
                    && before.upgrades == route.upgrades
            });
            let now = match same {
                Some(same) => Arc::clone(same),
                None => Arc::new(RouteLive {
                    name: route.name.clone(),
                    slot: before.map_or_else(next_slot, |before| before.slot),
                    target,
                    allow_encoded_slash: route.allow_encoded_slash,
                    response_timeout,
                    transform,
                    upgrades: route.upgrades.clone(),
                }),
            };
            live.insert(route.name.clone(), now);
        }
        Ok(live)
    }

    fn listener(
        &mut self,
        listener: &Listener,
        snapshot: &Snapshot,
        used: &Used<'_>,
    ) -> Result<ListenerLive, LiveError> {
        let (door, table) = match &listener.clear_text {
            Some(clear) => {
                let clear = clear_text(listener, clear, used.groups)?;
                (Door::ClearText(clear), CertificateTable::default())
            }
            None => {
                let table = certificate_table(listener, snapshot, used.certificates)?;
                (Door::Tls(self.server(listener, &table, used.certificates)?), table)
            }
        };
        let before = self.previous.and_then(|live| live.listeners.get(&listener.name));
        let passthrough = passthrough(listener, snapshot, used.routes);
        // Every route has its entry: `routes` was made from the same list.
        let routes = Table::build(snapshot, &listener.name, |route| Arc::clone(&used.routes[&route.name]));
        Ok(ListenerLive {
            name: listener.name.clone(),
            limits: listener.limits,
            error_pages: listener.error_pages.clone(),
            door,
            open: before.map_or_else(Arc::default, |before| Arc::clone(&before.open)),
            certificates: table,
            routes,
            passthrough,
            trusted: listener.trusted_prefixes.clone(),
            proxies: listener.proxy_protocol.clone(),
        })
    }

    fn server(
        &mut self,
        listener: &Listener,
        table: &CertificateTable,
        certificates: &HashMap<&Name, Ready<'_>>,
    ) -> Result<Arc<ServerConfig>, LiveError> {
        let made_of = MadeOf {
            lowest: listener.min_version,
            certificates: table.map(|name| certificates.get(name).map(|ready| ready.id)),
        };
        let before = self.previous.and_then(|live| live.kept.servers.get(&listener.name));
        let refused = |source| LiveError::Tls { listener: listener.name.clone(), source };
        let server = match before {
            Some(before) if before.made_of == made_of => {
                Server { made_of, config: Arc::clone(&before.config), tickets: Arc::clone(&before.tickets) }
            }
            _ => {
                let tickets = match before {
                    Some(before) => Arc::clone(&before.tickets),
                    None => rustls::crypto::aws_lc_rs::Ticketer::new().map_err(refused)?,
                };
                let resolver = Resolver(
                    table.map(|name| certificates.get(name).map(|ready| Arc::clone(&ready.certified))),
                );
                let config =
                    serve::config(listener.min_version, resolver, Arc::clone(&tickets)).map_err(refused)?;
                Server { made_of, config, tickets }
            }
        };
        let config = Arc::clone(&server.config);
        self.kept.servers.insert(listener.name.clone(), server);
        Ok(config)
    }
}

/// Hosts of routes that name a certificate come first, then every certificate's own names.
fn certificate_table(
    listener: &Listener,
    snapshot: &Snapshot,
    certificates: &HashMap<&Name, Ready<'_>>,
) -> Result<CertificateTable, LiveError> {
    let find = |name: &Name| {
        certificates.get(name).ok_or_else(|| missing("Listener", &listener.name, "certificate", name))
    };
    let mut table = CertificateTable::default();
    for route in snapshot.routes.iter().filter(|route| route.listeners.contains(&listener.name)) {
        if let Some(certificate) = &route.certificate {
            find(certificate)?;
            route.hostnames.iter().for_each(|host| table.add(host, certificate.clone()));
        }
    }
    for name in &listener.certificates {
        find(name)?.hosts.iter().for_each(|host| table.add(host, name.clone()));
    }
    if let Some(name) = &listener.default_certificate {
        find(name)?;
        table.default = Some(name.clone());
    }
    Ok(table)
}

/// Who passes connections on, where any route of the listener does.
fn passthrough(
    listener: &Listener,
    snapshot: &Snapshot,
    routes: &HashMap<Name, Arc<RouteLive>>,
) -> Option<Passthrough> {
    let carried = || snapshot.routes.iter().filter(|route| route.listeners.contains(&listener.name));
    if !carried().any(|route| route.passthrough) {
        return None;
    }
    let mut table = Passthrough::default();
    for route in carried() {
        table.add(&route.hostnames, routes.get(&route.name).filter(|_| route.passthrough));
    }
    Some(table)
}

/// A number for a route that no other has.
fn next_slot() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn clear_text(
    listener: &Listener,
    clear: &ClearText,
    groups: &HashMap<Name, Arc<GroupLive>>,
) -> Result<ClearTextLive, LiveError> {
    let challenges = match &clear.acme_origin_group {
        Some(name) => {
            let group =
                groups.get(name).ok_or_else(|| missing("Listener", &listener.name, "origin group", name))?;
            Some(Arc::new(RouteLive {
                name: listener.name.clone(),
                slot: next_slot(),
                target: Target::Origins(Arc::clone(group)),
                allow_encoded_slash: false,
                response_timeout: CHALLENGE_TIMEOUT,
                transform: None,
                upgrades: Vec::new(),
            }))
        }
        None => None,
    };
    let (answer, health) = (clear.answer, clear.health_path.clone());
    Ok(ClearTextLive { answer, health, challenges, h2c: clear.h2c_prefixes.clone() })
}

fn target(route: &Route, groups: &HashMap<Name, Arc<GroupLive>>) -> Result<Target, LiveError> {
    match (&route.transform.answer, &route.origin_group) {
        (Some(Answer::Redirect(redirect)), _) => Ok(Target::Redirect(Box::new(redirect.clone()))),
        (Some(Answer::Fixed(fixed)), _) => Ok(Target::Fixed {
            status: fixed.status,
            content_type: fixed.content_type.clone(),
            body: fixed.body.clone().into(),
        }),
        (None, Some(name)) => {
            let group =
                groups.get(name).ok_or_else(|| missing("Route", &route.name, "origin group", name))?;
            Ok(Target::Origins(Arc::clone(group)))
        }
        (None, None) => Err(LiveError::NoTarget(route.name.clone())),
    }
}

/// What is left of the filters when the answer has become the target.
fn transform(route: &Route) -> Option<Box<Transform>> {
    let transform = Transform { answer: None, ..route.transform.clone() };
    (transform != Transform::default()).then(|| Box::new(transform))
}

pub(super) fn missing(kind: &'static str, by: &Name, what: &'static str, name: &Name) -> LiveError {
    LiveError::Missing { by: format!("{kind}/{by}"), kind: what, name: name.clone() }
}
