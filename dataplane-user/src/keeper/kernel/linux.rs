//! The real kernel.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use dataplane_ebpf::reason::Reason;
use dataplane_ebpf::wire::flow::{Seen, WATCHES_MAX, Watches};
use dataplane_ebpf::wire::{CPUS_MAX, THREADS_MAX, maps, socket_index};
use model::report::{Drops, Feature, SynPressure};

use super::beside::{Progress, choose};
use super::budgets::{self, Budgets};
use super::counters::Counters;
use super::filter::Filter;
use super::flows::{Flows, Record};
use super::gaps::Gaps;
use super::links::{self, Interface, Namespace, State};
use super::lock::Lock;
use super::object::{self, Programs};
use super::pins::{Pins, Slot, pin_over};
use super::ranges::Ranges;
use super::senders::{Senders, Taken};
use super::tables::{Tables, counters};
use super::threads::threads_in_range;
use super::{Kernel, KernelError, KernelPlan, netlink, sys};
use crate::handover::message::FilterState;

/// What a node wants of the kernel.
#[derive(Debug, Clone)]
pub struct Config {
    /// Names the pins; two nodes on one machine need two.
    pub instance: String,
    /// Where the filter goes.
    pub interfaces: Interfaces,
    /// Below it the instance's directory is made; `/sys/fs/bpf/sallyport`.
    pub pin_root: PathBuf,
}

impl Config {
    /// Where pins go unless a test wants them elsewhere.
    pub const PIN_ROOT: &str = "/sys/fs/bpf/sallyport";

    /// An instance with the usual place for pins.
    pub fn new(instance: impl Into<String>, interfaces: Vec<String>) -> Self {
        let interfaces = Interfaces::Named(interfaces);
        Self { instance: instance.into(), interfaces, pin_root: Self::PIN_ROOT.into() }
    }
}

/// Where the filter goes.
#[derive(Debug, Clone)]
pub enum Interfaces {
    /// On these and no others, also while some of them are not there.
    Named(Vec<String>),
    /// On those that this finds, which is asked again and again.
    Found(fn() -> Vec<String>),
}

/// The programs and tables of one instance.
///
/// Dropping it leaves everything in force: a crash must not open the filter. [`Kernel::detach`] removes it.
pub struct Linux {
    pub(super) config: Config,
    pub(super) pins: Pins,
    pub(super) lock: Lock,
    pub(super) namespace: Namespace,
    pub(super) slot: Slot,
    pub(super) programs: Programs,
    pub(super) tables: Tables,
    budgets: Budgets,
    ranges: Ranges,
    counters: Counters,
    senders: Senders,
    flows: Flows,
    sockets: OwnedFd,
    threads: OwnedFd,
    pub(super) steering: OwnedFd,
    pub(super) interfaces: Vec<Interface>,
    pub(super) gaps: Gaps,
    pub(super) steer: State,
    /// Whether connections are accepted where steering leads them: said once, and the sockets are made for it.
    pub(super) steered: bool,
    /// Whether the tables steer anything. Where they do not, the program rests: the kernel would ask it about every UDP packet.
    pub(super) asked: bool,
    pub(super) progress: Progress,
    /// How many worker threads there are, once it was said.
    pub(super) workers: usize,
    pub(super) looks: u64,
}

impl Linux {
    /// Loads the programs and puts them on the interfaces and this thread's network namespace, taking over what an earlier
    /// process of the instance left. An interface that cannot have the filter is a feature that is off, not an error.
    ///
    /// # Errors
    /// No privilege, no bpffs, a kernel that takes neither program, or [`KernelError::InUse`].
    pub fn open(config: Config) -> Result<Self, KernelError> {
        Self::inherit(config, None)
    }

