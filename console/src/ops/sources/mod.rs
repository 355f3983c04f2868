//! Prefix sets whose lists are fetched: when, what became of it, and who may not be locked out by one.
//!
//! What is known of each source is in memory and in the store, so that a restart goes on where it was. The list itself is
//! in the set: a list that changed is a revision like any other.

mod state;
mod take;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use model::draft::{Kind, Object, PrefixSetSpec, PrefixSourceSpec, Spec};
use model::filter::Source;
use time::{Duration, OffsetDateTime};

pub use state::SourceState;

use super::{Actor, Ops, OpsError, Role, allowed};
use crate::clock;
use crate::fetch::Fetcher;
use crate::store::{SourceRow, Store, StoreError};

/// So many lists are fetched at once.
const AT_ONCE: usize = 4;
/// After the first failure; it doubles with each in a row, up to the source's interval.
const RETRY: Duration = Duration::seconds(60);
/// Who signed in within this time (a session's life) is not locked out by a list.
const PEOPLE: Duration = Duration::days(7);
/// Addresses of people that are remembered.
const MOST_PEOPLE: u32 = 256;

/// What is known of all sources.
#[derive(Debug)]
pub(crate) struct Sources {
    fetcher: Fetcher,
    known: Mutex<BTreeMap<String, Known>>,
    /// Where people's requests came from since the console started, and when the last one did.
    people: Mutex<BTreeMap<IpAddr, OffsetDateTime>>,
}

/// What is known of one source.
#[derive(Debug, Clone, Default)]
struct Known {
    row: SourceRow,
    /// It is being fetched.
    running: bool,
    /// Fetches, and failures by reason, since the console started.
    fetches: u64,
    failed: BTreeMap<&'static str, u64>,
}

