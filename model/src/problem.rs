//! What is wrong with something a person wrote: one sentence that says what, where and what to do.
//!
//! Forms, the REST API, the command line and Kubernetes status show the same [`Problem`].

use std::fmt;

use serde::{Deserialize, Serialize};

/// One thing that is wrong, with its place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Problem {
    /// The object, `Kind/name`; empty when the problem is in the document itself.
    pub object: String,
    /// The field's path inside the object, such as `spec.origins[1].address`; empty for the object as a whole.
    pub field: String,
    /// A closed list of machine-readable codes (kebab case), stable across releases.
    pub code: Code,
    /// One sentence: what is wrong and what to do.
    pub message: String,
}

impl Problem {
    /// Makes a problem at `object` (`Kind/name`) and `field` (a path such as `spec.port`).
    pub fn new(
        object: impl Into<String>,
        field: impl Into<String>,
        code: Code,
        message: impl Into<String>,
    ) -> Self {
        Self { object: object.into(), field: field.into(), code, message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.object.as_str(), self.field.as_str()) {
            ("", "") => write!(f, "{}", self.message),
            ("", field) => write!(f, "{field}: {}", self.message),
            (object, "") => write!(f, "{object}: {}", self.message),
            (object, field) => write!(f, "{object} {field}: {}", self.message),
        }
    }
}

/// Why a draft is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// Not YAML or JSON at all, or not an object.
    Malformed,
    /// `apiVersion` is not one this release speaks.
    UnknownVersion,
    /// `kind` is not one this release knows.
    UnknownKind,
    /// A field nobody reads; the message names the nearest known one.
    UnknownField,
    /// A required field is missing.
    Missing,
    /// A value does not parse as what the field holds.
    Invalid,
    /// Two objects, or two entries, claim the same thing.
    Duplicate,
    /// A reference to an object that does not exist.
    UnknownReference,
    /// A certificate and its private key do not belong together.
    KeyMismatch,
    /// A certificate's private key is not stored and was not given.
    KeyMissing,
    /// A certificate (or one of its chain) has ended.
    Expired,
    /// A certificate does not cover a host it is to be served for.
    NotCovered,
    /// The change is allowed, but only when it is confirmed a second time.
    NeedsConfirmation,
    /// Something outside this object's text forbids the change (a limit, a conflict with a newer revision).
    Conflict,
}
