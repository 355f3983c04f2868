//! Destinations -> classes.
//!
//! What matters of a destination is which rules are about it, whether it needs an allow rule, and whether its protocol is in
//! the lists. Rules about everything are about every destination and left out here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use crate::listen::{Bound, Place};

use super::{
    EXACT_FIRST, FRAGMENT_SLOTS, FilterAction, FilterMode, FilterRule, ICMP, ICMPV6, Payload, ProtocolList,
    Ranked, TCP, UDP,
};

/// The protocol of a later fragment that hides even that: behind an IPv6 extension header may be anything.
const HIDDEN: u8 = 0;

/// What matters of a destination.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Facts {
    /// The ranks of the rules about it, sorted, without those about everything.
    pub(super) rules: Vec<u32>,
    /// Whether it needs an allow rule.
    pub(super) required: bool,
    /// The lowest id of the rules by which it would, were they not only observed.
    pub(super) observed: u32,
    /// What the lists say of its protocol.
    pub(super) protocol: Listed,
}

/// What the protocol lists say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Listed {
    /// It is in them, or there are none.
    #[default]
    Yes,
    /// It is not in this list, which is only observed.
    Observed(u32),
    /// It is not in this list.
    No(u32),
}

/// A destination as a packet shows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Class {
    /// In full.
    One(Facts),
    /// A later fragment: one of these, and nobody sees which. Sorted, at least two.
    Hidden(Vec<Facts>),
}

/// See [`super::Compiled`].
pub(super) struct Destinations {
    pub(super) columns: Vec<(u32, u16)>,
    pub(super) exact: Vec<(IpAddr, u16, u16)>,
    pub(super) ranged: Vec<(u16, u16)>,
    pub(super) classes: Vec<Class>,
}

pub(super) fn classify(
    rules: &Ranked<'_>,
    protocols: &[ProtocolList],
    listeners: &[Bound],
    ranges: &[Place],
) -> Destinations {
    let view = View::of(rules, protocols);
    let mut draft = Draft::default();
    let everywhere: BTreeSet<u16> =
        listeners.iter().filter(|(address, _)| address.is_none()).map(|(_, port)| *port).collect();
    let tcp = ports(&view, TCP, &everywhere, &mut draft);
    draft.column(Payload::Tcp(0).slot(), &tcp);
    let udp = ports(&view, UDP, &BTreeSet::new(), &mut draft);
    draft.column(Payload::Udp(0).slot(), &udp);
    for protocol in 0..=255 {
        let later = match protocol {
            TCP => draft.hidden(counts(&tcp).keys()),
            UDP => draft.hidden(counts(&udp).keys()),
            ICMP | ICMPV6 => {
                let types: Vec<u32> =
                    (0..=255).map(|kind| draft.of(view.facts(protocol, Some(kind), false))).collect();
                let first = if protocol == ICMP { Payload::Icmp(0) } else { Payload::Icmpv6(0) };
                draft.column(first.slot(), &types);
                draft.hidden(counts(&types).keys())
            }
            _ => {
                let class = draft.of(view.facts(protocol, None, false));
                draft.column(Payload::Other(protocol).slot(), &[class]);
                class
            }
        };
        if protocol != HIDDEN {
            draft.column(Payload::Later(protocol).slot(), &[later]);
        }
    }
    let mut at: BTreeMap<IpAddr, BTreeSet<u16>> = BTreeMap::new();
    for (address, port) in listeners.iter().filter_map(|(address, port)| Some(((*address)?, *port))) {
        at.entry(address.to_canonical()).or_default().insert(port);
    }
    let counts = counts(&tcp);
    let later = draft.hidden(counts.keys());
    for (address, ports) in at {
        draft.listener((address, &ports), &view, (&tcp, counts.clone()), later);
    }
    let any = draft.anything();
    draft.column(Payload::Later(HIDDEN).slot(), &[any]);
    draft.ranged(ranges, &view, (&tcp, &counts));
    draft.finished()
}

