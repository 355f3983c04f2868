//! Everything keeper and worker can say to each other.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use model::digest::Digest;
use model::flow::{FlowCounts, FlowWatch, Verdict};
use model::name::Name;
use model::report::{Drops, Feature, ListenerReport, Overload, SynPressure};
use model::senders::Senders;
use model::snapshot::{SignedSnapshot, SnapshotId};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

/// The most descriptors one message carries (the kernel's own bound is 253).
pub const MAX_DESCRIPTORS: usize = 128;

/// How often the keeper tells [`ToWorker::Figures`]; later while it is busy.
pub const FIGURES_EVERY: Duration = Duration::from_secs(1);

/// From keeper to worker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum ToWorker {
    /// Everything a new worker needs; the answer is [`ToKeeper::Ready`]. Descriptors: one for each of `attached`.
    Start(Box<Start>),
    /// The versions have nothing in common: stop before accepting.
    Incompatible {
        /// The oldest version the keeper speaks.
        oldest: u32,
        /// The newest version the keeper speaks.
        newest: u32,
    },
    /// A restarted keeper goes on with this worker.
    Resume {
        /// The keeper's trust anchor and node name, which may be newer than the worker's.
        identity: Option<Box<NodeIdentity>>,
        /// What the keeper has stored; the worker proposes its own snapshot again when it is newer.
        stored: Option<SnapshotId>,
    },
    /// Accept on these too. Descriptors: one for each.
    AddSockets {
        /// What they are, in the descriptors' order.
        sockets: Vec<SocketInfo>,
    },
    /// That is all for now: say [`ToKeeper::Accepting`] when every thread accepts on what it was given, and follow the
    /// console from then on. Once for each worker that was started.
    Accept,
    /// Take what waits in these sockets' queues, then close them.
    RemoveSockets {
        /// Their ids.
        ids: Vec<u64>,
    },
    /// The candidate is checked and the kernel has its filter: make it live and say [`ToKeeper::Live`].
    Commit {
        /// Which.
        id: SnapshotId,
    },
    /// The candidate is in force everywhere and stored: acknowledge it to the console.
    Settled {
        /// Which.
        id: SnapshotId,
    },
    /// The candidate is refused: what was live before stays live, or becomes live again.
    Rejected {
        /// Which.
        id: SnapshotId,
        /// Why, one sentence.
        reason: String,
    },
    /// Nobody confirmed in time what is live: this is stored, and in force in the kernel, and becomes live again. The answer is
    /// [`ToKeeper::Live`] or [`ToKeeper::NotLive`]. Since version 8.
    GoBack {
        /// The snapshot that was confirmed last.
        snapshot: Box<SignedSnapshot>,
        /// Its keys, sealed.
        keys: BTreeMap<Digest, Sealed>,
    },
    /// The node went back from a revision: the console is told when it can be. Since version 8.
    WentBack {
        /// Which.
        id: SnapshotId,
        /// Why, one sentence.
        reason: String,
    },
    /// The keeper's part of the next report, each [`FIGURES_EVERY`].
    Figures {
        /// Kernel drops since the figures before.
        drops: Vec<Drops>,
        /// The kernel's and the keeper's features.
        features: Vec<Feature>,
        /// Where listeners accept, and why they do not.
        listeners: Vec<ListenerReport>,
        /// As in a report, where there is such a budget. Since version 6.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        syn_pressure: Option<SynPressure>,
        /// The packet filter on interfaces; none where there is no filter in the kernel. Since version 7.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        filters: Vec<FilterState>,
    },
    /// Who is sending, for the console.
    Senders(Box<Senders>),
    /// Watched packets.
    Flows {
        /// Oldest first.
        packets: Vec<WatchedPacket>,
        /// The watches in force and their figures.
        counts: Vec<(u64, FlowCounts)>,
        /// Why nothing is watched, one sentence.
        problem: Option<String>,
        /// Watches that cannot be, and why, while the others are. Since version 7.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        refused: Vec<(u64, String)>,
    },
    /// Write the access log here from now on: its file was moved away. Descriptor: the new file.
    AccessLog,
    /// A new snapshot key is stored; the worker tells the console.
    KeyStored {
        /// The new key.
        key: Digest,
    },
    /// Something the worker asked to store could not be stored.
    NotStored {
        /// Why, one sentence.
        reason: String,
    },
    /// Finish what is open within `deadline_ms`, accept nothing new, then exit.
    Drain {
        /// Milliseconds from now.
        deadline_ms: u32,
    },
    /// As [`ToWorker::Drain`], but another worker accepts on the same sockets, so there is time: an idle connection is told
    /// to end by its next answer. The console is the other worker's.
    Retire {
        /// Milliseconds from now.
        deadline_ms: u32,
    },
}