    /// The same with the lock that this process's former release left, so that the instance is nobody else's meanwhile.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn inherit(config: Config, lock: Option<OwnedFd>) -> Result<Self, KernelError> {
        let pins = Pins::open(&config.pin_root, &config.instance)?;
        let lock = match lock.and_then(|lock| Lock::inherited(lock, &pins)) {
            Some(lock) => lock,
            None => Lock::take(&pins, &config.instance)?,
        };
        let namespace = Namespace::here()?;
        links::claim(&pins, &config.instance, &namespace)?;
        pins.recover()?;
        let (slot, progress) = choose(&pins)?;
        slot.make()?;
        let programs = object::load(&slot)?;
        let mut tables = Tables::open(&slot)?;
        // Whoever watched through a former process has to ask again.
        tables.set_watched(false);
        let budgets = Budgets::open(&slot, &programs)?;
        let ranges = Ranges::open(&slot)?;
        let (counters, flows) = (Counters::open(&slot)?, Flows::open(&slot)?);
        let senders = Senders::open(&slot)?;
        for (name, program) in [(maps::FILTER, &programs.filter), (maps::STEER, &programs.steer)] {
            if let Ok(program) = program {
                pin_over(program, &slot.program(name))?;
            }
        }
        let mut linux = Self {
            sockets: slot.open(maps::SOCKETS)?,
            threads: slot.open(maps::THREADS)?,
            steering: slot.open(maps::STEERING)?,
            interfaces: Vec::new(),
            gaps: Gaps::default(),
            steer: State::Off("waiting for the first snapshot".to_owned()),
            steered: false,
            // Tables that an earlier process left may steer something.
            asked: true,
            workers: 0,
            looks: 0,
            config,
            pins,
            lock,
            namespace,
            slot,
            programs,
            tables,
            budgets,
            ranges,
            counters,
            senders,
            flows,
            progress,
        };
        if progress == Progress::Settled {
            linux.attach_filter();
            linux.attach_steering()?;
        }
        Ok(linux)
    }

    /// Rules, and where listeners accept; see [`Ranges`] for the order.
    fn enter_listeners(&mut self, plan: &KernelPlan) -> Result<(), KernelError> {
        let before = self.ranges.said().map(<[_]>::to_vec);
        if !plan.ranges.is_empty() {
            self.ranges.say(&plan.ranges)?;
        }
        let entered = self.tables.apply(plan, |rule| self.counters.of(rule));
        match (entered, before) {
            (Ok(()), _) => self.ranges.say(&plan.ranges),
            // The old tables are in force, so what went with them is, too.
            (Err(error), Some(before)) => {
                self.ranges.say(&before)?;
                Err(error)
            }
            (Err(error), None) => Err(error),
        }
    }

    /// Packets counted under a reason since the counters were made; passes too. Tests prove with it which way a packet went.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn packets(&self, reason: Reason) -> Result<u64, KernelError> {
        self.counters.packets(reason)
    }

    /// The filter as it is loaded, to run over frames without a network.
    ///
    /// # Errors
    /// The kernel did not accept it.
    pub fn filter(&self) -> Result<Filter, KernelError> {
        let failed =
            |source| KernelError::Link { doing: "reaching", target: "the filter".to_owned(), source };
        let program =
            self.programs.filter.as_ref().map_err(|why| failed(std::io::Error::other(why.clone())))?;
        program.try_clone().map(Filter).map_err(failed)
    }

    /// How many generations there have been. A change of a single prefix makes none.
    pub fn generations(&self) -> u32 {
        self.tables.swaps()
    }
}

impl Kernel for Linux {
    fn features(&self) -> Vec<Feature> {
        let bpffs =
            Feature { name: "bpffs".to_owned(), on: true, detail: self.pins.dir().display().to_string() };
        let mut features: Vec<Feature> = match self.progress {
            Progress::Settled => self
                .interfaces
                .iter()
                .map(|Interface { name, state, .. }| {
                    self.gaps.told(name, state.feature(format!("xdp:{name}")))
                })
                .collect(),
            Progress::Beside { .. } => {
                let waiting = State::Off("waiting for the first snapshot".to_owned());
                self.wanted().iter().map(|name| waiting.feature(format!("xdp:{name}"))).collect()
            }
        };
        if features.is_empty() {
            features.push(self.no_interface());
        }
        features.push(self.steer.feature("sk_lookup".to_owned()));
        features.extend(self.budgets.feature());
        features.push(bpffs);
        features
    }

    fn filters(&self) -> Vec<FilterState> {
        let state = |interface: &String, attached| FilterState {
            interface: interface.clone(),
            attached,
            gaps: self.gaps.times(interface),
        };
        match self.progress {
            Progress::Settled => {
                self.interfaces.iter().map(|one| state(&one.name, one.state.is_on())).collect()
            }
            // The former programs filter until the new tables say everything.
            Progress::Beside { .. } => {
                let filtered = links::filtered(&self.pins);
                self.wanted().iter().map(|name| state(name, filtered.contains(name))).collect()
            }
        }
    }

    fn steers(&self) -> bool {
        self.steered || (self.progress != Progress::Settled && self.programs.steer.is_ok())
    }

    fn steering_gone(&self) -> Option<&str> {
        if let (true, State::Off(why)) = (self.steered, &self.steer) { Some(why) } else { None }
    }

    fn apply(&mut self, plan: &KernelPlan) -> Result<(), KernelError> {
        self.counters.prepare([counters(&plan.filter), budgets::counters(&plan.budgets)].concat());
        self.budgets.apply(&plan.budgets, |rule| self.counters.of(rule))?;
        let asked = !(plan.listeners.is_empty() && plan.ranges.is_empty());
        if asked {
            self.ask();
        }
        self.enter_listeners(plan)?;
        self.tables.set_budgets(self.budgets.kinds());
        if let Progress::Beside { filled, .. } = &mut self.progress {
            *filled = true;
        }
        self.asked = asked;
        self.settle()?;
        self.rest();
        Ok(())
    }

