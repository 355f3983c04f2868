//! What of a request beside host and path a route can ask for: method, header fields, query parameters (Gateway API's
//! `HTTPRouteMatch`).

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

use crate::header::FieldName;

/// All of these must hold; the default always does.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Conditions {
    /// The method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Verb>,
    /// Header fields with exactly these values, sorted; each name once, in lower case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderIs>,
    /// Query parameters with exactly these values, sorted; each name once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub query: Vec<QueryIs>,
}

/// A header field's value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderIs {
    /// Its name.
    pub name: FieldName,
    /// Its value; repeated fields are one, joined with commas (RFC 9110, 5.3).
    pub value: String,
}

/// A query parameter's value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QueryIs {
    /// Its name, decoded.
    pub name: String,
    /// Its value, decoded; of a repeated parameter the first one's.
    pub value: String,
}

/// The methods that a route can ask for (Gateway API's `HTTPMethod` without CONNECT, which no route gets).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "each is the method of that name")]
pub enum Verb {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Trace,
    Patch,
}

impl Verb {
    /// All of them, by name.
    pub const ALL: [(&str, Self); 8] = [
        ("GET", Self::Get),
        ("HEAD", Self::Head),
        ("POST", Self::Post),
        ("PUT", Self::Put),
        ("DELETE", Self::Delete),
        ("OPTIONS", Self::Options),
        ("TRACE", Self::Trace),
        ("PATCH", Self::Patch),
    ];

    /// The method's token.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, verb)| *verb == self).map_or("", |(name, _)| name)
    }
}

/// What a request says beside host and path.
pub trait Asked {
    /// The method's token.
    fn method(&self) -> &[u8];
    /// The values of a header field, in order.
    fn header(&self, name: &FieldName) -> impl Iterator<Item = &[u8]>;
    /// Behind the `?`.
    fn query(&self) -> Option<&[u8]>;
}

/// A request of which nothing but host and path is known: it has no method, so no match with one is for it.
impl Asked for () {
    fn method(&self) -> &[u8] {
        b""
    }

    fn header(&self, _: &FieldName) -> impl Iterator<Item = &[u8]> {
        std::iter::empty()
    }

    fn query(&self) -> Option<&[u8]> {
        None
    }
}

/// How much is asked for: Gateway API's order behind the path, greater first.
pub type Precision = Reverse<(bool, usize, usize)>;

impl Conditions {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.method.is_none() && self.headers.is_empty() && self.query.is_empty()
    }

    /// A method before none, then more header fields, then more query parameters.
    pub fn precision(&self) -> Precision {
        Reverse((self.method.is_some(), self.headers.len(), self.query.len()))
    }

    /// Whether a request has all of it. No allocation.
    pub fn hold(&self, asked: &impl Asked) -> bool {
        self.method.is_none_or(|method| method.as_str().as_bytes() == asked.method())
            && self.headers.iter().all(|wanted| joined(asked.header(&wanted.name), wanted.value.as_bytes()))
            && self.query.iter().all(|wanted| {
                parameters(asked.query().unwrap_or_default())
                    .find(|(name, _)| decoded(name).eq(wanted.name.bytes()))
                    .is_some_and(|(_, value)| decoded(value).eq(wanted.value.bytes()))
            })
    }
}

/// Whether the values, joined with `, ` or `,`, are `wanted`; without a value nothing is.
fn joined<'a>(values: impl Iterator<Item = &'a [u8]>, wanted: &[u8]) -> bool {
    let mut rest = Some(wanted);
    let mut any = false;
    for value in values {
        if any {
            rest = rest.and_then(|rest| rest.strip_prefix(b",")).map(<[u8]>::trim_ascii_start);
        }
        any = true;
        rest = rest.and_then(|rest| rest.strip_prefix(value));
    }
    any && rest == Some(b"")
}

