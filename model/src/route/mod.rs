//! Which route a request belongs to: path normalisation and the route table.
//!
//! Precedence is Gateway API's (HTTPRouteSpec.hostnames, HTTPRouteRule.matches): exact host before wildcard, longer
//! wildcard before shorter; then exact path before prefix, longer prefix before shorter. A wildcard host stands for one
//! or more labels. Among equal hosts and paths a match with a method comes first, then the one with more header fields, then
//! with more query parameters, then the route whose name comes first, then the match that stands first.
//!
//! Gateway API ranks *rules that match the request*, host first ("precedence must be given to rules from the HTTPRoute
//! with the largest number of characters in a matching non-wildcard hostname"). A rule whose path does not match is not
//! among them, so where `shop.example.com` has only `/api`, a request for `shop.example.com/cart` still reaches the
//! routes of `*.example.com`. (Proxies that choose a virtual host first answer 404 there.)

mod conditions;
mod hosts;
mod path;

use std::collections::{BTreeMap, HashMap};

pub use conditions::{Asked, Conditions, HeaderIs, Precision, QueryIs, Verb};
pub use hosts::Hosts;
pub use path::{InvalidPath, NormalPath, normalise};

use crate::name::{HostName, HostPattern, Name};
use crate::snapshot::{PathMatch, Route, Snapshot};

/// The routes of one listener, ready to be asked. `R` is what the caller wants back for a route.
#[derive(Debug)]
pub struct Table<R> {
    routes: Vec<R>,
    exact: HashMap<HostName, usize>,
    /// By the host behind `*.`.
    wildcard: HashMap<HostName, usize>,
    /// Path trees; a host's number is its tree's root.
    nodes: Vec<Node>,
}

/// A path up to a segment boundary. Walking a tree costs one step per segment of the request's path, so a path made of
/// slashes is no dearer than its length.
#[derive(Debug, Default)]
struct Node {
    children: BTreeMap<Box<str>, usize>,
    exact: Slot,
    prefix: Slot,
}

/// The routes that claim one host and path.
#[derive(Debug, Default)]
struct Slot {
    /// Those that ask for more, the most demanding first.
    demanding: Vec<(Conditions, usize)>,
    /// The one that does not.
    plain: Option<usize>,
}

impl Slot {
    fn insert(&mut self, conditions: &Conditions, route: usize) {
        if conditions.is_empty() {
            self.plain.get_or_insert(route);
            return;
        }
        let precision = conditions.precision();
        let at = self.demanding.partition_point(|(other, _)| other.precision() <= precision);
        self.demanding.insert(at, (conditions.clone(), route));
    }

    fn choose(&self, asked: &impl Asked) -> Option<usize> {
        let demanding = self.demanding.iter().find(|(conditions, _)| conditions.hold(asked));
        demanding.map(|(_, route)| *route).or(self.plain)
    }
}

impl<R> Table<R> {
    /// Builds the table for `listener`; `make` turns each of its routes into what is returned on a match.
    ///
    /// The compiler lets no two routes claim the same host and path on a listener; should a snapshot have such, the first
    /// one stays.
    pub fn build(snapshot: &Snapshot, listener: &Name, mut make: impl FnMut(&Route) -> R) -> Self {
        let mut table =
            Self { routes: Vec::new(), exact: HashMap::new(), wildcard: HashMap::new(), nodes: Vec::new() };
        let terminated = |route: &&Route| !route.passthrough && route.listeners.contains(listener);
        for route in snapshot.routes.iter().filter(terminated) {
            let index = table.routes.len();
            table.routes.push(make(route));
            for host in &route.hostnames {
                let root = table.root(host);
                for path in &route.paths {
                    table.insert(root, path, &Conditions::default(), index);
                }
                for one in &route.matches {
                    table.insert(root, &one.path, &one.conditions, index);
                }
            }
        }
        table
    }

    /// The route for a host, a path and what else is asked. No allocation.
    pub fn find(&self, host: &HostName, path: &NormalPath, asked: &impl Asked) -> Option<&R> {
        let exact = self.exact.get(host);
        exact
            .and_then(|root| self.walk(*root, path.as_str(), asked))
            .or_else(|| {
                parents(host.as_str())
                    .find_map(|parent| self.walk(*self.wildcard.get(parent)?, path.as_str(), asked))
            })
            .and_then(|index| self.routes.get(index))
    }

    /// Whether any route here is for this host, whatever the path: tells "no such host" from "no such path".
    pub fn knows(&self, host: &HostName) -> bool {
        self.exact.contains_key(host)
            || parents(host.as_str()).any(|parent| self.wildcard.contains_key(parent))
    }

    /// What `make` returned, in the snapshot's order.
    pub fn routes(&self) -> &[R] {
        &self.routes
    }

    fn root(&mut self, host: &HostPattern) -> usize {
        let (hosts, name) = match host {
            HostPattern::Exact(name) => (&mut self.exact, name),
            HostPattern::Wildcard(name) => (&mut self.wildcard, name),
        };
        *hosts.entry(name.clone()).or_insert_with(|| push(&mut self.nodes))
    }

    fn insert(&mut self, root: usize, path: &PathMatch, conditions: &Conditions, route: usize) {
        let mut at = root;
        let segments = match path {
            PathMatch::Exact(path) => path.as_str(),
            PathMatch::Prefix(prefix) => prefix.strip_suffix('/').unwrap_or(prefix),
        };
        for segment in segments.split('/').skip(1) {
            at = match self.nodes[at].children.get(segment) {
                Some(child) => *child,
                None => {
                    let child = push(&mut self.nodes);
                    self.nodes[at].children.insert(segment.into(), child);
                    child
                }
            };
        }
        let slot = match path {
            PathMatch::Exact(_) => &mut self.nodes[at].exact,
            PathMatch::Prefix(_) => &mut self.nodes[at].prefix,
        };
        slot.insert(conditions, route);
    }

    fn walk(&self, root: usize, path: &str, asked: &impl Asked) -> Option<usize> {
        let mut node = self.nodes.get(root)?;
        let mut longest = node.prefix.choose(asked);
        for segment in path.split('/').skip(1) {
            let Some(child) = node.children.get(segment) else { return longest };
            node = self.nodes.get(*child)?;
            longest = node.prefix.choose(asked).or(longest);
        }
        node.exact.choose(asked).or(longest)
    }
}

fn push(nodes: &mut Vec<Node>) -> usize {
    nodes.push(Node::default());
    nodes.len() - 1
}

/// `a.b.c` -> `b.c`, `c`.
fn parents(host: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(host.split_once('.'), |(_, parent)| parent.split_once('.'))
        .map(|(_, parent)| parent)
}

#[cfg(test)]
mod tests;
