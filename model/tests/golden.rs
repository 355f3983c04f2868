//! Compile, told by example: each file of `golden/good` and `golden/bad` has objects as people write them; beside it, in
//! `snapshots/`, stands what comes out: the node's snapshot, or every problem.
//!
//! `"@shop.pem"` in a file stands for `golden/pem/shop.pem`; `apiVersion` is filled in where it is left out.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use model::certificate::Facts;
use model::compile::{Input, compile};
use model::draft::{self, API_VERSION, Object};
use model::problem::Problem;
use model::snapshot::{Snapshot, SnapshotId};
use serde::Deserialize;
use serde_json::Value;
use time::macros::datetime;

/// One file.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Case {
    /// What the case is about, for readers.
    #[expect(dead_code, reason = "read by people, kept in the file beside what it explains")]
    about: String,
    /// The labels of the node whose snapshot is shown.
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// PEM files whose private keys the console lacks.
    #[serde(default)]
    missing_keys: BTreeSet<String>,
    /// Objects that went, as Kind/name.
    #[serde(default)]
    removed: BTreeSet<String>,
    objects: Vec<Value>,
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn pems() -> BTreeMap<String, String> {
    let files = fs::read_dir(golden().join("pem")).unwrap().map(|entry| entry.unwrap());
    files
        .map(|file| (file.file_name().into_string().unwrap(), fs::read_to_string(file.path()).unwrap()))
        .collect()
}

fn cases(folder: &str) -> Vec<(String, String)> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(golden().join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    let name = |file: &PathBuf| format!("{folder}_{}", file.file_stem().unwrap().to_str().unwrap());
    files.iter().map(|file| (name(file), fs::read_to_string(file).unwrap())).collect()
}

/// Replaces `@name.pem`, or the other way round.
fn each_text(value: &mut Value, change: &impl Fn(&str) -> Option<String>) {
    match value {
        Value::String(text) => {
            if let Some(changed) = change(text) {
                *text = changed;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| each_text(item, change)),
        Value::Object(fields) => fields.values_mut().for_each(|field| each_text(field, change)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn run(text: &str) -> Result<Snapshot, Vec<Problem>> {
    let mut case: Case = serde_json::from_str(text).unwrap();
    let pems = pems();
    let mut objects: Vec<Object> = Vec::new();
    let mut problems = Vec::new();
    for document in &mut case.objects {
        each_text(document, &|text| pems.get(text.strip_prefix('@')?).cloned());
        if let Value::Object(fields) = document {
            fields.entry("apiVersion").or_insert_with(|| API_VERSION.into());
        }
        match draft::parse(&*document) {
            Ok(object) => objects.push(object),
            Err(found) => problems.extend(found),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let kept = pems.iter().filter(|(name, _)| !case.missing_keys.contains(*name));
    let keys = kept.filter_map(|(_, pem)| Facts::of_chain(pem).ok()).map(|facts| facts.key).collect();
    let rule_ids = rule_ids(&objects);
    let parts = case.removed.iter().map(|label| label.split_once('/').unwrap());
    let removed = parts.map(|(kind, name)| (kind.parse().unwrap(), name.to_owned())).collect();
    let input = Input {
        objects: &objects,
        keys: &keys,
        internal_ca: &pems["ca.pem"],
        rule_ids: &rule_ids,
        removed: &removed,
        refused: &BTreeSet::new(),
        now: datetime!(2026-06-01 00:00 UTC),
    };
    let compiled = compile(input)?;
    let node = "edge-1".parse().unwrap();
    Ok(compiled.snapshot_for(&node, &case.labels, SnapshotId { epoch: 1, revision: 7 }))
}

/// As the console does: every rule has a number.
fn rule_ids(objects: &[Object]) -> BTreeMap<String, u32> {
    let mut names = Vec::new();
    for object in objects {
        if let draft::Spec::PacketFilter(spec) = &object.spec {
            names.extend(spec.counted(object.name()));
        }
    }
    names.into_iter().zip(1..).collect()
}

#[test]
fn good_drafts_become_snapshots() {
    for (name, text) in cases("good") {
        let snapshot = run(&text).unwrap_or_else(|problems| panic!("{name}: {problems:#?}"));
        let canonical = snapshot.to_canonical_json().unwrap();
        assert_eq!(Snapshot::from_verified_json(&canonical).unwrap(), snapshot, "{name}");
        let mut shown = serde_json::to_value(&snapshot).unwrap();
        let pems = pems();
        let short =
            |text: &str| pems.iter().find(|(_, pem)| *pem == text).map(|(name, _)| format!("@{name}"));
        each_text(&mut shown, &short);
        insta::assert_snapshot!(name, serde_json::to_string_pretty(&shown).unwrap());
    }
}

#[test]
fn bad_drafts_say_every_problem() {
    for (name, text) in cases("bad") {
        let problems = run(&text).expect_err(&name);
        let lines: Vec<String> = problems
            .iter()
            .map(|problem| {
                let code = serde_json::to_value(problem.code).unwrap();
                format!(
                    "{} {}\n    {}: {}",
                    problem.object,
                    problem.field,
                    code.as_str().unwrap(),
                    problem.message
                )
            })
            .collect();
        insta::assert_snapshot!(name, lines.join("\n"));
    }
}
