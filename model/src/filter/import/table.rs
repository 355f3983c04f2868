//! Lists of a line each, and tables as RFC 4180 has them, but without line breaks inside quotes.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::{InvalidList, NotPrefix, no_prefix, put, shown, strictly};
use crate::net::Prefix;

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
            let column = column.ok_or_else(|| InvalidList::Column { line: number, key: key.to_owned() })?;
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
                    return Err(InvalidList::First { line: number, text: shown(&text), why });
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
            match fields(heading, separators) {
                Ok(fields) => {
                    if let Some(index) = fields.iter().position(|field| field.eq_ignore_ascii_case(key)) {
                        return Ok(Some(Self { separators, index }));
                    }
                }
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
        Ok(fields(line, self.separators)?.into_iter().nth(self.index).unwrap_or_default())
    }
}

/// A line that has no prefix.
struct Other {
    text: String,
    why: NotPrefix,
    could_be_meant: bool,
}

/// The first field that is an address with an optional length. One that is no prefix all the same is refused, rather than the next taken.
fn in_line(number: usize, line: &str) -> Result<Result<Prefix, Other>, InvalidList> {
    let line = line.trim();
    let split = |separators| fields(line, separators).map_err(|Quotes| InvalidList::Quotes(number));
    let fields = match split(SEPARATORS)? {
        one if one.len() == 1 => split(&[' '])?,
        several => several,
    };
    for field in &fields {
        match strictly(field) {
            Ok(prefix) => return Ok(Ok(prefix)),
            Err(why) if why.is_other_text() => {}
            Err(why) => return Ok(Err(Other { text: field.to_string(), why, could_be_meant: true })),
        }
    }
    let why = NotPrefix::Invalid(crate::net::InvalidPrefix::Syntax);
    let could_be_meant = fields.iter().any(|field| could_be_meant(field));
    Ok(Err(Other { text: line.to_owned(), why, could_be_meant }))
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

/// The fields of a line, without the white space around them. Spaces separate however many they are. A quote that does not begin
/// a field is text, as in `5" pipe`.
fn fields<'a>(line: &'a str, separators: &[char]) -> Result<Vec<Cow<'a, str>>, Quotes> {
    let spaces = separators == [' '];
    let mut fields = Vec::new();
    let mut rest = Some(line);
    while let Some(text) = rest {
        let start = text.trim_start_matches(|c: char| c.is_whitespace() && !separators.contains(&c));
        let start = if spaces { start.trim_start() } else { start };
        let (field, after) = match start.strip_prefix('"') {
            Some(inside) => quoted(inside)?,
            None => {
                let end = start.find(separators).unwrap_or(start.len());
                let (field, after) = start.split_at(end);
                (Cow::Borrowed(field.trim()), after)
            }
        };
        let after = after.trim_start_matches(|c: char| c.is_whitespace() && !separators.contains(&c));
        rest = match after.strip_prefix(separators) {
            None if after.is_empty() => None,
            None => return Err(Quotes),
            after => after,
        };
        if !(spaces && field.is_empty()) {
            fields.push(field);
        }
    }
    Ok(fields)
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
