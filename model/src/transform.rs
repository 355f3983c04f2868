//! What a route does to requests and responses beside passing them on: Gateway API's HTTPRoute filters, compiled.
//!
//! In: snapshots. Out: changed paths, fields and locations, made of types that cannot break a message.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

use crate::header::{FieldName, FieldValue};
use crate::name::HostName;
use crate::route::NormalPath;

/// A route's filters; the default changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Transform {
    /// What happens to the request's fields on the way to the origin.
    #[serde(default, skip_serializing_if = "is_default")]
    pub request_headers: FieldChange,
    /// What happens to the final response's fields on the way to the client.
    #[serde(default, skip_serializing_if = "is_default")]
    pub response_headers: FieldChange,
    /// The host that the origin is told instead of the client's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<HostName>,
    /// The path that the origin is asked for instead of the client's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathChange>,
    /// What is answered without an origin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
}

impl Transform {
    /// Whether a request reaches the origin as something else than it came.
    pub fn changes_requests(&self) -> bool {
        !self.request_headers.is_empty() || self.hostname.is_some() || self.path.is_some()
    }
}

/// Gateway API's `HTTPHeaderFilter`. No name is in `remove` and elsewhere, none in one list twice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FieldChange {
    /// These replace all fields of their name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<Field>,
    /// These are appended to what is there, behind those of `set`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<Field>,
    /// All fields of these names go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<FieldName>,
}

impl FieldChange {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }

    /// Whether a field of a message does not survive: neither one that is replaced or removed, nor one that its reader would
    /// take for that.
    pub fn drops(&self, name: &[u8]) -> bool {
        self.set.iter().map(|field| &field.name).chain(&self.remove).any(|gone| gone.reads_as(name))
    }

    /// The fields that come behind those that survive.
    pub fn new_fields(&self) -> impl Iterator<Item = &Field> {
        self.set.iter().chain(&self.add)
    }
}

/// One field.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Field {
    /// Its name.
    pub name: FieldName,
    /// Its value.
    pub value: FieldValue,
}

/// Gateway API's `HTTPPathModifier`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum PathChange {
    /// This path, whatever was asked for.
    Full(NormalPath),
    /// `to` instead of the prefix `from`; trailing slashes of both mean nothing.
    Prefix {
        /// The route's path match.
        from: NormalPath,
        /// What stands in its place; `/` for nothing.
        to: NormalPath,
    },
}

impl PathChange {
    /// The changed path; the query is no part of it. A path outside the prefix stays as it is.
    pub fn apply(&self, path: &NormalPath) -> NormalPath {
        match self {
            Self::Full(full) => full.clone(),
            Self::Prefix { from, to } => path.with_prefix(from, to).unwrap_or_else(|| path.clone()),
        }
    }
}

/// An answer that needs no origin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Answer {
    /// Another place.
    Redirect(Redirect),
    /// A fixed response.
    Fixed(Fixed),
}

/// A fixed response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fixed {
    /// 200 to 599.
    pub status: u16,
    /// `Content-Type`; nothing where there is no body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<FieldValue>,
    /// The body.
    pub body: String,
}

/// Gateway API's `HTTPRequestRedirectFilter`; what is absent stays as the client asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Redirect {
    /// Scheme.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// Host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<HostName>,
    /// Port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathChange>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// A scheme of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Scheme {
    /// Clear text.
    Http,
    /// TLS.
    Https,
}

impl Scheme {
    /// As in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that URLs leave out.
    pub fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// What a client asked for, as far as a redirect needs it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a, H> {
    /// How the client came.
    pub scheme: Scheme,
    /// Whom it asked for, without the port.
    pub host: &'a H,
    /// The listener's port.
    pub port: u16,
    /// The path.
    pub path: &'a NormalPath,
    /// Behind the `?`: visible ASCII without `#`.
    pub query: Option<&'a str>,
}

