//! For tests.

use super::*;

impl Control {
    /// A worker as it is before its keeper has said anything: without threads, listeners and a sandbox, which would be the
    /// test's own.
    pub(in crate::worker) fn unstarted(channel: OwnedFd) -> Self {
        let (live, roots) =
            (Arc::new(ArcSwap::from_pointee(Live::empty())), Arc::new(RootCertStore::empty()));
        let observe = Arc::new(Observe::new(0, Arc::clone(&live), None).unwrap());
        let threads = Threads::start(0, &live, &observe, &mpsc::unbounded_channel().0).unwrap();
        Self {
            keeper: KeeperLink::new(KeeperChannel::new(channel).unwrap()),
            threads,
            live,
            vault: Vault::new(&[7; 32]).unwrap(),
            roots,
            identity: None,
            settled: None,
            proposal: None,
            fetching: None,
            went_back: None,
            console: Console::new(),
            flows: Flows::default(),
            reporter: Reporter::new(Arc::clone(&observe)),
            observe,
            stored: None,
            secrets: Secrets::default(),
            labels: BTreeMap::new(),
            features: Vec::new(),
            draining: false,
            settling: None,
            accepts: false,
            metrics: None,
            _lock: None,
        }
    }
}
