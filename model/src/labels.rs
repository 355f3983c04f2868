//! A node's labels, as a person gives them.

use std::collections::BTreeMap;

/// Labels at most.
const MOST: usize = 32;
/// Bytes of a key at most.
const KEY: usize = 253;
/// Bytes of a value at most.
const VALUE: usize = 63;

/// A node's labels: what listeners' selectors choose by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(BTreeMap<String, String>);

/// Why text is no label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLabel {
    /// No `=`.
    #[error("{0:?} is no label; a label is key=value")]
    NoValue(String),
    /// The key.
    #[error("{0:?} is no label's key: 1 to {KEY} letters, digits or any of - _ . /")]
    Key(String),
    /// The value.
    #[error("{0:?} is no label's value: at most {VALUE} letters, digits or any of - _ .")]
    Value(String),
    /// Twice, with different values.
    #[error("the label {0:?} is given twice; a node has one value for each")]
    Twice(String),
    /// Too many.
    #[error("a node has at most {MOST} labels")]
    Many,
}

impl Labels {
    /// Reads `key=value` texts.
    ///
    /// # Errors
    /// See [`InvalidLabel`].
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidLabel> {
        let mut labels = Self::default();
        for text in texts {
            let (key, value) = text.split_once('=').ok_or_else(|| InvalidLabel::NoValue(text.to_owned()))?;
            labels.add(key.trim(), value.trim())?;
        }
        Ok(labels)
    }

    /// Takes keys with values.
    ///
    /// # Errors
    /// See [`InvalidLabel`].
    pub fn of<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, InvalidLabel> {
        let mut labels = Self::default();
        for (key, value) in pairs {
            labels.add(key, value)?;
        }
        Ok(labels)
    }

    fn add(&mut self, key: &str, value: &str) -> Result<(), InvalidLabel> {
        let made_of =
            |text: &str, more: &[u8]| text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b));
        if key.is_empty() || key.len() > KEY || !made_of(key, b"-_./") {
            return Err(InvalidLabel::Key(key.to_owned()));
        }
        if value.len() > VALUE || !made_of(value, b"-_.") {
            return Err(InvalidLabel::Value(value.to_owned()));
        }
        let known = self.0.insert(key.to_owned(), value.to_owned());
        if known.is_some_and(|known| known != value) {
            return Err(InvalidLabel::Twice(key.to_owned()));
        }
        if self.0.len() > MOST { Err(InvalidLabel::Many) } else { Ok(()) }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// By key.
    pub fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_or_say_what_is_wrong() {
        let labels = Labels::parse(["zone=a", "sallyport.dev/tier=", "zone=a"]).unwrap();
        assert_eq!(labels.as_map().len(), 2);
        assert_eq!(Labels::parse(["zone"]), Err(InvalidLabel::NoValue("zone".to_owned())));
        assert_eq!(Labels::parse(["=a"]), Err(InvalidLabel::Key(String::new())));
        assert_eq!(Labels::parse(["a b=c"]), Err(InvalidLabel::Key("a b".to_owned())));
        assert_eq!(Labels::parse(["a=b=c"]), Err(InvalidLabel::Value("b=c".to_owned())));
        assert_eq!(Labels::parse(["a=b", "a=c"]), Err(InvalidLabel::Twice("a".to_owned())));
        let many: Vec<String> = (0..=MOST).map(|n| format!("k{n}=v")).collect();
        assert_eq!(Labels::parse(many.iter().map(String::as_str)), Err(InvalidLabel::Many));
    }
}
