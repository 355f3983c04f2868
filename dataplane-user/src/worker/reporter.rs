//! Reports to the console: the worker's own figures with the keeper's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use model::link::NodeMessage;
use model::report::{Drops, Feature, ListenerReport, Report, SynPressure};
use model::senders::Senders;
use tokio::sync::mpsc;

use super::observe::Observe;

/// A report at least this often.
const IDLE: Duration = Duration::from_secs(5);

/// Gathers what a report says.
pub(super) struct Reporter {
    observe: Arc<Observe>,
    features: Vec<Feature>,
    listeners: Vec<ListenerReport>,
    last: Instant,
    senders: Option<Senders>,
    /// The console of this link has not got them yet.
    senders_due: bool,
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reporter").finish_non_exhaustive()
    }
}

impl Reporter {
    /// Nothing to report yet.
    pub(super) fn new(observe: Arc<Observe>) -> Self {
        Self {
            observe,
            features: Vec::new(),
            listeners: Vec::new(),
            last: Instant::now(),
            senders: None,
            senders_due: false,
        }
    }

    /// The keeper's figures of the last second.
    pub(super) fn take(
        &mut self,
        drops: Vec<Drops>,
        features: Vec<Feature>,
        listeners: Vec<ListenerReport>,
        syn_pressure: Option<SynPressure>,
    ) {
        self.observe.kernel_drops(&drops);
        self.observe.syn_pressure(syn_pressure);
        (self.features, self.listeners) = (features, listeners);
    }

    /// Who is sending, as the keeper knows it at present.
    pub(super) fn take_senders(&mut self, senders: Senders) {
        (self.senders, self.senders_due) = (Some(senders), true);
    }

    /// Another link, whose console may know nothing.
    pub(super) fn begin(&mut self) {
        self.senders_due = self.senders.is_some();
    }

    /// Tells who is sending, where the console does not know yet.
    pub(super) fn tell_senders(&mut self, link: Option<&mpsc::Sender<NodeMessage>>) {
        let Some(senders) = self.senders.as_ref().filter(|_| self.senders_due) else { return };
        if let Some(place) = link.and_then(|link| link.try_reserve().ok()) {
            place.send(NodeMessage::Senders(Box::new(senders.clone())));
            self.senders_due = false;
        }
    }

    /// Sends a report when there was traffic, when it is time, or `now`; the answer is the number of open connections.
    pub(super) fn report(&mut self, link: Option<&mpsc::Sender<NodeMessage>>, now: bool) -> u32 {
        let connections = self.observe.connections();
        let due = now || self.last.elapsed() >= IDLE;
        // Figures without a link, or for a console that does not keep up, wait and become part of the next report.
        let Some(place) = link.and_then(|link| link.try_reserve().ok()) else { return connections };
        let own = self.observe.report();
        if own.routes.is_empty() && own.drops.is_empty() && !due {
            return connections;
        }
        place.send(NodeMessage::Report(Box::new(self.complete(own))));
        connections
    }

    fn complete(&mut self, mut report: Report) -> Report {
        report.features.clone_from(&self.features);
        let open = std::mem::take(&mut report.listeners);
        report.listeners.clone_from(&self.listeners);
        for listener in &mut report.listeners {
            let known = open.iter().find(|open| open.listener == listener.listener);
            listener.connections = known.map_or(0, |open| open.connections);
        }
        // Reports that had nothing to say were not sent: this one covers their time too.
        report.interval_ms = u32::try_from(self.last.elapsed().as_millis()).unwrap_or(u32::MAX);
        self.last = Instant::now();
        report
    }
}
