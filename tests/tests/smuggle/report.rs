//! The result as a table for `docs/conformance.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::Run;
use super::corpus::Case;

/// Markdown: how many cases of each group there are, then a row for each origin.
pub(crate) fn table(runs: &[Run], corpora: &[(&str, &[Case])]) -> String {
    let mut out =
        String::from("| origin | corpus | refused | carried alike | deviations |\n|---|---|---|---|---|\n");
    for run in runs {
        let deviations = run.known.len() + run.wrong.len();
        let (Run { title, corpus, refused, carried, .. }, deviations) = (run, deviations);
        let _ = writeln!(out, "| {title} | {corpus} | {refused} | {carried} | {deviations} |");
    }
    let known: BTreeSet<&String> = runs.iter().flat_map(|run| &run.known).collect();
    out.push_str("\nThe same known deviations at every origin that has some:\n\n");
    for one in known {
        let _ = writeln!(out, "- {one}");
    }
    out.push('\n');
    for (corpus, cases) in corpora {
        let mut groups: BTreeMap<&str, usize> = BTreeMap::new();
        for case in *cases {
            *groups.entry(case.group()).or_default() += 1;
        }
        let groups: Vec<String> = groups.iter().map(|(group, cases)| format!("`{group}` {cases}")).collect();
        let _ = writeln!(out, "Cases, {corpus} ({}): {}.", cases.len(), groups.join(", "));
    }
    out
}
