//! What compiles: snapshots for nodes, and answers for the console.

use std::collections::{BTreeMap, BTreeSet};

use super::served::Served;
use super::{certificate, filter, listener, origin, route, trust};
use crate::certificate::{Authority, Facts};
use crate::digest::Digest;
use crate::name::{HostPattern, Name};
use crate::net::Prefix;
use crate::snapshot::{
    Certificate, FORMAT, FilterBudgets, FilterRule, Listener, OriginGroup, OriginSecurity, ProtocolList,
    Route, Snapshot, SnapshotId, Trust, TrustBundle,
};

/// A draft without problems: every node's snapshot can be cut from it. Only [`super::compile`] makes one.
#[derive(Debug, Clone)]
pub struct Compiled {
    pub(super) listeners: BTreeMap<Name, listener::Lowered>,
    pub(super) certificates: BTreeMap<Name, certificate::Lowered>,
    pub(super) routes: BTreeMap<Name, route::Lowered>,
    pub(super) groups: BTreeMap<Name, OriginGroup>,
    pub(super) bundles: BTreeMap<Name, trust::Lowered>,
    pub(super) sets: BTreeMap<Name, Vec<Prefix>>,
    pub(super) filters: BTreeMap<Name, filter::Lowered>,
    internal_ca: String,
}

/// Whether a node with these labels is selected.
pub fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

impl Compiled {
    pub(super) fn new(internal_ca: &str) -> Self {
        Self {
            listeners: BTreeMap::new(),
            certificates: BTreeMap::new(),
            routes: BTreeMap::new(),
            groups: BTreeMap::new(),
            bundles: BTreeMap::new(),
            sets: BTreeMap::new(),
            filters: BTreeMap::new(),
            internal_ca: internal_ca.to_owned(),
        }
    }

    /// Gives every listener its routes' certificates.
    pub(super) fn finished(mut self) -> Self {
        let mut of_routes: BTreeMap<Name, BTreeSet<Name>> = BTreeMap::new();
        for (_, route) in self.enabled_routes() {
            for listener in &route.listeners {
                of_routes.entry(listener.clone()).or_default().extend(route.certificate.clone());
            }
        }
        for (name, lowered) in self.listeners.iter_mut().filter(|(_, one)| one.listener.clear_text.is_none())
        {
            let mut all = of_routes.remove(name).unwrap_or_default();
            all.extend(lowered.listener.certificates.drain(..));
            lowered.listener.certificates = all.into_iter().collect();
        }
        self
    }

    /// What one node gets: the listeners its labels select, and only what they need.
    pub fn snapshot_for(&self, node: &Name, labels: &BTreeMap<String, String>, id: SnapshotId) -> Snapshot {
        let selects = |selector: &BTreeMap<String, String>| selects(selector, labels);
        let listeners: BTreeMap<&Name, &Listener> = self
            .listeners
            .iter()
            .filter(|(_, lowered)| selects(&lowered.selector))
            .map(|(name, lowered)| (name, &lowered.listener))
            .collect();
        let routes: Vec<Route> =
            self.enabled_routes().filter_map(|(_, route)| cut(route, &listeners)).collect();
        let mut certificates: BTreeSet<&Name> =
            listeners.values().flat_map(|listener| &listener.certificates).collect();
        let mut groups: BTreeSet<&Name> =
            routes.iter().filter_map(|route| route.origin_group.as_ref()).collect();
        groups.extend(listeners.values().filter_map(|listener| acme_group(listener)));
        let groups: Vec<&OriginGroup> = groups.into_iter().filter_map(|name| self.groups.get(name)).collect();
        certificates.extend(groups.iter().filter_map(|group| group.client_certificate.as_ref()));
        let bundles: BTreeSet<&Name> = groups.iter().flat_map(|group| bundles_of(group)).collect();
        let filter = self.filter_rules_for(labels).cloned().collect();
        let filter_protocols = self.filter_protocols_for(labels).cloned().collect();
        Snapshot {
            format: FORMAT,
            node: node.clone(),
            id,
            listeners: listeners.into_values().cloned().collect(),
            certificates: certificates
                .into_iter()
                .filter_map(|name| self.certificate(name))
                .cloned()
                .collect(),
            origin_groups: groups.into_iter().cloned().collect(),
            trust_bundles: bundles.into_iter().filter_map(|name| self.bundle(name)).collect(),
            routes,
            filter,
            filter_protocols,
            filter_budgets: self.filter_budgets_for(labels),
            trial_ms: None,
        }
    }

    /// What a certificate's chain says.
    pub fn facts(&self, certificate: &Name) -> Option<&Facts> {
        self.certificates.get(certificate).map(|lowered| &*lowered.facts)
    }