/// The classes of all ports of TCP or UDP.
fn ports(view: &View<'_>, protocol: u8, everywhere: &BTreeSet<u16>, draft: &mut Draft) -> Vec<u32> {
    let mut starts = BTreeSet::from([0_u32]);
    let around = |first: u16, last: u16| [u32::from(first), u32::from(last) + 1];
    starts.extend(everywhere.iter().flat_map(|port| around(*port, *port)));
    let ranges = view.about(protocol).flat_map(|(_, rule)| &rule.ports);
    starts.extend(ranges.flat_map(|range| around(range.first(), range.last())));
    let starts: Vec<u32> = starts.into_iter().filter(|start| *start <= u32::from(u16::MAX)).collect();
    let mut classes = Vec::with_capacity(1 << 16);
    for (index, start) in starts.iter().enumerate() {
        let end = starts.get(index + 1).copied().unwrap_or(1 << 16);
        let port = *start as u16;
        let class = draft.of(view.facts(protocol, Some(port), everywhere.contains(&port)));
        classes.resize(end as usize, class);
    }
    classes
}

/// How often each class is there.
fn counts(classes: &[u32]) -> BTreeMap<u32, u32> {
    let mut counts = BTreeMap::new();
    for run in classes.chunk_by(|a, b| a == b) {
        *counts.entry(run[0]).or_insert(0) += run.len() as u32;
    }
    counts
}

