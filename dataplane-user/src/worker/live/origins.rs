//! Origin groups of a snapshot: which origins live on, and whom each believes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use model::digest::Digest;
use model::name::{HostName, Name};
use model::snapshot::{
    Choice, ExpectedName, Origin, OriginGroup, OriginSecurity, ProxyVersion, Snapshot, Trust, TrustBundle,
};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, DnsName};
use rustls_pki_types::ServerName;

use super::build::{Builder, CertificateId, LiveError, Ready, missing};
use super::{GroupLive, Member, OriginLive, SecurityLive};
use crate::worker::origin::gate::Gate;
use crate::worker::origin::health::{Ejection, Health, clock};
use crate::worker::origin::http2;
use crate::worker::tls::dial::{Clients, Extras};

/// Origins that judge alike, and are shown the same, share a client configuration and so its tickets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ClientId {
    judge: JudgeId,
    /// Whom to expect, where it is not the name that is sent as SNI.
    expected: Option<String>,
    certificate: Option<CertificateId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum JudgeId {
    System,
    Bundle(Digest),
    Unverified,
}

/// What an origin's security is made from.
struct Sources<'a> {
    bundles: HashMap<&'a Name, (Digest, &'a TrustBundle)>,
    roots: &'a Arc<RootCertStore>,
    certificates: &'a HashMap<&'a Name, Ready<'a>>,
}

/// Group, address and security, and what stands behind the name of its trust bundle.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct OriginId {
    group: Name,
    address: model::net::OriginAddress,
    name: Option<String>,
    expected: Option<String>,
    client: Option<ClientId>,
    proxy: Option<ProxyVersion>,
}

