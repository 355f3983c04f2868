//! What an operator should do.

use std::collections::BTreeMap;

use model::draft::{Kind, NodeSelector, OriginGroupSpec, Spec};
use model::name::Name;
use model::report::Feature;
use time::{Duration, OffsetDateTime};

use super::{Need, Node, Ops, OpsError, Severity};
use crate::clock;

/// A certificate that ends within this time is named.
const SOON: Duration = Duration::days(21);
/// So many certificates are named, those that end first; the others are counted.
const NAMED: usize = 20;

impl Ops {
    /// What an operator should do, worst first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn needs(&self) -> Result<Vec<Need>, OpsError> {
        let mut nodes = self.nodes().await?;
        nodes.retain(|node| !node.revoked);
        self.needs_of(&nodes).await
    }

    pub(super) async fn needs_of(&self, nodes: &[Node]) -> Result<Vec<Need>, OpsError> {
        let mut needs = Vec::new();
        self.revisions_need(nodes, &mut needs).await?;
        nodes_need(nodes, &mut needs);
        self.listeners_need(nodes, &mut needs);
        needs.extend(nodes.iter().filter_map(|node| self.unfiltered(node)));
        self.certificates_need(&mut needs);
        self.origins_need(&mut needs).await?;
        self.sources_need(&mut needs);
        needs.sort_by(|a, b| (a.severity, &a.message).cmp(&(b.severity, &b.message)));
        needs.dedup();
        Ok(needs)
    }

    async fn revisions_need(&self, nodes: &[Node], needs: &mut Vec<Need>) -> Result<(), OpsError> {
        if let Some(row) = self.store().newest().await?
            && let Some((at, to)) = row.rollback
        {
            let left = (at - clock::now()).whole_seconds().max(0);
            let message = format!(
                "Revision {} goes back to revision {to} in {left} s unless you confirm it",
                row.number
            );
            needs.push(Need {
                severity: Severity::Warning,
                message,
                link: format!("/changes/{}", row.number),
            });
        }
        if nodes.is_empty() {
            let message = "No node is enrolled: enrol one to serve traffic".to_owned();
            needs.push(Need { severity: Severity::Note, message, link: "/nodes".to_owned() });
        }
        let current = self.current();
        if !current.objects.keys().any(|(kind, _)| *kind == Kind::Route) {
            let message = "There is no route yet: add the first".to_owned();
            needs.push(Need { severity: Severity::Note, message, link: "/routes/new".to_owned() });
        }
        Ok(())
    }

    /// Routes that nobody can reach: there is no listener, or it selects no node.
    fn listeners_need(&self, nodes: &[Node], needs: &mut Vec<Need>) {
        let current = self.current();
        let routes = || {
            current.objects.values().filter_map(|object| match &object.spec {
                Spec::Route(route) => route.enabled.then_some((&object.metadata.name, route)),
                Spec::Listener(_)
                | Spec::OriginGroup(_)
                | Spec::Certificate(_)
                | Spec::TrustBundle(_)
                | Spec::PrefixSet(_)
                | Spec::PacketFilter(_) => None,
            })
        };
        // Those that carry routes; those in clear text only such as name them.
        let listeners: Vec<Carrier<'_>> = current
            .objects
            .values()
            .filter_map(|object| match &object.spec {
                Spec::Listener(spec) if spec.carries_routes() => Some(Carrier {
                    name: &object.metadata.name,
                    selects: nodes.iter().any(|node| selects(&spec.node_selector, node)),
                    open: spec.opens_routes(),
                }),
                Spec::Listener(_)
                | Spec::Route(_)
                | Spec::OriginGroup(_)
                | Spec::Certificate(_)
                | Spec::TrustBundle(_)
                | Spec::PrefixSet(_)
                | Spec::PacketFilter(_) => None,
            })
            .collect();
        if listeners.is_empty() && routes().next().is_some() {
            let message = "There is no listener, so no route can be reached: add one".to_owned();
            needs.push(Need { severity: Severity::Bad, message, link: "/listeners/new".to_owned() });
        }
        for listener in listeners.iter().filter(|listener| listener.open) {
            let message =
                format!("Listener {} lets trusted peers reach routes in clear text (h2c)", listener.name);
            let link = format!("/listeners/{}", listener.name);
            needs.push(Need { severity: Severity::Warning, message, link });
        }
        if nodes.is_empty() || listeners.iter().all(|listener| listener.selects) {
            return;
        }
        let reached =
            |name: &String| listeners.iter().any(|listener| listener.selects && listener.name == name);
        let mut lost = routes().filter(|(_, route)| match route.listeners.as_slice() {
            [] => !listeners.iter().any(|listener| listener.selects && !listener.open),
            named => !named.iter().any(reached),
        });
        if let Some((name, _)) = lost.next() {
            let others = match lost.count() {
                0 => String::new(),
                n => format!(" and {n} more"),
            };
            let message = format!(
                "No node has a listener of route {name}{others}: their node selectors match no node's labels"
            );
            needs.push(Need { severity: Severity::Bad, message, link: "/listeners".to_owned() });
        }
    }

    /// Rules that a node has and does not enforce; without any, interfaces of its own on which it could not.
    pub(crate) fn unfiltered(&self, node: &Node) -> Option<Need> {
        let current = self.current();
        let rules: usize = current
            .objects
            .values()
            .filter_map(|object| match &object.spec {
                Spec::PacketFilter(spec) if selects(&spec.node_selector, node) => {
                    Some(spec.counted("").len())
                }
                Spec::PacketFilter(_)
                | Spec::Listener(_)
                | Spec::Route(_)
                | Spec::OriginGroup(_)
                | Spec::Certificate(_)
                | Spec::TrustBundle(_)
                | Spec::PrefixSet(_) => None,
            })
            .sum();
        let xdp = |feature: &&Feature| feature.name == "xdp" || feature.name.starts_with("xdp:");
        let (on, off): (Vec<&Feature>, Vec<&Feature>) =
            node.features.iter().filter(xdp).partition(|feature| feature.on);
        let link = format!("/nodes/{}", node.name);
        if rules == 0 {
            // A node without the filter at all (--no-kernel) lacks nothing as long as there is no rule: one that was given an
            // interface is meant to filter there.
            let told = off.iter().filter_map(|feature| {
                Some(format!("{} ({})", feature.name.strip_prefix("xdp:")?, feature.detail))
            });
            let told = told.collect::<Vec<_>>().join(", ");
            let message = format!("Node {} has its packet filter off on {told}", node.name);
            return (!told.is_empty()).then_some(Need { severity: Severity::Warning, message, link });
        }
        if off.is_empty() {
            return None;
        }
        let rules = counted(rules, "packet filter rule");
        let told = |features: &[&Feature], words: &dyn Fn(&Feature) -> String| {
            features.iter().map(|feature| words(feature)).collect::<Vec<_>>()
        };
        let interface = |feature: &Feature| feature.name.replacen("xdp:", "", 1);
        // What to do stands in what the node says of each, but of the flag it says no more than its name.
        let told_off = off.iter().any(|feature| feature.detail.contains("--no-kernel"));
        let advice = if told_off { " until it runs as root, without --no-kernel" } else { "" };
        let message = match on.is_empty() {
            true => format!(
                "Node {} does not enforce its {rules}, so every packet passes{advice} ({})",
                node.name,
                told(&off, &|feature| format!("{}: {}", feature.name, feature.detail)).join("; ")
            ),
            false => format!(
                "Node {} enforces its {rules} on {}, and not on {}: {}",
                node.name,
                told(&on, &interface).join(", "),
                told(&off, &interface).join(", "),
                told(&off, &|feature| feature.detail.clone()).join("; ")
            ),
        };
        Some(Need { severity: Severity::Bad, message, link })
    }

    fn certificates_need(&self, needs: &mut Vec<Need>) {
        let (current, now) = (self.current(), clock::now());
        let Some(compiled) = &current.compiled else { return };
        let names = current.objects.keys().filter(|(kind, _)| *kind == Kind::Certificate);
        let mut ending: Vec<(OffsetDateTime, Name)> = names
            .filter_map(|(_, name)| {
                let name: Name = name.parse().ok()?;
                let ends = compiled.facts(&name)?.not_after;
                (ends - now < SOON).then_some((ends, name))
            })
            .collect();
        if ending.is_empty() {
            // Who uses which takes a while to find out, and every page asks for this.
            return;
        }
        ending.sort();
        let users = compiled.routes_by_certificate();
        let further = ending.len().saturating_sub(NAMED);
        for (ends, name) in ending.into_iter().take(NAMED) {
            let routes = users.get(&name).map_or(0, |routes| routes.len());
            let (severity, message) = match ends - now {
                left if left <= Duration::ZERO => (
                    Severity::Bad,
                    format!("Certificate {name} has ended on {}; {} it", ends.date(), users_of(routes)),
                ),
                left => (
                    Severity::Warning,
                    format!(
                        "Certificate {name} ends in {}; {} it",
                        counted(usize::try_from(left.whole_days()).unwrap_or(0), "day"),
                        users_of(routes)
                    ),
                ),
            };
            needs.push(Need { severity, message, link: format!("/certificates/{name}") });
        }
        if further > 0 {
            let message = format!("{further} further certificates end within {} days", SOON.whole_days());
            needs.push(Need { severity: Severity::Warning, message, link: "/certificates".to_owned() });
        }
    }

    async fn origins_need(&self, needs: &mut Vec<Need>) -> Result<(), OpsError> {
        for ((_, name), object) in
            self.current().objects.iter().filter(|((kind, _), _)| *kind == Kind::OriginGroup)
        {
            let Spec::OriginGroup(spec) = &object.spec else { continue };
            if let Some(message) = unsafe_origin(name, spec) {
                needs.push(Need { severity: Severity::Warning, message, link: format!("/origins/{name}") });
            }
        }
        let mut groups: BTreeMap<String, (usize, usize, String)> = BTreeMap::new();
        for state in self.origins().await? {
            let group = groups.entry(state.report.group.to_string()).or_default();
            group.0 += 1;
            let unhealthy = state.report.probe.filter(|probe| !probe.healthy);
            let probed = unhealthy.map(|probe| probe.why.unwrap_or_else(|| "its probes fail".to_owned()));
            if let Some(why) = state.report.failing.or(probed) {
                group.1 += 1;
                let address = state.report.address.to_string();
                group.2 = if why.starts_with(&address) { why } else { format!("{address}: {why}") };
            }
        }
        for (group, (all, failing, why)) in groups {
            let (severity, words) = match failing {
                0 => continue,
                n if n == all => (Severity::Bad, "No origin"),
                _ => (Severity::Warning, "Not every origin"),
            };
            let message = format!("{words} of {group} answers ({why})");
            needs.push(Need { severity, message, link: format!("/origins/{group}") });
        }
        Ok(())
    }
}

