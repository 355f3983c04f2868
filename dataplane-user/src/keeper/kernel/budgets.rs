//! Budgets: what the programs are to let through, and whether SYN cookies can stand in for what they do not.
//!
//! Budgets stand outside of generations: each is a few words, and a packet that meets an old rate with a new burst is one packet.
//! A bucket outlives a change of its budget.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use dataplane_ebpf::decide::budget::Rate;
use dataplane_ebpf::reason::Reason;
use dataplane_ebpf::wire::budget::{Budget, over, place, pressure, tails};
use dataplane_ebpf::wire::{RuleReason, maps};
use model::filter::{FilterBudget, FilterBudgets, FilterMode, PortBudget};
use model::report::{Feature, OverBudget, SynPressure};
use rustix::time::{ClockId, clock_gettime};

use super::object::Programs;
use super::pins::Slot;
use super::{KernelError, sys};

/// 2: every SYN is answered with a cookie, and so the cookies that the programs sent are taken; with 1 only while the queue
/// of a socket is full.
const SYNCOOKIES: &str = "/proc/sys/net/ipv4/tcp_syncookies";
/// How long after the last SYN over the budget there is said to be pressure, nanoseconds.
const PRESSED: u64 = 5_000_000_000;

/// What the budgets' maps say.
pub(super) struct Budgets {
    budgets: OwnedFd,
    ports: OwnedFd,
    pressure: OwnedFd,
    /// Why no budget can be kept in XDP; nothing where they are.
    missing: Option<String>,
    /// Why no cookie can be sent; nothing where one can.
    without: Option<String>,
    wanted: FilterBudgets,
    /// What was written last, by place; nothing before it was.
    written: Option<Vec<Budget>>,
    /// What the table of ports was made of last; nothing before it was.
    placed: Option<Vec<PortBudget>>,
    /// Whether cookies stand in and whether the kernel takes them always, as the table was written last.
    cookies: (bool, bool),
    /// When a SYN was last over the budget of all sources, nanoseconds of the monotonic clock; 0: never.
    pressed: u64,
}

impl Budgets {
    /// Opens the slot's maps, and lets the filter end in the programs for cookies where there are any.
    pub(super) fn open(slot: &Slot, programs: &Programs) -> Result<Self, KernelError> {
        let tail = slot.open(maps::TAIL)?;
        if let Ok(program) = &programs.budgets {
            let value = program.as_raw_fd().to_ne_bytes();
            sys::map_update(tail.as_fd(), &tails::SPEND.to_ne_bytes(), &value)
                .map_err(KernelError::table("entering a program in", maps::TAIL))?;
        }
        let cookies = &programs.cookies;
        let without = match cookies {
            Ok((answer, learn)) => {
                for (index, program) in [(tails::ANSWER, answer), (tails::LEARN, learn)] {
                    let value = program.as_raw_fd().to_ne_bytes();
                    sys::map_update(tail.as_fd(), &index.to_ne_bytes(), &value)
                        .map_err(KernelError::table("entering a program in", maps::TAIL))?;
                }
                None
            }
            Err(why) => {
                // Another kernel's may be pinned.
                for index in [tails::ANSWER, tails::LEARN] {
                    let _empty_is_fine = sys::map_delete(tail.as_fd(), &index.to_ne_bytes());
                }
                Some(why.clone())
            }
        };
        Ok(Self {
            missing: programs.budgets.as_ref().err().cloned(),
            budgets: slot.open(maps::BUDGETS)?,
            ports: slot.open(maps::BUDGET_PORTS)?,
            pressure: slot.open(maps::PRESSURE)?,
            without,
            wanted: FilterBudgets::default(),
            written: None,
            placed: None,
            cookies: (false, false),
            pressed: 0,
        })
    }

    /// Puts budgets in force. `counter` gives the counter of each, 0 where it has none.
    pub(super) fn apply(
        &mut self,
        wanted: &FilterBudgets,
        counter: impl Fn(RuleReason) -> u32,
    ) -> Result<(), KernelError> {
        self.wanted = wanted.clone();
        self.write(counter)?;
        self.write_ports()
    }

