//! Which certificate a listener serves for a host, as the nodes choose by SNI.

use std::collections::HashMap;

use crate::certificate::covering_wildcard;
use crate::name::{HostPattern, Name};
use crate::snapshot::{Certificate, Listener, Route};

/// One listener's certificates by host. A host that a route names a certificate for has that one; every other host the
/// first (by name) of the listener's certificates that is issued for it, exact names before wildcards.
#[derive(Debug, Default)]
pub(super) struct Served<'a> {
    by_host: HashMap<&'a HostPattern, &'a Name>,
    default: Option<&'a Name>,
}

impl<'a> Served<'a> {
    /// `routes` are the enabled ones of the listener.
    pub(super) fn of(
        listener: &'a Listener,
        routes: impl Iterator<Item = &'a Route>,
        certificate: impl Fn(&Name) -> Option<&'a Certificate>,
    ) -> Self {
        let mut served = Self { by_host: HashMap::new(), default: listener.default_certificate.as_ref() };
        let mut names: Vec<&'a Name> = listener.certificates.iter().collect();
        for route in routes {
            let Some(named) = &route.certificate else { continue };
            names.push(named);
            for host in &route.hostnames {
                served.by_host.entry(host).or_insert(named);
            }
        }
        names.sort();
        names.dedup();
        for name in names {
            for host in certificate(name).into_iter().flat_map(|certificate| &certificate.hostnames) {
                served.by_host.entry(host).or_insert(name);
            }
        }
        served
    }

    /// The certificate for exactly this host or a wildcard above it; not the default.
    pub(super) fn covering(&self, host: &HostPattern) -> Option<&'a Name> {
        self.by_host
            .get(host)
            .or_else(|| covering_wildcard(host).and_then(|wildcard| self.by_host.get(&wildcard)))
            .copied()
    }

    /// What a client that asks for this host gets.
    pub(super) fn certificate(&self, host: &HostPattern) -> Option<&'a Name> {
        self.covering(host).or(self.default)
    }
}
