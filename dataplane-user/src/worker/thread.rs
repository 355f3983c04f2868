//! Stand-in until the data path's own thread is merged: accepts and closes.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use model::snapshot::SnapshotId;
use tokio::sync::{mpsc, watch};

use super::live::Live;
use super::observe::Observe;

pub struct ThreadStart {
    pub index: usize,
    pub live: Arc<ArcSwap<Live>>,
    pub sockets: mpsc::UnboundedReceiver<SocketChange>,
    pub stop: watch::Receiver<Stop>,
    pub observe: Arc<Observe>,
    pub changed: watch::Receiver<SnapshotId>,
}

pub enum SocketChange {
    Add { id: u64, socket: std::net::TcpListener },
    Remove { id: u64 },
}

#[derive(Debug, Clone, Copy)]
pub enum Stop {
    Run,
    Drain { deadline: Instant },
    Now,
}

pub fn run(mut start: ThreadStart) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut tasks = std::collections::HashMap::new();
        loop {
            tokio::select! {
                Some(change) = start.sockets.recv() => match change {
                    SocketChange::Add { id, socket } => {
                        socket.set_nonblocking(true)?;
                        let listener = tokio::net::TcpListener::from_std(socket)?;
                        tasks.insert(id, tokio::spawn(async move { loop { let _ = listener.accept().await; } }));
                    }
                    SocketChange::Remove { id } => if let Some(task) = tasks.remove(&id) { task.abort(); },
                },
                _ = start.stop.changed() => return Ok(()),
            }
        }
    })
}