    /// Follows the host's setting for SYN cookies, and whether there is pressure: once a second, so it does no more than that.
    pub(super) fn follow(&mut self, counter: impl Fn(RuleReason) -> u32) -> Result<(), KernelError> {
        if self.wanted.is_empty() {
            return Ok(());
        }
        let mut last = [0; 8];
        sys::map_lookup(self.pressure.as_fd(), &pressure::LAST.to_ne_bytes(), &mut last)
            .map_err(KernelError::table("reading", maps::PRESSURE))?;
        self.pressed = u64::from_ne_bytes(last);
        if self.written.is_none() || self.cookies != (self.without().is_none(), always()) {
            self.write(counter)?;
        }
        // Where a call before failed, it is tried again.
        self.write_ports()
    }

    /// Whether there are budgets of SYNs, of UDP packets and of new connections.
    pub(super) fn kinds(&self) -> (bool, bool, bool) {
        let FilterBudgets { syn_per_source, syn_per_port, syn_pressure, .. } = &self.wanted;
        let syn = syn_per_source.is_some() || !syn_per_port.is_empty() || syn_pressure.is_some();
        (syn, self.wanted.udp_per_source.is_some(), self.wanted.new_connections_per_source.is_some())
    }

    fn write(&mut self, counter: impl Fn(RuleReason) -> u32) -> Result<(), KernelError> {
        let (cookies, always) = (self.without().is_none(), always());
        let table = table(&self.wanted, cookies, always, counter);
        let known = self.written.take();
        for (index, budget) in (0_u32..).zip(&table) {
            let known = known.as_ref().and_then(|known| known.get(index as usize));
            if known != Some(budget) {
                sys::map_update(self.budgets.as_fd(), &index.to_ne_bytes(), &budget.to_bytes())
                    .map_err(KernelError::table("writing", maps::BUDGETS))?;
            }
        }
        (self.written, self.cookies) = (Some(table), (cookies, always));
        Ok(())
    }

    /// Writes the table of ports where it is not what is wanted, in one call.
    fn write_ports(&mut self) -> Result<(), KernelError> {
        if self.placed.as_ref() == Some(&self.wanted.syn_per_port) {
            return Ok(());
        }
        // What a former keeper wrote, or a call that failed, is not known: then all of it is written.
        let known = self.placed.take().map(|known| places(&known));
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for (port, place) in (0_u32..).zip(&places(&self.wanted.syn_per_port)) {
            if known.as_ref().and_then(|known| known.get(port as usize)) != Some(place) {
                keys.extend(port.to_ne_bytes());
                values.extend(place.to_ne_bytes());
            }
        }
        let count = (keys.len() / 4) as u32;
        sys::map_update_batch(self.ports.as_fd(), &keys, &values, count)
            .map_err(KernelError::table("writing", maps::BUDGET_PORTS))?;
        self.placed = Some(self.wanted.syn_per_port.clone());
        Ok(())
    }

    /// Why cookies are not sent, and what is so instead, one sentence; nothing where they can be.
    fn without(&self) -> Option<String> {
        let observed =
            self.wanted.syn_pressure.as_ref().is_some_and(|budget| budget.mode == FilterMode::Observe);
        let then = if observed {
            "SYNs over the budget are only observed, and in Enforce they would be dropped"
        } else {
            "SYNs over the budget are dropped"
        };
        if let Some(why) = &self.without {
            return Some(format!("{why}; {then}"));
        }
        (!always()).then(|| {
            format!("net.ipv4.tcp_syncookies is not 2, without which the kernel takes no cookie that it did not send: {then}; `sysctl -w net.ipv4.tcp_syncookies=2` changes it for the whole host")
        })
    }