/// The rules as destinations see them.
struct View<'a> {
    /// By protocol, with those about every protocol in each.
    about: Vec<Vec<(u32, &'a FilterRule)>>,
    /// Whether an enforced allow rule about everything makes listeners need one, and which observed one would.
    general: (bool, u32),
    lists: [Vec<&'a ProtocolList>; 2],
}

impl<'a> View<'a> {
    fn of(rules: &Ranked<'a>, protocols: &'a [ProtocolList]) -> Self {
        let mut about: Vec<Vec<(u32, &FilterRule)>> = vec![Vec::new(); 256];
        for (rank, rule) in rules.iter().filter(|(_, rule)| !rule.is_general()) {
            for (_, about) in (0..=255).zip(&mut about).filter(|(protocol, _)| concerns(rule, *protocol)) {
                about.push((rank, rule));
            }
        }
        let general = rules.iter().filter(|(_, rule)| rule.is_general()).map(|(_, rule)| rule);
        let general = requires(general);
        let of_mode = |mode| {
            let mut lists: Vec<_> = protocols.iter().filter(|list| list.mode == mode).collect();
            lists.sort_by_key(|list| list.id);
            lists
        };
        Self { about, general, lists: [FilterMode::Enforce, FilterMode::Observe].map(of_mode) }
    }

    fn about(&self, protocol: u8) -> impl Iterator<Item = (u32, &'a FilterRule)> + '_ {
        self.about[usize::from(protocol)].iter().copied()
    }

    /// What matters of a destination. `detail` is the port or the ICMP type.
    fn facts(&self, protocol: u8, detail: Option<u16>, listener: bool) -> Facts {
        let about = self.about(protocol).filter(|(_, rule)| match (protocol, detail) {
            (TCP | UDP, Some(port)) => {
                rule.ports.is_empty()
                    || rule.ports.iter().any(|range| (range.first()..=range.last()).contains(&port))
            }
            (ICMP | ICMPV6, Some(kind)) => {
                rule.icmp_types.is_empty() || rule.icmp_types.iter().any(|one| u16::from(*one) == kind)
            }
            _ => true,
        });
        let about: Vec<(u32, &FilterRule)> = about.collect();
        let mut facts = Facts {
            rules: about.iter().map(|(rank, _)| *rank).collect(),
            protocol: self.listed(protocol),
            ..Facts::default()
        };
        (facts.required, facts.observed) = requires(about.iter().map(|(_, rule)| *rule));
        if listener {
            self.for_listener(&mut facts);
        }
        facts
    }

    /// The same destination where a listener accepts.
    fn for_listener(&self, facts: &mut Facts) {
        facts.required |= self.general.0;
        facts.observed = match (facts.observed, self.general.1) {
            _ if facts.required => 0,
            (0, other) | (other, 0) => other,
            (one, other) => one.min(other),
        };
    }

    fn listed(&self, protocol: u8) -> Listed {
        let [enforced, observed] = &self.lists;
        let has = |lists: &[&ProtocolList]| lists.iter().any(|list| list.allow.contains(&protocol));
        match (enforced.first(), observed.first()) {
            (Some(list), _) if !has(enforced) => Listed::No(list.id),
            (None, Some(list)) if !has(observed) => Listed::Observed(list.id),
            _ => Listed::Yes,
        }
    }
}

/// Whether a rule can be about packets of a protocol.
fn concerns(rule: &FilterRule, protocol: u8) -> bool {
    (rule.protocols.is_empty() || rule.protocols.contains(&protocol))
        && (rule.ports.is_empty() || matches!(protocol, TCP | UDP))
        && (rule.icmp_types.is_empty() || matches!(protocol, ICMP | ICMPV6))
}

/// Whether allow rules among these make an allow rule needed; and the lowest id of the observed ones that would, if none does.
fn requires<'a>(rules: impl Iterator<Item = &'a FilterRule>) -> (bool, u32) {
    let mut observed = 0;
    for rule in rules.filter(|rule| rule.action == FilterAction::Allow) {
        match rule.mode {
            FilterMode::Enforce => return (true, 0),
            FilterMode::Observe if observed == 0 || rule.id < observed => observed = rule.id,
            FilterMode::Observe => {}
        }
    }
    (false, observed)
}

/// The classes seen so far, in the order of their coming.
struct Draft {
    classes: Vec<Class>,
    numbers: HashMap<Class, u32>,
    columns: Vec<(u32, u32)>,
    exact: Vec<(IpAddr, u16, u32)>,
    ranged: Vec<(u32, u32)>,
    /// Slots where an exact address has another class.
    exact_first: BTreeSet<u32>,
}

impl Default for Draft {
    fn default() -> Self {
        let usual = Class::One(Facts::default());
        Self {
            classes: vec![usual.clone()],
            numbers: HashMap::from([(usual, 0)]),
            columns: Vec::new(),
            exact: Vec::new(),
            ranged: Vec::new(),
            exact_first: BTreeSet::new(),
        }
    }
}

impl Draft {
    fn number(&mut self, class: Class) -> u32 {
        let next = self.classes.len() as u32;
        let number = *self.numbers.entry(class.clone()).or_insert(next);
        if number == next {
            self.classes.push(class);
        }
        number
    }

    fn of(&mut self, facts: Facts) -> u32 {
        self.number(Class::One(facts))
    }

    /// The class of what may be any of these.
    fn hidden<'a>(&mut self, classes: impl Iterator<Item = &'a u32>) -> u32 {
        let mut facts: Vec<Facts> = Vec::new();
        for class in classes {
            match &self.classes[*class as usize] {
                Class::One(one) => facts.push(one.clone()),
                Class::Hidden(some) => facts.extend(some.iter().cloned()),
            }
        }
        facts.sort_unstable();
        facts.dedup();
        match facts.as_slice() {
            [one] => self.number(Class::One(one.clone())),
            _ => self.number(Class::Hidden(facts)),
        }
    }

    /// The class of what may be for any destination there is, every listener's address among them.
    fn anything(&mut self) -> u32 {
        let shown = self.columns.iter().filter(|(slot, _)| *slot < FRAGMENT_SLOTS);
        let mut all: BTreeSet<u32> = shown.clone().map(|(_, class)| *class).collect();
        // Slots without an entry have class 0. Four protocols have slots for their ports and types, and none for themselves.
        if shown.count() < FRAGMENT_SLOTS as usize - 4 {
            all.insert(0);
        }
        all.extend(self.exact.iter().map(|(_, _, class)| *class));
        self.hidden(all.iter())
    }

    fn column(&mut self, first: u32, classes: &[u32]) {
        self.columns.extend((first..).zip(classes.iter().copied()).filter(|(_, class)| *class != 0));
    }

    /// An address where ports have listeners. `counts` is how many ports of TCP have each class elsewhere.
    fn listener(
        &mut self,
        (address, ports): (IpAddr, &BTreeSet<u16>),
        view: &View<'_>,
        (tcp, mut counts): (&[u32], BTreeMap<u32, u32>),
        later_elsewhere: u32,
    ) {
        for port in ports {
            let elsewhere = tcp[usize::from(*port)];
            let Class::One(mut facts) = self.classes[elsewhere as usize].clone() else { continue };
            view.for_listener(&mut facts);
            let here = self.of(facts);
            counts.entry(elsewhere).and_modify(|count| *count -= 1);
            *counts.entry(here).or_insert(0) += 1;
            self.put((address, *port), here, (Payload::Tcp(*port), elsewhere));
        }
        let later = self.hidden(counts.iter().filter(|(_, count)| **count > 0).map(|(class, _)| class));
        self.put((address, 0), later, (Payload::Later(TCP), later_elsewhere));
    }

    fn put(&mut self, (address, port): (IpAddr, u16), class: u32, (payload, elsewhere): (Payload, u32)) {
        self.exact.push((address, port, class));
        if class != elsewhere {
            self.exact_first.insert(payload.slot());
        }
    }

    /// What the classes of ports become on the ranges where listeners accept.
    fn ranged(&mut self, ranges: &[Place], view: &View<'_>, (tcp, counts): (&[u32], &BTreeMap<u32, u32>)) {
        let at = |place: &Place| match place.port().number() {
            Some(port) => vec![tcp[usize::from(port)]],
            None => counts.keys().copied().collect(),
        };
        let elsewhere: BTreeSet<u32> = ranges.iter().flat_map(at).collect();
        for class in elsewhere {
            let Class::One(mut facts) = self.classes[class as usize].clone() else { continue };
            view.for_listener(&mut facts);
            let here = self.of(facts);
            if here != class {
                self.ranged.push((class, here));
            }
        }
    }

    /// Gives classes numbers by what they are; 0 is that of which nothing is said.
    fn finished(self) -> Destinations {
        let mut order: Vec<u32> = (0..self.classes.len() as u32).collect();
        order.sort_by_key(|class| &self.classes[*class as usize]);
        let mut numbers = vec![0_u16; order.len()];
        for (number, class) in order.iter().enumerate() {
            // Too many are refused by whoever counts the classes.
            numbers[*class as usize] = u16::try_from(number).unwrap_or(u16::MAX);
        }
        let number = |class: u32| numbers[class as usize];
        let mut columns: Vec<(u32, u16)> =
            self.columns.iter().map(|(slot, class)| (*slot, number(*class))).collect();
        columns.sort_unstable();
        for slot in &self.exact_first {
            match columns.binary_search_by_key(slot, |(slot, _)| *slot) {
                Ok(at) => columns[at].1 |= EXACT_FIRST,
                Err(at) => columns.insert(at, (*slot, EXACT_FIRST)),
            }
        }
        let mut exact: Vec<(IpAddr, u16, u16)> =
            self.exact.iter().map(|(address, port, class)| (*address, *port, number(*class))).collect();
        exact.sort_unstable();
        let mut ranged: Vec<(u16, u16)> =
            self.ranged.iter().map(|(class, here)| (number(*class), number(*here))).collect();
        ranged.sort_unstable();
        let classes = order.iter().map(|class| self.classes[*class as usize].clone()).collect();
        Destinations { columns, exact, ranged, classes }
    }
}
