//! Overload: what is refused when there is more to do than can be done, in which order. New connections first, before their
//! handshake, which is the most expensive thing a stranger can ask for; then new requests; what is under way never.
//!
//! Three signals, each with a level where it begins to count and a lower one where it ends: how late a thread is, how
//! long handshakes wait in its line ([`Line`]), and the worker's memory ([`Memory`]).

mod allocator;
mod line;
mod memory;

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

pub use line::{Line, Turn};
pub use memory::Memory;

/// What is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum Refusing {
    /// Nothing.
    #[default]
    Nothing,
    /// New connections.
    Connections,
    /// New connections, and new requests on those there are.
    Requests,
}

impl Refusing {
    /// The name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Connections => "connections",
            Self::Requests => "requests",
        }
    }
}

impl From<u8> for Refusing {
    /// What `as u8` made of it.
    fn from(number: u8) -> Self {
        match number {
            0 => Self::Nothing,
            1 => Self::Connections,
            _ => Self::Requests,
        }
    }
}

/// Lateness from which new connections, and new requests, are refused. A thread serves everything in turns of well below a
/// millisecond: so late is one that has hundreds of turns to give, all the time.
const LATE: Steps<Duration> =
    Steps { connections: Duration::from_millis(500), requests: Duration::from_secs(2) };

/// Looks at the clock that must agree: a single late one is a pause, not a load.
const LOOKS: usize = 3;

/// A signal's two steps.
#[derive(Debug, Clone, Copy)]
struct Steps<T> {
    connections: T,
    requests: T,
}

impl<T: PartialOrd + Copy> Steps<T> {
    /// The next state, when the signal was between `low` and `high`; `ends` gives where a step that was taken ends.
    fn next(self, now: Refusing, low: T, high: T, ends: impl Fn(T) -> T) -> Refusing {
        let taken = |step: T, refusing| low >= step || now >= refusing && high >= ends(step);
        if taken(self.requests, Refusing::Requests) {
            Refusing::Requests
        } else if taken(self.connections, Refusing::Connections) {
            Refusing::Connections
        } else {
            Refusing::Nothing
        }
    }
}

/// One thread's.
#[derive(Debug, Default)]
pub struct Overload {
    /// Handshakes take their turns here.
    pub line: Line,
    memory: Arc<Memory>,
    late: Cell<[Duration; LOOKS]>,
    by_lateness: Cell<Refusing>,
}

impl Overload {
    /// For a thread of a worker with this memory.
    pub fn new(memory: Arc<Memory>) -> Self {
        Self { memory, ..Self::default() }
    }

    /// What is refused now.
    pub fn refusing(&self) -> Refusing {
        let line = if self.line.is_long() { Refusing::Connections } else { Refusing::Nothing };
        line.max(self.by_lateness.get()).max(self.memory.refusing())
    }

    /// The thread woke this much later than it wanted; to be told all the time.
    pub fn woke(&self, late: Duration) {
        let [second, third, _] = self.late.get();
        let looks = [late, second, third];
        self.late.set(looks);
        let (low, high) =
            looks.iter().fold((late, late), |(low, high), look| (low.min(*look), high.max(*look)));
        self.by_lateness.set(LATE.next(self.by_lateness.get(), low, high, |step| step / 2));
    }

    /// Why something is refused, for the operator: what there is too much of.
    pub fn why(&self) -> String {
        let [late, ..] = self.late.get();
        let memory = (self.memory.refusing() > Refusing::Nothing).then(|| self.memory.describe());
        let late = (self.by_lateness.get() > Refusing::Nothing)
            .then(|| format!("work is done {} ms late", late.as_millis()));
        let line =
            self.line.is_long().then(|| format!("{} handshakes wait for their turn", self.line.waiting()));
        [memory, late, line].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// All signals, for the log.
    pub fn signals(&self) -> String {
        let [late, ..] = self.late.get();
        format!(
            "{} ms late, {} handshakes wait, {}",
            late.as_millis(),
            self.line.waiting(),
            self.memory.describe()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// What is refused after each look.
    fn looks<const N: usize>(late: [u64; N]) -> [Refusing; N] {
        let overload = Overload::default();
        late.map(|late| {
            overload.woke(ms(late));
            overload.refusing()
        })
    }

    #[test]
    fn a_thread_must_be_late_again_and_again() {
        use Refusing::{Connections, Nothing, Requests};
        assert_eq!(looks([0, 10_000, 0, 10_000, 10_000, 400]), [Nothing; 6]);
        assert_eq!(
            looks([600, 600, 600, 3000, 3000]),
            [Nothing, Nothing, Connections, Connections, Connections]
        );
        assert_eq!(looks([3000, 2500, 2000]), [Nothing, Nothing, Requests]);
    }

    #[test]
    fn what_there_is_too_much_of_is_named_and_nothing_else() {
        let overload = Overload::default();
        overload.woke(ms(700));
        assert_eq!(overload.why(), "");
        overload.woke(ms(700));
        overload.woke(ms(600));
        assert_eq!(overload.why(), "work is done 600 ms late");
        assert_eq!(overload.signals(), "600 ms late, 0 handshakes wait, 0 MiB of memory used");
    }

    #[test]
    fn it_ends_when_it_has_been_in_time_for_a_while() {
        use Refusing::{Connections, Nothing, Requests};
        assert_eq!(
            looks([3000, 3000, 3000, 0, 0, 0]),
            [Nothing, Nothing, Requests, Requests, Requests, Nothing]
        );
        // Below half of the one step and above half of the other.
        let after = looks([3000, 3000, 3000, 999, 999, 999, 0, 260, 0, 0, 0]);
        assert_eq!(after[2..5], [Requests; 3]);
        assert_eq!(after[5..10], [Connections; 5]);
        assert_eq!(after[10], Nothing);
    }
}
