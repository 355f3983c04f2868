//! Queries: every parameter known, and all that is wrong said at once, each at the parameter it is about.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use model::problem::{Code, Problem};

use super::ApiError;

/// What a URL is asked for.
pub(super) trait Wanted: Sized {
    /// The parameters there are.
    const NAMES: &'static [&'static str];

    /// Reads them; what is wrong with them is noted there, and what this gives then is of no use.
    fn read(parameters: &mut Parameters) -> Self;
}

/// The parameters of a query.
pub(super) struct Asked<T>(pub(super) T);

impl<T: Wanted, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        read(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

fn read<T: Wanted>(query: &str) -> Result<T, ApiError> {
    let mut parameters = Parameters::of(query, T::NAMES);
    let wanted = T::read(&mut parameters);
    if parameters.problems.is_empty() { Ok(wanted) } else { Err(ApiError::query(parameters.problems)) }
}

/// Parameters as they were given.
pub(super) struct Parameters {
    given: Vec<(String, String)>,
    problems: Vec<Problem>,
}

impl Parameters {
    fn of(query: &str, known: &[&'static str]) -> Self {
        let mut parameters = Self { given: Vec::new(), problems: Vec::new() };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if !known.contains(&&*name) {
                let hint = model::nearest::did_you_mean(&name, known.iter().copied(), || {
                    format!("there are {}", known.join(", "))
                });
                let why = format!("there is no such parameter; {hint}");
                parameters.problems.push(Problem::new("", name, Code::UnknownField, why));
            } else if parameters.given.iter().any(|(given, _)| *given == name) {
                parameters.wrong(&name, "this is given twice; give it once");
            } else {
                parameters.given.push((name.into_owned(), value.into_owned()));
            }
        }
        parameters
    }

    /// A parameter as it stands there.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.given.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// A parameter that is a number in these bounds.
    pub(super) fn number<T: FromStr + PartialOrd + Display>(
        &mut self,
        name: &str,
        bounds: RangeInclusive<T>,
    ) -> Option<T> {
        let text = self.text(name)?;
        let number = text.parse().ok().filter(|number| bounds.contains(number));
        if number.is_none() {
            let why = format!("this is a number from {} to {}, not {text:?}", bounds.start(), bounds.end());
            self.wrong(name, why);
        }
        number
    }

    /// A parameter that is true or false.
    pub(super) fn flag(&mut self, name: &str) -> bool {
        self.choice(name, &[("true", true), ("false", false)]).unwrap_or_default()
    }

    /// A parameter that is one of these words.
    pub(super) fn choice<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(name)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.wrong(name, format!("this is {}, not {text:?}", words.join(" or ")));
        }
        found
    }

    /// A parameter that says by itself what is wrong with it.
    pub(super) fn parsed<T, E: Display>(
        &mut self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        let parsed = parse(self.text(name)?);
        parsed.map_err(|why| self.wrong(name, why.to_string())).ok()
    }

    fn wrong(&mut self, name: &str, why: impl Into<String>) {
        self.problems.push(Problem::new("", name, Code::Invalid, why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Some7 {
        page: Option<u32>,
        search: String,
        confirm: bool,
        sort: char,
    }

    impl Wanted for Some7 {
        const NAMES: &'static [&'static str] = &["page", "search", "confirm", "sort"];

        fn read(parameters: &mut Parameters) -> Self {
            Self {
                page: parameters.number("page", 1..=7),
                search: parameters.text("search").unwrap_or_default().to_owned(),
                confirm: parameters.flag("confirm"),
                sort: parameters.choice("sort", &[("name", 'n'), ("age", 'a')]).unwrap_or('n'),
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said_at_its_parameter_and_all_at_once() {
        let found = Some7 { page: Some(2), search: "a b&c".to_owned(), confirm: true, sort: 'a' };
        assert_eq!(read("page=2&search=a+b%26c&confirm=true&sort=age"), Ok(found));
        assert_eq!(read(""), Ok(Some7 { page: None, search: String::new(), confirm: false, sort: 'n' }));
        let refused = |query: &str, expected: &[(&str, &str)]| {
            let problems = expected.iter().map(|(field, why)| {
                let unknown = why.starts_with("there is no such");
                Problem::new("", *field, if unknown { Code::UnknownField } else { Code::Invalid }, *why)
            });
            assert_eq!(read::<Some7>(query), Err(ApiError::query(problems.collect())), "{query}");
        };
        for page in ["-1", "0", "8", "", "2x"] {
            let why = format!("this is a number from 1 to 7, not {page:?}");
            refused(&format!("page={page}"), &[("page", &why)]);
        }
        refused("serach=x", &[("serach", "there is no such parameter; did you mean `search`?")]);
        let all = "there is no such parameter; there are page, search, confirm, sort";
        let (flag, sort) = ("this is true or false, not \"yes\"", "this is name or age, not \"foo\"");
        refused("zz=1&confirm=yes&sort=foo", &[("zz", all), ("confirm", flag), ("sort", sort)]);
        refused("search=a&search=b", &[("search", "this is given twice; give it once")]);
    }
}