impl Redirect {
    /// The value of `Location`. Without a port of its own, a redirect that names a scheme takes that scheme's port, and
    /// one that does not the listener's (Gateway API, `HTTPRequestRedirectFilter.port`); a scheme's own port is not said.
    pub fn location<H: fmt::Display>(&self, asked: &Asked<'_, H>) -> String {
        let scheme = self.scheme.unwrap_or(asked.scheme);
        let port = self.port.unwrap_or(match self.scheme {
            Some(scheme) => scheme.port(),
            None => asked.port,
        });
        let mut location = format!("{}://", scheme.as_str());
        // Writing to a growing string cannot fail.
        let _ = match &self.hostname {
            Some(host) => write!(location, "{host}"),
            None => write!(location, "{}", asked.host),
        };
        if port != scheme.port() {
            let _ = write!(location, ":{port}");
        }
        match &self.path {
            Some(change) => location.push_str(change.apply(asked.path).as_str()),
            None => location.push_str(asked.path.as_str()),
        }
        if let Some(query) = asked.query {
            location.push('?');
            location.push_str(query);
        }
        location
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> NormalPath {
        NormalPath::parse(text).unwrap()
    }

    fn prefix(from: &str, to: &str) -> PathChange {
        let to = if to.is_empty() { "/" } else { to };
        PathChange::Prefix { from: path(from), to: path(to) }
    }

    /// The table of Gateway API's `HTTPPathModifier.replacePrefixMatch`, and what it leaves open.
    #[test]
    fn prefixes_are_replaced_as_gateway_api_says() {
        for (asked, from, to, expected) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/foo/bar", "/", "/xyz", "/xyz/foo/bar"),
            ("/", "/", "/xyz", "/xyz/"),
            ("/foo//bar", "/foo", "/", "//bar"),
            ("/foobar", "/foo", "/xyz", "/foobar"),
        ] {
            assert_eq!(prefix(from, to).apply(&path(asked)).as_str(), expected, "{asked} {from} {to}");
        }
        assert_eq!(PathChange::Full(path("/new")).apply(&path("/a/b")).as_str(), "/new");
    }

    #[test]
    fn locations_follow_the_rules_for_ports() {
        let bare = Redirect { scheme: None, hostname: None, port: None, path: None, status: 302 };
        let host: HostName = "shop.example.com".parse().unwrap();
        let other = Some("new.example.com".parse().unwrap());
        for (redirect, asked, expected) in [
            (bare.clone(), (Scheme::Https, 443), "https://shop.example.com/a/b?c=d"),
            (bare.clone(), (Scheme::Https, 8443), "https://shop.example.com:8443/a/b?c=d"),
            (bare.clone(), (Scheme::Http, 80), "http://shop.example.com/a/b?c=d"),
            (
                Redirect { scheme: Some(Scheme::Https), ..bare.clone() },
                (Scheme::Http, 8080),
                "https://shop.example.com/a/b?c=d",
            ),
            (
                Redirect { scheme: Some(Scheme::Http), ..bare.clone() },
                (Scheme::Https, 8443),
                "http://shop.example.com/a/b?c=d",
            ),
            (
                Redirect { port: Some(443), ..bare.clone() },
                (Scheme::Http, 8080),
                "http://shop.example.com:443/a/b?c=d",
            ),
            (
                Redirect { scheme: Some(Scheme::Https), port: Some(9443), ..bare.clone() },
                (Scheme::Http, 80),
                "https://shop.example.com:9443/a/b?c=d",
            ),
            (
                Redirect { hostname: other, path: Some(prefix("/a", "/z")), ..bare.clone() },
                (Scheme::Https, 443),
                "https://new.example.com/z/b?c=d",
            ),
        ] {
            let asked = Asked {
                scheme: asked.0,
                host: &host,
                port: asked.1,
                path: &path("/a/b"),
                query: Some("c=d"),
            };
            assert_eq!(redirect.location(&asked), expected);
        }
    }
}