/// A listener that carries routes.
struct Carrier<'a> {
    name: &'a String,
    /// Whether it selects any node.
    selects: bool,
    /// In clear text.
    open: bool,
}

/// Whether the node has what the selector selects.
fn selects(selector: &NodeSelector, node: &Node) -> bool {
    selector.match_labels.iter().all(|(key, value)| node.labels.get(key) == Some(value))
}

/// `1 route uses`, `2 routes use`.
fn users_of(routes: usize) -> String {
    format!("{} use{}", counted(routes, "route"), if routes == 1 { "s" } else { "" })
}

/// `1 route`, `2 routes`.
fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn unsafe_origin(name: &str, spec: &OriginGroupSpec) -> Option<String> {
    let clear = spec.origins.iter().filter(|origin| origin.url.starts_with("http://")).count();
    let unverified = spec.tls.verify.as_deref() == Some("none") && clear < spec.origins.len();
    match (clear, unverified) {
        (0, false) => None,
        (0, true) => Some(format!("The certificates of {name}'s origins are not verified")),
        (n, false) => Some(format!("Traffic to {} of {name} travels in clear text", counted(n, "origin"))),
        (n, true) => Some(format!(
            "Traffic to {} of {name} travels in clear text, and the others' certificates are not verified",
            counted(n, "origin")
        )),
    }
}