    fn set_sockets(
        &mut self,
        thread: usize,
        v4: BorrowedFd<'_>,
        v6: BorrowedFd<'_>,
    ) -> Result<(), KernelError> {
        let index = threads_in_range(thread.saturating_add(1))? - 1;
        for (socket, is_v6) in [(v4, false), (v6, true)] {
            let value = socket.as_raw_fd().to_ne_bytes();
            sys::map_update(self.sockets.as_fd(), &socket_index(index, is_v6).to_ne_bytes(), &value)
                .map_err(KernelError::table("entering a listening socket in", maps::SOCKETS))?;
        }
        if let Progress::Beside { sockets, .. } = &mut self.progress {
            *sockets |= 1 << index;
        }
        self.settle()
    }

    fn set_threads(&mut self, threads: usize) -> Result<(), KernelError> {
        let count = threads_in_range(threads)?;
        for cpu in 0..CPUS_MAX {
            sys::map_update(self.threads.as_fd(), &cpu.to_ne_bytes(), &(cpu % count).to_ne_bytes())
                .map_err(KernelError::table("writing", maps::THREADS))?;
        }
        self.workers = threads;
        self.choose_by_queues()?;
        for index in socket_index(count, false)..socket_index(THREADS_MAX, false) {
            // Most places are empty, and an empty place is what is wanted.
            let _empty_is_fine = sys::map_delete(self.sockets.as_fd(), &index.to_ne_bytes());
        }
        if let Progress::Beside { threads: known, .. } = &mut self.progress {
            *known = threads;
        }
        self.settle()
    }

    fn own_addresses(&self) -> Result<Vec<IpAddr>, KernelError> {
        let looped = |name: &String| sys::interface_index(name) == Some(netlink::LOOPBACK);
        if self.wanted().iter().any(looped) {
            return Ok(Vec::new());
        }
        netlink::addresses().map_err(|source| KernelError::Link {
            doing: "reading the addresses of",
            target: "this host".to_owned(),
            source,
        })
    }

    fn take_drops(&mut self) -> Result<Vec<Drops>, KernelError> {
        self.counters.take()
    }

    fn syn_pressure(&self) -> Option<SynPressure> {
        self.budgets.syn_pressure()
    }

    fn sampling(&self) -> Result<Option<(u32, u64)>, KernelError> {
        if !self.interfaces.iter().any(|interface| interface.state.is_on()) {
            return Ok(None);
        }
        Ok(Some((self.senders.shift(), self.senders.waiting()?)))
    }

    fn set_sampling(&mut self, shift: u32) -> Result<(), KernelError> {
        self.senders.set_shift(shift);
        Ok(())
    }

    fn take_senders(&mut self) -> Result<Taken, KernelError> {
        self.senders.take()
    }

    fn watch(&mut self, watches: &Watches, anew: &[usize]) -> Result<(), KernelError> {
        if !self.interfaces.iter().any(|interface| interface.state.is_on()) {
            return Err(KernelError::NothingToWatch);
        }
        for place in anew {
            self.flows.forget_captured(*place)?;
        }
        self.flows.set(watches)?;
        self.tables.set_watched(watches.iter().any(|watch| watch.until != 0));
        Ok(())
    }

    fn seen(&self) -> Result<Seen, KernelError> {
        self.flows.seen()
    }

    fn captured(&self) -> Result<[u64; WATCHES_MAX], KernelError> {
        self.flows.captured()
    }

    fn take_records(&mut self, most: usize) -> Vec<Record> {
        self.flows.take(most)
    }

    fn ring(&self) -> Option<BorrowedFd<'_>> {
        Some(self.flows.ring())
    }

    fn lock(&self) -> Option<BorrowedFd<'_>> {
        Some(self.lock.as_fd())
    }

    fn look(&mut self) {
        if let Err(error) = self.budgets.follow(|rule| self.counters.of(rule)) {
            tracing::warn!(%error, "budgets cannot be written");
        }
        self.look_at_links(false);
    }

    fn look_after_change(&mut self) {
        self.look_at_links(true);
    }

    fn detach(&mut self) -> Result<(), KernelError> {
        // What was removed and made anew is somebody else's.
        if self.lock.is_of(self.pins.dir()) {
            links::detach(&self.pins)?;
            self.pins.remove()?;
        }
        let gone = || State::Off("detached".to_owned());
        self.interfaces.iter_mut().for_each(|interface| interface.state = gone());
        self.steer = gone();
        Ok(())
    }
}
