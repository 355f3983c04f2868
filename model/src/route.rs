//! Which route a request belongs to: path normalisation and the route table.
//!
//! Precedence is Gateway API's (HTTPRouteRule): exact host before wildcard, longer wildcard before shorter; then exact
//! path before prefix, longer prefix before shorter.

use crate::name::{HostName, Name};
use crate::snapshot::Snapshot;

/// A path in the one form that is matched and forwarded: `%XX` of unreserved characters decoded, other escapes in
/// upper case, `.` and `..` segments removed, `//` kept. The query is not part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NormalPath(Box<str>);

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    /// Does not start with `/`.
    #[error("a path starts with /")]
    NotAbsolute,
    /// `%` without two hexadecimal digits.
    #[error("a % in a path is followed by two hexadecimal digits")]
    Escape,
    /// NUL, `%00`.
    #[error("a path has no NUL")]
    Nul,
    /// `%2F`, unless the route allows it.
    #[error("a path has no encoded slash")]
    EncodedSlash,
    /// `\` or `%5C`.
    #[error("a path has no backslash")]
    Backslash,
    /// A control character, space, `#`, or a byte above 0x7e.
    #[error("a path has visible ASCII characters only")]
    Character,
    /// `..` above the root.
    #[error("a path does not climb above /")]
    AboveRoot,
}

impl NormalPath {
    /// Normalises a request's path. `%2F` is kept as it is; see [`NormalPath::has_encoded_slash`].
    ///
    /// # Errors
    /// See [`InvalidPath`]; never `EncodedSlash`, which is the caller's to decide by route.
    pub fn parse(path: &str) -> Result<Self, InvalidPath> {
        let _ = path;
        Err(InvalidPath::NotAbsolute)
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `%2F` stands in it.
    pub fn has_encoded_slash(&self) -> bool {
        self.0.contains("%2F")
    }
}

/// The routes of one listener, ready to be asked. `R` is what the caller wants back for a route.
#[derive(Debug)]
pub struct Table<R> {
    _routes: Vec<R>,
}

impl<R: Clone> Table<R> {
    /// Builds the table for `listener`; `make` turns each of its routes into what is returned on a match.
    pub fn build(snapshot: &Snapshot, listener: &Name, make: impl FnMut(&crate::snapshot::Route) -> R) -> Self {
        let _ = (snapshot, listener, make);
        Self { _routes: Vec::new() }
    }

    /// The route for a host and path. No allocation.
    pub fn find(&self, host: &HostName, path: &NormalPath) -> Option<&R> {
        let _ = (host, path);
        None
    }
}
