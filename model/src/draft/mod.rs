//! What people and Kubernetes wrote; it may be wrong.
//!
//! One object per document: `apiVersion: sallyport.dev/v1alpha1`, `kind`, `metadata`, `spec`. Values that need more than
//! their JSON type stay text here, so that [`crate::compile`] can report every problem at once, each beside its field.

mod document;
mod filters;
mod listener;
mod origin;
mod packet_filter;
mod port;
mod read;
mod route;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use document::{UnknownKind, parse};
pub use filters::{
    DirectResponseSpec, FieldSpec, FiltersSpec, HeaderModifierSpec, PathModifierSpec, RedirectSpec,
    RewriteSpec,
};
pub use listener::{ErrorPageSpec, LimitsSpec, ListenerHttp, ListenerSpec, ListenerTls, ProxyProtocolSpec};
pub use origin::{
    EjectionSpec, OriginGroupSpec, OriginHttp2, OriginLimits, OriginSpec, OriginTls, ProbeSpec,
};
pub use packet_filter::{
    BudgetSpec, BudgetsSpec, FilterRuleSpec, PacketFilterSpec, PortBudgetSpec, PrefixSetSpec,
    PrefixSourceSpec, ProtocolListSpec,
};
pub use port::PortSpec;
pub use route::{MatchSpec, PASSTHROUGH, PathSpec, RouteSpec, ValueMatchSpec};

/// The `apiVersion` this release writes.
pub const API_VERSION: &str = "sallyport.dev/v1alpha1";

/// One object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Name and labels.
    pub metadata: Metadata,
    /// Kind and spec.
    pub spec: Spec,
}

/// An object's name and labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// Unique within the kind; parsed as [`crate::name::Name`] by the compiler.
    pub name: String,
    /// Free labels, for selectors and search.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// The kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// An address and port that nodes accept connections on.
    Listener,
    /// Which host and path goes to which origin group.
    Route,
    /// Origins that can stand in for each other.
    OriginGroup,
    /// A certificate chain and (by digest) its private key.
    Certificate,
    /// Certificate authorities that origins are verified against.
    TrustBundle,
    /// Prefixes with a name, for rules of packet filters.
    PrefixSet,
    /// Prefixes that the kernel drops or lets through.
    PacketFilter,
}

/// A kind with its spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spec {
    /// See [`Kind::Listener`].
    Listener(ListenerSpec),
    /// See [`Kind::Route`].
    Route(RouteSpec),
    /// See [`Kind::OriginGroup`].
    OriginGroup(OriginGroupSpec),
    /// See [`Kind::Certificate`].
    Certificate(CertificateSpec),
    /// See [`Kind::TrustBundle`].
    TrustBundle(TrustBundleSpec),
    /// See [`Kind::PrefixSet`].
    PrefixSet(PrefixSetSpec),
    /// See [`Kind::PacketFilter`].
    PacketFilter(PacketFilterSpec),
}

/// Labels that a node must all have; empty selects every node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeSelector {
    /// Each label with the value it must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
}

/// `kind: Certificate`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertificateSpec {
    /// The chain, leaf first, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<String>,
    /// The private key, PEM (PKCS#8, PKCS#1 or SEC1), on the way in only: it is sealed and replaced by `privateKeyRef`
    /// before the object is stored, shown or exported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key: Option<String>,
    /// Which stored private key: the SHA-256 of its public half's SubjectPublicKeyInfo (DER).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key_ref: Option<String>,
    /// Instead of `chain` on the way in: have the console's own CA issue one for these hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub internal_ca: Option<InternalCa>,
}

/// Shows that there is a private key, never which.
impl fmt::Debug for CertificateSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateSpec")
            .field("chain", &self.chain)
            .field("private_key", &self.private_key.as_ref().map(|_| "(not shown)"))
            .field("private_key_ref", &self.private_key_ref)
            .field("internal_ca", &self.internal_ca)
            .finish()
    }
}

/// What the internal CA issues.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InternalCa {
    /// Host names, exact or `*.suffix`; at least one.
    pub hostnames: Vec<String>,
}

/// `kind: TrustBundle`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrustBundleSpec {
    /// CA certificates, PEM.
    pub certificates: String,
}

fn yes() -> bool {
    true
}

fn is_yes(value: &bool) -> bool {
    *value
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests;
