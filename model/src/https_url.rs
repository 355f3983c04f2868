//! An address that something is fetched from over TLS.

use std::fmt;
use std::net::Ipv6Addr;

use crate::net::{InvalidOriginAddress, OriginAddress};

/// The longest address, bytes.
const LONGEST: usize = 2048;

/// `https://host[:port][/path][?query]` (RFC 9110, 4.2.2), without user, password and fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpsUrl {
    address: OriginAddress,
    /// Path and query, with the first slash.
    target: String,
}

/// Why a text is no [`HttpsUrl`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHttpsUrl {
    /// `http://`.
    #[error("http:// is clear text, and whoever is on the way could write the list; write https://")]
    ClearText,
    /// Another scheme, or none.
    #[error("it must begin with https://, such as https://example.com/ranges.json")]
    Scheme,
    /// Longer than it may be.
    #[error("it is longer than {LONGEST} bytes")]
    Long,
    /// White space, or what is not ASCII.
    #[error("only visible ASCII stands in an address; write everything else as %XX")]
    Characters,
    /// `user@host`. The text is not repeated: it may be a password.
    #[error("a user name or password has no place in it; remove what stands before the @")]
    User,
    /// `#...`.
    #[error("a fragment is not sent to anybody; remove what follows the #")]
    Fragment,
    /// The host or port.
    #[error("its host is none: {0}")]
    Host(#[from] InvalidOriginAddress),
}

impl HttpsUrl {
    /// Host and port.
    pub fn address(&self) -> &OriginAddress {
        &self.address
    }

    /// Path and query, as a request names them.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Host, and the port unless it is 443, as `Host` has them.
    pub fn authority(&self) -> String {
        let whole = self.address.to_string();
        whole.strip_suffix(":443").map(str::to_owned).unwrap_or(whole)
    }

    /// Where a `Location` of this address leads (RFC 3986, 5.2, without dot segments).
    ///
    /// # Errors
    /// When it does not lead to an https address.
    pub fn join(&self, location: &str) -> Result<Self, InvalidHttpsUrl> {
        // What follows # is for whoever shows the page (RFC 9110, 10.2.2).
        let location = location.split('#').next().unwrap_or_default();
        if location.contains("://") && !location.starts_with(['/', '?']) {
            return location.parse();
        }
        let (path, _query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let target = match location {
            _ if location.starts_with("//") => return format!("https:{location}").parse(),
            _ if location.starts_with('/') => location.to_owned(),
            "" => self.target.clone(),
            _ if location.starts_with('?') => format!("{path}{location}"),
            _ => format!("{}/{location}", path.rsplit_once('/').map_or("", |(before, _)| before)),
        };
        format!("https://{}{target}", self.address).parse()
    }
}

impl std::str::FromStr for HttpsUrl {
    type Err = InvalidHttpsUrl;

    fn from_str(text: &str) -> Result<Self, InvalidHttpsUrl> {
        if text.len() > LONGEST {
            return Err(InvalidHttpsUrl::Long);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidHttpsUrl::Characters);
        }
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => rest,
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("http") => {
                return Err(InvalidHttpsUrl::ClearText);
            }
            Some(_) | None => return Err(InvalidHttpsUrl::Scheme),
        };
        let (authority, target) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(InvalidHttpsUrl::User);
        }
        if target.contains('#') {
            return Err(InvalidHttpsUrl::Fragment);
        }
        if authority.parse::<Ipv6Addr>().is_ok() {
            return Err(InvalidOriginAddress::Port.into());
        }
        // The colons of an IPv6 address stand in brackets.
        let has_port = authority.rsplit(']').next().unwrap_or(authority).contains(':');
        let address = if has_port { authority.parse()? } else { format!("{authority}:443").parse()? };
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        Ok(Self { address, target })
    }
}

impl fmt::Display for HttpsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}{}", self.authority(), self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, InvalidHttpsUrl> {
        text.parse::<HttpsUrl>().map(|url| url.to_string())
    }

    #[test]
    fn what_is_an_address_and_what_is_none() {
        assert_eq!(read("https://Example.com").unwrap(), "https://example.com/");
        assert_eq!(read("HTTPS://example.com:443/a?b=c").unwrap(), "https://example.com/a?b=c");
        assert_eq!(read("https://example.com?b").unwrap(), "https://example.com/?b");
        assert_eq!(read("https://[2001:db8::1]/a").unwrap(), "https://[2001:db8::1]/a");
        assert_eq!(read("https://192.0.2.1:8443/a").unwrap(), "https://192.0.2.1:8443/a");
        for (text, why) in [
            ("http://example.com/", InvalidHttpsUrl::ClearText),
            ("ftp://example.com/", InvalidHttpsUrl::Scheme),
            ("example.com/a", InvalidHttpsUrl::Scheme),
            ("https://user:secret@example.com/", InvalidHttpsUrl::User),
            ("https://example.com/#a", InvalidHttpsUrl::Fragment),
            ("https://example.com/a b", InvalidHttpsUrl::Characters),
            ("https://example.com/\r\nHost: x", InvalidHttpsUrl::Characters),
            ("https://2001:db8::1/", InvalidOriginAddress::Port.into()),
            ("https://example.com:0/", InvalidOriginAddress::Port.into()),
        ] {
            assert_eq!(read(text), Err(why), "{text}");
        }
        assert!(matches!(read("https:///a"), Err(InvalidHttpsUrl::Host(_))));
        assert_eq!(read(&format!("https://a.example/{}", "a".repeat(LONGEST))), Err(InvalidHttpsUrl::Long));
    }

    #[test]
    fn where_a_redirect_leads() {
        let here: HttpsUrl = "https://a.example:8443/x/y?z".parse().unwrap();
        for (location, there) in [
            ("https://b.example/1", "https://b.example/1"),
            ("//b.example/1", "https://b.example/1"),
            ("/1?u=https://c.example/", "https://a.example:8443/1?u=https://c.example/"),
            ("1", "https://a.example:8443/x/1"),
            ("?q", "https://a.example:8443/x/y?q"),
            ("#part", "https://a.example:8443/x/y?z"),
        ] {
            assert_eq!(here.join(location).unwrap().to_string(), there, "{location}");
        }
        assert_eq!(here.join("http://b.example/"), Err(InvalidHttpsUrl::ClearText));
        assert_eq!(here.join("file:///etc/passwd"), Err(InvalidHttpsUrl::Scheme));
    }
}
