//! Who filters: nobody, Sallyport's XDP program without and with a budget, or nftables at either hook.

use std::fmt::Write;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use model::filter::{FilterAction, FilterBudget, FilterMode, FilterRule, Inputs, MOST_RATE};
use model::listen::Bound;
use sallyport_node::keeper::kernel::{Config, Filter, Kernel, Linux, detach_instance};
use sallyport_node::keeper::plan::KernelPlan;

use crate::generator::{Family, List, pass_all};
use crate::wire::{INTERFACE, Wire};
use crate::{Result, sys};

/// What packets go through while they are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    /// The generator drops them itself: what making them costs.
    Generator,
    /// The generator passes them itself, on Sallyport's wire: there is no difference but the filter.
    Nothing,
    Sallyport,
    /// The same with a listener, for which connections are steered.
    Listener,
    /// The same with a budget of each source, which nobody uses up, and no listener.
    Budget,
    NftIngress,
    NftPrerouting,
}

impl Variant {
    pub(crate) const ALL: [Self; 7] = [
        Self::Sallyport,
        Self::Nothing,
        Self::NftIngress,
        Self::Listener,
        Self::NftPrerouting,
        Self::Budget,
        Self::Generator,
    ];

    /// Those that have a wire of their own.
    pub(crate) const STANDS: [Self; 6] = [
        Self::Sallyport,
        Self::NftIngress,
        Self::Listener,
        Self::NftPrerouting,
        Self::Budget,
        Self::Generator,
    ];

    /// Who is measured on its wire.
    pub(crate) const fn measured(self) -> &'static [Self] {
        match self {
            Self::Generator => &[Self::Generator],
            Self::Nothing => &[],
            Self::Sallyport => &[Self::Sallyport, Self::Nothing],
            Self::Listener => &[Self::Listener],
            Self::Budget => &[Self::Budget],
            Self::NftIngress => &[Self::NftIngress],
            Self::NftPrerouting => &[Self::NftPrerouting],
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Generator => "generator alone",
            Self::Nothing => "no filter",
            Self::Sallyport => "Sallyport",
            Self::Listener => "Sallyport with a listener",
            Self::Budget => "Sallyport with a budget per source",
            Self::NftIngress => "nftables, netdev ingress",
            Self::NftPrerouting => "nftables, inet prerouting raw",
        }
    }

    /// Tells its wire from the others'.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Generator => "generator",
            Self::Nothing => "nothing",
            Self::Sallyport => "sallyport",
            Self::Listener => "listener",
            Self::Budget => "budget",
            Self::NftIngress => "ingress",
            Self::NftPrerouting => "prerouting",
        }
    }

    /// Whether it takes part where listed sources are to be dropped.
    pub(crate) fn drops(self) -> bool {
        !matches!(self, Self::Nothing | Self::Listener | Self::Budget)
    }

    /// Whether it passes what is not listed.
    pub(crate) fn passes(self) -> bool {
        self != Self::Generator
    }
}

/// A variant in force; it goes with this value.
pub(crate) enum InForce<'a> {
    Nothing { _link: OwnedFd },
    Sallyport { _node: Box<Node>, filter: Filter },
    Nft { _tables: Nft<'a>, _link: OwnedFd },
}

impl<'a> InForce<'a> {
    /// Puts a variant in force with a list.
    pub(crate) fn new(wire: &'a Wire, work: &Path, variant: Variant, list: List) -> Result<Self> {
        let pass = || {
            let program = sys::load(&pass_all())?;
            wire.node(|| Ok(sys::attach(program.as_fd(), wire.index)?))
        };
        let nft = |family, hook: &str| {
            Ok(Self::Nft { _tables: Nft::load(wire, work, family, hook, list)?, _link: pass()? })
        };
        match variant {
            Variant::Generator | Variant::Nothing => Ok(Self::Nothing { _link: pass()? }),
            Variant::Sallyport | Variant::Listener | Variant::Budget => {
                let mut node = Node::open(wire)?;
                let listeners: &[Bound] = if variant == Variant::Listener { &[(None, 443)] } else { &[] };
                let mut plan = node.plan(wire, rule(list, 0..list.count)?, listeners)?;
                if variant == Variant::Budget {
                    plan.budgets.udp_per_source = Some(ample());
                }
                wire.node(|| Ok(node.linux.apply(&plan)?))?;
                node.linux.set_sampling(SAMPLING)?;
                let filter = node.linux.filter()?;
                Ok(Self::Sallyport { _node: Box::new(node), filter })
            }
            Variant::NftIngress => {
                nft("netdev", &format!("type filter hook ingress device \"{INTERFACE}\" priority 0"))
            }
            Variant::NftPrerouting => nft("inet", "type filter hook prerouting priority raw"),
        }
    }

