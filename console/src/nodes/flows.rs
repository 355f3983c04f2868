//! A node's stream of flows.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use model::flow::{FlowMessage, FlowOrder, FlowWatch};
use model::name::Name;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::Caller;
use super::frames::{FrameError, Frames, frame};
use crate::clock;
use crate::ops::Ops;

/// How often a node is told again what to watch, and whether it is still ours is asked. Three times within a lease.
const AGAIN: Duration = Duration::from_secs(model::flow::LEASE_SECONDS / 3);
/// A node that does not read for so long is gone.
const PATIENCE: Duration = Duration::from_secs(30);
/// Orders waiting for a slow node.
const WAITING: usize = 2;

type Say = mpsc::Sender<Result<Bytes, Infallible>>;

/// Begins the exchange; the answer's body is what the console says.
pub(super) fn begin(ops: Ops, caller: Caller, name: Name, body: Body) -> Body {
    let (say, said) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        let (connection, orders) = ops.flows().connected(name.as_str());
        let mut stream = Stream { ops, caller, name, connection, say, orders };
        if let Err(error) = stream.exchange(Frames::new(body.into_data_stream())).await {
            tracing::debug!(node = %stream.name, %error, "a stream of flows failed");
        }
        stream.ops.flows().ended(stream.name.as_str(), connection);
    });
    Body::from_stream(ReceiverStream::new(said))
}

struct Stream {
    ops: Ops,
    caller: Caller,
    name: Name,
    connection: u64,
    say: Say,
    orders: watch::Receiver<Vec<FlowWatch>>,
}

impl Stream {
    /// Ends when the node hangs up, stops reading, is not ours any more or has a newer stream.
    async fn exchange(&mut self, mut frames: Frames) -> Result<(), FrameError> {
        let mut again = tokio::time::interval(AGAIN);
        again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = frames.next::<FlowMessage>() => {
                    let Some(message) = message? else { return Ok(()) };
                    if self.ops.flows().heard(self.name.as_str(), self.connection, message) {
                        self.ops.tell_traffic();
                    }
                }
                changed = self.orders.changed() => {
                    if changed.is_err() || !self.order().await {
                        return Ok(());
                    }
                }
                _ = again.tick() => {
                    self.ops.flows().tidy();
                    let ours = self.caller.node(&self.ops, false, clock::now()).await.is_ok();
                    let watched = !self.orders.borrow().is_empty();
                    if !ours || (watched && !self.order().await) {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Tells what to watch; whether the node hears it.
    async fn order(&mut self) -> bool {
        let watches = self.orders.borrow_and_update().clone();
        let Some(frame) = frame(&FlowOrder::Watch { watches }) else { return false };
        matches!(tokio::time::timeout(PATIENCE, self.say.send(Ok(frame))).await, Ok(Ok(())))
    }
}
