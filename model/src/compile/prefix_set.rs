//! `PrefixSet`, and the sets that need not be written.

use std::collections::{BTreeMap, BTreeSet};

use super::notes::{At, Names};
use super::origin::{INTERNAL, SYSTEM};
use crate::draft::{Kind, PrefixSetSpec, PrefixSourceSpec};
use crate::filter::{BOGONS, MOST_BYTES, MOST_PREFIXES, Source, bogons};
use crate::name::Name;
use crate::net::Prefix;
use crate::problem::Code;

/// The prefixes, sorted; none where the first list has yet to be fetched.
pub(super) fn lower(name: &Name, spec: &PrefixSetSpec, names: &Names, at: &mut At<'_>) -> Vec<Prefix> {
    if name.as_str() == BOGONS {
        let message = format!("{BOGONS} is the set that every console has; choose another name");
        at.problem("metadata.name", Code::Invalid, message);
    }
    if spec.prefixes.len() > MOST_PREFIXES {
        let message =
            format!("has {} prefixes, and {MOST_PREFIXES} are the most; split the set", spec.prefixes.len());
        at.problem("spec.prefixes", Code::Invalid, message);
        return Vec::new();
    }
    match &spec.source {
        Some(source) => self::source(source, names, at),
        None => {
            at.not_empty("spec.prefixes", &spec.prefixes, "prefix, such as 192.0.2.0/24 or 2001:db8::/32");
        }
    }
    at.prefixes("spec.prefixes", &spec.prefixes)
}

fn source(spec: &PrefixSourceSpec, names: &Names, at: &mut At<'_>) {
    let usual = Source::default();
    if let Err(why) = spec.url.parse::<crate::https_url::HttpsUrl>() {
        // Not repeated: what was meant as an address may have a password in it.
        at.problem("spec.source.url", Code::Invalid, format!("this cannot be fetched: {why}"));
    }
    if spec.key.as_deref().is_some_and(str::is_empty) {
        at.problem("spec.source.key", Code::Invalid, "is empty; name a key, or leave it out");
    }
    at.number("spec.source.intervalSeconds", spec.interval_seconds, usual.interval_seconds, 60..=604_800);
    at.number("spec.source.maxBytes", spec.max_bytes, usual.max_bytes, 1..=MOST_BYTES as u64);
    at.number("spec.source.maxShrinkPercent", spec.max_shrink_percent, usual.max_shrink_percent, 0..=100);
    if let Some(bundle) = spec.trust_bundle.as_deref().filter(|name| ![SYSTEM, INTERNAL].contains(name)) {
        let field = "spec.source.trustBundle";
        at.reference_or(field, Kind::TrustBundle, bundle, names, &[SYSTEM, INTERNAL]);
    }
}

/// What rules may name.
pub(super) struct Sets<'a> {
    pub(super) names: &'a Names,
    pub(super) known: &'a BTreeMap<Name, Vec<Prefix>>,
}

impl Sets<'_> {
    /// Whether one of the named sets waits for its first list.
    pub(super) fn wait(&self, texts: &[String]) -> bool {
        texts.iter().any(|text| self.known.get(text.as_str()).is_some_and(Vec::is_empty))
    }

    /// Adds the named sets' prefixes to a rule's own.
    pub(super) fn add(
        &self,
        rule: &str,
        field: &str,
        texts: &[String],
        own: Vec<Prefix>,
        at: &mut At<'_>,
    ) -> Vec<Prefix> {
        let mut all: BTreeSet<Prefix> = own.into_iter().collect();
        let mut seen = BTreeSet::new();
        for (index, text) in texts.iter().enumerate() {
            let field = format!("{field}[{index}]");
            if !seen.insert(text) {
                at.problem(field, Code::Duplicate, format!("{text} is in this list twice; remove one"));
            } else if text == BOGONS {
                all.extend(bogons());
            } else if self.names.goes(Kind::PrefixSet, text) {
                let message = format!(
                    "rule {rule} uses prefix set {text}, and this change removes it; take it out of the rule too, or keep the set"
                );
                at.problem(field, Code::UnknownReference, message);
            } else if let Some(name) = at.reference_or(field, Kind::PrefixSet, text, self.names, &[BOGONS]) {
                all.extend(self.known.get(&name).into_iter().flatten());
            }
        }
        all.into_iter().collect()
    }
}
