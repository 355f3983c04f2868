//! Texts in JSON of any shape. No tree is made of it, which may take a hundred times the room of its text, and no path to
//! what is not told.
//!
//! It is read twice. Once whole: whether it is JSON at all, and which fields do not count because a later one of the same
//! object has their name, of which readers of JSON take the last. Then for prefixes, up to the first text that should be one
//! and is none.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{InvalidList, no_prefix, put, strictly};
use crate::net::Prefix;

/// With a key only what stands under it, at any depth, counts. serde_json's own bound on depth is the bound here.
pub(super) fn in_json(
    text: &str,
    key: Option<&str>,
    found: &mut BTreeSet<Prefix>,
) -> Result<(), InvalidList> {
    let json = |why: serde_json::Error| InvalidList::Json { line: why.line(), column: why.column() };
    let mut names = Names::default();
    read(text, &mut names, ()).map_err(json)?;
    let replaced = names.replaced();
    let (way, refused) = (Vec::new(), None);
    let mut texts = Texts { key, replaced: &replaced, fields: 0, found, refused, way };
    let place = if key.is_none() { Place::Counts } else { Place::Outside };
    let all = read(text, &mut texts, place);
    match texts.refused.take() {
        Some(InvalidList::NoPrefix { text, why, .. }) => {
            Err(InvalidList::NoPrefix { place: texts.place(), text, why })
        }
        Some(other) => Err(other),
        None => all.map_err(json),
    }
}

fn read<'de, R: Reading<'de>>(
    text: &'de str,
    reading: &mut R,
    place: R::Place,
) -> Result<(), serde_json::Error> {
    let mut document = serde_json::Deserializer::from_str(text);
    Value(reading, place).deserialize(&mut document)?;
    document.end()
}

/// What one reading does with what can have something in it. Numbers and the like have not.
trait Reading<'de> {
    /// What is known of where a value stands.
    type Place: Copy;

    fn text<E: Error>(&mut self, place: Self::Place, text: &str) -> Result<(), E>;
    fn items<A: SeqAccess<'de>>(&mut self, place: Self::Place, items: A) -> Result<(), A::Error>;
    fn fields<A: MapAccess<'de>>(&mut self, place: Self::Place, fields: A) -> Result<(), A::Error>;
}

/// A value of any kind.
struct Value<'r, R, P>(&'r mut R, P);

impl<'de, R: Reading<'de>> DeserializeSeed<'de> for Value<'_, R, R::Place> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, R: Reading<'de>> Visitor<'de> for Value<'_, R, R::Place> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _value: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _value: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _value: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _value: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.0.text(self.1, text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<(), A::Error> {
        self.0.items(self.1, items)
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<(), A::Error> {
        self.0.fields(self.1, fields)
    }
}

/// A field's name, copied only where something in it is escaped.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

/// The first reading. Fields have numbers, from 0 on, in the order in which they begin.
#[derive(Default)]
struct Names<'de> {
    fields: usize,
    /// Names and numbers of the fields of all objects that have begun and not ended.
    open: Vec<(Cow<'de, str>, usize)>,
    replaced: Vec<usize>,
}

impl Names<'_> {
    /// The numbers of the fields that do not count, ascending.
    fn replaced(mut self) -> Vec<usize> {
        self.replaced.sort_unstable();
        self.replaced
    }
}

impl<'de> Reading<'de> for Names<'de> {
    type Place = ();

    fn text<E: Error>(&mut self, _place: (), _text: &str) -> Result<(), E> {
        Ok(())
    }

    fn items<A: SeqAccess<'de>>(&mut self, _place: (), mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Value(self, ()))?.is_some() {}
        Ok(())
    }

    fn fields<A: MapAccess<'de>>(&mut self, _place: (), mut fields: A) -> Result<(), A::Error> {
        let begin = self.open.len();
        while let Some(name) = fields.next_key_seed(Name)? {
            self.open.push((name, self.fields));
            self.fields += 1;
            fields.next_value_seed(Value(self, ()))?;
        }
        let own = self.open.get_mut(begin..).unwrap_or_default();
        own.sort_unstable();
        let earlier = own.array_windows().filter(|[one, next]| one.0 == next.0);
        self.replaced.extend(earlier.map(|[(_, number), _]| number));
        self.open.truncate(begin);
        Ok(())
    }
}

/// Whether the texts at a place are prefixes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// They are not under the key.
    Outside,
    Counts,
    /// They are under a name that comes again.
    Replaced,
}

/// The second reading, of what is known to be JSON.
struct Texts<'r> {
    key: Option<&'r str>,
    /// Of those fields that have yet to begin.
    replaced: &'r [usize],
    fields: usize,
    found: &'r mut BTreeSet<Prefix>,
    /// Why it ended before the document.
    refused: Option<InvalidList>,
    /// From where it ended up to the document.
    way: Vec<String>,
}

impl Texts<'_> {
    /// `prefixes[3].ip_prefix`.
    fn place(&self) -> String {
        /// More is cut out of the middle, characters.
        const LONGEST: usize = 200;
        let place: String = self.way.iter().rev().map(String::as_str).collect();
        let place = place.trim_start_matches('.');
        let (begin, end) =
            (place.char_indices().nth(LONGEST / 2), place.char_indices().nth_back(LONGEST / 2 - 1));
        match (begin, end) {
            (Some((begin, _)), Some((end, _))) if begin < end => {
                let (begin, end) = (place.get(..begin), place.get(end..));
                format!("{}...{}", begin.unwrap_or_default(), end.unwrap_or_default())
            }
            _ => place.to_owned(),
        }
    }

    fn below(&mut self, place: Place, name: &str) -> Place {
        let number = self.fields;
        self.fields += 1;
        let replaced = match self.replaced.split_first() {
            Some((next, rest)) if *next == number => {
                self.replaced = rest;
                true
            }
            _ => false,
        };
        match place {
            _ if replaced => Place::Replaced,
            Place::Outside if self.key == Some(name) => Place::Counts,
            Place::Outside | Place::Counts | Place::Replaced => place,
        }
    }
}

impl<'de> Reading<'de> for Texts<'_> {
    type Place = Place;

    fn text<E: Error>(&mut self, place: Place, text: &str) -> Result<(), E> {
        if place != Place::Counts {
            return Ok(());
        }
        let put = match strictly(text.trim()) {
            Ok(prefix) => put(self.found, prefix),
            Err(why) if self.key.is_none() && why.is_other_text() => Ok(()),
            Err(why) => Err(no_prefix(String::new(), text, why)),
        };
        put.map_err(|why| {
            self.refused = Some(why);
            E::custom("refused")
        })
    }

    fn items<A: SeqAccess<'de>>(&mut self, place: Place, mut items: A) -> Result<(), A::Error> {
        let mut index = 0;
        loop {
            match items.next_element_seed(Value(self, place)) {
                Ok(Some(())) => index += 1,
                Ok(None) => return Ok(()),
                Err(why) => {
                    self.way.push(format!("[{index}]"));
                    return Err(why);
                }
            }
        }
    }

    fn fields<A: MapAccess<'de>>(&mut self, place: Place, mut fields: A) -> Result<(), A::Error> {
        while let Some(name) = fields.next_key_seed(Name)? {
            let place = self.below(place, &name);
            if let Err(why) = fields.next_value_seed(Value(self, place)) {
                self.way.push(format!(".{name}"));
                return Err(why);
            }
        }
        Ok(())
    }
}
