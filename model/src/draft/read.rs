//! JSON into a spec, reporting every fault with its path instead of stopping at the first.
//!
//! serde already knows each struct's fields, so there is no second schema: a [`Reader`] is a serde deserializer that notes
//! a fault and hands out an empty value in its place. Only a missing required field stops serde; it is noted and the
//! whole value read again with that field filled in.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value};

use crate::nearest::did_you_mean;
use crate::problem::Code;

/// More missing fields than this are not looked for: each costs a pass over the document.
const MOST_MISSING: usize = 50;

/// One fault: where, which, and what to do.
pub(super) type Fault = (String, Code, String);

/// Reads `value`, which stands at the path `at`. Without a fault there is a result.
pub(super) fn read<T: serde::de::DeserializeOwned>(value: &Value, at: &str) -> Result<T, Vec<Fault>> {
    let mut missing = BTreeSet::new();
    loop {
        let notes = Notes { faults: RefCell::default(), missing: &missing };
        let reader = Reader { value: Some(value), path: at.to_owned(), notes: &notes };
        let result = T::deserialize(reader);
        let mut faults = notes.faults.into_inner();
        match result {
            Ok(spec) if faults.is_empty() => return Ok(spec),
            Ok(_) => return Err(faults),
            Err(Stop::Missing(Some(path), field)) if missing.len() < MOST_MISSING => {
                missing.insert((path, field));
            }
            Err(stop) => {
                faults.push(stop.fault(at));
                return Err(faults);
            }
        }
    }
}

/// What one pass shares.
struct Notes<'a> {
    faults: RefCell<Vec<Fault>>,
    /// Struct path and field: known to be missing, to be filled in.
    missing: &'a BTreeSet<(String, &'static str)>,
}

impl Notes<'_> {
    fn fault(&self, path: &str, code: Code, message: impl Into<String>) {
        self.faults.borrow_mut().push((path.to_owned(), code, message.into()));
    }
}

/// A value and its path; no value where a fault was noted already and serde needs something to go on with.
struct Reader<'a> {
    value: Option<&'a Value>,
    path: String,
    notes: &'a Notes<'a>,
}

impl<'a> Reader<'a> {
    fn inner(&self, value: Option<&'a Value>, path: String) -> Self {
        Self { value, path, notes: self.notes }
    }

