//! Objects as documents: JSON (or YAML, which the caller turns into JSON) in and out.

use std::borrow::Borrow;
use std::fmt;

use serde::de::Error as _;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::read::{self, Fault, read};
use super::{API_VERSION, Kind, Metadata, Object, Spec};
use crate::nearest::did_you_mean;
use crate::problem::{Code, Problem};

const FIELDS: [&str; 4] = ["apiVersion", "kind", "metadata", "spec"];

/// Reads one document, owned or borrowed.
///
/// # Errors
/// Every problem of its form: unknown fields with the nearest known name, wrong types, missing fields, each with its path.
/// Never empty. What the values mean is for [`crate::compile`].
pub fn parse(value: impl Borrow<Value>) -> Result<Object, Vec<Problem>> {
    let Some(document) = value.borrow().as_object() else {
        let message = "a document is an object with apiVersion, kind, metadata and spec";
        return Err(vec![Problem::new("", "", Code::Malformed, message)]);
    };
    let mut faults: Vec<Fault> = Vec::new();
    read::unknown(document.keys(), &FIELDS, "", |path, code, message| faults.push((path, code, message)));
    check_version(document, &mut faults);
    let kind = find_kind(document, &mut faults);
    let metadata = part(document, "metadata", &mut faults);
    let spec = kind.and_then(|kind| find_spec(document, kind, &mut faults));
    match (metadata, spec) {
        (Some(metadata), Some(spec)) if faults.is_empty() => Ok(Object { metadata, spec }),
        _ => {
            let object = label(document, kind);
            Err(faults
                .into_iter()
                .map(|(path, code, message)| Problem::new(&*object, path, code, message))
                .collect())
        }
    }
}

fn check_version(document: &Map<String, Value>, faults: &mut Vec<Fault>) {
    let (code, message) = match document.get("apiVersion") {
        Some(Value::String(version)) if version == API_VERSION => return,
        None | Some(Value::Null) => {
            (Code::Missing, format!("is required; write `apiVersion: {API_VERSION}`"))
        }
        Some(_) => (Code::UnknownVersion, format!("this release reads only {API_VERSION}; write that")),
    };
    faults.push(("apiVersion".to_owned(), code, message));
}

fn find_kind(document: &Map<String, Value>, faults: &mut Vec<Fault>) -> Option<Kind> {
    let known = || Kind::ALL.map(Kind::as_str);
    let (code, message) = match document.get("kind") {
        Some(Value::String(text)) => match Kind::ALL.into_iter().find(|kind| kind.as_str() == text) {
            Some(kind) => return Some(kind),
            None => {
                let hint = did_you_mean(text, known(), || format!("the kinds are {}", known().join(", ")));
                (Code::UnknownKind, format!("there is no such kind; {hint}"))
            }
        },
        None | Some(Value::Null) => (Code::Missing, format!("is required; one of {}", known().join(", "))),
        Some(_) => (Code::UnknownKind, format!("must be text, one of {}", known().join(", "))),
    };
    faults.push(("kind".to_owned(), code, message));
    None
}

fn find_spec(document: &Map<String, Value>, kind: Kind, faults: &mut Vec<Fault>) -> Option<Spec> {
    match kind {
        Kind::Listener => part(document, "spec", faults).map(Spec::Listener),
        Kind::Route => part(document, "spec", faults).map(Spec::Route),
        Kind::OriginGroup => part(document, "spec", faults).map(Spec::OriginGroup),
        Kind::Certificate => part(document, "spec", faults).map(Spec::Certificate),
        Kind::TrustBundle => part(document, "spec", faults).map(Spec::TrustBundle),
        Kind::PrefixSet => part(document, "spec", faults).map(Spec::PrefixSet),
        Kind::PacketFilter => part(document, "spec", faults).map(Spec::PacketFilter),
    }
}

fn part<T: serde::de::DeserializeOwned>(
    document: &Map<String, Value>,
    name: &str,
    faults: &mut Vec<Fault>,
) -> Option<T> {
    match document.get(name) {
        None | Some(Value::Null) => {
            faults.push((name.to_owned(), Code::Missing, "is required; add it".to_owned()));
            None
        }
        Some(value) => read(value, name).map_err(|found| faults.extend(found)).ok(),
    }
}

/// `Route/shop`, as far as the document says.
fn label(document: &Map<String, Value>, kind: Option<Kind>) -> String {
    let name = document.get("metadata").and_then(|metadata| metadata.get("name")).and_then(Value::as_str);
    match (kind, name) {
        (Some(kind), Some(name)) => format!("{kind}/{name}"),
        (Some(kind), None) => kind.to_string(),
        (None, Some(name)) => name.to_owned(),
        (None, None) => String::new(),
    }
}

