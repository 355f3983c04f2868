//! Handshakes of a thread take turns: one does its work, then whatever else is ready does, then the next handshake. So a
//! flood of them delays other handshakes and nothing else, and the line's length says how much too much there is.

use std::cell::Cell;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// A wait for a turn from which no more connections are taken, and the one from which they are again. A client takes a
/// connection that says nothing for a second for lost.
const LONG: Duration = Duration::from_secs(1);
const SHORT: Duration = Duration::from_millis(250);

/// Handshakes in line, whatever they wait: each holds what its client sent.
const MOST: usize = 1024;

/// See the module.
#[derive(Debug)]
pub struct Line {
    turns: Semaphore,
    waiting: Cell<usize>,
    long: Cell<bool>,
}

impl Default for Line {
    fn default() -> Self {
        Self { turns: Semaphore::new(1), waiting: Cell::new(0), long: Cell::new(false) }
    }
}

/// A turn: to be ended with [`Turn::end`].
#[derive(Debug)]
pub struct Turn<'a>(Option<SemaphorePermit<'a>>);

impl Line {
    /// Waits for a turn.
    pub async fn turn(&self) -> Turn<'_> {
        if let Ok(turn) = self.turns.try_acquire() {
            self.waited(Duration::ZERO);
            return Turn(Some(turn));
        }
        let place = Place::take(&self.waiting);
        let since = Instant::now();
        // Nobody closes it.
        let turn = self.turns.acquire().await.ok();
        drop(place);
        self.waited(since.elapsed());
        Turn(turn)
    }

    /// Handshakes that wait for their turn.
    pub fn waiting(&self) -> usize {
        self.waiting.get()
    }

    /// Whether it is so long that nobody more is to join. One in which nobody waits never is: what was seen of it last would
    /// hold for ever, because who is not let in takes no turn from which it could be seen again.
    pub fn is_long(&self) -> bool {
        match self.waiting.get() {
            0 => false,
            waiting => self.long.get() || waiting >= MOST,
        }
    }

    fn waited(&self, time: Duration) {
        let long = if self.long.get() { time > SHORT && self.waiting.get() > 0 } else { time >= LONG };
        self.long.set(long);
    }
}

impl Turn<'_> {
    /// Lets everything else that is ready have its turn, what the sockets have for it too, before the next handshake.
    pub async fn end(self) {
        tokio::task::yield_now().await;
        drop(self.0);
    }
}

/// A place in the line, given up when dropped.
struct Place<'a>(&'a Cell<usize>);

impl<'a> Place<'a> {
    fn take(waiting: &'a Cell<usize>) -> Self {
        waiting.set(waiting.get() + 1);
        Self(waiting)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[tokio::test]
    async fn others_run_between_two_turns() {
        let local = tokio::task::LocalSet::new();
        let (line, order) = (Rc::new(Line::default()), Rc::new(Cell::new(0_u32)));
        local
            .run_until(async {
                for _ in 0..10 {
                    let (line, order) = (Rc::clone(&line), Rc::clone(&order));
                    tokio::task::spawn_local(async move {
                        let turn = line.turn().await;
                        order.set(order.get() + 1);
                        turn.end().await;
                    });
                }
                // Each time this is ready, one handshake more has been served, not all that wait.
                let mut seen = Vec::new();
                while order.get() < 10 {
                    tokio::task::yield_now().await;
                    seen.push(order.get());
                }
                assert!(seen.windows(2).all(|pair| pair[1] - pair[0] <= 1), "{seen:?}");
                assert!(line.waiting() == 0 && !line.is_long());
            })
            .await;
    }

    #[tokio::test]
    async fn who_gives_up_leaves_the_line() {
        let line = Line::default();
        let turn = line.turn().await;
        let waited = tokio::time::timeout(Duration::from_millis(20), line.turn()).await;
        assert!(waited.is_err() && line.waiting() == 0);
        turn.end().await;
        line.turn().await.end().await;
    }

    #[test]
    fn a_line_that_everybody_left_is_not_long() {
        let line = Line::default();
        // The last one in it is the first that waited so long: nobody is behind it who would see that it is short.
        line.waited(LONG);
        assert!(!line.is_long());
        // Those behind one that waited so long give up before it is their turn.
        line.waiting.set(2);
        line.waited(LONG);
        assert!(line.is_long());
        line.waiting.set(0);
        assert!(!line.is_long());
    }

    #[test]
    fn a_line_is_long_by_time_until_it_is_short_again() {
        let line = Line::default();
        line.waiting.set(5);
        for (waited, long) in [(999, false), (1000, true), (500, true), (250, false), (500, false)] {
            line.waited(Duration::from_millis(waited));
            assert_eq!(line.is_long(), long, "{waited}");
        }
        line.waited(LONG);
        line.waiting.set(0);
        line.waited(Duration::from_millis(900));
        assert!(!line.is_long(), "nobody waits any more");
    }

    #[test]
    fn a_line_is_long_by_number() {
        let line = Line::default();
        line.waiting.set(MOST);
        assert!(line.is_long());
    }
}
