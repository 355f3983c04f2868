//! Origins' names: resolved when first needed, again by TTL in the background; on failure the last answer stays.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::SystemTime;

use hickory_resolver::TokioResolver;
use model::name::HostName;
use tokio::time::{Duration, Instant};

/// Bounds on how long an answer is used before it is asked for again.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

/// After a failure.
const AGAIN: Duration = Duration::from_secs(5);

/// A name nobody asked for in this long is forgotten.
const FORGET: Duration = Duration::from_secs(600);

/// Where answers come from; tests have their own.
pub trait Lookup {
    /// All addresses of a name and how long they hold.
    fn lookup(&self, name: &HostName) -> impl Future<Output = Option<(Vec<IpAddr>, Duration)>>;
}

/// How long DNS may take: below the usual `connectTimeoutMs`, so that it is DNS that is named when it is silent.
const DNS: Duration = Duration::from_secs(3);

/// Of it, for one question to one server.
const ATTEMPT: Duration = Duration::from_millis(1400);

/// `/etc/hosts` and the system's resolver configuration.
pub struct System {
    hosts: String,
    resolver: Option<TokioResolver>,
}

impl System {
    /// Reads the system's configuration; without one every lookup fails, which status shows.
    pub fn new() -> Self {
        let built = TokioResolver::builder_tokio().and_then(|mut builder| {
            // Our own table decides what is kept and for how long.
            let options = builder.options_mut();
            options.cache_size = 0;
            options.timeout = ATTEMPT;
            builder.build()
        });
        if let Err(error) = &built {
            tracing::warn!(%error, "no resolver: origins given by name cannot be reached");
        }
        Self { hosts: std::fs::read_to_string("/etc/hosts").unwrap_or_default(), resolver: built.ok() }
    }
}

impl Default for System {
    fn default() -> Self {
        Self::new()
    }
}

impl Lookup for System {
    async fn lookup(&self, name: &HostName) -> Option<(Vec<IpAddr>, Duration)> {
        // One family in the file is an answer: the other is not waited for.
        let local = in_hosts(&self.hosts, name.as_str());
        if !local.is_empty() {
            return Some((local, LONGEST));
        }
        // The final dot keeps search domains out: an origin's name is complete.
        let found = tokio::time::timeout(DNS, self.resolver.as_ref()?.lookup_ip(format!("{name}."))).await;
        let found = found
            .inspect_err(|_elapsed| tracing::debug!(%name, "not resolved in time"))
            .ok()?
            .inspect_err(|error| tracing::debug!(%name, %error, "not resolved"))
            .ok()?;
        let hold = found.valid_until().saturating_duration_since(std::time::Instant::now());
        Some((found.iter().collect(), hold))
    }
}

/// The addresses of a name in hosts(5).
fn in_hosts(hosts: &str, name: &str) -> Vec<IpAddr> {
    let address = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|word| word.trim_end_matches('.').eq_ignore_ascii_case(name)).then_some(address)
    };
    hosts.lines().filter_map(address).collect()
}

/// What is known of a name.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its addresses, the families in turn; never empty.
    pub addresses: Rc<[IpAddr]>,
    /// Since when it could not be resolved again.
    pub stale_since: Option<SystemTime>,
    again: Instant,
    asked: Instant,
}

/// One thread's table of names.
pub struct Names<L> {
    lookup: L,
    known: RefCell<HashMap<HostName, Known>>,
}

impl<L: Lookup> Names<L> {
    /// An empty table.
    pub fn new(lookup: L) -> Self {
        Self { lookup, known: RefCell::default() }
    }

    /// A name's addresses: from the table at once, else by asking. Nothing where it was never resolved.
    pub async fn addresses(&self, name: &HostName, now: Instant) -> Option<Rc<[IpAddr]>> {
        if let Some(known) = self.known.borrow_mut().get_mut(name) {
            known.asked = now;
            return Some(Rc::clone(&known.addresses));
        }
        self.ask(name, now, now).await.map(|known| known.addresses)
    }

    /// Resolves again what is due. Called every second or so; answers the names it asked for.
    pub async fn refresh(&self, now: Instant) -> Vec<(HostName, Known)> {
        let due = {
            let mut known = self.known.borrow_mut();
            known.retain(|_, known| now.duration_since(known.asked) < FORGET);
            known
                .iter()
                .filter(|(_, known)| now >= known.again)
                .map(|(name, k)| (name.clone(), k.asked))
                .collect::<Vec<_>>()
        };
        let mut told = Vec::with_capacity(due.len());
        for (name, asked) in due {
            let known = self.ask(&name, asked, now).await;
            told.extend(known.map(|known| (name, known)));
        }
        told
    }