    /// What is said of cookies, where the node has a budget that they are for.
    pub(super) fn feature(&self) -> Option<Feature> {
        let budget = self.wanted.syn_pressure.as_ref()?;
        let without = self.missing.clone().or_else(|| self.without());
        let over = match (self.is_pressed(), budget.mode) {
            (true, FilterMode::Observe) => "SYNs are over the budget now, which is only observed",
            (true, FilterMode::Enforce) => {
                "SYNs are over the budget now, and what is over is answered with cookies"
            }
            (false, FilterMode::Observe) => "no SYN is over the budget, which is only observed",
            (false, FilterMode::Enforce) => {
                "no SYN is over the budget; what is will be answered with a cookie"
            }
        };
        let (on, detail) = match without {
            Some(why) => (false, why),
            None => (true, over.to_owned()),
        };
        Some(Feature { name: "syn-cookies".to_owned(), on, detail })
    }

    /// Whether SYNs were over the budget of all sources a moment ago.
    fn is_pressed(&self) -> bool {
        self.pressed != 0 && monotonic().saturating_sub(self.pressed) < PRESSED
    }

    /// Whether SYNs of unknown sources are over their budget, and what becomes of those; nothing where they have none.
    pub(super) fn syn_pressure(&self) -> Option<SynPressure> {
        let budget = self.wanted.syn_pressure.as_ref()?;
        let over = match (budget.mode, self.missing.is_none(), self.without().is_none()) {
            (FilterMode::Observe, _, _) | (_, false, _) => OverBudget::Passes,
            (FilterMode::Enforce, true, true) => OverBudget::Cookie,
            (FilterMode::Enforce, true, false) => OverBudget::Drop,
        };
        Some(SynPressure { now: self.is_pressed(), over })
    }
}

/// The counters that budgets need.
pub(super) fn counters(budgets: &FilterBudgets) -> Vec<RuleReason> {
    let single = [
        (&budgets.syn_per_source, Reason::SynBudget),
        (&budgets.syn_pressure, Reason::SynBudget),
        (&budgets.syn_pressure, Reason::SynCookie),
        (&budgets.udp_per_source, Reason::UdpBudget),
        (&budgets.new_connections_per_source, Reason::NewConnectionBudget),
    ];
    let single = single.into_iter().filter_map(|(budget, reason)| Some((budget.as_ref()?.id, reason)));
    let ports = budgets.syn_per_port.iter().map(|port| (port.budget.id, Reason::SynBudget));
    let both = |(rule, reason): (u32, Reason)| {
        [reason, Reason::Observed].map(|reason| RuleReason { rule, reason: reason.number() })
    };
    single.chain(ports).flat_map(both).collect()
}

/// The table of budgets. Where every SYN is answered with a cookie by the kernel, a connection that the programs did not send
/// one for is looked up twice, for its SYN and for its cookie, so the budget of connections is twice as large.
fn table(
    budgets: &FilterBudgets,
    cookies: bool,
    always: bool,
    counter: impl Fn(RuleReason) -> u32,
) -> Vec<Budget> {
    let mut table = vec![Budget::default(); place::PLACES as usize];
    let mut set = |place: u32, budget: Option<&FilterBudget>, times: u64, over: u16| {
        if let (Some(budget), Some(slot)) = (budget, table.get_mut(place as usize)) {
            let over = if budget.mode == FilterMode::Observe { over::OBSERVE } else { over };
            let rate = Rate::new(budget.rate.saturating_mul(times), budget.burst.saturating_mul(times));
            let reason = if over == over::OBSERVE { Reason::Observed } else { reason(place) };
            let of = |reason: Reason| counter(RuleReason { rule: budget.id, reason: reason.number() });
            *slot = Budget::new(rate, budget.id, [of(reason), of(Reason::SynCookie)], over);
        }
    };
    set(place::SYN_PER_SOURCE, budgets.syn_per_source.as_ref(), 1, over::DROP);
    let answer = if cookies { over::COOKIE } else { over::DROP };
    set(place::SYN_PRESSURE, budgets.syn_pressure.as_ref(), 1, answer);
    set(place::UDP_PER_SOURCE, budgets.udp_per_source.as_ref(), 1, over::DROP);
    let times = if always { 2 } else { 1 };
    let connections = budgets.new_connections_per_source.as_ref();
    set(place::CONNECTIONS_PER_SOURCE, connections, times, over::DROP);
    for (place, port) in (place::SYN_PER_PORT..place::PLACES).zip(&budgets.syn_per_port) {
        set(place, Some(&port.budget), 1, over::DROP);
    }
    table
}

