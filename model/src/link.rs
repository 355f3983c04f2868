//! What a node and its console say to each other.
//!
//! The node opens one HTTP/2 connection over mutual TLS to the console's node address. On it:
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /node/v1/enrol` (no client certificate needed) | [`EnrolRequest`] | [`EnrolResponse`] |
//! | `POST /node/v1/renew` | [`RenewRequest`] | [`RenewResponse`] |
//! | `GET /node/v1/keys/{digest}` | none | the private key, PKCS#8 DER (`application/octet-stream`); 404 unless this node's snapshot names it |
//! | `POST /node/v1/link` | [`NodeMessage`] frames, open-ended | [`ConsoleMessage`] frames, open-ended |
//! | `POST /node/v1/flows` | [`FlowMessage`](crate::flow::FlowMessage) frames, open-ended | [`FlowOrder`](crate::flow::FlowOrder) frames, open-ended |
//!
//! Flows are a stream of their own, so that its flow control holds back nothing else, and so that a console that does not know
//! them answers 404 where it would otherwise end the link.
//!
//! A frame is a 32-bit big-endian length, at most [`MAX_FRAME`], and that many bytes of JSON. Errors outside `link` are
//! JSON `{"message": "..."}` with a 4xx or 5xx status.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::name::Name;
use crate::report::Report;
use crate::senders::Senders;
use crate::snapshot::{SignedSnapshot, SnapshotId};

/// The longest frame either side accepts, bytes.
pub const MAX_FRAME: usize = 64 << 20;

/// The ALPN protocol of the connection.
pub const ALPN: &[u8] = b"h2";

/// A field of the answer to `link`: its console takes [`NodeMessage::Senders`]. One before it would hang up.
pub const SENDERS: &str = "sallyport-senders";

/// A field of the request `link`: both ends of the connection as the node sees them, its own address and the one it connected to, with a
/// space between. Behind NAT the console sees others, and what filters must not drop are these.
pub const ENDS: &str = "sallyport-link-ends";

/// A field of the answer to `flows`: its console takes [`FlowMessage::Refused`](crate::flow::FlowMessage::Refused). One before it
/// would hang up.
pub const REFUSALS: &str = "sallyport-flow-refusals";

/// What an operator pastes into a node: `sallyport1.` and the base64url (unpadded) of this as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnrolmentToken {
    /// `host:port` of the console's node address.
    pub console: String,
    /// The name the console gives the node.
    pub node: Name,
    /// SHA-256 of the console CA's certificate (DER): how the node recognises its console.
    pub ca: Digest,
    /// The console's snapshot key, Ed25519 public key, 64 hexadecimal digits: the node's first trust anchor.
    pub snapshot_key: Digest,
    /// One-time secret, base64url of 32 random bytes.
    pub secret: String,
}

/// The text form's start.
pub const TOKEN_PREFIX: &str = "sallyport1.";

/// Asks for the node's first certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnrolRequest {
    /// The token's secret.
    pub secret: String,
    /// PKCS#10, PEM. Its subject is ignored: the console decides the name.
    pub csr: String,
    /// Labels the node has from its command line.
    pub labels: BTreeMap<String, String>,
}

/// The node's first certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnrolResponse {
    /// Leaf first, PEM. Valid for seven days; renewed at a third of that.
    pub certificate: String,
    /// The console CA, PEM.
    pub ca: String,
}

/// Asks for the node's next certificate; authenticated by the present one, which may have ended up to 90 days ago.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RenewRequest {
    /// PKCS#10, PEM.
    pub csr: String,
}

/// The node's next certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RenewResponse {
    /// Leaf first, PEM.
    pub certificate: String,
}

/// From node to console.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum NodeMessage {
    /// First on every connection.
    Hello {
        /// The node's release.
        version: String,
        /// The snapshot formats it reads.
        formats: Vec<u32>,
        /// What it has applied, so that it need not be sent: not what it has on trial, but what it may have had before that.
        applied: Option<SnapshotId>,
        /// Labels from its command line.
        labels: BTreeMap<String, String>,
    },
    /// The snapshot is in force.
    Applied {
        /// Which.
        id: SnapshotId,
        /// From receipt to in force, milliseconds.
        took_ms: u32,
    },
    /// The snapshot was refused; the one before stays in force.
    Refused {
        /// Which.
        id: SnapshotId,
        /// Why, one sentence.
        reason: String,
    },
    /// Figures, every second while there is traffic and at least every five.
    Report(Box<Report>),
    /// Who sends to the node, every ten seconds while somebody does and at least every minute; only to a console that answered
    /// the link with [`SENDERS`].
    Senders(Box<Senders>),
    /// The node took over a new snapshot key.
    KeyRotated {
        /// The new public key.
        key: Digest,
    },
}

/// From console to node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum ConsoleMessage {
    /// Obey this.
    Snapshot(Box<SignedSnapshot>),
    /// Trust this snapshot key instead.
    RotateKey {
        /// The new Ed25519 public key.
        key: Digest,
        /// The old key's signature (base64) over `sallyport snapshot key v1\0` and the new key's 32 bytes.
        signature: String,
    },
    /// Finish what is open, accept nothing new (an operator drained the node).
    Drain {
        /// Back to work when false.
        on: bool,
    },
    /// Keeps the connection and middle boxes awake; sent every ten seconds. The node answers with a report.
    Ping,
}
