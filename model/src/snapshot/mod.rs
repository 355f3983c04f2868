//! What nodes obey: immutable, numbered, signed.
//!
//! A snapshot is canonical JSON: fields in the order below, maps sorted, no white space, unknown fields refused (an
//! ignored deny is an open door). The signature covers [`SIGNATURE_CONTEXT`] and then the body's exact bytes, so node,
//! epoch, revision and format are covered with everything else.

mod listener;
mod origin;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::name::{HostPattern, Name};
use crate::route::Conditions;
use crate::transform::Transform;
use crate::upgrade::{self, Protocol};

pub use listener::{Limits, Listener, TlsVersion};
pub use origin::{
    Choice, Ejection, ExpectedName, Http2, Origin, OriginGroup, OriginSecurity, Probe, ProbeMethod,
    Protocols, ProxyVersion, Share, Trust,
};

pub use crate::filter::{
    FilterAction, FilterBudget, FilterBudgets, FilterMode, FilterRule, PortBudget, PortRange, ProtocolList,
};

/// The `format` this release writes; it reads this one and the one before (there is none before 1).
pub const FORMAT: u32 = 1;

/// Prepended to the body before signing (Ed25519), so that the key's signatures mean nothing elsewhere.
pub const SIGNATURE_CONTEXT: &[u8] = b"sallyport snapshot v1\0";

/// A snapshot's place in the order: a higher epoch wins, then a higher revision.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotId {
    /// Raised when the console's database was restored from a backup.
    pub epoch: u64,
    /// The revision that was compiled.
    pub revision: u64,
}

/// Everything one node needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Snapshot {
    /// See [`FORMAT`].
    pub format: u32,
    /// The node it is for.
    pub node: Name,
    /// Epoch and revision.
    pub id: SnapshotId,
    /// Sorted by name.
    pub listeners: Vec<Listener>,
    /// Sorted by name. Only those that a listener or route here uses.
    pub certificates: Vec<Certificate>,
    /// Sorted by name. Only enabled ones whose listeners are here.
    pub routes: Vec<Route>,
    /// Sorted by name. Only those that a route here uses.
    pub origin_groups: Vec<OriginGroup>,
    /// Sorted by name. Only those that an origin group here uses.
    pub trust_bundles: Vec<TrustBundle>,
    /// Sorted by filter name, rule name.
    pub filter: Vec<FilterRule>,
    /// The filters' lists of IP protocols, sorted by filter name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filter_protocols: Vec<ProtocolList>,
    /// The filters' budgets, joined.
    #[serde(default, skip_serializing_if = "FilterBudgets::is_empty")]
    pub filter_budgets: FilterBudgets,
    /// For so long, milliseconds, it still waited to be confirmed when it was signed. A node counts them from when it gets it, and goes
    /// back by itself a little later unless it has heard of the confirmation: the same snapshot without this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial_ms: Option<u32>,
}

/// A certificate to serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Certificate {
    /// Its name.
    pub name: Name,
    /// The chain, leaf first, PEM.
    pub chain: String,
    /// The private key: SHA-256 of the public half's SubjectPublicKeyInfo (DER).
    pub key: Digest,
    /// The leaf's DNS names, sorted.
    pub hostnames: Vec<HostPattern>,
}

/// Which requests go where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Route {
    /// Its name.
    pub name: Name,
    /// Listeners that carry it, sorted; never empty.
    pub listeners: Vec<Name>,
    /// Hosts.
    pub hostnames: Vec<HostPattern>,
    /// Connections for the hosts, by SNI, go to an origin as they are. Such a route has no paths and nothing else of HTTP.
    #[serde(default, skip_serializing_if = "is_default")]
    pub passthrough: bool,
    /// Paths, whatever else is asked; never empty unless `matches` is not, or it is a passthrough.
    pub paths: Vec<PathMatch>,
    /// Paths for requests that fulfil conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<RouteMatch>,
    /// The certificate its hosts are served with, where the route names one.
    pub certificate: Option<Name>,
    /// Where requests go; absent exactly where the transform has an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin_group: Option<Name>,
    /// Let `%2F` through.
    pub allow_encoded_slash: bool,
    /// Until the origin's response head, milliseconds.
    pub response_timeout_ms: u32,
    /// What happens to requests and responses on the way.
    #[serde(default, skip_serializing_if = "is_default")]
    pub transform: Transform,
    /// Protocols a connection may change to, sorted.
    #[serde(default = "upgrade::usual", skip_serializing_if = "upgrade::is_usual")]
    pub upgrades: Vec<Protocol>,
}

/// A path for requests that fulfil conditions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteMatch {
    /// The path.
    pub path: PathMatch,
    /// The conditions, never empty.
    pub conditions: Conditions,
}

/// A path match; the path is normalised as [`crate::route`] says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum PathMatch {
    /// The whole path.
    Exact(String),
    /// Whole segments from the left; without a trailing slash unless it is `/`.
    Prefix(String),
}

/// Certificate authorities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrustBundle {
    /// Its name.
    pub name: Name,
    /// CA certificates, PEM.
    pub certificates: String,
}