impl Object {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        self.spec.kind()
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// `Kind/name`, as problems and changes name it.
    pub fn label(&self) -> String {
        format!("{}/{}", self.kind(), self.name())
    }

    /// The document: `apiVersion`, `kind`, `metadata`, `spec`. Defaults are left out.
    pub fn to_value(&self) -> Value {
        // Structs of texts, numbers and text-keyed maps: there is nothing to fail.
        serde_json::to_value(self).unwrap_or_default()
    }
}

impl Spec {
    /// Which kind of spec this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Listener(_) => Kind::Listener,
            Self::Route(_) => Kind::Route,
            Self::OriginGroup(_) => Kind::OriginGroup,
            Self::Certificate(_) => Kind::Certificate,
            Self::TrustBundle(_) => Kind::TrustBundle,
            Self::PrefixSet(_) => Kind::PrefixSet,
            Self::PacketFilter(_) => Kind::PacketFilter,
        }
    }

    /// The spec alone.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

impl Serialize for Spec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Listener(spec) => spec.serialize(serializer),
            Self::Route(spec) => spec.serialize(serializer),
            Self::OriginGroup(spec) => spec.serialize(serializer),
            Self::Certificate(spec) => spec.serialize(serializer),
            Self::TrustBundle(spec) => spec.serialize(serializer),
            Self::PrefixSet(spec) => spec.serialize(serializer),
            Self::PacketFilter(spec) => spec.serialize(serializer),
        }
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut document = serializer.serialize_struct("Object", 4)?;
        document.serialize_field("apiVersion", API_VERSION)?;
        document.serialize_field("kind", &self.kind())?;
        document.serialize_field("metadata", &self.metadata)?;
        document.serialize_field("spec", &self.spec)?;
        document.end()
    }
}

/// Through [`parse`]; all problems in one message. Where they are shown to people, read a `Value` and call `parse`.
impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse(Value::deserialize(deserializer)?).map_err(|problems| {
            D::Error::custom(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        })
    }
}

impl Object {
    /// An object named `name` without labels.
    pub fn new(name: impl Into<String>, spec: Spec) -> Self {
        Self { metadata: Metadata { name: name.into(), ..Metadata::default() }, spec }
    }
}

impl Kind {
    /// All kinds, in the order they are listed everywhere.
    pub const ALL: [Self; 7] = [
        Self::Listener,
        Self::Route,
        Self::OriginGroup,
        Self::Certificate,
        Self::TrustBundle,
        Self::PrefixSet,
        Self::PacketFilter,
    ];

    /// As documents write it: `OriginGroup`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Listener => "Listener",
            Self::Route => "Route",
            Self::OriginGroup => "OriginGroup",
            Self::Certificate => "Certificate",
            Self::TrustBundle => "TrustBundle",
            Self::PrefixSet => "PrefixSet",
            Self::PacketFilter => "PacketFilter",
        }
    }

    /// As addresses write it: `origin-groups`.
    pub fn segment(self) -> &'static str {
        match self {
            Self::Listener => "listeners",
            Self::Route => "routes",
            Self::OriginGroup => "origin-groups",
            Self::Certificate => "certificates",
            Self::TrustBundle => "trust-bundles",
            Self::PrefixSet => "prefix-sets",
            Self::PacketFilter => "packet-filters",
        }
    }

    /// As sentences write it: `origin group`.
    pub fn words(self) -> &'static str {
        match self {
            Self::Listener => "listener",
            Self::Route => "route",
            Self::OriginGroup => "origin group",
            Self::Certificate => "certificate",
            Self::TrustBundle => "trust bundle",
            Self::PrefixSet => "prefix set",
            Self::PacketFilter => "packet filter",
        }
    }

    /// Reads what people type: `OriginGroup`, `origingroup`, `origin-group` or `origin-groups`.
    ///
    /// # Errors
    /// [`UnknownKind`], with what was typed.
    pub fn parse(text: &str) -> Result<Self, UnknownKind> {
        let plain = |text: &str| text.replace('-', "").to_ascii_lowercase();
        let typed = plain(text);
        Self::ALL
            .into_iter()
            .find(|kind| typed == plain(kind.as_str()) || typed == plain(kind.segment()))
            .ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

/// No kind has this name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownKind(String);

impl fmt::Display for UnknownKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hint = did_you_mean(&self.0, Kind::ALL.map(Kind::as_str), || {
            format!("the kinds are {}", Kind::ALL.map(Kind::as_str).join(", "))
        });
        write!(f, "there is no kind {:?}; {hint}", self.0)
    }
}

impl std::error::Error for UnknownKind {}

impl std::str::FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::parse(text)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
