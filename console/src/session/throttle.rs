//! Login throttling in bounded memory.
//!
//! Failures are counted by where they come from, never by account alone: nobody can keep an account waiting from another
//! address. What a botnet may try is bounded by [`super::password`], which checks two passwords at once.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(300);
/// Failures are forgotten after this.
const FORGOTTEN: Duration = Duration::from_secs(900);
/// Sources remembered. When there are more, whoever failed least goes first: to get rid of his own entry an attacker needs as
/// many other addresses, each with as many failures.
const REMEMBERED: usize = 4096;

/// Where failures come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    /// An address with one account; a success forgets it.
    Account(IpAddr, String),
    /// An address with all accounts. An IPv6 subscriber has a whole /64.
    Address(IpAddr),
    /// An IPv6 site, a /48: it can have 65,536 of the above.
    Site(u64),
}

impl Key {
    /// Failures that cost nothing.
    fn free(&self) -> u32 {
        match self {
            Self::Account(..) => 5,
            Self::Address(_) => 20,
            Self::Site(_) => 100,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Failures {
    fn until(&self, free: u32) -> Instant {
        let over = self.count.saturating_sub(free);
        // 1, 2, 4 ... seconds.
        let wait =
            if over == 0 { Duration::ZERO } else { Duration::from_secs(1 << (over - 1).min(9)).min(LONGEST) };
        self.last + wait
    }
}

/// Who failed lately.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<HashMap<Key, Failures>>);

/// The address as it is counted.
fn source(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
        v4 => v4,
    }
}

fn keys(name: &str, from: IpAddr) -> Vec<Key> {
    let from = source(from);
    // Longer names are nobody's.
    let mut keys = vec![Key::Account(from, name.chars().take(64).collect()), Key::Address(from)];
    if let IpAddr::V6(v6) = from {
        keys.push(Key::Site(u64::try_from(v6.to_bits() >> 80).unwrap_or(u64::MAX)));
    }
    keys
}

impl Throttle {
    /// Counts an attempt as a failure until [`Throttle::succeeded`], before the password is looked at: attempts at once do
    /// not slip through.
    ///
    /// # Errors
    /// How long to wait; then nothing is counted.
    pub(super) fn attempt(&self, name: &str, from: IpAddr, now: Instant) -> Result<(), Duration> {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failures.retain(|_, one| now.saturating_duration_since(one.last) < FORGOTTEN);
        let keys = keys(name, from);
        let until = keys.iter().filter_map(|key| Some(failures.get(key)?.until(key.free()))).max();
        let left = until.and_then(|until| until.checked_duration_since(now)).filter(|left| !left.is_zero());
        if let Some(left) = left {
            return Err(left);
        }
        for key in keys {
            if failures.len() >= REMEMBERED
                && !failures.contains_key(&key)
                && let Some(least) =
                    failures.iter().min_by_key(|(_, one)| (one.count, one.last)).map(|(key, _)| key.clone())
            {
                failures.remove(&least);
            }
            let one = failures.entry(key).or_insert(Failures { count: 0, last: now });
            *one = Failures { count: one.count.saturating_add(1), last: now };
        }
        Ok(())
    }

    /// Forgets the failures with this account, and takes this attempt back from the others: somebody who knows one password
    /// gets no more guesses at another.
    pub(super) fn succeeded(&self, name: &str, from: IpAddr) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for key in keys(name, from) {
            match &key {
                Key::Account(..) => {
                    failures.remove(&key);
                }
                Key::Address(_) | Key::Site(_) => {
                    if let Some(one) = failures.get_mut(&key) {
                        one.count = one.count.saturating_sub(1);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(n: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 + n).to_be_bytes())
    }

    #[test]
    fn five_are_free_then_waits_double_and_success_forgets() {
        let (throttle, now, from) = (Throttle::default(), Instant::now(), v4(1));
        for _ in 0..6 {
            assert_eq!(throttle.attempt("ann", from, now), Ok(()));
        }
        assert_eq!(throttle.attempt("ann", from, now), Err(Duration::from_secs(1)));
        let later = now + Duration::from_secs(1);
        assert_eq!(throttle.attempt("ann", from, later), Ok(()));
        assert_eq!(throttle.attempt("ann", from, later), Err(Duration::from_secs(2)));
        throttle.succeeded("ann", from);
        assert_eq!(throttle.attempt("ann", from, later), Ok(()));
    }

    #[test]
    fn nobody_waits_for_what_another_address_did() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for n in 0..2000 {
            let _waits = throttle.attempt("ann", v4(n % 200), now);
        }
        assert_eq!(throttle.attempt("ann", v4(9999), now), Ok(()));
    }

    #[test]
    fn an_address_waits_whatever_accounts_it_tries_and_one_right_password_is_no_pardon() {
        let (throttle, now, from) = (Throttle::default(), Instant::now(), v4(1));
        for n in 0..20 {
            assert_eq!(throttle.attempt(&format!("user{n}"), from, now), Ok(()));
            assert_eq!(throttle.attempt("mine", from, now), Ok(()));
            throttle.succeeded("mine", from);
        }
        assert_eq!(throttle.attempt("one more", from, now), Ok(()));
        assert!(throttle.attempt("another", from, now).is_err());
        assert!(throttle.attempt("mine", from, now).is_err());
    }

    #[test]
    fn memory_is_bounded_and_cannot_be_flushed_by_many_addresses() {
        let (throttle, now, from) = (Throttle::default(), Instant::now(), v4(1));
        while throttle.attempt("ann", from, now).is_ok() {}
        for n in 2..3 * REMEMBERED as u32 {
            let _waits = throttle.attempt(&format!("user{n}"), v4(n), now + Duration::from_millis(1));
        }
        assert!(throttle.0.lock().unwrap().len() <= REMEMBERED);
        assert!(throttle.attempt("ann", from, now).is_err(), "still remembered");
    }

    #[test]
    fn an_ipv6_neighbour_is_the_same_and_a_site_counts_as_well() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        let (one, two) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        for _ in 0..6 {
            assert_eq!(throttle.attempt("ann", one, now), Ok(()));
        }
        assert!(throttle.attempt("ann", two, now).is_err());
        let subnet = |n: u128| IpAddr::from((0x2001_0db8_0001_u128 << 80 | n << 64).to_be_bytes());
        let tried = (0..1000).take_while(|n| throttle.attempt("ann", subnet(*n), now).is_ok()).count();
        assert_eq!(tried, 101);
    }
}
