//! Origin groups of a snapshot: which origins live on, and whom each believes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use model::digest::Digest;
use model::name::Name;
use model::snapshot::{ExpectedName, Origin, OriginGroup, OriginSecurity, Snapshot, Trust, TrustBundle};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, DnsName};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;

use super::build::{Builder, LiveError, missing};
use super::{GroupLive, OriginLive, SecurityLive};
use crate::worker::tls::dial;

/// Origins that judge alike share a client configuration and so its tickets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum ClientId {
    System,
    Bundle(Digest),
    Unverified,
}

/// Group, address and security, and what stands behind the name of its trust bundle.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct OriginId {
    group: Name,
    address: model::net::OriginAddress,
    name: Option<String>,
    client: Option<ClientId>,
}

impl Builder<'_> {
    pub(super) fn groups(
        &mut self,
        snapshot: &Snapshot,
        roots: &Arc<RootCertStore>,
    ) -> Result<HashMap<Name, Arc<GroupLive>>, LiveError> {
        let bundles: HashMap<&Name, (Digest, &TrustBundle)> = snapshot
            .trust_bundles
            .iter()
            .map(|bundle| (&bundle.name, (Digest::of(bundle.certificates.as_bytes()), bundle)))
            .collect();
        let mut groups = HashMap::with_capacity(snapshot.origin_groups.len());
        for group in &snapshot.origin_groups {
            let origins = group
                .origins
                .iter()
                .map(|origin| self.origin(group, origin, &bundles, roots))
                .collect::<Result<Vec<_>, _>>()?;
            if origins.is_empty() {
                return Err(LiveError::NoOrigin(group.name.clone()));
            }
            let connect_timeout = Duration::from_millis(group.connect_timeout_ms.into());
            let before = self.previous.and_then(|live| live.groups.get(&group.name)).filter(|before| {
                before.connect_timeout == connect_timeout
                    && before.origins.len() == origins.len()
                    && before.origins.iter().zip(&origins).all(|(before, now)| Arc::ptr_eq(before, now))
            });
            let live = match before {
                Some(before) => Arc::clone(before),
                None => Arc::new(GroupLive { name: group.name.clone(), origins, connect_timeout }),
            };
            groups.insert(group.name.clone(), live);
        }
        Ok(groups)
    }

    fn origin(
        &mut self,
        group: &OriginGroup,
        origin: &Origin,
        bundles: &HashMap<&Name, (Digest, &TrustBundle)>,
        roots: &Arc<RootCertStore>,
    ) -> Result<Arc<OriginLive>, LiveError> {
        let client = match &origin.security {
            OriginSecurity::ClearText => None,
            OriginSecurity::Unverified { .. } => Some(ClientId::Unverified),
            OriginSecurity::Verified { trust: Trust::System, .. } => Some(ClientId::System),
            OriginSecurity::Verified { trust: Trust::Bundle(name), .. } => {
                let (digest, _) = bundles
                    .get(name)
                    .ok_or_else(|| missing("OriginGroup", &group.name, "trust bundle", name))?;
                Some(ClientId::Bundle(*digest))
            }
        };
        let name = match &origin.security {
            OriginSecurity::ClearText => None,
            OriginSecurity::Unverified { sni: name } | OriginSecurity::Verified { expected: name, .. } => {
                Some(server_name(name).ok_or_else(|| LiveError::Expected(group.name.clone()))?)
            }
        };
        let id = OriginId {
            group: group.name.clone(),
            address: origin.address.clone(),
            name: name.as_ref().map(|name| name.to_str().into_owned()),
            client,
        };
        let before = self.previous.and_then(|live| live.kept.origins.get(&id));
        let live = match self.kept.origins.get(&id).or(before) {
            Some(live) => Arc::clone(live),
            None => {
                static NEXT: AtomicU64 = AtomicU64::new(1);
                let security = match (&id.client, name) {
                    (Some(client), Some(name)) => SecurityLive::Tls {
                        config: self.client(client, group, origin, bundles, roots)?,
                        name,
                        verified: *client != ClientId::Unverified,
                    },
                    _ => SecurityLive::ClearText,
                };
                let key = NEXT.fetch_add(1, Ordering::Relaxed);
                let label = id.address.to_string().into();
                Arc::new(OriginLive {
                    group: id.group.clone(),
                    address: id.address.clone(),
                    label,
                    key,
                    security,
                })
            }
        };
        if let (Some(client), SecurityLive::Tls { config, .. }) = (&id.client, &live.security) {
            self.kept.clients.insert(client.clone(), Arc::clone(config));
        }
        self.kept.origins.insert(id, Arc::clone(&live));
        Ok(live)
    }

    fn client(
        &self,
        id: &ClientId,
        group: &OriginGroup,
        origin: &Origin,
        bundles: &HashMap<&Name, (Digest, &TrustBundle)>,
        roots: &Arc<RootCertStore>,
    ) -> Result<Arc<ClientConfig>, LiveError> {
        let before = self.previous.and_then(|live| live.kept.clients.get(id));
        if let Some(known) = self.kept.clients.get(id).or(before) {
            return Ok(Arc::clone(known));
        }
        let bundle = match &origin.security {
            OriginSecurity::Verified { trust: Trust::Bundle(name), .. } => {
                bundles.get(name).map(|(_, bundle)| *bundle)
            }
            OriginSecurity::Verified { trust: Trust::System, .. }
            | OriginSecurity::Unverified { .. }
            | OriginSecurity::ClearText => None,
        };
        let config = match (id, bundle) {
            (ClientId::Unverified, _) => dial::unverified(),
            (ClientId::Bundle(_), Some(bundle)) => {
                let roots = bundle_roots(bundle).ok_or_else(|| LiveError::Bundle(bundle.name.clone()))?;
                dial::verified(roots, format!("trust bundle {}", bundle.name))
            }
            _ if roots.is_empty() => return Err(LiveError::NoRoots(group.name.clone())),
            _ => dial::verified(Arc::clone(roots), "this machine's own roots".to_owned()),
        };
        config.map_err(|source| LiveError::Client { group: group.name.clone(), source })
    }
}

fn bundle_roots(bundle: &TrustBundle) -> Option<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle.certificates.as_bytes()) {
        roots.add(certificate.ok()?).ok()?;
    }
    (!roots.is_empty()).then(|| Arc::new(roots))
}

fn server_name(name: &ExpectedName) -> Option<ServerName<'static>> {
    match name {
        ExpectedName::Ip(address) => Some(ServerName::IpAddress((*address).into())),
        ExpectedName::Dns(name) => DnsName::try_from(name.as_str().to_owned()).ok().map(ServerName::DnsName),
    }
}
