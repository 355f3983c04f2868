//! The Date field, made once a second.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::{Duration, Instant};

/// The current time in IMF-fixdate (RFC 9110, 5.6.7).
#[derive(Debug)]
pub struct Date {
    text: [u8; 29],
    until: Option<Instant>,
}

impl Default for Date {
    fn default() -> Self {
        Self { text: [b' '; 29], until: None }
    }
}

impl Date {
    /// The text for `now`, at most a second old.
    pub fn at(&mut self, now: Instant) -> &[u8; 29] {
        if self.until.is_none_or(|until| now >= until) {
            let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.text = text(elapsed.as_secs());
            self.until = Some(now + Duration::from_nanos(1_000_000_000 - u64::from(elapsed.subsec_nanos())));
        }
        &self.text
    }
}

fn text(seconds: u64) -> [u8; 29] {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant's days-to-civil, for days since 1970.
    let shifted = days + 719_468;
    let era_day = shifted % 146_097;
    let era_year = (era_day - era_day / 1_460 + era_day / 36_524 - era_day / 146_096) / 365;
    let year_day = era_day - (365 * era_year + era_year / 4 - era_year / 100);
    let shifted_month = (5 * year_day + 2) / 153;
    let day = year_day - (153 * shifted_month + 2) / 5 + 1;
    let month = (shifted_month + 2) % 12;
    let year = era_year + shifted / 146_097 * 400 + u64::from(month < 2);
    let name =
        |names: &'static str, at: u64| names.get(at as usize * 3..at as usize * 3 + 3).unwrap_or("   ");
    let date = format!(
        "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        name("ThuFriSatSunMonTueWed", days % 7),
        name("JanFebMarAprMayJunJulAugSepOctNovDec", month),
        rest / 3600,
        rest / 60 % 60,
        rest % 60,
    );
    date.as_bytes().try_into().unwrap_or([b' '; 29])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_rfc_9110_and_around_leap_days() {
        for (seconds, expected) in [
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (1_709_164_800, "Thu, 29 Feb 2024 00:00:00 GMT"),
            (1_709_251_199, "Thu, 29 Feb 2024 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        ] {
            assert_eq!(std::str::from_utf8(&text(seconds)).unwrap(), expected);
        }
    }
}
