//! Which of a thread's connections wait for their client, for its handshake or its next request, and since when: a listener
//! that is nearly full ends one that has waited long for each that comes.
//!
//! A request only sets a flag. A connection stands in its listener's queue once; when its turn comes and it is busy, or has
//! been asked since its last turn, it goes to the end.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::time::{Duration, Instant};

use crate::worker::live::Open;

/// A wait that is worth a word: ending a connection after less would cross the next request of a client that is not idle.
const WAIT: Duration = Duration::from_secs(1);

/// Connections looked at to make one place: where so many are busy in a row, nobody's idleness is the trouble.
const LOOKS: usize = 64;

/// Entries of connections that are gone, beyond as many as there are connections, before they are cleared away.
const STALE: usize = 64;

/// One thread's connections, by listener (the address of its count, which its connections keep alive).
#[derive(Debug, Default)]
pub(crate) struct Idle(RefCell<HashMap<usize, Queue>>);

#[derive(Debug)]
struct Queue {
    listener: Arc<Open>,
    turns: VecDeque<Weak<Spot>>,
    open: usize,
}

#[derive(Debug, Default)]
struct Spot {
    /// Nothing while it is busy.
    since: Cell<Option<Instant>>,
    /// Since its last turn.
    asked: Cell<bool>,
    leaves: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// One connection among them.
#[derive(Debug)]
pub(crate) struct Waits {
    idle: Rc<Idle>,
    listener: Arc<Open>,
    spot: Rc<Spot>,
}

impl Idle {
    /// A connection that begins, busy.
    pub(crate) fn join(self: &Rc<Self>, listener: &Arc<Open>) -> Waits {
        let spot = Rc::<Spot>::default();
        let mut queues = self.0.borrow_mut();
        let queue = queues.entry(key(listener)).or_insert_with(|| Queue {
            listener: Arc::clone(listener),
            turns: VecDeque::new(),
            open: 0,
        });
        queue.turns.push_back(Rc::downgrade(&spot));
        queue.open += 1;
        Waits { idle: Rc::clone(self), listener: Arc::clone(listener), spot }
    }

    /// Tells one of a listener's connections that waits for its client to end; whether there was one.
    pub(crate) fn evict(&self, listener: &Arc<Open>) -> bool {
        self.0.borrow_mut().get_mut(&key(listener)).is_some_and(Queue::evict)
    }

    /// Ends one of each listener where another thread had none to end for a connection that came to it.
    pub(crate) fn make_room_for_others(&self) {
        for queue in self.0.borrow_mut().values_mut() {
            if queue.listener.wants_room() {
                queue.evict();
            }
        }
    }
}

impl Queue {
    fn evict(&mut self) -> bool {
        let now = Instant::now();
        for _ in 0..LOOKS {
            let Some(entry) = self.turns.pop_front() else { break };
            let Some(spot) = entry.upgrade() else { continue };
            if !spot.asked.take() && spot.since.get().is_some_and(|since| since + WAIT <= now) {
                spot.leaves.set(true);
                spot.waker.take().into_iter().for_each(Waker::wake);
                return true;
            }
            self.turns.push_back(entry);
        }
        false
    }
}

impl Waits {
    /// It waits for its client since then. True when it has to end instead; woken if that comes later.
    pub(crate) fn waits(&self, since: Instant, cx: &Context<'_>) -> bool {
        self.spot.since.set(Some(since));
        let mut waker = self.spot.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        self.spot.leaves.get()
    }

    /// Does what a client is waited for with, unless the connection has to make room first.
    pub(crate) async fn during<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let since = Instant::now();
        let mut work = pin!(work);
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if self.waits(since, cx) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// It has a request.
    pub(crate) fn busy(&self) {
        self.spot.since.set(None);
        self.spot.asked.set(true);
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        let mut queues = self.idle.0.borrow_mut();
        let Some(queue) = queues.get_mut(&key(&self.listener)) else { return };
        queue.open = queue.open.saturating_sub(1);
        if queue.open == 0 {
            queues.remove(&key(&self.listener));
        } else if queue.turns.len() > 2 * queue.open + STALE {
            queue.turns.retain(|entry| entry.strong_count() > 0);
        }
    }
}

fn key(listener: &Arc<Open>) -> usize {
    Arc::as_ptr(listener) as usize
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    fn long_ago() -> Instant {
        Instant::now().checked_sub(WAIT).unwrap()
    }

    #[test]
    fn who_never_asked_goes_first_then_who_has_not_asked_again() {
        let (idle, listener) = (Rc::<Idle>::default(), Arc::<Open>::default());
        let all: Vec<_> = (0..4).map(|_| idle.join(&listener)).collect();
        all[0].busy();
        all.iter().for_each(|one| assert!(!one.waits(long_ago(), &cx())));
        all[3].busy();
        let mut gone = Vec::new();
        while idle.evict(&listener) {
            gone.push((0..4).find(|at| all[*at].spot.leaves.get() && !gone.contains(at)).unwrap());
            // It keeps asking.
            all[3].busy();
            all[3].waits(Instant::now(), &cx());
        }
        assert_eq!(gone, [1, 2, 0]);
        assert!(all[1].waits(long_ago(), &cx()), "told when it looks");
    }

    #[test]
    fn listeners_do_not_pay_for_each_other_and_nobody_for_a_second() {
        let (idle, mine, other) = (Rc::<Idle>::default(), Arc::<Open>::default(), Arc::<Open>::default());
        let one = idle.join(&mine);
        one.waits(Instant::now(), &cx());
        assert!(!idle.evict(&mine) && !idle.evict(&other));
        one.waits(long_ago(), &cx());
        assert!(!idle.evict(&other) && idle.evict(&mine));
    }

    #[test]
    fn who_waits_on_another_thread_makes_room_for_who_was_refused() {
        let (idle, wanted, other) = (Rc::<Idle>::default(), Arc::<Open>::default(), Arc::<Open>::default());
        let (one, two) = (idle.join(&wanted), idle.join(&other));
        [&one, &two].into_iter().for_each(|each| assert!(!each.waits(long_ago(), &cx())));
        idle.make_room_for_others();
        assert!(!one.spot.leaves.get(), "nobody was refused");
        let limits = model::snapshot::Limits { connections: 1, ..Default::default() };
        wanted.enter(&limits, || false).unwrap();
        wanted.enter(&limits, || false).unwrap_err();
        idle.make_room_for_others();
        assert!(one.spot.leaves.get() && !two.spot.leaves.get());
    }

    #[test]
    fn who_is_gone_leaves_nothing() {
        let (idle, listener) = (Rc::<Idle>::default(), Arc::<Open>::default());
        let kept = idle.join(&listener);
        for _ in 0..10_000 {
            drop(idle.join(&listener));
        }
        assert!(idle.0.borrow()[&key(&listener)].turns.len() <= 3 + STALE);
        drop(kept);
        assert!(idle.0.borrow().is_empty());
    }
}
