//! Listeners of a snapshot: their doors, their certificates, and what of their TLS lives on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use model::clear_text::ClearText;
use model::name::Name;
use model::route::Table;
use model::snapshot::{Listener, Snapshot, TlsVersion};
use rustls::ServerConfig;
use rustls::server::ProducesTickets;

use super::build::{Builder, CertificateId, LiveError, Ready, missing};
use super::routes::next_slot;
use super::{
    BySni, CertificateTable, ClearTextLive, Door, GroupLive, ListenerLive, Passthrough, RouteLive, Target,
};
use crate::worker::tls::certificates::Resolver;
use crate::worker::tls::serve;

/// Until the head of the answer to an ACME challenge: its servers wait ten seconds or less.
const CHALLENGE_TIMEOUT: Duration = Duration::from_secs(10);

/// A listener's TLS and everything it was made of.
#[derive(Debug)]
pub(super) struct Server {
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

/// What a listener is made of.
pub(super) struct Used<'a> {
    pub(super) certificates: &'a HashMap<&'a Name, Ready<'a>>,
    pub(super) groups: &'a HashMap<Name, Arc<GroupLive>>,
    pub(super) routes: &'a HashMap<Name, Arc<RouteLive>>,
}

impl Builder<'_> {
    pub(super) fn listener(
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