impl Builder<'_> {
    pub(super) fn groups(
        &mut self,
        snapshot: &Snapshot,
        roots: &Arc<RootCertStore>,
        certificates: &HashMap<&Name, Ready<'_>>,
    ) -> Result<HashMap<Name, Arc<GroupLive>>, LiveError> {
        let digest = |bundle: &TrustBundle| Digest::of(bundle.certificates.as_bytes());
        let bundles = snapshot.trust_bundles.iter().map(|bundle| (&bundle.name, (digest(bundle), bundle)));
        let sources = Sources { bundles: bundles.collect(), roots, certificates };
        let mut groups = HashMap::with_capacity(snapshot.origin_groups.len());
        for group in &snapshot.origin_groups {
            let before = self.previous.and_then(|live| live.groups.get(&group.name));
            let members = group
                .origins
                .iter()
                .map(|origin| {
                    let live = self.origin(group, origin, &sources)?;
                    Ok(member(live, origin, &group.choice, before))
                })
                .collect::<Result<Vec<_>, LiveError>>()?;
            if members.is_empty() {
                return Err(LiveError::NoOrigin(group.name.clone()));
            }
            let now = lowered(group, members, before);
            let live = match before.filter(|before| same(before, &now)) {
                Some(before) => Arc::clone(before),
                None => Arc::new(now),
            };
            groups.insert(group.name.clone(), live);
        }
        Ok(groups)
    }

    fn origin(
        &mut self,
        group: &OriginGroup,
        origin: &Origin,
        sources: &Sources<'_>,
    ) -> Result<Arc<OriginLive>, LiveError> {
        let unusable = || LiveError::Expected(group.name.clone());
        let expected = match &origin.security {
            OriginSecurity::ClearText => None,
            OriginSecurity::Unverified { sni: name } | OriginSecurity::Verified { expected: name, .. } => {
                Some(server_name(name).ok_or_else(unusable)?)
            }
        };
        let sent = match (&group.sni, &expected) {
            (Some(sni), Some(_)) => Some(dns_name(sni).ok_or_else(unusable)?),
            (_, expected) => expected.clone(),
        };
        let client = client_id(group, origin, expected.as_ref().filter(|_| sent != expected), sources)?;
        let id = OriginId {
            group: group.name.clone(),
            address: origin.address.clone(),
            name: sent.as_ref().map(|name| name.to_str().into_owned()),
            expected: expected.as_ref().map(|name| name.to_str().into_owned()),
            client,
            proxy: group.proxy_protocol,
        };
        let before = self.previous.and_then(|live| live.kept.origins.get(&id));
        let live = match self.kept.origins.get(&id).or(before) {
            Some(live) => Arc::clone(live),
            None => {
                static NEXT: AtomicU64 = AtomicU64::new(1);
                let security = match (&id.client, sent) {
                    (Some(client), Some(name)) => SecurityLive::Tls {
                        clients: self.client(client, group, origin, expected.as_ref(), sources)?,
                        name,
                        verified: expected.filter(|_| client.judge != JudgeId::Unverified),
                    },
                    _ => SecurityLive::ClearText,
                };
                let key = NEXT.fetch_add(1, Ordering::Relaxed);
                let label = id.address.to_string().into();
                // A whole group that is new needs no slow start: its origins are cold alike.
                let joins = self.previous.is_some_and(|live| live.groups.contains_key(&group.name));
                let health = if joins {
                    Health::new_at(clock(tokio::time::Instant::now()))
                } else {
                    Health::default()
                };
                Arc::new(OriginLive {
                    group: id.group.clone(),
                    address: id.address.clone(),
                    label,
                    key,
                    security,
                    proxy: id.proxy,
                    health,
                })
            }
        };
        if let (Some(client), SecurityLive::Tls { clients, .. }) = (&id.client, &live.security) {
            self.kept.clients.insert(client.clone(), Arc::clone(clients));
        }
        self.kept.origins.insert(id, Arc::clone(&live));
        Ok(live)
    }

    fn client(
        &self,
        id: &ClientId,
        group: &OriginGroup,
        origin: &Origin,
        expected: Option<&ServerName<'static>>,
        sources: &Sources<'_>,
    ) -> Result<Arc<Clients>, LiveError> {
        let before = self.previous.and_then(|live| live.kept.clients.get(id));
        if let Some(known) = self.kept.clients.get(id).or(before) {
            return Ok(Arc::clone(known));
        }
        let bundle = match &origin.security {
            OriginSecurity::Verified { trust: Trust::Bundle(name), .. } => {
                sources.bundles.get(name).map(|(_, bundle)| *bundle)
            }
            OriginSecurity::Verified { trust: Trust::System, .. }
            | OriginSecurity::Unverified { .. }
            | OriginSecurity::ClearText => None,
        };
        let certificate = group.client_certificate.as_ref().and_then(|name| sources.certificates.get(name));
        let extras = Extras {
            expected: expected.filter(|_| id.expected.is_some()).cloned(),
            certificate: certificate.map(|ready| Arc::clone(&ready.certified)),
        };
        let clients = match (&id.judge, bundle) {
            (JudgeId::Unverified, _) => Clients::unverified(extras),
            (JudgeId::Bundle(_), Some(bundle)) => {
                let roots = bundle_roots(bundle).ok_or_else(|| LiveError::Bundle(bundle.name.clone()))?;
                Clients::verified(roots, format!("trust bundle {}", bundle.name), extras)
            }
            _ if sources.roots.is_empty() => return Err(LiveError::NoRoots(group.name.clone())),
            _ => Clients::verified(Arc::clone(sources.roots), "this machine's own roots".to_owned(), extras),
        };
        clients.map(Arc::new).map_err(|source| LiveError::Client { group: group.name.clone(), source })
    }
}

