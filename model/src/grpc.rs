//! What gRPC says in HTTP/2's fields (gRPC, "gRPC over HTTP2").

use std::time::Duration;

/// How long a client gives its call: the value of `grpc-timeout`.
///
/// One to eight digits and a unit (`H`, `M`, `S`, `m`, `u`, `n`: hours to nanoseconds), nothing around them. Zero is more
/// than the grammar has and what clients send whose time is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timeout(Duration);

/// The value is no [`Timeout`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a grpc-timeout is 1 to 8 digits and one of H, M, S, m, u, n")]
pub struct InvalidTimeout;

impl Timeout {
    /// Digits of the number.
    const MOST_DIGITS: usize = 8;

    /// The time from the call's begin to its end.
    pub fn duration(self) -> Duration {
        self.0
    }
}

impl TryFrom<&[u8]> for Timeout {
    type Error = InvalidTimeout;

    fn try_from(value: &[u8]) -> Result<Self, InvalidTimeout> {
        let (unit, digits) = value.split_last().ok_or(InvalidTimeout)?;
        if digits.is_empty() || digits.len() > Self::MOST_DIGITS || !digits.iter().all(u8::is_ascii_digit) {
            return Err(InvalidTimeout);
        }
        let number = digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
        Ok(Self(match unit {
            b'H' => Duration::from_secs(number * 3600),
            b'M' => Duration::from_secs(number * 60),
            b'S' => Duration::from_secs(number),
            b'm' => Duration::from_millis(number),
            b'u' => Duration::from_micros(number),
            b'n' => Duration::from_nanos(number),
            _ => return Err(InvalidTimeout),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_and_a_unit_and_nothing_else() {
        for (text, expected) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("40m", Duration::from_millis(40)),
            ("00000050u", Duration::from_micros(50)),
            ("99999999n", Duration::from_nanos(99_999_999)),
            ("99999999H", Duration::from_secs(359_999_996_400)),
            ("0n", Duration::ZERO),
        ] {
            assert_eq!(Timeout::try_from(text.as_bytes()).map(Timeout::duration), Ok(expected), "{text}");
        }
        for text in [
            "",
            "S",
            "1",
            "10",
            "1s",
            "1h",
            "1 S",
            " 1S",
            "1S ",
            "-1S",
            "+1S",
            "1.5S",
            "1e3m",
            "0x1S",
            "1mS",
            "1µ",
            "100000000n",
            "١S",
            "1S,2S",
            "1\0S",
        ] {
            assert_eq!(Timeout::try_from(text.as_bytes()), Err(InvalidTimeout), "{text}");
        }
    }
}
