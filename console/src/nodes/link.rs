//! The open-ended exchange with one node.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use model::digest::Digest;
use model::link::{ConsoleMessage, NodeMessage};
use model::name::Name;
use model::snapshot::{FORMAT, Snapshot, SnapshotId};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::Caller;
use super::again::Again;
use super::frames::{FrameError, Frames, frame};
use super::identity::Stranger;
use super::live::Orders;
use crate::clock;
use crate::ops::{Event, Ops, OpsError};
use crate::publish::Current;
use crate::secrets::SignerError;
use crate::store::NodeRow;

/// How often the connection is kept awake.
const PING: Duration = Duration::from_secs(10);
/// A node that says nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(35);
/// Messages waiting for a slow node.
const WAITING: usize = 4;
/// An epoch that a node may claim at most, so that one node cannot use them all up.
const HIGHEST_EPOCH: u64 = 1 << 40;

/// Why the exchange ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the node hung up")]
    ByNode,
    #[error("the node said nothing for {} seconds", SILENCE.as_secs())]
    Silence,
    #[error("the node was revoked or has connected anew")]
    Ordered,
    #[error("the node did not begin with hello")]
    NoHello,
    #[error(
        "the node reads snapshot formats {0:?} and this console writes {FORMAT}: upgrade the older of the two"
    )]
    Format(Vec<u32>),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Stranger(#[from] Stranger),
    #[error(transparent)]
    Ops(#[from] OpsError),
    #[error(transparent)]
    Signer(#[from] SignerError),
}

/// Begins the exchange; the answer's body is what the console says.
pub(super) fn begin(
    ops: Ops,
    (caller, ends): (Caller, Vec<IpAddr>),
    name: Name,
    row: NodeRow,
    body: Body,
) -> Body {
    let (say, said) = mpsc::channel::<Result<Bytes, Infallible>>(WAITING);
    tokio::spawn(async move {
        let (connection, orders) = ops.live().connected(name.as_str(), caller.peer, row.drained);
        // Whoever was shut out, or enrolled anew, before the line above was told nothing: so the question is asked again.
        if let Err(stranger) = caller.node(&ops, false, clock::now()).await {
            tracing::info!(node = %name, why = %stranger, "node turned away");
            ops.live().ended(name.as_str(), connection);
            return;
        }
        if row.link_ends != ends
            && let Err(error) = ops.store().set_link_ends(name.as_str(), &ends).await
        {
            tracing::warn!(node = %name, %error, "the link's addresses are not kept: after a restart no rule is asked about them");
        }
        ops.links().opened(name.as_str(), ends);
        ops.tell(Event::Node { node: name.to_string() });
        tracing::info!(node = %name, "node connected");
        let current = ops.publisher().current();
        let again = Again::of(&name);
        let mut link =
            Link { ops, name, caller, connection, say, current, orders, sent: None, again, unsaved: None };
        let why = link.run(Frames::new(body.into_data_stream())).await;
        tracing::info!(node = %link.name, why = %why, "node disconnected");
        if link.ops.live().ended(link.name.as_str(), connection) {
            link.ops.tell(Event::Node { node: link.name.to_string() });
        }
    });
    Body::from_stream(ReceiverStream::new(said))
}

struct Link {
    ops: Ops,
    name: Name,
    caller: Caller,
    connection: u64,
    say: mpsc::Sender<Result<Bytes, Infallible>>,
    current: watch::Receiver<Arc<Current>>,
    orders: watch::Receiver<Orders>,
    /// What the node has or is about to have, and whether it knows that as one on trial.
    sent: Option<(SnapshotId, bool)>,
    /// When it is sent once more, where the node refused it.
    again: Again,
    /// The last answer that the store did not take (its disk was full): written with the next ping that succeeds.
    unsaved: Option<Answer>,
}

/// What a node made of a snapshot: how long applying took in milliseconds, or why it refused.
#[derive(Debug, Clone)]
struct Answer {
    id: SnapshotId,
    outcome: Result<u32, String>,
}

impl Link {
    async fn run(&mut self, mut frames: Frames) -> Ended {
        match self.exchange(&mut frames).await {
            Ok(never) => match never {},
            Err(why) => why,
        }
    }

    async fn exchange(&mut self, frames: &mut Frames) -> Result<Infallible, Ended> {
        let hello =
            tokio::time::timeout(SILENCE, frames.next()).await.map_err(|_elapsed| Ended::Silence)??;
        self.hello(hello.ok_or(Ended::ByNode)?).await?;
        // Said either way: it may have changed while the node was away.
        let drain = self.orders.borrow_and_update().drain;
        self.tell(&ConsoleMessage::Drain { on: drain }).await?;
        let mut ping = tokio::time::interval_at(tokio::time::Instant::now() + PING, PING);
        let mut heard = tokio::time::Instant::now();
        loop {
            tokio::select! {
                message = frames.next() => {
                    heard = tokio::time::Instant::now();
                    self.heard(message?.ok_or(Ended::ByNode)?).await?;
                }
                changed = self.current.changed() => {
                    changed.map_err(|_closed| Ended::Ordered)?;
                    self.again.over();
                    self.offer().await?;
                }
                changed = self.orders.changed() => {
                    changed.map_err(|_closed| Ended::Ordered)?;
                    let orders = *self.orders.borrow_and_update();
                    if orders.close {
                        return Err(Ended::Ordered);
                    }
                    self.tell(&ConsoleMessage::Drain { on: orders.drain }).await?;
                }
                _ = ping.tick() => {
                    if heard.elapsed() > SILENCE {
                        return Err(Ended::Silence);
                    }
                    // Revoked, replaced or ended since it was let in.
                    self.caller.node(&self.ops, false, clock::now()).await?;
                    if let Some(answer) = self.unsaved.take() {
                        self.save(answer).await;
                    }
                    if self.again.is_due(Instant::now()) {
                        self.sent = None;
                        self.offer().await?;
                    }
                    self.tell(&ConsoleMessage::Ping).await?;
                }
            }
        }
    }

    async fn tell(&self, message: &ConsoleMessage) -> Result<(), Ended> {
        let Some(frame) = frame(message) else {
            tracing::error!(node = %self.name, "a message is too long for a frame");
            return Ok(());
        };
        let sent = tokio::time::timeout(SILENCE, self.say.send(Ok(frame))).await;
        sent.map_err(|_elapsed| Ended::Silence)?.map_err(|_closed| Ended::ByNode)
    }

    async fn hello(&mut self, message: NodeMessage) -> Result<(), Ended> {
        let NodeMessage::Hello { version, formats, applied, labels } = message else {
            return Err(Ended::NoHello);
        };
        if !formats.contains(&FORMAT) {
            return Err(Ended::Format(formats));
        }
        let name = self.name.as_str();
        self.ops.store().node_hello(name, &version, &labels, applied).await.map_err(OpsError::from)?;
        let present = self.current.borrow().id;
        match applied {
            Some(id) if id > present && id.epoch < HIGHEST_EPOCH => {
                tracing::warn!(
                    node = name,
                    node_epoch = id.epoch,
                    node_revision = id.revision,
                    "the node is ahead of the database: it was restored"
                );
                self.ops.raise_epoch(id.epoch + 1).await?;
            }
            _ => {}
        }
        self.sent = applied.map(|id| (id, false));
        self.offer().await
    }

    /// Sends what is in force unless the node has it. What the node has on trial is sent once more when it is confirmed.
    async fn offer(&mut self) -> Result<(), Ended> {
        let current = Arc::clone(&self.current.borrow_and_update());
        if current.id.revision == 0 {
            return Ok(());
        }
        // The labels are the console's word and may have changed since: a new number came with them then.
        let row = self.ops.store().node(self.name.as_str()).await.map_err(OpsError::from)?;
        let labels = row.ok_or(Ended::Ordered)?.labels;
        let Some(snapshot) = current.snapshot_for(&self.name, &labels) else { return Ok(()) };
        self.ops.live().may_fetch(self.name.as_str(), keys_of(&snapshot));
        let sent = Some((current.id, snapshot.trial_ms.is_some()));
        if self.sent == sent {
            return Ok(());
        }
        let signed = self.ops.signer().sign(&snapshot)?;
        self.sent = sent;
        self.tell(&ConsoleMessage::Snapshot(Box::new(signed))).await
    }

    /// Whether this is the newest that the node was sent.
    fn has_been_sent(&self, id: SnapshotId) -> bool {
        self.sent.is_some_and(|(sent, _)| sent == id)
    }

    /// Writes an answer down. A store that fails ends no link: the node has done its part, and may still fetch keys.
    async fn save(&mut self, answer: Answer) {
        let outcome = answer.outcome.as_ref().map(|took_ms| *took_ms).map_err(String::as_str);
        match self.ops.store().node_answer(self.name.as_str(), answer.id, outcome).await {
            Ok(()) => {
                // What an earlier answer said has been overtaken.
                self.unsaved = None;
                let (node, revision) = (self.name.to_string(), answer.id.revision);
                self.ops.tell(match answer.outcome {
                    Ok(_) => Event::Applied { node, revision },
                    Err(reason) => Event::Refused { node, revision, reason },
                });
            }
            Err(error) => {
                tracing::error!(node = %self.name, revision = answer.id.revision, %error, "a node's answer cannot be stored yet");
                self.unsaved = Some(answer);
            }
        }
    }

    async fn heard(&mut self, message: NodeMessage) -> Result<(), Ended> {
        let name = self.name.as_str();
        match message {
            NodeMessage::Hello { .. } => {}
            NodeMessage::Applied { id, took_ms } => {
                tracing::info!(
                    node = name,
                    revision = id.revision,
                    epoch = id.epoch,
                    took_ms,
                    "node applied"
                );
                if self.has_been_sent(id) {
                    self.again.over();
                }
                self.save(Answer { id, outcome: Ok(took_ms) }).await;
            }
            NodeMessage::Refused { id, reason } => {
                tracing::warn!(node = name, revision = id.revision, epoch = id.epoch, reason, "node refused");
                // Without a number: what was sent could not be read. Of a former revision: the node is busy with the next.
                if self.has_been_sent(id) || id == SnapshotId::default() {
                    self.again.refused(Instant::now());
                }
                self.save(Answer { id, outcome: Err(reason) }).await;
            }
            NodeMessage::Report(report) => {
                let now = clock::now();
                self.ops.figures().add(&report, now);
                self.ops.live().reported(name, self.connection, now, *report);
                self.ops.tell_traffic();
            }
            NodeMessage::Senders(senders) => self.ops.live().sent(name, self.connection, *senders),
            NodeMessage::KeyRotated { key } => {
                tracing::info!(node = name, %key, "node took over a snapshot key")
            }
        }
        Ok(())
    }
}

fn keys_of(snapshot: &Snapshot) -> BTreeSet<Digest> {
    snapshot.certificates.iter().map(|certificate| certificate.key).collect()
}
