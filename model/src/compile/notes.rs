//! How the compiler notes problems: where it is, what is known by name, and the sentences that recur.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::draft::{Kind, NodeSelector};
use crate::name::Name;
use crate::nearest::did_you_mean;
use crate::net::Prefix;
use crate::problem::{Code, Problem};

/// From this many problems on, unknown references are no longer compared with all names.
const MOST_COMPARED: usize = 30;

/// The names of all objects, whether or not they turn out right: a reference to a wrong object is no second problem.
#[derive(Debug)]
pub(super) struct Names {
    names: BTreeMap<Kind, BTreeSet<Name>>,
    removed: BTreeSet<(Kind, String)>,
    refused: BTreeSet<(Kind, String)>,
}

impl Names {
    pub(super) fn of<'a>(
        objects: impl Iterator<Item = (Kind, &'a Name)>,
        removed: &BTreeSet<(Kind, String)>,
        refused: &BTreeSet<(Kind, String)>,
    ) -> Self {
        let mut names: BTreeMap<Kind, BTreeSet<Name>> = BTreeMap::new();
        for (kind, name) in objects {
            names.entry(kind).or_default().insert(name.clone());
        }
        Self { names, removed: removed.clone(), refused: refused.clone() }
    }

    pub(super) fn all(&self, kind: Kind) -> impl Iterator<Item = &Name> {
        self.names.get(&kind).into_iter().flatten()
    }

    fn get(&self, kind: Kind, name: &str) -> Option<&Name> {
        self.names.get(&kind)?.get(name)
    }

    /// Whether there was one of this name, and it goes with this change.
    pub(super) fn goes(&self, kind: Kind, name: &str) -> bool {
        self.get(kind, name).is_none() && self.removed.contains(&(kind, name.to_owned()))
    }
}

/// One object under examination.
pub(super) struct At<'p> {
    problems: &'p mut Vec<Problem>,
    object: String,
}

impl<'p> At<'p> {
    pub(super) fn new(problems: &'p mut Vec<Problem>, object: String) -> Self {
        Self { problems, object }
    }

    pub(super) fn object(&self) -> &str {
        &self.object
    }

    /// How many problems were noted so far, of all objects.
    pub(super) fn count(&self) -> usize {
        self.problems.len()
    }

    pub(super) fn problem(&mut self, field: impl Into<String>, code: Code, message: impl Into<String>) {
        self.problems.push(Problem::new(&*self.object, field, code, message));
    }

    /// A value in its type's text form.
    pub(super) fn parse<T: FromStr<Err: Display>>(
        &mut self,
        field: impl Into<String>,
        text: &str,
    ) -> Option<T> {
        match text.parse() {
            Ok(value) => Some(value),
            Err(why) => {
                self.problem(field, Code::Invalid, format!("{} is not valid: {why}", shown(text)));
                None
            }
        }
    }

    /// The name of an existing object.
    pub(super) fn reference(
        &mut self,
        field: impl Into<String>,
        kind: Kind,
        text: &str,
        names: &Names,
    ) -> Option<Name> {
        self.reference_or(field, kind, text, names, &[])
    }

    /// The name of an existing object, where `also` would have been understood too.
    pub(super) fn reference_or(
        &mut self,
        field: impl Into<String>,
        kind: Kind,
        text: &str,
        names: &Names,
        also: &[&str],
    ) -> Option<Name> {
        if let Some(name) = names.get(kind, text) {
            return Some(name.clone());
        }
        if names.refused.contains(&(kind, text.to_owned())) {
            return None;
        }
        if names.goes(kind, text) {
            let message = format!(
                "{} {} is used here, and this change removes it; take it out here too, or keep it",
                kind.words(),
                shown(text)
            );
            self.problem(field, Code::UnknownReference, message);
            return None;
        }
        // Ten thousand wrong references to ten thousand names would be compared for minutes, and nobody reads so far.
        let compared = if self.problems.len() < MOST_COMPARED { usize::MAX } else { 0 };
        let known = || names.all(kind).map(Name::as_str).chain(also.iter().copied());
        let hint = did_you_mean(text, known().take(compared), || match known().take(5).collect::<Vec<_>>() {
            first if first.is_empty() => "there is none yet: create it first".to_owned(),
            first => format!("create it, or name one that exists, such as {}", first.join(", ")),
        });
        let message = format!("there is no {} {}; {hint}", kind.words(), shown(text));
        self.problem(field, Code::UnknownReference, message);
        None
    }

    /// One of a closed set of words.
    pub(super) fn word<T: Copy>(
        &mut self,
        field: impl Into<String>,
        text: &str,
        words: &[(&str, T)],
    ) -> Option<T> {
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let hint = did_you_mean(text, known.iter().copied(), || match &*known {
            [only] => format!("write `{only}`, or leave the field out"),
            _ => format!("write {}", known.join(" or ")),
        });
        self.problem(field, Code::Invalid, format!("{} means nothing here; {hint}", shown(text)));
        None
    }

    /// A number within its range, or the default where none was given.
    pub(super) fn number<T: TryFrom<u64>>(
        &mut self,
        field: &str,
        value: Option<u64>,
        default: T,
        range: RangeInclusive<u64>,
    ) -> T {
        let Some(value) = value else { return default };
        match T::try_from(value) {
            Ok(number) if range.contains(&value) => number,
            _ => {
                let message = format!(
                    "{value} is out of range; write a number from {} to {}",
                    range.start(),
                    range.end()
                );
                self.problem(field, Code::Invalid, message);
                default
            }
        }
    }

    /// Prefixes, sorted; a repeated one is a problem.
    pub(super) fn prefixes(&mut self, field: &str, texts: &[String]) -> Vec<Prefix> {
        let mut prefixes = BTreeSet::new();
        for (index, text) in texts.iter().enumerate() {
            let field = format!("{field}[{index}]");
            if let Some(prefix) = self.parse::<Prefix>(&*field, text)
                && !prefixes.insert(prefix)
            {
                self.problem(field, Code::Duplicate, format!("{prefix} is in this list twice; remove one"));
            }
        }
        prefixes.into_iter().collect()
    }

    /// A list that must have something in it.
    pub(super) fn not_empty<T>(&mut self, field: &str, list: &[T], what: &str) {
        if list.is_empty() {
            self.problem(field, Code::Missing, format!("is empty; add at least one {what}"));
        }
    }

    pub(super) fn selector(&mut self, selector: &NodeSelector) -> BTreeMap<String, String> {
        if selector.match_labels.contains_key("") {
            let message = "a label needs a name; remove it or name it";
            self.problem("spec.nodeSelector.matchLabels", Code::Invalid, message);
        }
        selector.match_labels.clone()
    }
}

/// A text in a sentence: quoted, and cut where someone pasted a file.
pub(super) fn shown(text: &str) -> String {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}...", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}