    /// The value as `take` sees it; otherwise notes what it must be.
    fn expect<T>(&self, must_be: &str, take: impl FnOnce(&'a Value) -> Option<T>) -> Option<T> {
        let value = self.value?;
        let taken = take(value);
        if taken.is_none() {
            self.notes.fault(
                &self.path,
                Code::Invalid,
                format!("must be {must_be}, not {}", describe(value)),
            );
        }
        taken
    }

    fn number(&self, most: u64) -> u64 {
        let must_be = match most {
            // What a field really takes the compiler says; this is only what fits.
            u64::MAX => "a whole number of 0 or more".to_owned(),
            most => format!("a whole number from 0 to {most}"),
        };
        let taken = |value: &Value| value.as_u64().filter(|number| *number <= most);
        match self.value {
            // Here nobody meant a text.
            Some(Value::Number(number)) if self.value.and_then(taken).is_none() => {
                self.notes.fault(
                    &self.path,
                    Code::Invalid,
                    format!("must be {must_be}, not the number {number}"),
                );
                0
            }
            _ => self.expect(&must_be, taken).unwrap_or_default(),
        }
    }

    fn text(&self) -> &'a str {
        self.expect("text", Value::as_str).unwrap_or_default()
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "empty".to_owned(),
        Value::Bool(value) => format!("{value}; for text put it in quotes"),
        Value::Number(number) => format!("the number {number}; for text put it in quotes"),
        Value::String(text) if text.parse::<f64>().is_ok() => {
            format!("the text \"{text}\"; for a number remove the quotes")
        }
        // Whatever was typed may be a secret in the wrong field.
        Value::String(_) => "text".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// `spec.port`, `metadata.labels["a/b"]`.
pub(super) fn field(path: &str, key: &str) -> String {
    let plain = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    match (path, plain) {
        ("", _) => key.to_owned(),
        (path, true) => format!("{path}.{key}"),
        (path, false) => format!("{path}[{key:?}]"),
    }
}

/// Notes the keys nobody reads.
pub(super) fn unknown<'k>(
    keys: impl Iterator<Item = &'k String>,
    known: &[&'static str],
    path: &str,
    mut fault: impl FnMut(String, Code, String),
) {
    for key in keys.filter(|key| !known.contains(&key.as_str())) {
        let hint = did_you_mean(key, known.iter().copied(), || format!("known here: {}", known.join(", ")));
        fault(field(path, key), Code::UnknownField, format!("there is no such field; {hint}"));
    }
}

impl<'a, 'de> Deserializer<'de> for Reader<'a> {
    type Error = Stop;

    /// A number or a word: the one thing in documents that may be of two types.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match self.value {
            Some(Value::String(word)) if word.parse::<f64>().is_err() => visitor.visit_str(word),
            _ => visitor.visit_u64(self.number(u32::MAX.into())),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_bool(self.expect("true or false", Value::as_bool).unwrap_or_default())
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_u64(self.number(u32::MAX.into()))
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_u64(self.number(u64::MAX))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_str(self.text())
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_str(self.text())
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match self.value {
            None | Some(Value::Null) => visitor.visit_none(),
            Some(_) => visitor.visit_some(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let items = self.expect("a list", Value::as_array).map(Vec::as_slice).unwrap_or_default();
        visitor.visit_seq(Items { reader: self, items, next: 0 })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let object = self.expect("an object", Value::as_object);
        let entries: Vec<Entry<'_>> = object
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.as_str(), self.inner(Some(value), field(&self.path, key))))
            .collect();
        visitor.visit_map(Entries::new(entries))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let must_be = format!("an object with {}", fields.join(", "));
        let entries = match self.expect(&must_be, Value::as_object) {
            Some(object) => self.present(object, fields),
            // Something to go on with: every field, each empty in its turn.
            None => fields.iter().map(|key| (*key, self.inner(None, field(&self.path, key)))).collect(),
        };
        visitor.visit_map(Entries::new(entries)).map_err(|stop| stop.at(self.path))
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u128 f32 f64 char bytes byte_buf unit unit_struct newtype_struct tuple tuple_struct enum
        identifier ignored_any
    }
}

impl<'a> Reader<'a> {
    /// A struct's known fields that are there (null is absent, as YAML's `field:` means), and those to be filled in.
    fn present(&self, object: &'a Map<String, Value>, fields: &'static [&'static str]) -> Vec<Entry<'a>> {
        unknown(object.keys(), fields, &self.path, |path, code, message| {
            self.notes.fault(&path, code, message)
        });
        let mut entries = Vec::with_capacity(object.len());
        for key in fields {
            let path = field(&self.path, key);
            match object.get(*key) {
                Some(value) if !value.is_null() => entries.push((*key, self.inner(Some(value), path))),
                _ if self.notes.missing.contains(&(self.path.clone(), *key)) => {
                    self.notes.fault(&path, Code::Missing, "is required; add it");
                    entries.push((*key, self.inner(None, path)));
                }
                _ => {}
            }
        }
        entries
    }
}

struct Items<'a> {
    reader: Reader<'a>,
    items: &'a [Value],
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Stop;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Stop> {
        let Some(item) = self.items.get(self.next) else { return Ok(None) };
        let path = format!("{}[{}]", self.reader.path, self.next);
        self.next += 1;
        seed.deserialize(self.reader.inner(Some(item), path)).map(Some)
    }
}

type Entry<'a> = (&'a str, Reader<'a>);

struct Entries<'a> {
    rest: std::vec::IntoIter<Entry<'a>>,
    value: Option<Reader<'a>>,
}

impl<'a> Entries<'a> {
    fn new(entries: Vec<Entry<'a>>) -> Self {
        Self { rest: entries.into_iter(), value: None }
    }
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Stop> {
        let Some((key, value)) = self.rest.next() else { return Ok(None) };
        self.value = Some(value);
        let key: StrDeserializer<'_, Stop> = key.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        match self.value.take() {
            Some(value) => seed.deserialize(value),
            None => Err(Stop::Other("was read out of order".to_owned())),
        }
    }
}

/// What makes serde give up.
#[derive(Debug)]
enum Stop {
    /// A required field of the struct at the path is missing. The path is added on the way out of the struct.
    Missing(Option<String>, &'static str),
    Other(String),
}

impl Stop {
    fn at(self, path: String) -> Self {
        match self {
            Self::Missing(None, field) => Self::Missing(Some(path), field),
            stop @ (Self::Missing(Some(_), _) | Self::Other(_)) => stop,
        }
    }

    fn fault(self, at: &str) -> Fault {
        match self {
            Self::Missing(path, name) => {
                (field(&path.unwrap_or_default(), name), Code::Missing, "is required; add it".to_owned())
            }
            Self::Other(message) => (at.to_owned(), Code::Invalid, message),
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(_, field) => write!(f, "{field} is missing"),
            Self::Other(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Stop {}

impl serde::de::Error for Stop {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Other(message.to_string())
    }

    fn missing_field(field: &'static str) -> Self {
        Self::Missing(None, field)
    }
}
