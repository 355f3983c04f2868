//! What only several objects together get wrong.

use std::collections::{BTreeMap, HashMap};

use super::Compiled;
use super::notes::{At, Names};
use super::served::Served;
use crate::draft::Kind;
use crate::filter::{self, Inputs};
use crate::listen::Place;
use crate::name::{HostPattern, Name};
use crate::problem::{Code, Problem};
use crate::route::Conditions;
use crate::snapshot::{FilterRule, OriginSecurity, PathMatch, PortBudget, Route};

pub(super) fn check(compiled: &Compiled, names: &Names, problems: &mut Vec<Problem>) {
    places(compiled, problems);
    claims(compiled, problems);
    passthrough(compiled, problems);
    named_certificates(compiled, problems);
    filters(compiled, problems);
    budgets(compiled, problems);
    for listener in names.all(Kind::Listener) {
        coverage(compiled, listener, problems);
    }
}

/// Two listeners that one node could have at one address and port.
fn places(compiled: &Compiled, problems: &mut Vec<Problem>) {
    let mut taken: BTreeMap<Place, Vec<&Name>> = BTreeMap::new();
    for (name, lowered) in &compiled.listeners {
        for place in lowered.listener.places() {
            let others = taken.entry(place).or_default();
            let rival = others.iter().find(|other| {
                compiled
                    .listeners
                    .get(**other)
                    .is_some_and(|other| can_meet(&other.selector, &lowered.selector))
            });
            if let Some(rival) = rival {
                let message = format!(
                    "Listener/{rival} already has {place}; change port or addresses, or select other nodes"
                );
                At::new(problems, format!("Listener/{name}")).problem("spec.port", Code::Duplicate, message);
            }
            others.push(name);
        }
    }
}

/// Rules that together make more cases than a node's tables have room for, if one node had them all.
fn filters(compiled: &Compiled, problems: &mut Vec<Problem>) {
    let Some((largest, _)) = compiled.filters.iter().max_by_key(|(_, lowered)| lowered.rules.len()) else {
        return;
    };
    let rules: Vec<FilterRule> = compiled.filter_rules().cloned().collect();
    let listeners: Vec<_> = compiled.listeners.values().map(|lowered| lowered.listener.clone()).collect();
    let (protocols, (listeners, ranges)): (Vec<_>, _) =
        (compiled.filter_protocols().cloned().collect(), filter::places(&listeners));
    let inputs =
        Inputs { rules: &rules, protocols: &protocols, listeners: &listeners, ranges: &ranges, own: &[] };
    if filter::is_surely_small(inputs) {
        return;
    }
    // What sockets ask has the most cases.
    if let Err(why) = filter::Index::new(inputs) {
        let mut at = At::new(problems, format!("PacketFilter/{largest}"));
        at.problem("spec.rules", Code::Invalid, why.to_string());
    }
}

/// A node has one budget of each kind, and a port is in one of them; the later filter is told.
fn budgets(compiled: &Compiled, problems: &mut Vec<Problem>) {
    let filters: Vec<_> =
        compiled.filters.iter().filter(|(_, lowered)| !lowered.budgets.is_empty()).collect();
    for (place, (name, lowered)) in filters.iter().enumerate() {
        let mut at = At::new(problems, format!("PacketFilter/{name}"));
        let (mine, before) = (&lowered.budgets, &filters[..place]);
        let rivals = before.iter().filter(|(_, other)| can_meet(&lowered.selector, &other.selector));
        for (rival, other) in rivals {
            let theirs = &other.budgets;
            let kinds = [
                ("synPerSource", &mine.syn_per_source, &theirs.syn_per_source),
                ("synPressure", &mine.syn_pressure, &theirs.syn_pressure),
                ("udpPerSource", &mine.udp_per_source, &theirs.udp_per_source),
                (
                    "newConnectionsPerSource",
                    &mine.new_connections_per_source,
                    &theirs.new_connections_per_source,
                ),
            ];
            for (field, ..) in kinds.iter().filter(|(_, mine, theirs)| mine.is_some() && theirs.is_some()) {
                let message = format!(
                    "PacketFilter/{rival} has this budget already, and a node may have both filters but one such budget; keep it in one of them, or select other nodes"
                );
                at.problem(format!("spec.budgets.{field}"), Code::Duplicate, message);
            }
            ports_meet(&mine.syn_per_port, &theirs.syn_per_port, Some(rival), &mut at);
        }
        for index in 1..mine.syn_per_port.len() {
            ports_meet(&mine.syn_per_port[index..=index], &mine.syn_per_port[..index], None, &mut at);
        }
    }
    let most = compiled.filters.iter().max_by_key(|(_, lowered)| lowered.budgets.syn_per_port.len());
    let total: usize = filters.iter().map(|(_, lowered)| lowered.budgets.syn_per_port.len()).sum();
    if let Some((name, _)) = most.filter(|_| total > filter::MOST_PORT_BUDGETS) {
        let message = format!(
            "there are {total} budgets of ports, and {} are the most; give several ports one budget",
            filter::MOST_PORT_BUDGETS
        );
        At::new(problems, format!("PacketFilter/{name}")).problem(
            "spec.budgets.synPerPort",
            Code::Invalid,
            message,
        );
    }
}