    /// The XDP program that packets go through.
    pub(crate) fn filter(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Sallyport { filter, .. } => Some(filter.as_fd()),
            Self::Nothing { .. } | Self::Nft { .. } => None,
        }
    }
}

/// The keeper's own kernel room, with the interface under its filter.
pub(crate) struct Node {
    pub(crate) linux: Linux,
    pins: PathBuf,
}

const INSTANCE: &str = "bench";
/// One packet in 2^9 is looked at more closely: what the keeper sets at four million packets a second. At more it is fewer.
const SAMPLING: u32 = 9;

impl Node {
    /// Loads the committed kernel object and attaches it, as a keeper does when it starts.
    pub(crate) fn open(wire: &Wire) -> Result<Self> {
        let pins = wire.pins();
        let config = Config { pin_root: pins.clone(), ..Config::new(INSTANCE, vec![INTERFACE.to_owned()]) };
        let linux = wire.node(move || Ok(Linux::open(config)?))?;
        let node = Self { linux, pins };
        let wanted = format!("xdp:{INTERFACE}");
        let found = node.linux.features().into_iter().find(|feature| feature.name == wanted);
        match found {
            Some(feature) if feature.on && feature.detail == "native" => Ok(node),
            Some(feature) => Err(format!("{wanted} is not native: {}", feature.detail).into()),
            None => Err(format!("no {wanted}").into()),
        }
    }

    /// The tables for one rule and these listeners, on a host that knows its own addresses.
    pub(crate) fn plan(&self, wire: &Wire, rule: FilterRule, listeners: &[Bound]) -> Result<KernelPlan> {
        let linux = &self.linux;
        let own = wire.node(|| Ok(linux.own_addresses()?))?;
        let inputs = Inputs { rules: &[rule], protocols: &[], listeners, ranges: &[], own: &own };
        Ok(KernelPlan::of(inputs)?)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _the_file_system_goes_too = detach_instance(&self.pins, INSTANCE);
    }
}

/// A budget that is asked about each packet and always has some left.
fn ample() -> FilterBudget {
    FilterBudget {
        id: 8,
        name: "bench/sources".to_owned(),
        rate: MOST_RATE,
        burst: MOST_RATE,
        mode: FilterMode::Enforce,
    }
}

/// A rule that denies these prefixes.
pub(crate) fn rule(list: List, numbers: impl Iterator<Item = u32>) -> Result<FilterRule> {
    let prefixes =
        numbers.map(|number| list.prefix(number).parse()).collect::<std::result::Result<_, _>>()?;
    Ok(FilterRule::new(7, "bench/listed", FilterAction::Deny, prefixes))
}

/// A table of nftables with one interval set and one rule.
pub(crate) struct Nft<'a> {
    wire: &'a Wire,
    family: &'static str,
    file: PathBuf,
}

impl<'a> Nft<'a> {
    pub(crate) fn load(
        wire: &'a Wire,
        work: &Path,
        family: &'static str,
        hook: &str,
        list: List,
    ) -> Result<Self> {
        let (kind, field) = match list.family {
            Family::V4 => ("ipv4_addr", "ip saddr"),
            Family::V6 => ("ipv6_addr", "ip6 saddr"),
        };
        let mut text = format!(
            "table {family} bench {{\n set listed {{ type {kind}; flags interval; }}\n chain in {{ {hook}; {field} @listed counter drop; }}\n}}\n"
        );
        let nft = Self { wire, family, file: work.join("bench.nft") };
        text.push_str(&nft.elements("add", list, 0..list.count));
        nft.run(&text)?;
        Ok(nft)
    }

    /// The text that adds or deletes elements, a thousand a line.
    pub(crate) fn elements(&self, verb: &str, list: List, numbers: impl Iterator<Item = u32>) -> String {
        let all: Vec<String> = numbers.map(|number| list.prefix(number)).collect();
        all.chunks(1000).fold(String::new(), |mut text, some| {
            let _ = writeln!(text, "{verb} element {} bench listed {{ {} }}", self.family, some.join(", "));
            text
        })
    }

    /// Has nft take a text, as one transaction.
    pub(crate) fn run(&self, text: &str) -> Result<()> {
        fs::write(&self.file, text)?;
        self.wire.nft(&self.file)
    }
}

impl Drop for Nft<'_> {
    fn drop(&mut self) {
        let _the_namespace_goes_too = self.run(&format!("delete table {} bench\n", self.family));
    }
}