/// A snapshot as it travels and is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SignedSnapshot {
    /// The [`Snapshot`]'s canonical JSON, exactly as signed.
    pub body: String,
    /// Ed25519 over [`SIGNATURE_CONTEXT`] and `body`, base64 (standard, padded).
    pub signature: String,
}

impl SignedSnapshot {
    /// The bytes that are signed for `body`.
    pub fn signed_bytes(body: &str) -> Vec<u8> {
        [SIGNATURE_CONTEXT, body.as_bytes()].concat()
    }
}

/// The release that reads.
const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// Why verified bytes are no snapshot of ours.
#[derive(Debug, thiserror::Error)]
pub enum InvalidSnapshot {
    /// A format that this release does not read.
    #[error(
        "the snapshot has format {0}, this node reads {FORMAT}: upgrade the node, or publish from an older console"
    )]
    Format(u64),
    /// With something that this release does not know: an ignored deny would be an open door.
    #[error(
        "the snapshot has something that this node's release, {RELEASE}, does not know, so the console's is newer: upgrade the node, or take out of the configuration what it does not know"
    )]
    Newer(#[source] serde_json::Error),
    /// Without something that this release needs.
    #[error(
        "the snapshot lacks something that this node's release, {RELEASE}, needs, so the console's is older: upgrade the console"
    )]
    Older(#[source] serde_json::Error),
    /// Not the JSON of a snapshot.
    #[error(
        "the snapshot cannot be read: console and node are of different releases, or it was damaged; upgrade the older of the two (this node's is {RELEASE})"
    )]
    Json(#[source] serde_json::Error),
}

impl InvalidSnapshot {
    /// The signature was right, so what does not fit was written by another release. serde tells the cases apart in words alone.
    fn of(error: serde_json::Error) -> Self {
        let words = error.to_string();
        match ["unknown field", "unknown variant"].iter().any(|start| words.starts_with(start)) {
            true => Self::Newer(error),
            false if words.starts_with("missing field") => Self::Older(error),
            false => Self::Json(error),
        }
    }
}

impl Snapshot {
    /// Whether both are the same but for their trials.
    pub fn is_same_but_for_trial(&self, other: &Self) -> bool {
        self.id == other.id && *self == Self { trial_ms: self.trial_ms, ..other.clone() }
    }

    /// Canonical JSON.
    ///
    /// # Errors
    /// None in practice: every field serialises.
    pub fn to_canonical_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// Reads a body whose signature was verified. Of one that cannot be read the format counts first, so that a newer one is named
    /// as such.
    ///
    /// # Errors
    /// See [`InvalidSnapshot`].
    pub fn from_verified_json(body: &str) -> Result<Self, InvalidSnapshot> {
        #[derive(Deserialize)]
        struct Head {
            format: u64,
        }
        // A long body is gone through once: what reads whole has its format in it.
        let read: Result<Self, _> = serde_json::from_str(body);
        let format = match &read {
            Ok(snapshot) => snapshot.format.into(),
            Err(_) => serde_json::from_str::<Head>(body).map_err(InvalidSnapshot::of)?.format,
        };
        if format != u64::from(FORMAT) {
            return Err(InvalidSnapshot::Format(format));
        }
        read.map_err(InvalidSnapshot::of)
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"format":1,"node":"edge","id":{"epoch":1,"revision":7},"listeners":[],"certificates":[],"routes":[],"originGroups":[],"trustBundles":[],"filter":[]}"#;

    fn on_trial(value: &str) -> String {
        BODY.replace("\"filter\":[]", &format!("\"filter\":[],\"trialMs\":{value}"))
    }

    /// Nodes of a release that knows no trials read whatever has none.
    #[test]
    fn a_trial_is_in_the_body_that_is_signed_and_without_one_nothing_is() {
        let snapshot = Snapshot::from_verified_json(BODY).unwrap();
        assert_eq!((snapshot.trial_ms, snapshot.to_canonical_json().unwrap().as_str()), (None, BODY));
        for (trial_ms, text) in [(0, "0"), (86_400_000, "86400000")] {
            let waits = Snapshot { trial_ms: Some(trial_ms), ..snapshot.clone() };
            assert_eq!(waits.to_canonical_json().unwrap(), on_trial(text));
            assert_eq!(Snapshot::from_verified_json(&on_trial(text)).unwrap(), waits);
            assert!(waits != snapshot && waits.is_same_but_for_trial(&snapshot));
            assert!(snapshot.is_same_but_for_trial(&waits));
        }
        for wrong in ["-1", "4294967296", "1.5", "\"5\""] {
            assert!(Snapshot::from_verified_json(&on_trial(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn another_revision_or_other_content_is_not_the_same_but_for_its_trial() {
        let snapshot = Snapshot::from_verified_json(&on_trial("5")).unwrap();
        let next = Snapshot { id: SnapshotId { revision: 8, ..snapshot.id }, ..snapshot.clone() };
        let other = Snapshot { node: "other".parse().unwrap(), ..snapshot.clone() };
        assert!(!snapshot.is_same_but_for_trial(&next) && !snapshot.is_same_but_for_trial(&other));
    }
}
