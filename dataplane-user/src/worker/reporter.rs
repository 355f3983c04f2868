//! Reports to the console: the worker's own figures with the keeper's.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use model::link::NodeMessage;
use model::report::{Drops, Feature, ListenerReport, Report};
use tokio::sync::mpsc;

use super::observe::Observe;

/// A report at least this often.
const IDLE: Duration = Duration::from_secs(5);

/// Gathers what a report says.
pub(super) struct Reporter {
    observe: Arc<Observe>,
    threads: u32,
    drops: Vec<Drops>,
    features: Vec<Feature>,
    listeners: Vec<ListenerReport>,
    last: Instant,
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reporter").finish_non_exhaustive()
    }
}

impl Reporter {
    /// Nothing to report yet.
    pub(super) fn new(observe: Arc<Observe>, threads: usize) -> Self {
        let threads = u32::try_from(threads).unwrap_or(u32::MAX);
        let last = Instant::now();
        Self { observe, threads, drops: Vec::new(), features: Vec::new(), listeners: Vec::new(), last }
    }

    /// The keeper's figures of the last second.
    pub(super) fn take(&mut self, drops: Vec<Drops>, features: Vec<Feature>, listeners: Vec<ListenerReport>) {
        for more in drops {
            let same = |known: &&mut Drops| {
                (known.place, &known.reason, known.rule) == (more.place, &more.reason, more.rule)
            };
            match self.drops.iter_mut().find(same) {
                Some(known) => known.count = known.count.saturating_add(more.count),
                None => self.drops.push(more),
            }
        }
        (self.features, self.listeners) = (features, listeners);
    }

    /// Sends a report when there was traffic, when it is time, or `now`; the answer is the number of open connections.
    pub(super) fn report(&mut self, link: Option<&mpsc::Sender<NodeMessage>>, now: bool) -> u32 {
        let own = self.observe.report();
        let connections = own.connections;
        let due = now || self.last.elapsed() >= IDLE;
        let Some(link) = link else { return connections };
        if own.routes.is_empty() && own.drops.is_empty() && self.drops.is_empty() && !due {
            return connections;
        }
        // A console that does not keep up loses an interval, not the acknowledgements queued behind it.
        if let Ok(place) = link.try_reserve() {
            place.send(NodeMessage::Report(Box::new(self.complete(own))));
        }
        connections
    }

    fn complete(&mut self, mut report: Report) -> Report {
        report.drops.append(&mut self.drops);
        report.features.clone_from(&self.features);
        let open = std::mem::take(&mut report.listeners);
        report.listeners.clone_from(&self.listeners);
        for listener in &mut report.listeners {
            let known = open.iter().find(|open| open.listener == listener.listener);
            listener.connections = known.map_or(0, |open| open.connections);
        }
        report.threads = self.threads;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        report.at_ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        report.interval_ms = u32::try_from(self.last.elapsed().as_millis()).unwrap_or(u32::MAX);
        self.last = Instant::now();
        report
    }
}
