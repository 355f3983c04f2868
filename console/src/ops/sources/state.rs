//! What became of fetching a list, for pages, the API and metrics.

use std::collections::BTreeMap;

use model::draft::Kind;
use serde::Serialize;
use time::OffsetDateTime;

use super::{Known, Set, due, take};
use crate::clock;
use crate::ops::{Need, Ops, Severity};

/// What became of fetching a prefix set's list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceState {
    /// The set.
    pub set: String,
    /// Where its list is fetched from.
    pub url: String,
    /// Prefixes in force; 0 before the first list.
    pub prefixes: usize,
    /// When the origin last had the list that was taken; absent before the first.
    #[serde(with = "crate::clock::rfc3339::option")]
    pub current_at: Option<OffsetDateTime>,
    /// When the origin was last asked.
    #[serde(with = "crate::clock::rfc3339::option")]
    pub tried_at: Option<OffsetDateTime>,
    /// When it is asked next.
    #[serde(with = "crate::clock::rfc3339")]
    pub next_at: OffsetDateTime,
    /// It is being fetched.
    pub running: bool,
    /// The list in force is another than was taken last: somebody replaced it, or rolled back.
    pub replaced: bool,
    /// Failures in a row; 0 when the last fetch was good.
    pub failures: u64,
    /// Why the last fetch changed nothing: a word of a closed list (`docs/packet-filter.md`); absent when it was good.
    pub reason: Option<String>,
    /// The same in a sentence.
    pub problem: Option<String>,
    /// Whether `confirm` would take the list that was kept back.
    pub confirmable: bool,
    /// Fetches since the console started.
    pub fetches: u64,
    /// Failures since the console started, by reason.
    pub failed: BTreeMap<&'static str, u64>,
}

impl SourceState {
    /// How old the list is, seconds: since the origin last had it.
    pub fn age_seconds(&self, now: OffsetDateTime) -> Option<i64> {
        self.current_at.map(|at| (now - at).whole_seconds().max(0))
    }
}

impl Ops {
    /// What became of fetching a set's list; nothing for a set whose prefixes are not fetched.
    pub fn source_state(&self, name: &str) -> Option<SourceState> {
        self.fetched_set(name).map(|set| self.state_of(&set))
    }

    /// The same of all sets whose prefixes are fetched, by name.
    pub fn source_states(&self) -> Vec<SourceState> {
        let current = self.current();
        let objects = current.objects.range((Kind::PrefixSet, String::new())..);
        let sets = objects.take_while(|((kind, _), _)| *kind == Kind::PrefixSet);
        sets.filter_map(|(_, object)| Set::of(object)).map(|set| self.state_of(&set)).collect()
    }

    pub(super) fn state_of(&self, set: &Set) -> SourceState {
        let now = clock::now();
        let all = self.sources().known();
        let any = all.get(set.name());
        // Of another source there is nothing to say but that this one is being fetched.
        let known = any.filter(|known| known.row.source == set.identity());
        let row = known.map(|known| known.row.clone()).unwrap_or_default();
        let taken = |digest: &String| *digest != take::digest(&set.spec.prefixes);
        SourceState {
            set: set.name().to_owned(),
            url: set.source.url.clone(),
            prefixes: set.spec.prefixes.len(),
            current_at: row.current_ms.map(clock::from_ms),
            tried_at: known.map(|known| clock::from_ms(known.row.tried_ms)),
            next_at: due(&set.source, any, now),
            running: any.is_some_and(|known| known.running),
            replaced: row.digest.as_ref().is_some_and(taken),
            failures: row.failures,
            confirmable: row.reason.as_deref().is_some_and(|reason| take::CONFIRMABLE.contains(&reason)),
            reason: row.reason,
            problem: row.problem,
            fetches: any.map_or(0, |known| known.fetches),
            failed: any.map(|known: &Known| known.failed.clone()).unwrap_or_default(),
        }
    }

    /// Sources that somebody should look at.
    pub(crate) fn sources_need(&self, needs: &mut Vec<Need>) {
        for state in self.source_states() {
            let link = format!("/prefix-sets/{}", state.set);
            let (severity, message) = match (&state.problem, state.prefixes, state.replaced) {
                (Some(problem), 0, _) => (
                    Severity::Bad,
                    format!(
                        "Prefix set {} has no list yet, so rules that let it in are not in force ({problem})",
                        state.set
                    ),
                ),
                (Some(problem), ..) => {
                    (Severity::Warning, format!("Prefix set {} stays as it is ({problem})", state.set))
                }
                (None, _, true) => (
                    Severity::Note,
                    format!(
                        "Prefix set {} has another list than was fetched last; it stays until the origin has a new one",
                        state.set
                    ),
                ),
                (None, _, false) => continue,
            };
            needs.push(Need { severity, message, link });
        }
    }
}
