//! Who is sending: takes the kernel's sums every few seconds, keeps an hour of them, and tells the worker for the console.
//!
//! - [`hour`]: the bounded record; pure.
//! - [`gate`]: how many packets are looked at; pure.
//! - `written`: the record over a restart.

mod gate;
mod hour;
#[cfg(test)]
mod tests;
mod written;

use std::time::{SystemTime, UNIX_EPOCH};

use model::senders::Senders;

use super::kernel::{Kernel, KernelError, monotonic_ms};
use super::run::Keeper;
use super::supervise::WorkerNumber;
use crate::handover::ToWorker;
use hour::Hour;

/// Between two takings, milliseconds.
const TAKE: i64 = 5_000;
/// Between two tellings where something came, milliseconds.
const TELL: i64 = 10_000;
/// Where nothing came.
const TELL_IDLE: i64 = 60_000;
/// Between two writings, milliseconds.
const WRITE: i64 = 60_000;

/// The keeper's part.
#[derive(Debug, Default)]
pub(super) struct Sending {
    hour: Hour,
    /// When the rate was measured last, and what waited then.
    measured: Option<(i64, u64)>,
    taken: Option<i64>,
    /// The largest n since: what a flood left in the kernel is worth that much, also when it is over before it is taken.
    busiest: u32,
    /// When which worker was told.
    told: Option<(i64, WorkerNumber)>,
    written: i64,
    /// Something came since it was told, or written.
    news: (bool, bool),
    /// There is a filter that samples.
    on: bool,
}

impl Sending {
    /// Measures, sets how many packets are looked at, and takes what it is time for.
    fn look(&mut self, kernel: &mut dyn Kernel, now: i64) -> Result<(), KernelError> {
        let Some((shift, waiting)) = kernel.sampling()? else {
            self.on = false;
            return Ok(());
        };
        self.on = true;
        self.busiest = self.busiest.max(shift);
        let (since, before) = self.measured.unwrap_or((now, waiting));
        if let Some(per_second) = rate(waiting.saturating_sub(before), now - since) {
            kernel.set_sampling(gate::shift(shift, per_second))?;
        }
        self.measured = Some((now, waiting));
        if self.taken.is_none_or(|taken| now - taken >= TAKE) {
            let taken = kernel.take_senders()?;
            let came = taken.sampled != 0 || !taken.senders.is_empty();
            self.news = (self.news.0 || came, self.news.1 || came);
            self.hour.add(now, std::mem::take(&mut self.busiest), &taken);
            (self.taken, self.measured) = (Some(now), Some((now, 0)));
        }
        Ok(())
    }

    /// The record for a worker, when it is time to tell it.
    fn due(&mut self, now: i64, worker: WorkerNumber) -> Option<Senders> {
        let patience = if self.news.0 { TELL } else { TELL_IDLE };
        let due = self.told.is_none_or(|(at, told)| told != worker || now - at >= patience);
        if !self.on || !due {
            return None;
        }
        (self.told, self.news.0) = (Some((now, worker)), false);
        Some(self.hour.record(now, wall() - now))
    }
}

/// In a second; nothing where there was no time in between.
fn rate(packets: u64, millis: i64) -> Option<u64> {
    let millis = u64::try_from(millis).ok().filter(|millis| *millis >= 100)?;
    Some(u64::try_from(u128::from(packets) * 1000 / u128::from(millis)).unwrap_or(u64::MAX))
}

/// Milliseconds since the Unix epoch.
fn wall() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl Keeper {
    /// Once a second.
    pub(super) async fn follow_senders(&mut self) {
        let now = monotonic_ms();
        if let Err(error) = self.sending.look(&mut *self.kernel, now) {
            tracing::debug!(%error, "who is sending");
        }
        if self.sending.news.1 && now - self.sending.written >= WRITE {
            self.write_senders();
        }
        let Some(number) = self.current else { return };
        if let Some(senders) = self.sending.due(now, number) {
            self.say(number, &ToWorker::Senders(Box::new(senders)), &[]).await;
        }
    }
}