/// `a=1&b` as pairs, still encoded (WHATWG URL, 5.1).
fn parameters(query: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
        match pair.iter().position(|byte| *byte == b'=') {
            Some(at) => (pair.get(..at).unwrap_or_default(), pair.get(at + 1..).unwrap_or_default()),
            None => (pair, &[][..]),
        }
    })
}

/// `+` is a space and `%XX` a byte; what is no escape stays.
fn decoded(mut text: &[u8]) -> impl Iterator<Item = u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    std::iter::from_fn(move || {
        let (byte, rest) = text.split_first()?;
        text = rest;
        if *byte == b'%'
            && let [high, low, after @ ..] = rest
            && let (Some(high), Some(low)) = (digit(high), digit(low))
        {
            text = after;
            return Some(high * 16 + low);
        }
        Some(if *byte == b'+' { b' ' } else { *byte })
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A request in plain words.
    #[derive(Debug, Clone, Default)]
    pub(in crate::route) struct Plain {
        pub(in crate::route) method: String,
        pub(in crate::route) headers: Vec<(String, String)>,
        pub(in crate::route) query: Option<String>,
    }

    impl Asked for Plain {
        fn method(&self) -> &[u8] {
            self.method.as_bytes()
        }

        fn header(&self, name: &FieldName) -> impl Iterator<Item = &[u8]> {
            self.headers
                .iter()
                .filter(move |(own, _)| name.is(own.as_bytes()))
                .map(|(_, value)| value.as_bytes())
        }

        fn query(&self) -> Option<&[u8]> {
            self.query.as_deref().map(str::as_bytes)
        }
    }

    fn asked(method: &str, headers: &[(&str, &str)], query: Option<&str>) -> Plain {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Plain {
            method: method.to_owned(),
            headers: headers.iter().map(pair).collect(),
            query: query.map(str::to_owned),
        }
    }

    #[test]
    fn headers_are_joined() {
        let conditions = |value: &str| Conditions {
            headers: vec![HeaderIs { name: "x-a".parse().unwrap(), value: value.to_owned() }],
            ..Conditions::default()
        };
        for (wanted, headers, holds) in [
            ("1", &[("X-A", "1")][..], true),
            ("1", &[("X-A", "2")], false),
            ("1", &[("X-B", "1")], false),
            ("1", &[], false),
            ("1, 2", &[("x-a", "1"), ("X-A", "2")], true),
            ("1,2", &[("x-a", "1"), ("X-A", "2")], true),
            ("1", &[("x-a", "1"), ("X-A", "2")], false),
            ("1, 2", &[("x-a", "1, 2")], true),
        ] {
            assert_eq!(conditions(wanted).hold(&asked("GET", headers, None)), holds, "{wanted} {headers:?}");
        }
    }

    #[test]
    fn the_first_of_a_parameter_counts_and_escapes_mean_nothing() {
        let conditions = |name: &str, value: &str| Conditions {
            query: vec![QueryIs { name: name.to_owned(), value: value.to_owned() }],
            ..Conditions::default()
        };
        for (name, value, query, holds) in [
            ("a", "1", Some("a=1"), true),
            ("a", "1", Some("b=2&a=1&a=2"), true),
            ("a", "2", Some("a=1&a=2"), false),
            ("a b", "c&d", Some("a+b=c%26d"), true),
            ("a", "é", Some("%61=%C3%a9"), true),
            ("a", "%zz", Some("a=%zz"), true),
            ("a", "", Some("a"), true),
            ("a", "", Some("b"), false),
            ("a", "", None, false),
        ] {
            assert_eq!(
                conditions(name, value).hold(&asked("GET", &[], query)),
                holds,
                "{name}={value} {query:?}"
            );
        }
    }

    #[test]
    fn methods_are_exact() {
        let conditions = Conditions { method: Some(Verb::Get), ..Conditions::default() };
        assert!(conditions.hold(&asked("GET", &[], None)));
        assert!(!conditions.hold(&asked("get", &[], None)) && !conditions.hold(&asked("HEAD", &[], None)));
    }
}