/// A new worker's settings and secrets.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Start {
    /// The protocol version from here on.
    pub version: u32,
    /// Worker threads.
    pub threads: usize,
    /// Who the node is; absent until it is given an enrolment token.
    pub identity: Option<Box<NodeIdentity>>,
    /// Labels from the command line.
    pub labels: BTreeMap<String, String>,
    /// The last good snapshot.
    pub snapshot: Option<Box<SignedSnapshot>>,
    /// Keys, sealed and otherwise.
    pub secrets: Secrets,
    /// What the descriptors of this message are, in order.
    pub attached: Vec<Attachment>,
    /// Features that the keeper knows at present.
    pub features: Vec<Feature>,
    /// What the node's processes may have of the machine's memory, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<u64>,
}

/// Who the node is and whom it obeys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeIdentity {
    /// The name the console gave it.
    pub node: Name,
    /// `host:port` of the console's node address.
    pub console: String,
    /// SHA-256 of the console CA's certificate.
    pub ca: Digest,
    /// The console's snapshot key.
    pub snapshot_key: Digest,
    /// The snapshot key before the last rotation: a stored snapshot may still bear its signature.
    pub previous_key: Option<Digest>,
    /// SHA-256 of the enrolment token this came from, so that a new token is told from the one already used.
    pub token: Digest,
}

/// What only the worker may read. Never printed.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Secrets {
    /// Seals what the keeper stores for the worker; 32 bytes.
    pub sealing_key: Vec<u8>,
    /// The enrolment token's secret, until it has been used.
    pub enrolment: Option<String>,
    /// The node's own key and certificate, sealed.
    pub node: Option<Sealed>,
    /// Private keys, sealed.
    pub keys: BTreeMap<Digest, Sealed>,
    /// What `/metrics` asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<String>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

impl Drop for Secrets {
    fn drop(&mut self) {
        self.sealing_key.zeroize();
        self.enrolment.zeroize();
        self.metrics.zeroize();
    }
}

/// Something sealed by the worker; the keeper stores it unopened. Base64 of nonce, ciphertext and tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(pub String);

/// The longest [`Sealed`] the keeper stores, characters.
pub const MAX_SEALED: usize = 256 * 1024;

/// What a descriptor of [`Start`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Attachment {
    /// The access log, open for appending.
    AccessLog,
    /// The listening socket for metrics and health.
    Metrics,
    /// The directory with `keeper.sock`, for reconnecting.
    RunDirectory,
    /// Holds a shared lock while the worker lives.
    Lock,
}

/// A listening socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SocketInfo {
    /// Unique while keeper and worker know each other.
    pub id: u64,
    /// The worker thread that accepts on it.
    pub thread: usize,
    /// IPv6 rather than IPv4.
    pub v6: bool,
    /// Where it is bound; absent for a socket that `sk_lookup` steers to.
    pub place: Option<(Option<IpAddr>, u16)>,
}

