//! Small readings that several forms share.

use std::collections::BTreeMap;

use model::draft::{Kind, NodeSelector};
use model::problem::{Code, Problem};

use super::fields::Fields;

/// Reads numbers and keeps what is no number as a problem of the object's field.
pub(crate) struct Numbers<'f> {
    fields: &'f Fields,
    object: String,
    pub(crate) problems: Vec<Problem>,
}

impl<'f> Numbers<'f> {
    pub(crate) fn new(fields: &'f Fields, kind: Kind, name: &str) -> Self {
        Self { fields, object: format!("{kind:?}/{name}"), problems: Vec::new() }
    }

    /// `Kind/name` of the object.
    pub(super) fn object(&self) -> &str {
        &self.object
    }

    /// The number in control `name`, which stands for the object's `field`; nothing when it is blank.
    pub(crate) fn read<N: std::str::FromStr>(&mut self, name: &str, field: &str) -> Option<N> {
        let text = self.fields.trimmed(name);
        let number = text.parse().ok();
        if number.is_none() && !text.is_empty() {
            let message = format!("\"{text}\" is not a whole number; write digits only");
            self.problems.push(Problem::new(self.object.clone(), field, Code::Invalid, message));
        }
        number
    }
}

/// `zone=a tier=edge` as labels; a word without `=` is a label with an empty value.
pub(crate) fn labels(words: &[String]) -> BTreeMap<String, String> {
    let pair = |word: &String| match word.split_once('=') {
        Some((key, value)) => (key.to_owned(), value.to_owned()),
        None => (word.clone(), String::new()),
    };
    words.iter().map(pair).collect()
}

/// A selector as it is typed.
pub(crate) fn selector_text(selector: &NodeSelector) -> String {
    selector.match_labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}

/// An object's name made of a host, an address or a path.
pub(crate) fn slug(text: &str) -> String {
    let text = text.replace("*.", "wildcard-").to_ascii_lowercase();
    let mut slug = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            'a'..='z' | '0'..='9' => slug.push(c),
            _ if !slug.is_empty() && !slug.ends_with('-') => slug.push('-'),
            _ => {}
        }
    }
    slug.truncate(63);
    slug.trim_end_matches('-').to_owned()
}

/// A number as a form shows it; nothing as a blank.
pub(crate) fn blank<N: ToString>(number: Option<N>) -> String {
    number.map(|number| number.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_hosts() {
        assert_eq!(slug("*.Shop.example.com/v2/"), "wildcard-shop-example-com-v2");
        assert_eq!(slug("https://origin.internal:8443"), "https-origin-internal-8443");
        assert!(slug(&"a.".repeat(200)).parse::<model::name::Name>().is_ok());
    }

    #[test]
    fn a_word_is_no_number() {
        let fields = Fields::default().with("port", "https").with("other", " 7 ");
        let mut numbers = Numbers::new(&fields, Kind::Listener, "edge");
        assert_eq!(numbers.read::<u32>("port", "spec.port"), None);
        assert_eq!(numbers.read::<u32>("other", "spec.other"), Some(7));
        assert_eq!(numbers.read::<u32>("absent", "spec.absent"), None);
        assert_eq!(numbers.problems.len(), 1);
        assert_eq!(numbers.problems[0].object, "Listener/edge");
    }
}
