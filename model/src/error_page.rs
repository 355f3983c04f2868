//! What operators show instead of our error pages: bounded templates with a few placeholders, none of which a client
//! can fill with anything of its own.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ErrorPage {
    /// For which answers.
    pub statuses: Statuses,
    /// For which clients.
    pub form: PageForm,
    /// What they get.
    pub body: Template,
}

/// Which clients get a page, by what they accept, and how its placeholders are escaped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PageForm {
    /// `text/html; charset=utf-8`.
    #[default]
    Html,
    /// `application/problem+json` (RFC 9457).
    Json,
    /// `text/plain; charset=utf-8`.
    Plain,
}

/// Which answers have a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Statuses {
    /// Every refusal.
    All,
    /// `4xx` or `5xx`.
    Class(u8),
    /// This one, 400 to 599.
    One(u16),
}

/// Why a text is no [`Statuses`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write a status from 400 to 599, 4xx, 5xx, or all")]
pub struct InvalidStatuses;

impl Statuses {
    /// How exactly a status is meant; nothing where it is not.
    pub fn precision(self, status: u16) -> Option<u8> {
        match self {
            Self::All => Some(0),
            Self::Class(class) => (status / 100 == u16::from(class)).then_some(1),
            Self::One(one) => (status == one).then_some(2),
        }
    }
}

impl std::str::FromStr for Statuses {
    type Err = InvalidStatuses;

    fn from_str(text: &str) -> Result<Self, InvalidStatuses> {
        match text {
            "all" => Ok(Self::All),
            "4xx" => Ok(Self::Class(4)),
            "5xx" => Ok(Self::Class(5)),
            _ => match text.parse() {
                Ok(status @ 400..=599) if text.len() == 3 => Ok(Self::One(status)),
                Ok(_) | Err(_) => Err(InvalidStatuses),
            },
        }
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Class(class) => write!(f, "{class}xx"),
            Self::One(status) => write!(f, "{status}"),
        }
    }
}

impl TryFrom<String> for Statuses {
    type Error = InvalidStatuses;

    fn try_from(text: String) -> Result<Self, InvalidStatuses> {
        text.parse()
    }
}

impl From<Statuses> for String {
    fn from(statuses: Statuses) -> Self {
        statuses.to_string()
    }
}

/// A text with placeholders: `{{status}}`, `{{title}}`, `{{reason}}`, `{{requestId}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Placeholder(Placeholder),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placeholder {
    Status,
    Title,
    Reason,
    RequestId,
}

const PLACEHOLDERS: [(&str, Placeholder); 4] = [
    ("status", Placeholder::Status),
    ("title", Placeholder::Title),
    ("reason", Placeholder::Reason),
    ("requestId", Placeholder::RequestId),
];

/// The most a template may have, bytes: every listener's pages are in every snapshot.
pub const LONGEST: usize = 16_384;

/// Why a text is no [`Template`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTemplate {
    /// Longer than [`LONGEST`].
    #[error("a page has at most {LONGEST} bytes")]
    TooLong,
    /// `{{` without a name we know and `}}`.
    #[error("after {{{{ stands one of status, title, reason, requestId and then }}}}")]
    Placeholder,
}

/// What placeholders stand for.
#[derive(Debug, Clone, Copy)]
pub struct Filling<'a> {
    /// The status.
    pub status: u16,
    /// Its phrase (RFC 9110, 15).
    pub title: &'a str,
    /// The reason's name.
    pub reason: &'a str,
    /// The request's id.
    pub request_id: &'a str,
}

impl Template {
    /// The text with every placeholder filled in and escaped for its form.
    pub fn fill(&self, form: PageForm, filling: &Filling<'_>) -> String {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Placeholder(Placeholder::Status) => out.push_str(&filling.status.to_string()),
                Part::Placeholder(Placeholder::Title) => escape(&mut out, form, filling.title),
                Part::Placeholder(Placeholder::Reason) => escape(&mut out, form, filling.reason),
                Part::Placeholder(Placeholder::RequestId) => escape(&mut out, form, filling.request_id),
            }
        }
        out
    }
}

