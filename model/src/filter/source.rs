//! Sources -> classes.
//!
//! What matters of a source is which rules hold it, in the order in which they are asked: by priority, then the longest
//! prefix, then deny before allow, then the lowest id. A prefix within another has the other's list with its own rules put in
//! front of those of their priority, so one walk over the sorted prefixes finds every list.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{FilterAction, FilterMode, FilterRule, Ranked};

/// Where packets come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// An interface: some addresses cannot have sent them.
    Wire,
    /// A socket, which also serves this machine's own clients.
    Socket,
}

/// What matters of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Class {
    /// The ranks of the rules that hold it, in the order in which they are asked.
    Rules(Vec<u32>),
    /// Nothing is sent from there.
    Martian,
    /// The node's own.
    Own,
}

/// See [`super::Compiled::sources`].
pub(super) struct Sources {
    pub(super) prefixes: Vec<(IpNet, u16)>,
    /// 0 has no rules, then [`Class::Martian`] and [`Class::Own`], then the others by what they are.
    pub(super) classes: Vec<Class>,
}

const MARTIAN: u16 = 1;
const OWN: u16 = 2;

/// Nothing on a wire is from these: loopback, "this network", multicast, broadcast.
const MARTIANS: [(IpAddr, u8); 6] = [
    (IpAddr::V4(Ipv4Addr::new(0, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4),
    (IpAddr::V4(Ipv4Addr::BROADCAST), 32),
    (IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
    (IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8),
];

/// Who has no address yet asks for one from here (DHCP).
const UNSPECIFIED: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// A prefix, ordered so that one stands before all that are within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Block {
    v6: bool,
    /// The address from the highest bit on, for both families. Two words, which a list of blocks has less space between than one
    /// of twice their size.
    high: u64,
    low: u64,
    length: u8,
}

impl Block {
    fn of(address: IpAddr, length: u8) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                Self { v6: false, high: u64::from(address.to_bits()) << 32, low: 0, length }
            }
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                Self { v6: true, high: (bits >> 64) as u64, low: bits as u64, length }
            }
        }
    }

    fn host(address: IpAddr) -> Self {
        Self::of(address, if address.to_canonical().is_ipv4() { 32 } else { 128 })
    }

    fn bits(self) -> u128 {
        u128::from(self.high) << 64 | u128::from(self.low)
    }

    fn contains(self, other: Self) -> bool {
        let differ = (self.bits() ^ other.bits()).checked_shr(128 - u32::from(self.length)).unwrap_or(0);
        self.v6 == other.v6 && self.length <= other.length && differ == 0
    }

    fn net(self) -> Option<IpNet> {
        let address = match self.v6 {
            true => IpAddr::V6(Ipv6Addr::from_bits(self.bits())),
            false => IpAddr::V4(Ipv4Addr::from_bits((self.high >> 32) as u32)),
        };
        IpNet::new(address, self.length).ok()
    }
}

/// What a prefix says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Says {
    Martian,
    NotMartian,
    Own,
    Rule(u32),
}

/// What is known where a prefix lies: the rules' list, and what is said whatever the rules say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    special: Option<u16>,
    list: u32,
}

impl Known {
    /// Whether the two have the same class.
    fn like(self, other: Self) -> bool {
        self.special == other.special && (self.special.is_some() || self.list == other.list)
    }
}

pub(super) fn classify(rules: &Ranked<'_>, own: &[IpAddr], origin: Origin) -> Sources {
    let mut lists = Lists::new(rules);
    let said = said(rules, own, origin);
    let mut found: Vec<(Block, Known)> = Vec::with_capacity(said.len());
    let mut around: Vec<(Block, Known)> = Vec::new();
    for here in said.chunk_by(|a, b| a.0 == b.0) {
        let Some((block, _)) = here.first() else { continue };
        while around.last().is_some_and(|(outer, _)| !outer.contains(*block)) {
            around.pop();
        }
        let outer = around.last().map_or(Known { list: 0, special: None }, |(_, known)| *known);
        let known = lists.within(outer, here);
        if !known.like(outer) {
            found.push((*block, known));
        }
        around.push((*block, known));
    }
    lists.number(&found)
}

