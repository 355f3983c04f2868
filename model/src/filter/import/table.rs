//! Lists of a line each, and tables as RFC 4180 has them, but without line breaks inside quotes.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::{InvalidList, NotPrefix, no_prefix, put, shown, strictly};
use crate::net::{InvalidPrefix, Prefix};

/// What separates columns; where none of them is, spaces do.
const SEPARATORS: &[char] = &[',', ';', '\t'];

/// Quotes that are not those of RFC 4180.
#[derive(Debug, PartialEq, Eq)]
struct Quotes;

/// Blank lines and comments are skipped; the first of the other lines may be a heading, and is one where there is a key.
pub(super) fn in_lines(
    text: &str,
    key: Option<&str>,
    found: &mut BTreeSet<Prefix>,
) -> Result<(), InvalidList> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    let mut lines = lines.filter(|(_, line)| !line.trim().is_empty() && !line.trim_start().starts_with('#'));
    match key {
        Some(key) => {
            let Some((number, heading)) = lines.find(|(_, line)| !line.trim_start().starts_with(';')) else {
                return Ok(());
            };
            let column = Column::of(heading, key).map_err(|Quotes| InvalidList::Quotes(number))?;
            let column = column.ok_or_else(|| InvalidList::Column { line: number, key: shown(key) })?;
            lines.filter(|(_, line)| !column.is_comment(line)).try_for_each(|(number, line)| {
                let text = column.field(line).map_err(|Quotes| InvalidList::Quotes(number))?;
                let prefix = strictly(&text);
                put(found, prefix.map_err(|why| no_prefix(format!("line {number}"), &text, why))?)
            })
        }
        None => {
            let mut lines = lines.filter(|(_, line)| !line.trim_start().starts_with(';'));
            let Some((number, first)) = lines.next() else { return Ok(()) };
            match in_line(number, first)? {
                Ok(prefix) => put(found, prefix)?,
                Err(other) if !other.could_be_meant => {}
                Err(Other { text, why, .. }) => {
                    return Err(InvalidList::First { line: number, text, why });
                }
            }
            lines.try_for_each(|(number, line)| {
                let prefix = in_line(number, line)?;
                put(
                    found,
                    prefix.map_err(|other| no_prefix(format!("line {number}"), &other.text, other.why))?,
                )
            })
        }
    }
}

/// The column that the key names.
struct Column {
    /// Those of the heading alone: a semicolon in a row of a table with commas is part of a field.
    separators: &'static [char],
    index: usize,
}

impl Column {
    fn of(heading: &str, key: &str) -> Result<Option<Self>, Quotes> {
        let mut malformed = false;
        for separators in [&[','], &[';'], &['\t'], &[' ']] {
            match find(heading, separators, |_, field| field.eq_ignore_ascii_case(key)) {
                Ok(Some((index, _))) => return Ok(Some(Self { separators, index })),
                Ok(None) => {}
                Err(Quotes) => malformed = true,
            }
        }
        if malformed { Err(Quotes) } else { Ok(None) }
    }

    /// Where semicolons separate, a line that begins with one has an empty first field.
    fn is_comment(&self, line: &str) -> bool {
        self.separators != [';'] && line.trim_start().starts_with(';')
    }

    /// Empty where the line is too short.
    fn field<'a>(&self, line: &'a str) -> Result<Cow<'a, str>, Quotes> {
        let field = find(line, self.separators, |index, _| index == self.index)?;
        Ok(field.map(|(_, field)| field).unwrap_or_default())
    }
}

/// A line that has no prefix.
struct Other {
    /// As it is shown.
    text: String,
    why: NotPrefix,
    could_be_meant: bool,
}

/// The first field that is an address with an optional length. One that is no prefix all the same is refused, rather than the next taken.
fn in_line(number: usize, line: &str) -> Result<Result<Prefix, Other>, InvalidList> {
    let line = line.trim();
    let quotes = |Quotes| InvalidList::Quotes(number);
    let second = find(line, SEPARATORS, |index, _| index == 1).map_err(quotes)?;
    let separators: &[char] = if second.is_some() { SEPARATORS } else { &[' '] };
    let mut first = None;
    let is_address = |_, field: &str| match strictly(field) {
        Err(why) if why.is_other_text() => false,
        prefix => {
            first = Some(prefix);
            true
        }
    };
    let field = find(line, separators, is_address).map_err(quotes)?;
    let (text, why, could_be_meant) = match (first, field) {
        (Some(Ok(prefix)), _) => return Ok(Ok(prefix)),
        (Some(Err(why)), Some((_, field))) => (shown(&field), why, true),
        _ => {
            let meant = find(line, separators, |_, field| could_be_meant(field)).map_err(quotes)?;
            (shown(line), NotPrefix::Invalid(InvalidPrefix::Syntax), meant.is_some())
        }
    };
    Ok(Err(Other { text, why, could_be_meant }))
}

