//! The worker's memory beside what the node may have.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::{Refusing, Steps, allocator};

/// Percent of the limit.
const USED: Steps<u64> = Steps { connections: 85, requests: 95 };
/// A step ends this much below where it begins, percent.
const ENDS: u64 = 5;

/// Between two looks: less than what it takes to fill what is left.
const LOOK: Duration = Duration::from_millis(100);
/// Between two attempts to give memory back, which hold up whoever allocates meanwhile.
const GIVE_BACK: Duration = Duration::from_secs(1);

/// See the module. Without a limit nothing is refused.
#[derive(Debug, Default)]
pub struct Memory {
    limit: Option<u64>,
    /// `/proc/self/status`, opened before the sandbox shut.
    file: Option<File>,
    used: AtomicU64,
    refusing: AtomicU8,
}

impl Memory {
    /// Of this process; to be made while it may still open files. `limit` in bytes.
    pub fn of_this_process(limit: Option<u64>) -> Self {
        let file = File::open("/proc/self/status");
        if let Err(error) = &file {
            tracing::warn!(%error, "the worker's memory is not watched");
        }
        Self { limit, file: file.ok(), ..Self::default() }
    }

    /// Looks for ever.
    pub async fn watch(self: Arc<Self>) {
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut given_back: Option<Instant> = None;
        loop {
            let now = tick.tick().await;
            self.measure();
            let due = given_back.is_none_or(|before| now.duration_since(before) >= GIVE_BACK);
            if self.refusing() > Refusing::Nothing && due {
                // What was given up under load stays with the allocator, and would be refused for when the load is gone.
                allocator::give_back();
                given_back = Some(now);
            }
        }
    }

    fn measure(&self) {
        if let Some(used) = self.file.as_ref().and_then(resident) {
            self.note(used);
        }
    }

    fn note(&self, used: u64) {
        self.used.store(used, Ordering::Relaxed);
        let Some(limit) = self.limit.filter(|limit| *limit > 0) else { return };
        let percent = used.saturating_mul(100) / limit;
        let next = USED.next(self.refusing(), percent, percent, |step| step - ENDS);
        self.refusing.store(next as u8, Ordering::Relaxed);
    }

    /// What is refused for it.
    pub fn refusing(&self) -> Refusing {
        self.refusing.load(Ordering::Relaxed).into()
    }

    /// Resident and not of files, bytes; 0 before the first look.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// What the node may have, bytes.
    pub fn limit(&self) -> Option<u64> {
        self.limit
    }

    pub(super) fn describe(&self) -> String {
        let mib = |bytes: u64| bytes >> 20;
        match self.limit {
            Some(limit) => format!("{} of {} MiB of memory used", mib(self.used()), mib(limit)),
            None => format!("{} MiB of memory used", mib(self.used())),
        }
    }
}

/// What the kernel could not take back (proc(5)): the program's own pages, which it could, are not counted.
fn resident(file: &File) -> Option<u64> {
    let mut text = [0; 4096];
    let length = file.read_at(&mut text, 0).ok()?;
    let text = std::str::from_utf8(text.get(..length)?).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_taken_and_left_by_percent() {
        use Refusing::{Connections, Nothing, Requests};
        let memory = Memory { limit: Some(1000), ..Memory::default() };
        for (used, refusing) in [
            (849, Nothing),
            (850, Connections),
            (801, Connections),
            (799, Nothing),
            (949, Connections),
            (950, Requests),
            (900, Requests),
            (899, Connections),
            (100, Nothing),
            (2000, Requests),
        ] {
            memory.note(used);
            assert_eq!(memory.refusing(), refusing, "{used}");
        }
    }

    #[test]
    fn without_a_limit_nothing_is_refused() {
        let memory = Memory::default();
        memory.note(u64::MAX);
        assert_eq!(memory.refusing(), Refusing::Nothing);
    }

    #[test]
    fn this_process_has_some() {
        let memory = Memory::of_this_process(None);
        memory.measure();
        assert!(memory.used() > 1 << 20, "{}", memory.used());
    }
}
