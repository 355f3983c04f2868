//! Snapshot -> [`Live`]: parses what must be parsed, takes over from the snapshot before what did not change.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use model::digest::Digest;
use model::filter::{Index, Inputs, TooLarge, places};
use model::listen::Atlas;
use model::name::{HostPattern, Name};
use model::snapshot::{Certificate, Snapshot};
use rustls::RootCertStore;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;

use super::listeners::{Server, Used};
use super::origins::{ClientId, OriginId};
use super::{Live, OriginLive, RouteLive};
use crate::worker::tls::certificates::{CertificateError, certified};
use crate::worker::tls::dial::Clients;

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
    pub(super) routes: HashMap<Name, Arc<RouteLive>>,
    pub(super) servers: HashMap<Name, Server>,
}

/// SHA-256 of the chain's PEM, and of the public key.
pub(super) type CertificateId = (Digest, Digest);

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
    pub(super) hosts: &'a [HostPattern],
    pub(super) certified: Arc<CertifiedKey>,
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
}

pub(super) fn missing(kind: &'static str, by: &Name, what: &'static str, name: &Name) -> LiveError {
    LiveError::Missing { by: format!("{kind}/{by}"), kind: what, name: name.clone() }
}