/// Tells of ports that have a budget of `theirs` already: of another filter, or of this one.
fn ports_meet(mine: &[PortBudget], theirs: &[PortBudget], other: Option<&Name>, at: &mut At<'_>) {
    // The filter's name stands before it.
    let short = |budget: &PortBudget| {
        budget.budget.name.split_once('/').map_or(budget.budget.name.clone(), |(_, name)| name.to_owned())
    };
    let place = other.map_or_else(|| "this filter".to_owned(), |other| format!("PacketFilter/{other}"));
    for one in mine {
        let common = |theirs: &PortBudget| {
            let pairs = one.ports.iter().flat_map(|a| theirs.ports.iter().map(move |b| (a, b)));
            pairs
                .map(|(a, b)| (a.first().max(b.first()), a.last().min(b.last())))
                .find(|(first, last)| first <= last)
        };
        if let Some((budget, (first, last))) =
            theirs.iter().find_map(|budget| Some((budget, common(budget)?)))
        {
            let (ports, them) = match first == last {
                true => (format!("port {first}"), "it"),
                false => (format!("ports {first}-{last}"), "them"),
            };
            let elsewhere = if other.is_some() { ", or select other nodes" } else { "" };
            let message = format!(
                "budget {} of {place} has {ports} already, and a port has one budget; take {them} out of budget {}{elsewhere}",
                short(budget),
                short(one)
            );
            at.problem("spec.budgets.synPerPort", Code::Duplicate, message);
        }
    }
}

