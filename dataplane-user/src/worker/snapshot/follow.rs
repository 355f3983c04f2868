//! Keeps the link to the console up, for as long as the worker lives.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use model::flow::{FlowMessage, FlowWatch};
use model::link::{ConsoleMessage, NodeMessage};
use model::snapshot::SnapshotId;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use super::enrol::{enrol, renew, renew_in};
use super::link::{Connection, Credentials, LinkError};
use crate::handover::message::NodeIdentity;
use crate::sentence;
use crate::worker::flows;
use crate::worker::vault::NodeCertificate;

/// Waits between attempts: from the first to at most the second, doubling.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// A console that says nothing for this long (it pings every ten seconds) is gone.
const SILENCE: Duration = Duration::from_secs(35);

/// How long to wait before a refused renewal is tried again.
const RENEW_AGAIN: Duration = Duration::from_secs(3600);

/// What the link tells the worker's control thread.
#[derive(Debug)]
pub enum FromConsole {
    /// The link is up; keys can be fetched here.
    Up(Connection),
    /// The link is down, and why.
    Down(String),
    /// The console said this.
    Said(ConsoleMessage),
    /// The console may watch flows; they go here.
    Flows(mpsc::Sender<FlowMessage>),
    /// The console watches this, and nothing else.
    Watch(Vec<FlowWatch>),
    /// A new certificate, to be stored.
    Certificate(NodeCertificate),
}

/// What following needs.
#[derive(Debug)]
pub struct Follower {
    /// Which console.
    pub identity: NodeIdentity,
    /// The node's certificate, once there is one.
    pub node: Option<NodeCertificate>,
    /// The enrolment token's secret, until there is one.
    pub secret: Option<Zeroizing<String>>,
    /// For the console.
    pub labels: BTreeMap<String, String>,
    /// What is applied.
    pub applied: watch::Receiver<Option<SnapshotId>>,
    /// To the control thread.
    pub events: mpsc::Sender<FromConsole>,
    /// From the control thread; only read while the link is up.
    pub messages: mpsc::Receiver<NodeMessage>,
}

impl Follower {
    /// Connects again and again; ends when nobody listens any more.
    pub async fn run(mut self) {
        let mut wait = BACKOFF.0;
        loop {
            let mut up = false;
            let ended = self.session(&mut up).await;
            if up {
                wait = BACKOFF.0;
            }
            let why = ended
                .err()
                .map_or_else(|| "the console closed the link".to_owned(), |error| sentence(&error));
            tracing::warn!(why, "no link to the console");
            if self.events.send(FromConsole::Down(why)).await.is_err() {
                return;
            }
            tokio::time::sleep(jittered(wait)).await;
            wait = (wait * 2).min(BACKOFF.1);
        }
    }

    async fn session(&mut self, up: &mut bool) -> Result<(), SessionError> {
        let mut node = match self.node.clone() {
            Some(node) => node,
            None => self.first_certificate().await?,
        };
        let mut connection = Connection::open(&self.identity.console, Credentials::Node(&node)).await?;
        let mut renew_at = renew_in(&node, SystemTime::now());
        if renew_at.is_zero() {
            // An ended certificate is good for this one request; the link needs the new one.
            node = self.next_certificate(&connection, &node).await?;
            connection = Connection::open(&self.identity.console, Credentials::Node(&node)).await?;
            renew_at = renew_in(&node, SystemTime::now()).max(RENEW_AGAIN);
        }
        let (mut outgoing, mut incoming) = connection.link().await?;
        while self.messages.try_recv().is_ok() {}
        outgoing.send(&self.hello()).await?;
        *up = true;
        self.tell(FromConsole::Up(connection.clone())).await?;
        // It ends with the session.
        let mut streams = JoinSet::new();
        streams.spawn(flows::stream::follow(connection.clone(), self.events.clone()));
        let renewal = tokio::time::sleep(renew_at);
        tokio::pin!(renewal);
        loop {
            tokio::select! {
                said = tokio::time::timeout(SILENCE, incoming.receive()) => {
                    let said = said.map_err(|_elapsed| LinkError::Timeout)??;
                    self.tell(FromConsole::Said(said)).await?;
                }
                message = self.messages.recv() => {
                    outgoing.tell(&message.ok_or(SessionError::Over)?).await?;
                }
                () = &mut renewal => {
                    let next = match self.next_certificate(&connection, &node).await {
                        Ok(next) => {
                            node = next;
                            renew_in(&node, SystemTime::now()).max(Duration::from_secs(1))
                        }
                        Err(error) => {
                            tracing::error!(error = sentence(&error), "the node's certificate could not be renewed");
                            RENEW_AGAIN
                        }
                    };
                    renewal.as_mut().reset(tokio::time::Instant::now() + next);
                }
            }
        }
    }

    fn hello(&self) -> NodeMessage {
        NodeMessage::Hello {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            formats: vec![model::snapshot::FORMAT],
            applied: *self.applied.borrow(),
            labels: self.labels.clone(),
        }
    }

    async fn first_certificate(&mut self) -> Result<NodeCertificate, SessionError> {
        let secret = self.secret.as_ref().ok_or(SessionError::NoCertificate)?;
        let node = enrol(&self.identity, secret, &self.labels).await?;
        self.secret = None;
        tracing::info!(node = self.identity.node.as_str(), console = self.identity.console, "enrolled");
        self.keep(node).await
    }

    async fn next_certificate(
        &mut self,
        connection: &Connection,
        node: &NodeCertificate,
    ) -> Result<NodeCertificate, SessionError> {
        let node = renew(connection, node).await?;
        tracing::info!("the node's certificate is renewed");
        self.keep(node).await
    }

    async fn keep(&mut self, node: NodeCertificate) -> Result<NodeCertificate, SessionError> {
        self.node = Some(node.clone());
        self.tell(FromConsole::Certificate(node.clone())).await?;
        Ok(node)
    }

    async fn tell(&self, event: FromConsole) -> Result<(), SessionError> {
        self.events.send(event).await.map_err(|_closed| SessionError::Over)
    }
}

#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(
        "this node has no certificate: start it with a new token (`sallyport node enrol NAME`) in --token-file"
    )]
    NoCertificate,
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the worker stops")]
    Over,
}

/// Half to all of `wait`, so that many nodes do not come back at once.
fn jittered(wait: Duration) -> Duration {
    let mut random = [0; 2];
    // Without random numbers there is no jitter, which is no reason to stop.
    let _ = aws_lc_rs::rand::fill(&mut random);
    wait / 2 + wait.mul_f64(f64::from(u16::from_ne_bytes(random)) / f64::from(u16::MAX) / 2.0)
}
