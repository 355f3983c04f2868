//! `PrefixSet`, and the sets that need not be written.

use std::collections::{BTreeMap, BTreeSet};

use super::notes::{At, Names};
use crate::draft::{Kind, PrefixSetSpec};
use crate::filter::{BOGONS, MOST_PREFIXES, bogons};
use crate::name::Name;
use crate::net::Prefix;
use crate::problem::Code;

/// The prefixes, sorted.
pub(super) fn lower(name: &Name, spec: &PrefixSetSpec, at: &mut At<'_>) -> Vec<Prefix> {
    if name.as_str() == BOGONS {
        let message = format!("{BOGONS} is the set that every console has; choose another name");
        at.problem("metadata.name", Code::Conflict, message);
    }
    if spec.prefixes.len() > MOST_PREFIXES {
        let message =
            format!("has {} prefixes, and {MOST_PREFIXES} are the most; split the set", spec.prefixes.len());
        at.problem("spec.prefixes", Code::Invalid, message);
        return Vec::new();
    }
    at.not_empty("spec.prefixes", &spec.prefixes, "prefix, such as 192.0.2.0/24 or 2001:db8::/32");
    at.prefixes("spec.prefixes", &spec.prefixes)
}

/// What rules may name.
pub(super) struct Sets<'a> {
    pub(super) names: &'a Names,
    pub(super) known: &'a BTreeMap<Name, Vec<Prefix>>,
}

impl Sets<'_> {
    /// Adds the named sets' prefixes to a rule's own.
    pub(super) fn add(
        &self,
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
            } else if let Some(name) = at.reference_or(field, Kind::PrefixSet, text, self.names, &[BOGONS]) {
                all.extend(self.known.get(&name).into_iter().flatten());
            }
        }
        all.into_iter().collect()
    }
}