    /// What is known of a name, for reports.
    pub fn known(&self, name: &HostName) -> Option<Known> {
        self.known.borrow().get(name).cloned()
    }

    async fn ask(&self, name: &HostName, asked: Instant, now: Instant) -> Option<Known> {
        let answer = self.lookup.lookup(name).await.filter(|(addresses, _)| !addresses.is_empty());
        let mut table = self.known.borrow_mut();
        match (answer, table.get_mut(name)) {
            (Some((addresses, hold)), _) => {
                let again = now + hold.clamp(SHORTEST, LONGEST);
                let known = Known { addresses: interleave(addresses), stale_since: None, again, asked };
                table.insert(name.clone(), known.clone());
                Some(known)
            }
            (None, Some(known)) => {
                known.again = now + AGAIN;
                known.stale_since.get_or_insert_with(SystemTime::now);
                Some(known.clone())
            }
            (None, None) => None,
        }
    }
}

/// The families in turn, IPv6 first (RFC 8305, 4), the order within a family kept.
fn interleave(addresses: Vec<IpAddr>) -> Rc<[IpAddr]> {
    let (six, four): (Vec<_>, Vec<_>) = addresses.into_iter().partition(IpAddr::is_ipv6);
    let longer = six.len().max(four.len());
    (0..longer).flat_map(|at| [six.get(at), four.get(at)]).flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    struct Fake(Cell<Option<&'static str>>);

    impl Lookup for Rc<Fake> {
        async fn lookup(&self, _name: &HostName) -> Option<(Vec<IpAddr>, Duration)> {
            let address = self.0.get()?;
            Some((vec![address.parse().unwrap()], Duration::from_secs(30)))
        }
    }

    #[tokio::test]
    async fn names_are_resolved_again_by_ttl_and_the_last_answer_stays() {
        let fake = Rc::new(Fake(Cell::new(None)));
        let (names, name) = (Names::new(Rc::clone(&fake)), "origin.test".parse().unwrap());
        let mut now = Instant::now();
        let first = |addresses: Option<Rc<[IpAddr]>>| addresses.map(|addresses| addresses[0].to_string());
        assert_eq!(names.addresses(&name, now).await, None);
        fake.0.set(Some("192.0.2.1"));
        assert_eq!(first(names.addresses(&name, now).await).as_deref(), Some("192.0.2.1"));
        fake.0.set(Some("192.0.2.2"));
        assert!(names.refresh(now).await.is_empty(), "its TTL is not over");
        now += Duration::from_secs(31);
        assert_eq!(
            first(names.addresses(&name, now).await).as_deref(),
            Some("192.0.2.1"),
            "nobody waits for a refresh"
        );
        assert_eq!(names.refresh(now).await.len(), 1);
        assert_eq!(first(names.addresses(&name, now).await).as_deref(), Some("192.0.2.2"));
        fake.0.set(None);
        now += Duration::from_secs(31);
        names.refresh(now).await;
        assert_eq!(first(names.addresses(&name, now).await).as_deref(), Some("192.0.2.2"));
        assert!(names.known(&name).unwrap().stale_since.is_some());
        now += Duration::from_secs(601);
        names.refresh(now).await;
        assert!(names.known(&name).is_none(), "forgotten");
    }

    #[tokio::test]
    async fn one_family_in_the_hosts_file_is_enough_without_dns() {
        let hosts = "# origin.test\n192.0.2.7 shop Origin.test # ours\n2001:db8::7\tsix.test.\n".to_owned();
        let system = System { hosts, resolver: None };
        for (name, address) in [("origin.test", "192.0.2.7"), ("six.test", "2001:db8::7")] {
            let (addresses, _) = system.lookup(&name.parse().unwrap()).await.unwrap();
            assert_eq!(addresses, [address.parse::<IpAddr>().unwrap()]);
        }
        assert!(system.lookup(&"ours.test".parse().unwrap()).await.is_none());
    }

    #[test]
    fn families_take_turns() {
        let of = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let mixed = interleave(of(&["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1"]));
        assert_eq!(*mixed, *of(&["2001:db8::1", "192.0.2.1", "192.0.2.2", "192.0.2.3"]));
    }
}