impl Sources {
    pub(super) async fn load(store: &Store, fetcher: Fetcher) -> Result<Self, StoreError> {
        let rows = store.sources().await?;
        let known = rows.into_iter().map(|row| (row.name.clone(), Known { row, ..Known::default() }));
        Ok(Self { fetcher, known: Mutex::new(known.collect()), people: Mutex::default() })
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        // Whole values: nothing is half done after a panic.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A set of prefixes that are fetched, as it is in force.
#[derive(Debug, Clone)]
struct Set {
    object: Object,
    spec: PrefixSetSpec,
    source: PrefixSourceSpec,
}

impl Set {
    fn of(object: &Object) -> Option<Self> {
        let Spec::PrefixSet(spec) = &object.spec else { return None };
        Some(Self { object: object.clone(), spec: spec.clone(), source: spec.source.clone()? })
    }

    fn name(&self) -> &str {
        self.object.name()
    }

    /// What the store compares: another address, key or bound is another source.
    fn identity(&self) -> String {
        identity(&self.source)
    }
}

fn identity(source: &PrefixSourceSpec) -> String {
    serde_json::to_string(source).unwrap_or_default()
}

/// When a source is to be fetched next.
fn due(source: &PrefixSourceSpec, known: Option<&Known>, now: OffsetDateTime) -> OffsetDateTime {
    let Some(known) = known.filter(|known| known.row.source == identity(source)) else { return now };
    let tried = clock::from_ms(known.row.tried_ms);
    // The clock was set back: what is in the future was never tried.
    if tried > now {
        return now;
    }
    let interval = i64::try_from(Source::of(source).interval_seconds).unwrap_or(i64::MAX);
    let interval = Duration::seconds(interval);
    let doubled = u32::try_from(known.row.failures.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    match known.row.failures {
        0 => tried + interval,
        _ => tried + (RETRY * (1_i32 << doubled)).min(interval),
    }
}

impl Ops {
    /// The set, if its prefixes are fetched.
    fn fetched_set(&self, name: &str) -> Option<Set> {
        self.current().objects.get(&(Kind::PrefixSet, name.to_owned())).and_then(Set::of)
    }

    fn sources(&self) -> &Sources {
        &self.0.sources
    }

    /// A person's request came from here.
    pub(crate) fn saw(&self, address: IpAddr) {
        let now = clock::now();
        let mut people = self.sources().people.lock().unwrap_or_else(PoisonError::into_inner);
        if people.len() >= MOST_PEOPLE as usize && !people.contains_key(&address) {
            let oldest = people.iter().min_by_key(|(_, at)| **at).map(|(address, _)| *address);
            oldest.map(|address| people.remove(&address));
        }
        people.insert(address, now);
    }

    /// Addresses of people who may be signed in: lists may not lock them out.
    async fn people(&self) -> Result<Vec<IpAddr>, OpsError> {
        let since = clock::now() - PEOPLE;
        let stored = self.store().signed_in_from(clock::to_ms(since), MOST_PEOPLE).await?;
        let mut all: BTreeSet<IpAddr> = stored.iter().filter_map(|text| text.parse().ok()).collect();
        let seen = self.sources().people.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(seen.iter().filter(|(_, at)| **at >= since).map(|(address, _)| *address));
        Ok(all.into_iter().collect())
    }

    /// Fetches what is due, and forgets what is gone; the scheduler calls it every second.
    pub(crate) async fn fetch_due(&self, running: &mut tokio::task::JoinSet<()>) {
        while running.try_join_next().is_some() {}
        let (current, now) = (self.current(), clock::now());
        let first = (Kind::PrefixSet, String::new());
        let sets = current.objects.range(first..).take_while(|((kind, _), _)| *kind == Kind::PrefixSet);
        let sets: BTreeMap<&str, &PrefixSourceSpec> = sets
            .filter_map(|((_, name), object)| {
                let Spec::PrefixSet(spec) = &object.spec else { return None };
                Some((name.as_str(), spec.source.as_ref()?))
            })
            .collect();
        let (gone, ready) = {
            let known = self.sources().known();
            let gone: Vec<String> =
                known.keys().filter(|name| !sets.contains_key(name.as_str())).cloned().collect();
            let idle = |name: &str| known.get(name).is_none_or(|known| !known.running);
            let mut ready: Vec<(OffsetDateTime, String)> = sets
                .iter()
                .map(|(name, source)| (due(source, known.get(*name), now), (*name).to_owned()))
                .filter(|(at, name)| *at <= now && idle(name))
                .collect();
            ready.sort();
            (gone, ready)
        };
        for name in gone {
            if let Err(error) = self.store().remove_source(&name).await {
                tracing::warn!(%error, set = name, "what became of a source could not be forgotten");
                continue;
            }
            self.sources().known().remove(&name);
        }
        for (_, name) in ready.into_iter().take(AT_ONCE.saturating_sub(running.len())) {
            let ops = self.clone();
            running.spawn(async move {
                match ops.fetch(&name, None).await {
                    Ok(outcome) => tracing::info!(set = name, %outcome, "prefix set fetched"),
                    Err(error) => tracing::warn!(set = name, %error, "prefix set not fetched"),
                }
            });
        }
    }

    /// Fetches a set's list now, whatever is known of it. `confirm` takes one that would be kept back.
    ///
    /// # Errors
    /// When there is no such set, its list is not fetched from anywhere, it is being fetched already, or the actor may not.
    /// That it could not be fetched is in the state.
    pub async fn fetch_now(&self, name: &str, confirm: bool, actor: &Actor) -> Result<SourceState, OpsError> {
        allowed(actor, Role::Operator)?;
        let Some(set) = self.fetched_set(name) else {
            let there = self.get(Kind::PrefixSet, name).await?.is_some();
            return Err(OpsError::NotFound(match there {
                true => format!("the prefixes of {name} are not fetched from anywhere; set spec.source.url"),
                false => format!("there is no prefix set named {name}"),
            }));
        };
        self.fetch(name, Some((actor, confirm))).await?;
        let state = self.state_of(&set);
        Ok(self.source_state(name).unwrap_or(state))
    }
}