/// The values are ours today; escaping them keeps that from being the only thing that makes a page safe.
fn escape(out: &mut String, form: PageForm, text: &str) {
    for c in text.chars() {
        match (form, c) {
            (PageForm::Html, '<') => out.push_str("&lt;"),
            (PageForm::Html, '>') => out.push_str("&gt;"),
            (PageForm::Html, '&') => out.push_str("&amp;"),
            (PageForm::Html, '"') => out.push_str("&quot;"),
            (PageForm::Html, '\'') => out.push_str("&#39;"),
            (PageForm::Json, '"' | '\\') => out.extend(['\\', c]),
            (PageForm::Json, c) if c.is_control() => out.push(' '),
            (PageForm::Html | PageForm::Json | PageForm::Plain, c) => out.push(c),
        }
    }
}

impl std::str::FromStr for Template {
    type Err = InvalidTemplate;

    fn from_str(text: &str) -> Result<Self, InvalidTemplate> {
        if text.len() > LONGEST {
            return Err(InvalidTemplate::TooLong);
        }
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once("{{") {
            let (name, after) = after.split_once("}}").ok_or(InvalidTemplate::Placeholder)?;
            let known = PLACEHOLDERS.iter().find(|(known, _)| *known == name.trim());
            let (_, placeholder) = known.ok_or(InvalidTemplate::Placeholder)?;
            parts
                .extend(Some(before).filter(|text| !text.is_empty()).map(|text| Part::Text(text.to_owned())));
            parts.push(Part::Placeholder(*placeholder));
            rest = after;
        }
        parts.extend(Some(rest).filter(|text| !text.is_empty()).map(|text| Part::Text(text.to_owned())));
        Ok(Self(parts))
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.0 {
            match part {
                Part::Text(text) => f.write_str(text)?,
                Part::Placeholder(placeholder) => {
                    let known = PLACEHOLDERS.iter().find(|(_, known)| known == placeholder);
                    write!(f, "{{{{{}}}}}", known.map_or("", |(name, _)| name))?;
                }
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for Template {
    type Error = InvalidTemplate;

    fn try_from(text: String) -> Result<Self, InvalidTemplate> {
        text.parse()
    }
}

impl From<Template> for String {
    fn from(template: Template) -> Self {
        template.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: Filling<'_> =
        Filling { status: 404, title: "<b>", reason: "\"}\n,\\", request_id: "{{status}}" };

    #[test]
    fn placeholders_are_filled_once_and_escaped() {
        let template: Template = "a{b}{{ status }}{{title}}|{{reason}}|{{requestId}}".parse().unwrap();
        assert_eq!(template.to_string(), "a{b}{{status}}{{title}}|{{reason}}|{{requestId}}");
        assert_eq!(template.fill(PageForm::Html, &HOSTILE), "a{b}404&lt;b&gt;|&quot;}\n,\\|{{status}}");
        let json: Template = r#"{"a": "{{reason}}"}"#.parse().unwrap();
        let filled = json.fill(PageForm::Json, &HOSTILE);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&filled).unwrap()["a"], "\"} ,\\");
    }

    #[test]
    fn what_is_no_template() {
        for text in ["{{", "{{}}", "{{host}}", "{{status}", "x{{ status"] {
            assert_eq!(text.parse::<Template>(), Err(InvalidTemplate::Placeholder), "{text}");
        }
        assert_eq!("a".repeat(LONGEST + 1).parse::<Template>(), Err(InvalidTemplate::TooLong));
    }

    #[test]
    fn statuses() {
        for text in ["all", "4xx", "5xx", "404", "599"] {
            assert_eq!(text.parse::<Statuses>().unwrap().to_string(), text);
        }
        for text in ["", "2xx", "399", "600", "+404", "0404", "40", "4XX"] {
            assert_eq!(text.parse::<Statuses>(), Err(InvalidStatuses), "{text}");
        }
        assert_eq!("5xx".parse::<Statuses>().unwrap().precision(503), Some(1));
        assert_eq!("5xx".parse::<Statuses>().unwrap().precision(404), None);
    }
}
