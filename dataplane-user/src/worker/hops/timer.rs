//! Deadlines without timer churn: a timer is armed once and looks at the deadline of the day when it fires. Requests
//! only move a number.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::Context;

use tokio::time::{Instant, Sleep, sleep_until};

/// Timers that wait for their next user, armed as they were left.
#[derive(Debug, Default)]
pub(crate) struct Timers(RefCell<Vec<Pin<Box<Sleep>>>>);

/// Timers kept for later users.
const MOST: usize = 1024;

impl Timers {
    /// A timer, given back when dropped.
    pub(crate) fn get(&self) -> Timer<'_> {
        Timer { timers: self, sleep: self.0.borrow_mut().pop() }
    }
}

/// One connection's or stream's timer.
#[derive(Debug)]
pub(crate) struct Timer<'a> {
    timers: &'a Timers,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer<'_> {
    /// Whether the deadline has passed; if not, the task is woken at or before it and asks again.
    pub(crate) fn poll_expired(&mut self, cx: &mut Context<'_>, deadline: Instant) -> bool {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if deadline < sleep.deadline() {
            sleep.as_mut().reset(deadline);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return true;
            }
            sleep.as_mut().reset(deadline);
        }
        false
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        let mut kept = self.timers.0.borrow_mut();
        if let Some(sleep) = self.sleep.take().filter(|_| kept.len() < MOST) {
            kept.push(sleep);
        }
    }
}