fn nodes_need(nodes: &[Node], needs: &mut Vec<Need>) {
    for node in nodes {
        let link = format!("/nodes/{}", node.name);
        if let Some((id, why)) = &node.refused {
            let message = format!("Node {} refused revision {}: {why}", node.name, id.revision);
            needs.push(Need { severity: Severity::Bad, message, link: link.clone() });
        }
        if node.enrolled && node.connected.is_none() {
            let message = format!("Node {} is not connected; it goes on with what it has", node.name);
            needs.push(Need { severity: Severity::Warning, message, link: link.clone() });
        }
        if node.drained {
            let message = format!("Node {} is drained: it accepts nothing new", node.name);
            needs.push(Need { severity: Severity::Note, message, link: link.clone() });
        }
        if let Some(overload) = &node.overload {
            let message = format!("Node {} has too much to do, {}", node.name, overload.sentence());
            needs.push(Need { severity: Severity::Bad, message, link: link.clone() });
        }
        let mut refusing: BTreeMap<&str, Vec<&Name>> = BTreeMap::new();
        for listener in &node.listeners {
            if let Some(why) = &listener.problem {
                refusing.entry(why).or_default().push(&listener.listener);
            }
        }
        needs.extend(refusing.into_iter().map(|(why, listeners)| refuse(node, &listeners, why)));
    }
}

/// Listeners of a node that do not accept for the same reason: where steering is gone, that is all of them.
fn refuse(node: &Node, listeners: &[&Name], why: &str) -> Need {
    let (message, link) = match listeners {
        [one] => {
            (format!("Listener {one} does not accept on node {}", node.name), format!("/listeners/{one}"))
        }
        several => (
            format!("{} do not accept on node {}", counted(several.len(), "listener"), node.name),
            format!("/nodes/{}", node.name),
        ),
    };
    Need { severity: Severity::Bad, message: format!("{message}: {why}"), link }
}
