//! A snapshot on its way from the console to being in force.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use model::digest::Digest;
use model::link::NodeMessage;
use model::snapshot::{InvalidSnapshot, SignedSnapshot, Snapshot, SnapshotId};
use zeroize::Zeroizing;

use super::control::Control;
use super::live::{Live, LiveError};
use super::snapshot::link::{Connection, LinkError};
use super::vault::VaultError;
use crate::handover::ToKeeper;
use crate::handover::message::Sealed;
use crate::sentence;
use crate::signed::{self, Unbelievable};

/// What the keeper is asked to put in force.
#[derive(Debug)]
pub(super) struct Proposal {
    signed: SignedSnapshot,
    snapshot: Snapshot,
    keys: BTreeMap<Digest, Sealed>,
    built: Arc<Live>,
    /// What was live before, once `built` is.
    former: Option<Arc<Live>>,
    received: Instant,
}

impl Proposal {
    /// Which snapshot.
    pub(super) fn id(&self) -> SnapshotId {
        self.snapshot.id
    }
}

/// A snapshot that is believed and not built yet.
#[derive(Debug)]
pub(super) struct Offer {
    signed: SignedSnapshot,
    snapshot: Snapshot,
    received: Instant,
}

/// Private keys as the console sent them.
type Keys = Vec<(Digest, Zeroizing<Vec<u8>>)>;

/// A task that fetches what an offer needs, so that a slow console holds up neither the keeper nor anything else the
/// control thread hears. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Fetching(tokio::task::JoinHandle<(Offer, Result<Keys, ProposalError>)>);