/// Whether somebody who wrote this may have meant an address, a prefix or a host. Rather once too often: what is refused is seen,
/// and a line that was taken for a heading is not. `cidr`, `ip prefix`, `network/mask`, `IPv4/IPv6` and `No.` are headings.
fn could_be_meant(field: &str) -> bool {
    let pairs = || field.chars().zip(field.chars().skip(1));
    let dot = || {
        pairs()
            .zip(field.chars().skip(2))
            .any(|((before, at), after)| at == '.' && before.is_alphanumeric() && after.is_alphanumeric())
    };
    field.contains(':')
        || field.starts_with(char::is_numeric)
        || pairs().any(|pair| matches!(pair, ('/' | '.', digit) | (digit, '.') if digit.is_numeric()))
        || dot()
        || !field.contains(char::is_alphabetic) && field.contains(['/', '.'])
}

/// The first field that is looked for, with its index. The fields behind it are read for their quotes alone. A line may be as
/// long as the text and have a field for each of its bytes, so none is kept.
fn find<'a>(
    line: &'a str,
    separators: &[char],
    mut is_it: impl FnMut(usize, &str) -> bool,
) -> Result<Option<(usize, Cow<'a, str>)>, Quotes> {
    let mut found = None;
    for (index, field) in (Fields { rest: Some(line), separators }).enumerate() {
        let field = field?;
        if found.is_none() && is_it(index, &field) {
            found = Some((index, field));
        }
    }
    Ok(found)
}

/// The fields of a line, without the white space around them. Spaces separate however many they are. A quote that does not begin
/// a field is text, as in `5" pipe`.
struct Fields<'a, 's> {
    rest: Option<&'a str>,
    separators: &'s [char],
}

impl<'a> Fields<'a, '_> {
    /// One field, which with spaces may be an empty one that does not count, and what stands behind its separator.
    fn split(&self, text: &'a str) -> Result<(Cow<'a, str>, Option<&'a str>), Quotes> {
        let separators = self.separators;
        let start = text.trim_start_matches(|c: char| c.is_whitespace() && !separators.contains(&c));
        let start = if self.spaces() { start.trim_start() } else { start };
        let (field, after) = match start.strip_prefix('"') {
            Some(inside) => quoted(inside)?,
            None => {
                let end = start.find(separators).unwrap_or(start.len());
                let (field, after) = start.split_at(end);
                (Cow::Borrowed(field.trim()), after)
            }
        };
        let after = after.trim_start_matches(|c: char| c.is_whitespace() && !separators.contains(&c));
        match after.strip_prefix(separators) {
            None if after.is_empty() => Ok((field, None)),
            None => Err(Quotes),
            after => Ok((field, after)),
        }
    }

    fn spaces(&self) -> bool {
        self.separators == [' ']
    }
}

impl<'a> Iterator for Fields<'a, '_> {
    type Item = Result<Cow<'a, str>, Quotes>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(text) = self.rest.take() {
            match self.split(text) {
                Ok((field, rest)) => {
                    self.rest = rest;
                    if !(self.spaces() && field.is_empty()) {
                        return Some(Ok(field));
                    }
                }
                Err(quotes) => return Some(Err(quotes)),
            }
        }
        None
    }
}

/// What stands behind an opening quote, and what behind the closing one.
fn quoted(inside: &str) -> Result<(Cow<'_, str>, &str), Quotes> {
    let mut from = 0;
    while let Some(at) = inside[from..].find('"').map(|at| from + at) {
        let after = &inside[at + 1..];
        if !after.starts_with('"') {
            let field = inside[..at].trim();
            let field = match field.contains("\"\"") {
                true => Cow::Owned(field.replace("\"\"", "\"")),
                false => Cow::Borrowed(field),
            };
            return Ok((field, after));
        }
        from = at + 2;
    }
    Err(Quotes)
}