/// From worker to keeper.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum ToKeeper {
    /// First on every channel.
    Hello {
        /// The oldest version the worker speaks.
        oldest: u32,
        /// The newest version the worker speaks.
        newest: u32,
        /// The worker's release.
        release: String,
        /// What it is doing already, when it reconnects to a restarted keeper.
        running: Option<Running>,
    },
    /// Listening sockets handed back after a reconnect. Descriptors: one for each.
    Holding {
        /// What they are, in the descriptors' order.
        sockets: Vec<SocketInfo>,
    },
    /// All sockets were handed back.
    HandedBack,
    /// Threads run and wait for sockets.
    Ready {
        /// The stored snapshot, when it could be made live.
        live: Option<SnapshotId>,
        /// Why the stored snapshot is not live, one sentence.
        problem: Option<String>,
        /// What the sandbox does.
        features: Vec<Feature>,
    },
    /// The answer to [`ToWorker::Accept`]: every thread accepts.
    Accepting {
        /// Why not, one sentence.
        problem: Option<String>,
    },
    /// The console wants this in force; it is verified, its keys are there, and it builds.
    Candidate {
        /// The snapshot.
        snapshot: Box<SignedSnapshot>,
        /// Keys that came with it, sealed.
        keys: BTreeMap<Digest, Sealed>,
    },
    /// The committed candidate is what threads use from now on.
    Live {
        /// Which.
        id: SnapshotId,
    },
    /// The committed candidate could not be made live.
    NotLive {
        /// Which.
        id: SnapshotId,
        /// Why, one sentence.
        reason: String,
    },
    /// The worker itself refused what the console sent; for `status`.
    Refused {
        /// Which, where that much could be read.
        id: Option<SnapshotId>,
        /// Why, one sentence.
        reason: String,
    },
    /// The node's own key and certificate, sealed, to be stored; and whether they came from the enrolment token.
    NodeCertificate {
        /// Sealed.
        sealed: Sealed,
    },
    /// The console rotates its snapshot key.
    RotateKey {
        /// The new key.
        key: Digest,
        /// The old key's signature, base64.
        signature: String,
    },
    /// Once a second, for `status` and for knowing that the worker is not stuck.
    Alive {
        /// Open client connections.
        connections: u32,
        /// Whether the console link is up, and why not.
        console: ConsoleState,
        /// What is refused for too much to do.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        overload: Option<Overload>,
    },
    /// The console wants this watched, for [`model::flow::LEASE_SECONDS`], and nothing else.
    Watch {
        /// All of it.
        watches: Vec<FlowWatch>,
    },
    /// The operator drained the node, or put it back to work, at the console.
    OperatorDrain {
        /// Accept nothing new.
        on: bool,
    },
}

/// The packet filter on an interface that is to have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FilterState {
    /// The interface's name.
    pub interface: String,
    /// The filter stands on it, as of the last look about a second ago.
    pub attached: bool,
    /// How often it was found missing and put back since the keeper started.
    pub gaps: u32,
}

/// A packet that the kernel's program took for a watch, as it was: only the worker looks into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WatchedPacket {
    /// For which watches.
    pub taken: Vec<Taken>,
    /// When, nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// The frame's length, bytes.
    pub length: u32,
    /// The interface that received it.
    pub interface: String,
    /// What happened to it.
    pub verdict: Verdict,
    /// Why.
    pub reason: String,
    /// The rule that decided, or 0.
    pub rule: u32,
    /// The frame's first bytes, base64.
    pub bytes: String,
}

/// A watch that took a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Taken {
    /// Which.
    pub watch: u64,
    /// The packet stands for so many of its kind.
    pub one_in: u32,
}

/// What a reconnecting worker is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Running {
    /// What is live.
    pub live: Option<SnapshotId>,
    /// Worker threads.
    pub threads: usize,
    /// It is on its way out and wants no new work.
    pub draining: bool,
    /// What the sandbox does.
    pub features: Vec<Feature>,
}

/// The state of the console link.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConsoleState {
    /// The link is up.
    pub connected: bool,
    /// Why not, one sentence.
    pub problem: Option<String>,
}