/// What decides which client configuration an origin has; nothing in clear text.
fn client_id(
    group: &OriginGroup,
    origin: &Origin,
    expected: Option<&ServerName<'static>>,
    sources: &Sources<'_>,
) -> Result<Option<ClientId>, LiveError> {
    let judge = match &origin.security {
        OriginSecurity::ClearText => return Ok(None),
        OriginSecurity::Unverified { .. } => JudgeId::Unverified,
        OriginSecurity::Verified { trust: Trust::System, .. } => JudgeId::System,
        OriginSecurity::Verified { trust: Trust::Bundle(name), .. } => {
            let bundle = sources.bundles.get(name);
            JudgeId::Bundle(
                bundle.ok_or_else(|| missing("OriginGroup", &group.name, "trust bundle", name))?.0,
            )
        }
    };
    let certificate = match &group.client_certificate {
        Some(name) => {
            let ready = sources.certificates.get(name);
            Some(ready.ok_or_else(|| missing("OriginGroup", &group.name, "certificate", name))?.id)
        }
        None => None,
    };
    Ok(Some(ClientId { judge, expected: expected.map(|name| name.to_str().into_owned()), certificate }))
}

/// An origin with what this snapshot says of it; its bounds live on where they are the same.
fn member(
    origin: Arc<OriginLive>,
    spec: &Origin,
    choice: &Choice,
    before: Option<&Arc<GroupLive>>,
) -> Member {
    let (most, pending) = (choice.connections, choice.pending);
    let kept = before
        .and_then(|before| before.members.iter().find(|member| member.origin.key == origin.key))
        .and_then(|member| member.gate.as_ref())
        .filter(|gate| (gate.most, gate.pending) == (most, pending));
    let gate = (most > 0).then(|| kept.map_or_else(|| Arc::new(Gate::new(most, pending)), Arc::clone));
    Member {
        origin,
        enabled: !spec.share.disabled,
        priority: spec.share.priority,
        weight: spec.share.weight.into(),
        gate,
    }
}

fn lowered(group: &OriginGroup, members: Vec<Member>, before: Option<&Arc<GroupLive>>) -> GroupLive {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let (choice, ejection) = (&group.choice, &group.choice.ejection);
    let ms = |ms: u32| Duration::from_millis(ms.into());
    GroupLive {
        name: group.name.clone(),
        slot: before.map_or_else(|| NEXT.fetch_add(1, Ordering::Relaxed), |before| before.slot),
        members,
        connect_timeout: ms(group.connect_timeout_ms),
        protocols: group.protocols,
        http2: http2::Settings {
            streams: group.http2.streams,
            ping: (group.http2.ping_ms > 0).then(|| ms(group.http2.ping_ms)),
        },
        sensitivity: choice.latency_sensitivity_ms.map(ms),
        slow_start: ms(choice.slow_start_ms),
        ejection: Ejection {
            after: ejection.failures,
            base: ms(ejection.base_ms),
            most: ms(ejection.max_ms),
            share: ejection.percent,
            statuses: ejection.gateway_errors,
        },
        retry_percent: choice.retry_percent,
        probe: choice.probe.clone(),
    }
}

/// Whether a group is what it was before, to the last origin and bound.
fn same(before: &GroupLive, now: &GroupLive) -> bool {
    let settings = |group: &GroupLive| {
        let choice = (group.sensitivity, group.slow_start, group.ejection, group.retry_percent);
        (group.connect_timeout, group.protocols, group.http2, choice)
    };
    let alike = |(before, now): (&Member, &Member)| {
        let gate = |member: &Member| member.gate.as_ref().map(Arc::as_ptr);
        Arc::ptr_eq(&before.origin, &now.origin)
            && gate(before) == gate(now)
            && (before.enabled, before.priority, before.weight) == (now.enabled, now.priority, now.weight)
    };
    settings(before) == settings(now)
        && before.probe == now.probe
        && before.members.len() == now.members.len()
        && before.members.iter().zip(&now.members).all(alike)
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
        ExpectedName::Dns(name) => dns_name(name),
    }
}

fn dns_name(name: &HostName) -> Option<ServerName<'static>> {
    DnsName::try_from(name.as_str().to_owned()).ok().map(ServerName::DnsName)
}