/// Whether a node can have the labels of both.
fn can_meet(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> bool {
    a.iter().all(|(key, value)| b.get(key).is_none_or(|other| other == value))
}

/// Two routes that claim one host and path, or two certificates for one host, on one listener.
fn claims(compiled: &Compiled, problems: &mut Vec<Problem>) {
    let none = Conditions::default();
    let mut paths: HashMap<(&Name, &HostPattern, &PathMatch, &Conditions), &Name> = HashMap::new();
    let mut certificates: HashMap<(&Name, &HostPattern), (&Name, &Name)> = HashMap::new();
    for (name, route) in compiled.enabled_routes() {
        for host in &route.hostnames {
            let plain = route.paths.iter().map(|path| (path, &none));
            let demanding = route.matches.iter().map(|one| (&one.path, &one.conditions));
            for (path, conditions) in plain.chain(demanding) {
                let rival = route.listeners.iter().find_map(|listener| {
                    let first = *paths.entry((listener, host, path, conditions)).or_insert(name);
                    (first != name).then_some((listener, first))
                });
                if let Some((listener, first)) = rival {
                    let message = format!(
                        "Route/{first} already has {} on listener {listener}; change host or path, or disable one of the two",
                        if conditions.is_empty() {
                            words(host, path)
                        } else {
                            format!("{} with the same conditions", words(host, path))
                        }
                    );
                    At::new(problems, format!("Route/{name}")).problem(
                        "spec.hostnames",
                        Code::Duplicate,
                        message,
                    );
                }
            }
            let Some(certificate) = &route.certificate else { continue };
            // Nothing is served with a certificate where there is no TLS.
            let mut secured = route.listeners.iter().filter(|listener| !compiled.is_clear_text(listener));
            let rival = secured.find_map(|listener| {
                let first = *certificates.entry((listener, host)).or_insert((name, certificate));
                (first.1 != certificate).then_some((listener, first))
            });
            if let Some((listener, (first, theirs))) = rival {
                let message = format!(
                    "Route/{first} has {host} served with {theirs} on listener {listener}, and a host has one certificate there; name the same one in both"
                );
                At::new(problems, format!("Route/{name}")).problem(
                    "spec.certificate",
                    Code::Duplicate,
                    message,
                );
            }
        }
    }
}

/// A host that is both passed through and terminated, or passed through by two routes, on one listener; origins that clients
/// could not speak TLS with.
fn passthrough(compiled: &Compiled, problems: &mut Vec<Problem>) {
    let mut passed: HashMap<(&Name, &HostPattern), &Name> = HashMap::new();
    let by_kind = |passthrough: bool| {
        compiled.enabled_routes().filter(move |(_, route)| route.passthrough == passthrough)
    };
    for (name, route) in by_kind(true) {
        let mut at = At::new(problems, format!("Route/{name}"));
        if let Some(group) = route.origin_group.as_ref().and_then(|group| compiled.groups.get(group))
            && group.origins.iter().any(|origin| origin.security == OriginSecurity::ClearText)
        {
            let message = format!(
                "OriginGroup/{} has an http:// origin, and what arrives there is the client's TLS; write https:// for all of them",
                group.name
            );
            at.problem("spec.originGroup", Code::Invalid, message);
        }
        for (listener, host) in places_of(route) {
            let first = *passed.entry((listener, host)).or_insert(name);
            if first != name {
                let message = format!(
                    "Route/{first} already passes {host} through on listener {listener}; change the host, or disable one of the two"
                );
                at.problem("spec.hostnames", Code::Duplicate, message);
                break;
            }
        }
    }
    for (name, route) in by_kind(false) {
        let rival = places_of(route).find_map(|place| Some((place, *passed.get(&place)?)));
        if let Some(((listener, host), other)) = rival {
            let message = format!(
                "Route/{other} passes {host} through on listener {listener} undecrypted, and a host is either passed through or terminated there; change the host, or disable one of the two"
            );
            At::new(problems, format!("Route/{name}")).problem("spec.hostnames", Code::Duplicate, message);
        }
    }
}

fn places_of(route: &Route) -> impl Iterator<Item = (&Name, &HostPattern)> {
    route.listeners.iter().flat_map(|listener| route.hostnames.iter().map(move |host| (listener, host)))
}

/// `shop.example.com/api` or `shop.example.com/api (exact)`.
pub(crate) fn words(host: &HostPattern, path: &PathMatch) -> String {
    match path {
        PathMatch::Prefix(path) => format!("{host}{path}"),
        PathMatch::Exact(path) => format!("{host}{path} (exact)"),
    }
}

/// A route's own certificate against its hosts.
fn named_certificates(compiled: &Compiled, problems: &mut Vec<Problem>) {
    for (name, route) in compiled.enabled_routes() {
        let Some(certificate) = &route.certificate else { continue };
        let Some(lowered) = compiled.certificates.get(certificate) else { continue };
        for host in route.hostnames.iter().filter(|host| !lowered.facts.covers(host)) {
            let issued: Vec<String> =
                lowered.facts.hostnames.iter().take(5).map(ToString::to_string).collect();
            let more = if lowered.facts.hostnames.len() > issued.len() { " and others" } else { "" };
            let message = format!(
                "certificate {certificate} is not for {host}, only for {}{more}; choose or upload one that is",
                issued.join(", ")
            );
            At::new(problems, format!("Route/{name}")).problem("spec.certificate", Code::NotCovered, message);
        }
    }
}

/// Routes that name no certificate, on a listener that would have to refuse their handshakes.
fn coverage(compiled: &Compiled, listener: &Name, problems: &mut Vec<Problem>) {
    let Some(lowered) = compiled.listeners.get(listener) else { return };
    if lowered.listener.default_certificate.is_some() || lowered.listener.clear_text.is_some() {
        return;
    }
    let carried = || {
        compiled
            .enabled_routes()
            .filter(|(_, route)| !route.passthrough && route.listeners.contains(listener))
    };
    let served = Served::of(&lowered.listener, carried().map(|(_, route)| route), |name| {
        compiled.certificates.get(name).map(|lowered| &lowered.certificate)
    });
    // A certificate with a problem of its own covers nobody knows what: no second problem because of it.
    let unknown = |name: &Name| !compiled.certificates.contains_key(name);
    let any_unknown = |route: &Route| route.certificate.as_ref().is_some_and(unknown);
    if lowered.listener.certificates.iter().any(unknown) || carried().any(|(_, route)| any_unknown(route)) {
        return;
    }
    for (name, route) in carried().filter(|(_, route)| route.certificate.is_none()) {
        for host in route.hostnames.iter().filter(|host| served.covering(host).is_none()) {
            let message = format!(
                "no certificate of listener {listener} is for {host}; name one in this route, or give the listener one for it or a default"
            );
            At::new(problems, format!("Route/{name}")).problem("spec.certificate", Code::NotCovered, message);
        }
    }
}
