//! Login throttling, per address and per account, in bounded memory.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Failures that cost nothing.
const FREE: u32 = 5;
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(300);
/// Failures are forgotten after this.
const FORGOTTEN: Duration = Duration::from_secs(900);
/// Addresses and accounts remembered; the oldest failure goes first.
const REMEMBERED: usize = 4096;

/// Whose failures are counted. An IPv6 subscriber has a whole /64.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Address(IpAddr),
    Account(String),
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Failures {
    fn until(&self) -> Instant {
        let over = self.count.saturating_sub(FREE);
        // 1, 2, 4 ... seconds.
        let wait =
            if over == 0 { Duration::ZERO } else { Duration::from_secs(1 << (over - 1).min(9)).min(LONGEST) };
        self.last + wait
    }
}

/// Who failed lately.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<HashMap<Key, Failures>>);

fn keys(name: &str, from: IpAddr) -> [Key; 2] {
    let from = match from.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
        v4 => v4,
    };
    // Longer names are nobody's.
    [Key::Address(from), Key::Account(name.chars().take(64).collect())]
}

impl Throttle {
    /// How long this attempt must wait; nothing when it may go on.
    pub(super) fn wait(&self, name: &str, from: IpAddr, now: Instant) -> Option<Duration> {
        let failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let until = keys(name, from).iter().filter_map(|key| failures.get(key)).map(Failures::until).max()?;
        until.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// Counts a failure, before the password is looked at: attempts at once do not slip through.
    pub(super) fn failed(&self, name: &str, from: IpAddr, now: Instant) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failures.retain(|_, one| now.saturating_duration_since(one.last) < FORGOTTEN);
        for key in keys(name, from) {
            if failures.len() >= REMEMBERED
                && !failures.contains_key(&key)
                && let Some(oldest) =
                    failures.iter().min_by_key(|(_, one)| one.last).map(|(key, _)| key.clone())
            {
                failures.remove(&oldest);
            }
            let one = failures.entry(key).or_insert(Failures { count: 0, last: now });
            *one = Failures { count: one.count.saturating_add(1), last: now };
        }
    }

    /// Forgets both after a success.
    pub(super) fn succeeded(&self, name: &str, from: IpAddr) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for key in keys(name, from) {
            failures.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_are_free_then_waits_double_and_success_forgets() {
        let (throttle, now, from) = (Throttle::default(), Instant::now(), IpAddr::from([192, 0, 2, 1]));
        for _ in 0..FREE {
            assert_eq!(throttle.wait("ann", from, now), None);
            throttle.failed("ann", from, now);
        }
        assert_eq!(throttle.wait("ann", from, now), None);
        throttle.failed("ann", from, now);
        assert_eq!(throttle.wait("ann", from, now), Some(Duration::from_secs(1)));
        throttle.failed("ann", from, now);
        assert_eq!(throttle.wait("ann", from, now), Some(Duration::from_secs(2)));
        // The account waits from elsewhere too, and the address for other accounts.
        assert!(throttle.wait("ann", IpAddr::from([192, 0, 2, 2]), now).is_some());
        assert!(throttle.wait("bob", from, now).is_some());
        throttle.succeeded("ann", from);
        assert_eq!(throttle.wait("ann", from, now), None);
    }

    #[test]
    fn memory_is_bounded_and_an_ipv6_neighbour_is_the_same() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for n in 0..3 * REMEMBERED {
            throttle.failed(&format!("user{n}"), IpAddr::from([10, 0, (n >> 8) as u8, n as u8]), now);
        }
        assert!(throttle.0.lock().unwrap().len() <= REMEMBERED);
        let (one, two) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        let later = now + Duration::from_secs(1);
        for _ in 0..=FREE {
            throttle.failed("", one, later);
        }
        assert!(throttle.wait("x", two, later).is_some());
    }
}