impl Fetching {
    /// What came of the fetching in `slot`; never returns while there is none.
    pub(super) async fn done(slot: &mut Option<Self>) -> Option<(Offer, Result<Keys, ProposalError>)> {
        let Some(fetching) = slot else { return std::future::pending().await };
        let done = (&mut fetching.0).await;
        *slot = None;
        // A task that panicked has logged it; the console offers the snapshot again with the next link.
        done.ok()
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn fetch(offer: Offer, keys: Vec<(Digest, Connection)>) -> (Offer, Result<Keys, ProposalError>) {
    let mut fetched = Vec::with_capacity(keys.len());
    for (key, connection) in keys {
        match connection.key(&key).await {
            Ok(der) => fetched.push((key, der)),
            Err(source) => return (offer, Err(ProposalError::Key { key, source })),
        }
    }
    (offer, Ok(fetched))
}

/// Why a snapshot gets no further than the worker.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProposalError {
    /// The node has no name and trusts nobody.
    #[error("this node was never enrolled: start it with --token-file")]
    NotEnrolled,
    /// See [`Unbelievable`].
    #[error(transparent)]
    Unbelievable(#[from] Unbelievable),
    /// The stored snapshot cannot be read by this release.
    #[error("the stored snapshot cannot be used")]
    Stored(#[source] InvalidSnapshot),
    /// A key could not be fetched.
    #[error("the private key {key} cannot be fetched from the console")]
    Key {
        /// Which.
        key: Digest,
        /// Why.
        source: LinkError,
    },
    /// See [`VaultError`].
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// See [`LiveError`].
    #[error(transparent)]
    Live(#[from] LiveError),
}

impl Control {
    /// The console wants this in force.
    pub(super) async fn receive(&mut self, signed: SignedSnapshot) {
        let received = Instant::now();
        let snapshot = match self.believe(&signed) {
            Ok(snapshot) => snapshot,
            Err(error) => return self.refuse(claimed_id(&signed), sentence(&error)).await,
        };
        let id = snapshot.id;
        // That it waits no longer is the keeper's to hear.
        let has = |settled: &Snapshot| {
            settled.is_same_but_for_trial(&snapshot)
                && (snapshot.trial_ms.is_some() || settled.trial_ms.is_none())
        };
        if self.settled.as_ref().is_some_and(has) {
            // The console has not heard of it, or its link broke before.
            return self.tell_console(NodeMessage::Applied { id, took_ms: 0 }).await;
        }
        let offer = Offer { signed, snapshot, received };
        match self.lacking(&offer.snapshot) {
            Ok(keys) if keys.is_empty() => self.take(offer, Ok(Vec::new())).await,
            Ok(keys) => self.fetching = Some(Fetching(tokio::spawn(fetch(offer, keys)))),
            Err(error) => self.refuse(Some(id), sentence(&error)).await,
        }
    }

    /// Its keys are here, or will not come.
    pub(super) async fn take(&mut self, offer: Offer, keys: Result<Keys, ProposalError>) {
        let id = offer.snapshot.id;
        match keys.and_then(|keys| self.prepare(offer, keys)) {
            Ok(proposal) => {
                self.proposal = Some(proposal);
                self.propose().await;
            }
            Err(error) => self.refuse(Some(id), sentence(&error)).await,
        }
    }

    /// The keys that are not here yet, and the connection they can be fetched over.
    fn lacking(&self, snapshot: &Snapshot) -> Result<Vec<(Digest, Connection)>, ProposalError> {
        let wanted: BTreeSet<Digest> =
            snapshot.certificates.iter().map(|certificate| certificate.key).collect();
        let lacking = wanted.into_iter().filter(|key| !self.vault.keys().contains_key(key));
        let connection = self.console.connection.as_ref();
        lacking
            .map(|key| match connection {
                Some(connection) => Ok((key, connection.clone())),
                None => Err(ProposalError::Key { key, source: LinkError::Closed }),
            })
            .collect()
    }

    fn believe(&self, signed: &SignedSnapshot) -> Result<Snapshot, ProposalError> {
        let (node, key) = self.node().ok_or(ProposalError::NotEnrolled)?;
        let snapshot = signed::verify(signed, key, node)?;
        if !self.settled.as_ref().is_some_and(|settled| settled.is_same_but_for_trial(&snapshot)) {
            signed::newer(snapshot.id, self.settled.as_ref().map(|settled| settled.id))?;
        }
        Ok(snapshot)
    }

    fn prepare(&mut self, offer: Offer, fetched: Keys) -> Result<Proposal, ProposalError> {
        let Offer { signed, snapshot, received } = offer;
        let mut keys = BTreeMap::new();
        for (key, der) in fetched {
            keys.insert(key, self.vault.take_key(key, &der)?);
        }
        let built = Live::build(snapshot.clone(), self.vault.keys(), &self.roots, Some(&*self.live.load()))?;
        Ok(Proposal { signed, snapshot, keys, built: Arc::new(built), former: None, received })
    }

    /// Asks the keeper; also another keeper, which knows nothing of what its predecessor was asked.
    pub(super) async fn propose(&self) {
        if let Some(proposal) = &self.proposal {
            let candidate = ToKeeper::Candidate {
                snapshot: Box::new(proposal.signed.clone()),
                keys: proposal.keys.clone(),
            };
            self.keeper.say(&candidate, &[]).await;
        }
    }

    /// The keeper has done its part: every thread uses the new snapshot from now on.
    pub(super) async fn commit(&mut self, id: SnapshotId) {
        // A newer one may have come since the keeper said so.
        let Some(mut proposal) = self.proposal.take_if(|proposal| proposal.id() == id) else {
            let reason = "the worker has no such snapshot".to_owned();
            return self.keeper.say(&ToKeeper::NotLive { id, reason }, &[]).await;
        };
        let former = self.make_live(Arc::clone(&proposal.built));
        // Asked twice (by two keepers), the first answer is what there is to go back to.
        proposal.former.get_or_insert(former);
        self.proposal = Some(proposal);
        self.keeper.say(&ToKeeper::Live { id }, &[]).await;
    }

    /// It is in force everywhere and stored.
    pub(super) async fn settled(&mut self, id: SnapshotId) {
        let Some(proposal) = self.proposal.take_if(|proposal| proposal.id() == id) else { return };
        if proposal.former.is_none() {
            self.make_live(proposal.built);
        }
        let took_ms = u32::try_from(proposal.received.elapsed().as_millis()).unwrap_or(u32::MAX);
        self.settle(proposal.snapshot);
        tracing::info!(epoch = id.epoch, revision = id.revision, took_ms, "snapshot applied");
        self.tell_console(NodeMessage::Applied { id, took_ms }).await;
    }

    /// The keeper refused it: back to what was live before.
    pub(super) async fn rejected(&mut self, id: SnapshotId, reason: String) {
        // What the keeper could not even read has no id.
        let ours = |proposal: &mut Proposal| proposal.id() == id || id == SnapshotId::default();
        let Some(proposal) = self.proposal.take_if(ours) else { return };
        let id = proposal.id();
        if let Some(former) = proposal.former {
            self.make_live(former);
        }
        let named =
            self.settled.iter().flat_map(|settled| &settled.certificates).map(|certificate| certificate.key);
        self.vault.retain(&named.collect());
        self.tell_console(NodeMessage::Refused { id, reason }).await;
    }

    /// Nobody confirmed in time what is live: what the keeper has stored instead becomes live, whatever is on its way.
    pub(super) async fn go_back(&mut self, stored: &SignedSnapshot, keys: BTreeMap<Digest, Sealed>) {
        (self.proposal, self.fetching) = (None, None);
        self.secrets.keys = keys;
        let answer = match self.load(stored) {
            Ok(()) => {
                tracing::warn!("what was confirmed last is live again");
                ToKeeper::Live { id: self.live.load().id }
            }
            Err(error) => {
                ToKeeper::NotLive { id: claimed_id(stored).unwrap_or_default(), reason: sentence(&error) }
            }
        };
        self.keeper.say(&answer, &[]).await;
        self.meet_console_again().await;
    }

    /// Tells the console that the node went back, where that is still to be told and there is a link.
    pub(super) async fn tell_of_return(&mut self) {
        if self.console.state.connected
            && let Some((id, reason)) = self.went_back.take()
        {
            self.tell_console(NodeMessage::Refused { id, reason }).await;
        }
    }

    async fn refuse(&self, id: Option<SnapshotId>, reason: String) {
        tracing::warn!(?id, reason, "snapshot refused");
        self.keeper.say(&ToKeeper::Refused { id, reason: reason.clone() }, &[]).await;
        self.tell_console(NodeMessage::Refused { id: id.unwrap_or_default(), reason }).await;
    }
}

/// The id a snapshot claims to have, for the answer only: nothing else of it is used before it is verified.
fn claimed_id(signed: &SignedSnapshot) -> Option<SnapshotId> {
    #[derive(serde::Deserialize)]
    struct Head {
        id: SnapshotId,
    }
    serde_json::from_str::<Head>(&signed.body).ok().map(|head| head.id)
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use model::snapshot::FORMAT;

    use super::*;
    use crate::handover::ToWorker;
    use crate::handover::channel::{Channel, pair};

    const ID: SnapshotId = SnapshotId { epoch: 1, revision: 2 };

    fn snapshot(id: SnapshotId, trial_ms: Option<u32>) -> Snapshot {
        Snapshot {
            format: FORMAT,
            node: "edge".parse().unwrap(),
            id,
            listeners: Vec::new(),
            certificates: Vec::new(),
            routes: Vec::new(),
            origin_groups: Vec::new(),
            trust_bundles: Vec::new(),
            filter: Vec::new(),
            filter_protocols: Vec::new(),
            filter_budgets: Default::default(),
            trial_ms,
        }
    }

    fn unsigned(body: String) -> SignedSnapshot {
        SignedSnapshot { body, signature: String::new() }
    }

    /// A worker with a proposal on its way, and its keeper's side of the channel.
    fn proposing() -> (Control, Channel<ToWorker, ToKeeper>) {
        let (ours, theirs): (OwnedFd, OwnedFd) = pair().unwrap();
        let mut control = Control::unstarted(ours);
        let (signed, snapshot) = (unsigned(String::new()), snapshot(ID, None));
        let offer = Offer { signed, snapshot, received: Instant::now() };
        control.proposal = Some(control.prepare(offer, Vec::new()).unwrap());
        (control, Channel::new(theirs).unwrap())
    }

    async fn heard(keeper: &Channel<ToWorker, ToKeeper>) -> ToKeeper {
        let heard = tokio::time::timeout(std::time::Duration::from_secs(10), keeper.receive()).await;
        heard.unwrap().unwrap().0
    }

    /// The keeper is told, what is live stays, and the proposal waits for a word about itself.
    #[tokio::test]
    async fn what_is_committed_is_the_proposal_or_nothing() {
        let (mut control, keeper) = proposing();
        let before = control.live.load().id;
        for id in [SnapshotId { revision: 3, ..ID }, SnapshotId { epoch: 2, ..ID }, SnapshotId::default()] {
            control.commit(id).await;
            let said = heard(&keeper).await;
            let ToKeeper::NotLive { id: about, reason } = said else { panic!("{said:?}") };
            assert_eq!((about, &*reason), (id, "the worker has no such snapshot"));
            assert_eq!(control.live.load().id, before);
            assert_eq!(control.proposal.as_ref().map(Proposal::id), Some(ID));
        }
        control.commit(ID).await;
        assert!(matches!(heard(&keeper).await, ToKeeper::Live { id: ID }));
        assert_eq!(control.live.load().id, ID);
        // What is settled is no proposal any more.
        control.settled(ID).await;
        control.commit(ID).await;
        assert!(matches!(heard(&keeper).await, ToKeeper::NotLive { id: ID, .. }));
        assert_eq!((control.live.load().id, control.settled.map(|settled| settled.id)), (ID, Some(ID)));
    }

    /// Two keepers may ask, one after the other: what there is to go back to is what was live before the first.
    #[tokio::test]
    async fn what_was_committed_twice_and_is_refused_gives_way_to_what_was_live_before() {
        let (mut control, keeper) = proposing();
        let before = control.live.load_full();
        for _keeper in 0..2 {
            control.commit(ID).await;
            assert!(matches!(heard(&keeper).await, ToKeeper::Live { id: ID }));
        }
        control.rejected(SnapshotId { revision: 3, ..ID }, "about another".to_owned()).await;
        assert_eq!(control.live.load().id, ID);
        control.rejected(ID, "not stored".to_owned()).await;
        assert!(Arc::ptr_eq(&control.live.load(), &before) && control.proposal.is_none());
    }

    #[tokio::test]
    async fn what_is_stored_instead_becomes_live_whatever_is_on_its_way() {
        let (mut control, keeper) = proposing();
        control.commit(ID).await;
        assert!(matches!(heard(&keeper).await, ToKeeper::Live { id: ID }));
        let before = SnapshotId { revision: 1, ..ID };
        let stored = unsigned(snapshot(before, None).to_canonical_json().unwrap());
        control.go_back(&stored, BTreeMap::new()).await;
        assert!(matches!(heard(&keeper).await, ToKeeper::Live { id } if id == before));
        assert_eq!((control.live.load().id, *control.console.applied.borrow()), (before, Some(before)));
        assert!(control.proposal.is_none());
        control.go_back(&unsigned("{}".to_owned()), BTreeMap::new()).await;
        assert!(matches!(heard(&keeper).await, ToKeeper::NotLive { .. }));
        assert_eq!(control.live.load().id, before);
    }

    /// A keeper that was replaced while the confirmation was on its way has that revision, on trial.
    #[tokio::test]
    async fn a_confirmation_is_settled_by_nobody_but_the_keeper() {
        let (mut control, keeper) = proposing();
        control.settle(snapshot(ID, Some(5000)));
        assert_eq!(*control.console.applied.borrow(), None, "the console is to send it again");
        control.resume(None, Some(ID)).await;
        assert!(matches!(heard(&keeper).await, ToKeeper::Candidate { .. }));
        assert_eq!(control.settled.as_ref().and_then(|settled| settled.trial_ms), Some(5000));
        control.settled(ID).await;
        assert_eq!(control.settled.as_ref().and_then(|settled| settled.trial_ms), None);
        assert_eq!(*control.console.applied.borrow(), Some(ID));
    }
}
