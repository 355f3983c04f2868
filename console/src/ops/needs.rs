//! What an operator should do.

use std::collections::BTreeMap;

use model::draft::{Kind, OriginGroupSpec, Spec};
use model::name::Name;
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
        self.certificates_need(&mut needs);
        self.origins_need(&mut needs).await?;
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
                    format!("Certificate {name} has ended on {}; {routes} routes use it", ends.date()),
                ),
                left => (
                    Severity::Warning,
                    format!("Certificate {name} ends in {} days; {routes} routes use it", left.whole_days()),
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
            if let Some(why) = state.report.failing {
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

fn unsafe_origin(name: &str, spec: &OriginGroupSpec) -> Option<String> {
    let clear = spec.origins.iter().filter(|origin| origin.url.starts_with("http://")).count();
    if clear > 0 {
        return Some(format!("Traffic to {clear} origins of {name} travels in clear text"));
    }
    let unverified = spec.tls.verify.as_deref() == Some("none");
    unverified.then(|| format!("The certificates of {name}'s origins are not verified"))
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
        for listener in &node.listeners {
            if let Some(why) = &listener.problem {
                let message =
                    format!("Listener {} does not accept on node {}: {why}", listener.listener, node.name);
                let link = format!("/listeners/{}", listener.listener);
                needs.push(Need { severity: Severity::Bad, message, link });
            }
        }
    }
}