/// Every prefix with what it says, sorted; of a prefix's rules, the one asked first comes last.
fn said(rules: &Ranked<'_>, own: &[IpAddr], origin: Origin) -> Vec<(Block, Says)> {
    let prefixes: usize = rules.iter().map(|(_, rule)| rule.prefixes.len()).sum();
    let mut said: Vec<(Block, Says)> = Vec::with_capacity(prefixes + own.len() + MARTIANS.len() + 1);
    for (rank, rule) in rules.iter() {
        let blocks = rule.prefixes.iter().map(|prefix| prefix.net());
        said.extend(blocks.map(|net| (Block::of(net.network(), net.prefix_len()), Says::Rule(rank))));
    }
    if origin == Origin::Wire {
        said.extend(MARTIANS.iter().map(|(address, length)| (Block::of(*address, *length), Says::Martian)));
        said.push((Block::host(UNSPECIFIED), Says::NotMartian));
    }
    said.extend(own.iter().map(|address| (Block::host(*address), Says::Own)));
    let late = |says: &Says| match says {
        Says::Rule(rank) => (rules.get(*rank).action == FilterAction::Deny, std::cmp::Reverse(*rank)),
        Says::Martian | Says::NotMartian | Says::Own => (false, std::cmp::Reverse(u32::MAX)),
    };
    // Rules' prefixes mostly come sorted, and this sort takes sorted pieces as they are.
    said.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| late(&a.1).cmp(&late(&b.1)).then(a.1.cmp(&b.1))));
    said.dedup();
    said
}

/// The lists of rules seen so far. Their numbers here are in the order of their coming; [`Lists::number`] has the final ones.
struct Lists<'a> {
    rules: &'a Ranked<'a>,
    lists: Vec<Vec<u32>>,
    numbers: HashMap<Vec<u32>, u32>,
    /// List, rule -> the list with the rule put in.
    steps: HashMap<(u32, u32), u32>,
    /// The last of them: neighbours are mostly alike.
    last: Option<((u32, u32), u32)>,
}

impl<'a> Lists<'a> {
    fn new(rules: &'a Ranked<'a>) -> Self {
        let numbers = HashMap::from([(Vec::new(), 0)]);
        Self { rules, lists: vec![Vec::new()], numbers, steps: HashMap::new(), last: None }
    }

    fn within(&mut self, outer: Known, here: &[(Block, Says)]) -> Known {
        let mut known = outer;
        for (_, says) in here {
            match says {
                Says::Martian => known.special = Some(MARTIAN),
                Says::NotMartian => known.special = None,
                Says::Own => known.special = Some(OWN),
                Says::Rule(rank) => known.list = self.step(known.list, *rank),
            }
        }
        known
    }

    fn step(&mut self, list: u32, rank: u32) -> u32 {
        if let Some((_, known)) = self.last.filter(|(asked, _)| *asked == (list, rank)) {
            return known;
        }
        if let Some(known) = self.steps.get(&(list, rank)) {
            self.last = Some(((list, rank), *known));
            return *known;
        }
        let with = self.put(&self.lists[list as usize], rank);
        let next = self.lists.len() as u32;
        let number = *self.numbers.entry(with.clone()).or_insert(next);
        if number == next {
            self.lists.push(with);
        }
        self.steps.insert((list, rank), number);
        number
    }

    /// The list with a rule in front of those of its priority, and without what is never asked: behind a rule about
    /// everything only what is enforced can decide, and behind an enforced one nothing.
    fn put(&self, list: &[u32], rank: u32) -> Vec<u32> {
        let priority = self.rules.get(rank).priority;
        let higher = list.iter().take_while(|other| self.rules.get(**other).priority > priority).count();
        let (before, after) = list.split_at(higher);
        let all = before.iter().chain([&rank]).chain(after.iter().filter(|other| **other != rank));
        let mut with = Vec::with_capacity(list.len() + 1);
        let mut observed = true;
        for rank in all {
            let rule: &FilterRule = self.rules.get(*rank);
            if observed || rule.mode == FilterMode::Enforce {
                with.push(*rank);
            }
            if rule.is_general() {
                observed = false;
                if rule.mode == FilterMode::Enforce {
                    break;
                }
            }
        }
        with
    }

    /// Gives classes numbers by what they are, so that what changes elsewhere changes no number here.
    fn number(self, found: &[(Block, Known)]) -> Sources {
        let of_rules = found.iter().filter(|(_, known)| known.special.is_none() && known.list != 0);
        let mut is_used = vec![false; self.lists.len()];
        of_rules.for_each(|(_, known)| is_used[known.list as usize] = true);
        let lists = (0_u32..).zip(&self.lists).zip(is_used);
        let mut used: Vec<(u32, &[u32])> =
            lists.filter(|(_, used)| *used).map(|((number, list), _)| (number, &**list)).collect();
        used.sort_unstable_by_key(|(_, ranks)| (ranks.len(), *ranks));
        let mut classes = vec![Class::Rules(Vec::new()), Class::Martian, Class::Own];
        let mut numbers = vec![0_u16; self.lists.len()];
        for (list, ranks) in used {
            // Too many are refused by whoever counts the classes.
            numbers[list as usize] = u16::try_from(classes.len()).unwrap_or(u16::MAX);
            classes.push(Class::Rules(ranks.to_vec()));
        }
        let class = |known: &Known| known.special.unwrap_or(numbers[known.list as usize]);
        let prefixes = found.iter().filter_map(|(block, known)| Some((block.net()?, class(known)))).collect();
        Sources { prefixes, classes }
    }
}