    /// What a trust bundle's certificates say.
    pub fn authorities(&self, bundle: &Name) -> Option<&[Authority]> {
        self.bundles.get(bundle).map(|lowered| &*lowered.authorities)
    }

    /// A route in its compiled form, enabled or not.
    pub fn route(&self, name: &Name) -> Option<&Route> {
        self.routes.get(name).map(|lowered| &lowered.route)
    }

    /// An origin group in its compiled form.
    pub fn origin_group(&self, name: &Name) -> Option<&OriginGroup> {
        self.groups.get(name)
    }

    /// All listeners, sorted, with their routes' certificates.
    pub fn listeners(&self) -> impl Iterator<Item = &Listener> {
        self.listeners.values().map(|lowered| &lowered.listener)
    }

    /// The listeners of a node with these labels, sorted.
    pub fn listeners_for(&self, labels: &BTreeMap<String, String>) -> impl Iterator<Item = &Listener> {
        self.listeners
            .values()
            .filter(|lowered| selects(&lowered.selector, labels))
            .map(|lowered| &lowered.listener)
    }

    /// All packet filters, sorted: which nodes each selects, its rules by name, and its list of IP protocols.
    pub fn filters(
        &self,
    ) -> impl Iterator<Item = (&BTreeMap<String, String>, &[FilterRule], Option<&ProtocolList>)> {
        self.filters
            .values()
            .map(|lowered| (&lowered.selector, &lowered.rules[..], lowered.protocols.as_ref()))
    }

    /// All packet filter rules of all nodes, sorted by filter and rule name.
    pub fn filter_rules(&self) -> impl Iterator<Item = &FilterRule> {
        self.filters.values().flat_map(|lowered| &lowered.rules)
    }

    /// All lists of IP protocols of all nodes, sorted by filter.
    pub fn filter_protocols(&self) -> impl Iterator<Item = &ProtocolList> {
        self.filters.values().filter_map(|lowered| lowered.protocols.as_ref())
    }

    /// The packet filter rules of a node with these labels, sorted by filter and rule name.
    pub fn filter_rules_for(&self, labels: &BTreeMap<String, String>) -> impl Iterator<Item = &FilterRule> {
        self.filters
            .values()
            .filter(|lowered| selects(&lowered.selector, labels))
            .flat_map(|lowered| &lowered.rules)
    }

    /// The lists of IP protocols of a node with these labels, sorted by filter.
    pub fn filter_protocols_for(
        &self,
        labels: &BTreeMap<String, String>,
    ) -> impl Iterator<Item = &ProtocolList> {
        let filters = self.filters.values().filter(|lowered| selects(&lowered.selector, labels));
        filters.filter_map(|lowered| lowered.protocols.as_ref())
    }

    /// The budgets of a node with these labels.
    pub fn filter_budgets_for(&self, labels: &BTreeMap<String, String>) -> FilterBudgets {
        let mut budgets = FilterBudgets::default();
        for lowered in self.filters.values().filter(|lowered| selects(&lowered.selector, labels)) {
            budgets.add(&lowered.budgets);
        }
        budgets
    }

    /// Which nodes the packet filters select: each set of labels once.
    pub fn filter_selectors(&self) -> BTreeSet<&BTreeMap<String, String>> {
        self.filters.values().map(|lowered| &lowered.selector).collect()
    }

    /// The listeners that carry a route; for a disabled one, that would.
    pub fn listeners_of_route(&self, route: &Name) -> &[Name] {
        self.routes.get(route).map(|lowered| &*lowered.route.listeners).unwrap_or_default()
    }

    /// The certificate that clients get for a host on a listener: by route, by name, or the default; `None` refuses them.
    pub fn certificate_for(&self, listener: &Name, host: &HostPattern) -> Option<&Name> {
        self.served(listener)?.certificate(host)
    }

    /// The certificates a route's hosts are served with on any of its listeners, sorted; none where they are passed through.
    pub fn certificates_of_route(&self, route: &Name) -> Vec<&Name> {
        let terminated = self.routes.get(route).filter(|lowered| !lowered.route.passthrough);
        let Some(lowered) = terminated else { return Vec::new() };
        if let Some(named) = &lowered.route.certificate {
            return vec![named];
        }
        let mut found = BTreeSet::new();
        for served in lowered.route.listeners.iter().filter_map(|listener| self.served(listener)) {
            found.extend(lowered.route.hostnames.iter().filter_map(|host| served.certificate(host)));
        }
        found.into_iter().collect()
    }

