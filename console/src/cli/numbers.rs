//! Numbers and addresses on the command line: what is wrong with one is said in words of ours.

use std::net::SocketAddr;

/// A whole number.
pub(crate) fn number<T: TryFrom<u64>>(text: &str) -> Result<T, &'static str> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("write a whole number, such as 12");
    }
    let number: Option<u64> = text.parse().ok();
    number.and_then(|number| T::try_from(number).ok()).ok_or("this number is too large")
}

/// Where to listen.
pub(crate) fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_why| "write an IP address and a port, such as 127.0.0.1:9443 or [::1]:9443")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_is_said_in_words() {
        assert_eq!(number::<u64>("12"), Ok(12));
        for text in ["", "abc", "-1", "+1", "1.5", " 1"] {
            assert_eq!(number::<u64>(text), Err("write a whole number, such as 12"), "{text:?}");
        }
        assert_eq!(number::<u16>("70000"), Err("this number is too large"));
        assert_eq!(number::<u64>("18446744073709551616"), Err("this number is too large"));
        assert_eq!(address("[::1]:5").map(|address| address.port()), Ok(5));
        assert!(address("localhost:5").is_err_and(|why| why.contains("IP address")));
    }
}
