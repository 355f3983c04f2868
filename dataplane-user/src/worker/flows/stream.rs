//! The stream of flows: a request of its own on the connection to the console.

use model::flow::FlowOrder;
use tokio::sync::mpsc;

use crate::sentence;
use crate::worker::snapshot::follow::FromConsole;
use crate::worker::snapshot::link::{Connection, LinkError};

/// Messages that may wait for a console that does not keep up.
const WAITING: usize = 32;

/// Follows what the console watches, for as long as the connection lasts. A console of an older release does not know the
/// stream: then nothing is watched.
pub(in crate::worker) async fn follow(connection: Connection, events: mpsc::Sender<FromConsole>) {
    if let Err(error) = exchange(&connection, &events).await {
        tracing::debug!(error = sentence(&error), "no flows are watched any more");
    }
}

async fn exchange(connection: &Connection, events: &mpsc::Sender<FromConsole>) -> Result<(), LinkError> {
    let (mut outgoing, mut incoming) = connection.stream("flows", "the stream of flows").await?;
    let (out, mut messages) = mpsc::channel(WAITING);
    if events.send(FromConsole::Flows(out)).await.is_err() {
        return Ok(());
    }
    loop {
        tokio::select! {
            order = incoming.receive() => {
                let FlowOrder::Watch { watches } = order?;
                if events.send(FromConsole::Watch(watches)).await.is_err() {
                    return Ok(());
                }
            }
            Some(message) = messages.recv() => outgoing.tell_flow(&message).await?,
            else => return Ok(()),
        }
    }
}
