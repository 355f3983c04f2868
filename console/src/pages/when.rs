//! Times as people read them. The page shows the relative time, the title and `datetime` the absolute one.

use std::fmt::Write as _;

use askama::Template;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A moment.
#[derive(Debug, Clone, PartialEq, Eq, Template)]
#[template(
    source = "<time datetime=\"{{ iso }}\" title=\"{{ absolute }}\"{% if ticking %} data-relative{% endif %}>{{ words }}</time>",
    ext = "html"
)]
pub(crate) struct When {
    iso: String,
    absolute: String,
    words: String,
    ticking: bool,
}

impl When {
    /// `3 minutes ago`, kept up to date by the script.
    pub(crate) fn relative(at: OffsetDateTime, now: OffsetDateTime) -> Self {
        let words = distance(at, now);
        Self { ticking: true, ..Self::with(at, words) }
    }

    /// `14 Jan 2027`.
    pub(crate) fn date(at: OffsetDateTime) -> Self {
        Self::with(at, format!("{} {} {}", at.day(), month(at), at.year()))
    }

    fn with(at: OffsetDateTime, words: String) -> Self {
        Self { iso: at.format(&Rfc3339).unwrap_or_default(), absolute: absolute(at), words, ticking: false }
    }
}

/// `14 Jan 2027, 20:15:03 UTC`.
pub(crate) fn absolute(at: OffsetDateTime) -> String {
    let at = at.to_offset(time::UtcOffset::UTC);
    let mut text = format!("{} {} {}", at.day(), month(at), at.year());
    let _ = write!(text, ", {:02}:{:02}:{:02} UTC", at.hour(), at.minute(), at.second());
    text
}

/// `20:15`, UTC.
pub(crate) fn clock(at: OffsetDateTime) -> String {
    let at = at.to_offset(time::UtcOffset::UTC);
    format!("{:02}:{:02}", at.hour(), at.minute())
}

/// Milliseconds since the Unix epoch as a moment; what lies outside the calendar is the epoch.
pub(crate) fn from_ms(ms: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn month(at: OffsetDateTime) -> &'static str {
    const NAMES: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    NAMES.get(usize::from(u8::from(at.month())) - 1).copied().unwrap_or_default()
}

fn distance(at: OffsetDateTime, now: OffsetDateTime) -> String {
    let seconds = (now - at).whole_seconds();
    let (count, unit) = unit(seconds.unsigned_abs());
    let plural = if count == 1 { "" } else { "s" };
    match (seconds, count) {
        (_, 0) => "now".to_owned(),
        (1.., _) => format!("{count} {unit}{plural} ago"),
        _ => format!("in {count} {unit}{plural}"),
    }
}

/// The largest unit that fits, and how often.
pub(crate) fn unit(seconds: u64) -> (u64, &'static str) {
    match seconds {
        86_400.. => (seconds / 86_400, "day"),
        3_600.. => (seconds / 3_600, "hour"),
        60.. => (seconds / 60, "minute"),
        _ => (seconds, "second"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        let now = from_ms(1_800_000_000_000);
        let words = |seconds: i64| When::relative(now + time::Duration::seconds(seconds), now).words;
        assert_eq!(words(0), "now");
        assert_eq!(words(-1), "1 second ago");
        assert_eq!(words(-7_300), "2 hours ago");
        assert_eq!(words(86_400 * 6 + 5), "in 6 days");
    }

    #[test]
    fn the_absolute_time_stays_at_hand() {
        insta::assert_snapshot!(When::date(from_ms(1_800_000_000_000)).render().unwrap(), @r#"<time datetime="2027-01-15T08:00:00Z" title="15 Jan 2027, 08:00:00 UTC">15 Jan 2027</time>"#);
    }
}
