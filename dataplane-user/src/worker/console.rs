//! The control thread's dealings with the console.

use model::link::{ConsoleMessage, NodeMessage};
use model::snapshot::SnapshotId;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use super::control::Control;
use super::snapshot::follow::{Follower, FromConsole};
use super::snapshot::link::Connection;
use super::vault::NodeCertificate;
use crate::handover::ToKeeper;
use crate::handover::message::ConsoleState;
use crate::sentence;

/// Messages to the console that may wait; reports are dropped first.
const OUTGOING: usize = 64;

/// The link to the console, as the control thread sees it.
#[derive(Debug)]
pub(super) struct Console {
    pub(super) connection: Option<Connection>,
    pub(super) state: ConsoleState,
    pub(super) messages: Option<mpsc::Sender<NodeMessage>>,
    pub(super) applied: watch::Sender<Option<SnapshotId>>,
    pub(super) task: Option<JoinHandle<()>>,
    pub(super) events: mpsc::Receiver<FromConsole>,
    pub(super) sender: mpsc::Sender<FromConsole>,
}

impl Console {
    /// No link yet.
    pub(super) fn new() -> Self {
        let (sender, events) = mpsc::channel(1);
        let (applied, _) = watch::channel(None);
        let state = ConsoleState::default();
        Self { connection: None, state, messages: None, applied, task: None, events, sender }
    }
}

impl Control {
    /// Starts to follow the console, or another one.
    pub(super) fn follow_console(&mut self) {
        if let Some(task) = self.console.task.take() {
            task.abort();
        }
        (self.console.connection, self.console.messages) = (None, None);
        let Some(identity) = self.identity.clone() else {
            self.console.state.problem =
                Some("this node was never enrolled: start it with --token-file".to_owned());
            return;
        };
        let node = self.secrets.node.as_ref().and_then(|sealed| {
            let opened = self.vault.unseal_node(sealed);
            opened
                .inspect_err(|error| tracing::error!(error = sentence(error), "the node's certificate"))
                .ok()
        });
        let (sender, messages) = mpsc::channel(OUTGOING);
        let follower = Follower {
            identity,
            node,
            secret: self.secrets.enrolment.take().map(Zeroizing::new),
            labels: self.labels.clone(),
            applied: self.console.applied.subscribe(),
            events: self.console.sender.clone(),
            messages,
        };
        self.console.messages = Some(sender);
        self.console.task = Some(tokio::spawn(follower.run()));
    }

    /// Gives up the link for another: what could not come through for a while comes ever more seldom (TCP), and the console begins
    /// anew with what this node has. Where nobody is followed, nobody is.
    pub(super) async fn meet_console_again(&mut self) {
        let Some(task) = self.console.task.take() else { return };
        task.abort();
        let left: Vec<_> = std::iter::from_fn(|| self.console.events.try_recv().ok()).collect();
        for event in left {
            if let FromConsole::Certificate(node) = event {
                self.keep_certificate(&node).await;
            }
        }
        self.console.state = ConsoleState::default();
        self.follow_console();
    }

    /// Leaves the console to another worker of this node: it keeps one link a node, the newest.
    pub(super) fn leave_console(&mut self) {
        if let Some(task) = self.console.task.take() {
            task.abort();
        }
        (self.console.connection, self.console.messages) = (None, None);
        self.console.state = ConsoleState::default();
        (self.proposal, self.fetching) = (None, None);
    }

    /// What the console says.
    pub(super) async fn hear_console(&mut self, event: FromConsole) {
        match event {
            FromConsole::Up(connection) => {
                tracing::info!("linked to the console");
                self.console.connection = Some(connection);
                self.reporter.begin();
                self.console.state = ConsoleState { connected: true, problem: None };
                self.tell_of_return().await;
            }
            FromConsole::Down(why) => {
                self.console.connection = None;
                self.console.state = ConsoleState { connected: false, problem: Some(why) };
            }
            FromConsole::Flows(out) => self.flows.up(out),
            FromConsole::Watch(watches) => {
                self.flows.watch(watches.clone());
                self.keeper.say(&ToKeeper::Watch { watches }, &[]).await;
            }
            FromConsole::Certificate(node) => self.keep_certificate(&node).await,
            FromConsole::Said(ConsoleMessage::Snapshot(signed)) => self.receive(*signed).await,
            FromConsole::Said(ConsoleMessage::RotateKey { key, signature }) => {
                self.keeper.say(&ToKeeper::RotateKey { key, signature }, &[]).await;
            }
            FromConsole::Said(ConsoleMessage::Drain { on }) => {
                self.threads.set_drained(on);
                self.keeper.say(&ToKeeper::OperatorDrain { on }, &[]).await;
            }
            FromConsole::Said(ConsoleMessage::Ping) => {
                self.report(true);
            }
        }
    }

    async fn keep_certificate(&mut self, node: &NodeCertificate) {
        match self.vault.seal_node(node) {
            Ok(sealed) => {
                self.secrets.node = Some(sealed.clone());
                self.keeper.say(&ToKeeper::NodeCertificate { sealed }, &[]).await;
            }
            Err(error) => {
                tracing::error!(error = sentence(&error), "the node's certificate cannot be stored")
            }
        }
    }

    pub(super) async fn tick(&mut self) {
        let connections = self.report(false);
        let console = self.console.state.clone();
        let overload = self.overload();
        self.keeper.say(&ToKeeper::Alive { connections, console, overload }, &[]).await;
    }

    /// Sends a report when one is due; the answer is the number of open connections.
    fn report(&mut self, now: bool) -> u32 {
        let link = self.console.messages.as_ref().filter(|_| self.console.state.connected);
        self.reporter.tell_senders(link);
        self.reporter.report(link, now)
    }

    /// Acknowledgements wait for their turn; a link that is down needs none, for the next one begins with what is applied.
    pub(super) async fn tell_console(&self, message: NodeMessage) {
        if let Some(link) = self.console.messages.as_ref().filter(|_| self.console.state.connected) {
            // A follower that has ended is one that is being replaced.
            let _ = link.send(message).await;
        }
    }
}