    /// The enabled routes served with each certificate, for all certificates at once (a page lists them all).
    pub fn routes_by_certificate(&self) -> BTreeMap<&Name, BTreeSet<&Name>> {
        let mut found: BTreeMap<&Name, BTreeSet<&Name>> = BTreeMap::new();
        for listener in self.listeners.keys() {
            let Some(served) = self.served(listener) else { continue };
            let carries = |route: &Route| !route.passthrough && route.listeners.contains(listener);
            for (name, route) in self.enabled_routes().filter(|(_, route)| carries(route)) {
                let used = match &route.certificate {
                    Some(named) => vec![named],
                    None => route.hostnames.iter().filter_map(|host| served.certificate(host)).collect(),
                };
                for certificate in used {
                    found.entry(certificate).or_default().insert(name);
                }
            }
        }
        found
    }

    /// The enabled routes served with a certificate, sorted.
    pub fn routes_of_certificate(&self, certificate: &Name) -> Vec<&Name> {
        self.routes_by_certificate().remove(certificate).into_iter().flatten().collect()
    }

    /// The listeners that have a certificate, sorted.
    pub fn listeners_of_certificate(&self, certificate: &Name) -> Vec<&Name> {
        let has = |listener: &&Listener| listener.certificates.contains(certificate);
        self.listeners().filter(has).map(|listener| &listener.name).collect()
    }

    /// The routes, enabled or not, that lead to an origin group, sorted.
    pub fn routes_of_origin_group(&self, group: &Name) -> Vec<&Name> {
        self.routes
            .iter()
            .filter(|(_, lowered)| lowered.route.origin_group.as_ref() == Some(group))
            .map(|(name, _)| name)
            .collect()
    }

    /// The origin groups verified against a trust bundle (`internal` too), sorted.
    pub fn origin_groups_of_trust_bundle(&self, bundle: &Name) -> Vec<&Name> {
        self.groups
            .iter()
            .filter(|(_, group)| bundles_of(group).any(|used| used == bundle))
            .map(|(n, _)| n)
            .collect()
    }

    /// The routes, enabled or not, whose origins are verified against a trust bundle, sorted.
    pub fn routes_of_trust_bundle(&self, bundle: &Name) -> Vec<&Name> {
        let groups = self.origin_groups_of_trust_bundle(bundle);
        let uses = |lowered: &route::Lowered| {
            lowered.route.origin_group.as_ref().is_some_and(|group| groups.contains(&group))
        };
        self.routes.iter().filter(|(_, lowered)| uses(lowered)).map(|(name, _)| name).collect()
    }

    pub(super) fn enabled_routes(&self) -> impl Iterator<Item = (&Name, &Route)> {
        self.routes
            .iter()
            .filter(|(_, lowered)| lowered.enabled)
            .map(|(name, lowered)| (name, &lowered.route))
    }

    pub(super) fn is_clear_text(&self, listener: &Name) -> bool {
        self.listeners.get(listener).is_some_and(|lowered| lowered.listener.clear_text.is_some())
    }

    pub(super) fn chain_digests(&self) -> BTreeSet<Digest> {
        self.certificates.values().map(|lowered| Digest::of(lowered.certificate.chain.as_bytes())).collect()
    }

    /// Nothing where a listener serves no certificates.
    fn served(&self, listener: &Name) -> Option<Served<'_>> {
        let own = Some(&self.listeners.get(listener)?.listener).filter(|own| own.clear_text.is_none())?;
        let carried =
            self.enabled_routes().map(|(_, route)| route).filter(|route| route.listeners.contains(listener));
        Some(Served::of(own, carried, |name| self.certificate(name)))
    }

    fn certificate(&self, name: &Name) -> Option<&Certificate> {
        self.certificates.get(name).map(|lowered| &lowered.certificate)
    }

    fn bundle(&self, name: &Name) -> Option<TrustBundle> {
        if name.as_str() == origin::INTERNAL {
            return Some(TrustBundle { name: name.clone(), certificates: self.internal_ca.clone() });
        }
        self.bundles.get(name).map(|lowered| lowered.bundle.clone())
    }
}

/// The route as the node with these listeners has it.
fn cut(route: &Route, listeners: &BTreeMap<&Name, &Listener>) -> Option<Route> {
    let here: Vec<Name> =
        route.listeners.iter().filter(|name| listeners.contains_key(name)).cloned().collect();
    (!here.is_empty()).then(|| Route { listeners: here, ..route.clone() })
}

fn acme_group(listener: &Listener) -> Option<&Name> {
    listener.clear_text.as_ref()?.acme_origin_group.as_ref()
}

fn bundles_of(group: &OriginGroup) -> impl Iterator<Item = &Name> {
    group.origins.iter().filter_map(|origin| match &origin.security {
        OriginSecurity::Verified { trust: Trust::Bundle(name), .. } => Some(name),
        OriginSecurity::Verified { trust: Trust::System, .. }
        | OriginSecurity::Unverified { .. }
        | OriginSecurity::ClearText => None,
    })
}