/// Why what is over the budget at a place is dropped.
const fn reason(place: u32) -> Reason {
    match place {
        place::UDP_PER_SOURCE => Reason::UdpBudget,
        place::CONNECTIONS_PER_SOURCE => Reason::NewConnectionBudget,
        _ => Reason::SynBudget,
    }
}

/// Each port's budget, by its place; 0 where it has none.
fn places(ports: &[PortBudget]) -> Vec<u32> {
    let mut places = vec![0; 65_536];
    for (place, port) in (place::SYN_PER_PORT..place::PLACES).zip(ports) {
        for range in &port.ports {
            let ports = usize::from(range.first())..=usize::from(range.last());
            places.get_mut(ports).unwrap_or_default().fill(place);
        }
    }
    places
}

/// The clock that the programs read, nanoseconds.
fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Whether the kernel takes cookies that it did not send.
fn always() -> bool {
    fs::read_to_string(SYNCOOKIES).is_ok_and(|text| text.trim() == "2")
}

#[cfg(test)]
mod tests {
    use model::filter::PortRange;

    use super::*;

    fn budget(id: u32, rate: u64, mode: FilterMode) -> FilterBudget {
        FilterBudget { id, name: format!("f/{id}"), rate, burst: 5, mode }
    }

    #[test]
    fn budgets_lie_where_the_programs_look() {
        let port = |id, first, last| PortBudget {
            budget: budget(id, 10, FilterMode::Enforce),
            ports: vec![PortRange::new(first, last)],
        };
        let budgets = FilterBudgets {
            syn_per_source: Some(budget(1, 10, FilterMode::Enforce)),
            syn_pressure: Some(budget(2, 10, FilterMode::Enforce)),
            udp_per_source: Some(budget(3, 10, FilterMode::Observe)),
            new_connections_per_source: Some(budget(4, 10, FilterMode::Enforce)),
            syn_per_port: vec![port(5, 22, 22), port(6, 443, 445)],
        };
        let counter = |RuleReason { rule, reason }| rule * 100 + reason;
        let counters: Vec<(u32, u16, u16)> = table(&budgets, true, true, counter)
            .iter()
            .take(6)
            .map(|budget| (budget.counter, budget.answered, budget.over))
            .collect();
        let expected = [
            (152, 109, over::DROP),
            (252, 209, over::COOKIE),
            (308, 309, over::OBSERVE),
            (454, 409, over::DROP),
            (552, 509, over::DROP),
            (652, 609, over::DROP),
        ];
        assert_eq!(counters, expected);
        let dropping = table(&budgets, false, false, counter);
        assert_eq!(dropping[place::SYN_PRESSURE as usize].over, over::DROP);
        assert_eq!(dropping[place::CONNECTIONS_PER_SOURCE as usize].rate(), Rate::new(10, 5));
        let places = places(&budgets.syn_per_port);
        let placed: Vec<usize> = (0..places.len()).filter(|port| places[*port] != 0).collect();
        assert_eq!(placed, [22, 443, 444, 445]);
        assert_eq!((places[22], places[444]), (place::SYN_PER_PORT, place::SYN_PER_PORT + 1));
        assert!(
            table(&FilterBudgets::default(), true, true, counter).iter().all(|budget| !budget.rate().is_on())
        );
        assert_eq!(model::filter::MOST_PORT_BUDGETS, (place::PLACES - place::SYN_PER_PORT) as usize);
    }
}
