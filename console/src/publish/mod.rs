//! From what people want to what nodes obey.
//!
//! In: changes to objects. Out: a review, or a new revision that is stored in one transaction, compiled, and offered to every
//! node. Publishing is serialised; nothing that does not compile is stored, so a wrong object never reaches a node.

mod certificates;
mod current;
mod gate;
mod loopback;
mod prepare;
mod protect;
mod sources;
mod staged;
mod unconfirmed;
mod words;

pub(crate) use certificates::purpose as key_purpose;
pub use current::Current;
pub use protect::Links;
pub(crate) use protect::{HOW, HOW_LABELS};
pub use words::difference;
pub(crate) use words::{used_by, users_of};

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use model::compile::{Compiled, FactsCache};
use model::digest::Digest;
use model::draft::Object;
use model::problem::{Code, Problem};
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::clock;
use crate::nodes::Live;
use crate::ops::{Actor, Changes, Connection, OpsError, PublishOptions, Published, Review};
use crate::secrets::{Authority, MasterKey};
use crate::store::{NewRevision, ObjectRow, Store};
use gate::Gate;
use prepare::Prepared;
use staged::Staged;
use unconfirmed::Unconfirmed;

/// What somebody wants to be in force.
#[derive(Debug, Clone)]
pub enum Wish {
    /// These changes.
    Changes(Changes),
    /// The objects of this revision.
    Rollback(u64),
    /// The objects from before this revision, if it still waits for its confirmation and its time is over.
    Unconfirmed {
        /// The revision.
        revision: u64,
        /// What the time is.
        now: OffsetDateTime,
    },
    /// What is in force, under a new number and at least this epoch.
    Again {
        /// The epoch.
        epoch: u64,
    },
}

/// Publishes; cheap to clone.
#[derive(Debug, Clone)]
pub struct Publisher(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    master: MasterKey,
    authority: Authority,
    links: Links,
    live: Live,
    staged: Mutex<Staged>,
    unconfirmed: Unconfirmed,
    gate: Gate,
    current: watch::Sender<Arc<Current>>,
}

/// What granting a wish would do, and what it was found out with.
#[derive(Debug)]
pub struct Planned {
    /// What it would do; its effect on what was sent is still to be found out.
    pub review: Review,
    /// What is in force.
    pub base: Arc<Current>,
    /// What would be; absent when there are problems.
    pub compiled: Option<Compiled>,
}

impl Publisher {
    /// Compiles what is stored, without judging anew what was in force already.
    ///
    /// # Errors
    /// When the store fails or has objects that this release cannot compile.
    pub async fn open(
        store: Store,
        (master, authority): (MasterKey, Authority),
        links: Links,
        live: Live,
    ) -> Result<Self, OpsError> {
        let mut cache = FactsCache::default();
        let current = Current::load(&store, &authority, &mut cache).await?;
        let inner = Inner {
            store,
            master,
            authority,
            links,
            live,
            staged: Mutex::default(),
            unconfirmed: Unconfirmed::default(),
            gate: Gate::of(cache),
            current: watch::Sender::new(Arc::new(current)),
        };
        Ok(Self(Arc::new(inner)))
    }

    /// What is in force, and a wake-up when it changes.
    pub fn current(&self) -> watch::Receiver<Arc<Current>> {
        self.0.current.subscribe()
    }

    /// Keeps a private key for a while, so that a form can carry its digest from review to publish.
    ///
    /// # Errors
    /// When it is no key.
    pub fn stage_key(&self, pem: &str) -> Result<Digest, OpsError> {
        let sealed = certificates::seal(&self.0.master, pem, "")?;
        let digest = sealed.0;
        staged::lock(&self.0.staged).add(sealed, clock::now());
        Ok(digest)
    }

    /// What granting the wish would do.
    ///
    /// # Errors
    /// When the store fails or the revision to return to does not exist; problems of the change itself are in the review.
    pub async fn plan(
        &self,
        wish: Wish,
        actor: &Actor,
        options: &PublishOptions,
    ) -> Result<Planned, OpsError> {
        let mut cache = self.0.gate.lock().await;
        let base = Arc::clone(&self.0.current.borrow());
        let obstacle = self.obstacle(&base, &wish, options).await?;
        let mut prepared = self.prepare(&base, wish, &mut cache).await?;
        prepared.problems.extend(sources::unpermitted(&base, &prepared.put, actor));
        prepared.problems.extend(obstacle);
        let confirmations = match &prepared.compiled {
            Some(new) => self.asked(&base, new, actor, &[]).await?,
            None => Vec::new(),
        };
        let review = Review {
            base_revision: base.id.revision,
            touches: [words::touches(&base.objects, &prepared), words::left_out(&prepared)].concat(),
            confirmations,
            problems: prepared.problems,
            changes: prepared.lines,
            effect: None,
        };
        Ok(Planned { review, base, compiled: prepared.compiled })
    }

    /// Grants the wish as a new revision, or says why not.
    ///
    /// # Errors
    /// Problems, a missing confirmation, a conflict; or the store failed. Then nothing has changed.
    pub async fn publish(
        &self,
        wish: Wish,
        actor: &Actor,
        options: PublishOptions,
    ) -> Result<Published, OpsError> {
        let (me, actor) = (self.clone(), actor.clone());
        // A task of its own: a caller that goes away must not stop it between the commit and the nodes.
        let task = tokio::spawn(async move { me.publish_now(wish, &actor, options).await });
        task.await.map_err(|_panicked| OpsError::Stopped)?
    }

    async fn publish_now(
        &self,
        wish: Wish,
        actor: &Actor,
        options: PublishOptions,
    ) -> Result<Published, OpsError> {
        let mut cache = self.0.gate.lock().await;
        let base = Arc::clone(&self.0.current.borrow());
        let present = base.id.revision;
        let unchanged = Published { revision: present, changes: Vec::new(), rollback_at: None };
        let Some(wish) = self.still_due(wish).await? else { return Ok(unchanged) };
        if let Some(obstacle) = self.obstacle(&base, &wish, &options).await? {
            return Err(OpsError::Problems(vec![obstacle]));
        }
        let (epoch, again) = match wish {
            Wish::Again { epoch } => (epoch.max(base.id.epoch), true),
            Wish::Changes(_) | Wish::Rollback(_) | Wish::Unconfirmed { .. } => (base.id.epoch, false),
        };
        let prepared = self.prepare(&base, wish, &mut cache).await?;
        if !sources::unpermitted(&base, &prepared.put, actor).is_empty() {
            return Err(OpsError::Forbidden(sources::ADMINISTRATORS));
        }
        let Prepared { compiled: Some(compiled), problems, .. } = &prepared else {
            return Err(OpsError::Problems(prepared.problems));
        };
        if !problems.is_empty() {
            return Err(OpsError::Problems(prepared.problems));
        }
        if prepared.lines.is_empty() && !again && present > 0 {
            return Ok(unchanged);
        }
        let confirmations = self.asked(&base, compiled, actor, &options.protect).await?;
        if !confirmations.is_empty() && !options.confirm {
            return Err(OpsError::Problems(confirmations));
        }
        cache.keep_only(compiled);
        self.write(&base, prepared, (epoch, again), actor, &options).await
    }

    /// What forbids any wish of this kind now, whatever its objects: a revision that waits, or one that its author has not
    /// seen.
    async fn obstacle(
        &self,
        base: &Current,
        wish: &Wish,
        options: &PublishOptions,
    ) -> Result<Option<Problem>, OpsError> {
        let newest = self.0.store.newest().await?;
        if let Some(waiting) = unconfirmed::in_the_way(newest.as_ref(), wish, options) {
            return Ok(Some(waiting));
        }
        let present = base.id.revision;
        let unseen = options.base_revision.filter(|seen| *seen != present).map(|seen| {
            let message = match seen > present {
                true => format!("there is no revision {seen} to start from; the newest is {present}"),
                false => format!(
                    "revision {present} was published since you looked at revision {seen}; look at the change again and repeat it"
                ),
            };
            Problem::new("", "", Code::Conflict, message)
        });
        Ok(unseen)
    }

    async fn write(
        &self,
        base: &Current,
        prepared: Prepared,
        (epoch, again): (u64, bool),
        actor: &Actor,
        options: &PublishOptions,
    ) -> Result<Published, OpsError> {
        let (number, at) = (base.id.revision + 1, clock::now());
        tracing::info!(
            revision = number,
            epoch,
            actor = actor.name,
            changes = prepared.lines.len(),
            "publish begin"
        );
        let rollback = match again {
            // What waits for its confirmation goes on waiting.
            true => self.0.store.newest().await?.and_then(|newest| newest.rollback),
            false => options.rollback_after.map(|after| (at + after, base.id.revision)),
        };
        let put = prepared.put.iter().map(ObjectRow::of).collect::<Result<Vec<_>, _>>()?;
        let new = NewRevision {
            number,
            epoch,
            at,
            actor: &actor.name,
            message: &options.message,
            changes: &prepared.lines,
            rollback,
            put,
            remove: prepared.remove.clone(),
            keys: prepared.keys,
            rules: prepared.rules,
        };
        if rollback.is_some() {
            self.0.unconfirmed.begin(number);
        }
        self.0.store.write_revision(&new).await?;
        let current = Current::of(number, epoch, prepared.objects, prepared.compiled, base, &new);
        self.0.current.send_replace(Arc::new(current));
        if rollback.is_some() {
            self.0.unconfirmed.published(number);
        }
        tracing::info!(revision = number, epoch, "publish end");
        Ok(Published { revision: number, changes: prepared.lines, rollback_at: rollback.map(|(at, _)| at) })
    }

    async fn prepare(
        &self,
        base: &Arc<Current>,
        wish: Wish,
        cache: &mut FactsCache,
    ) -> Result<Prepared, OpsError> {
        let old = match wish {
            Wish::Rollback(to) => Some(self.old_objects(base, to).await?),
            Wish::Changes(_) | Wish::Unconfirmed { .. } | Wish::Again { .. } => None,
        };
        let (me, base, mut taken) = (self.clone(), Arc::clone(base), std::mem::take(cache));
        // 10,000 objects take a while: not on the thread that answers everybody else.
        let task = tokio::task::spawn_blocking(move || {
            let maker =
                prepare::Maker { master: &me.0.master, authority: &me.0.authority, staged: &me.0.staged };
            let prepared = match (wish, old) {
                (_, Some(objects)) => maker.set(&base, objects, &mut taken),
                (Wish::Changes(changes), None) => maker.changes(&base, changes, &mut taken),
                (Wish::Rollback(_) | Wish::Unconfirmed { .. } | Wish::Again { .. }, None) => {
                    maker.changes(&base, Changes::default(), &mut taken)
                }
            };
            (prepared, taken)
        });
        let (prepared, taken) = task.await.map_err(|_panicked| OpsError::Stopped)?;
        *cache = taken;
        Ok(prepared)
    }

    async fn old_objects(&self, base: &Current, to: u64) -> Result<Vec<Object>, OpsError> {
        if to == 0 || to > base.id.revision {
            return Err(OpsError::NotFound(format!(
                "there is no revision {to}; the newest is {}",
                base.id.revision
            )));
        }
        Ok(self.0.store.objects_at(to).await?)
    }

    /// Whether a request over this connection may confirm the revision: only one opened after it was published may.
    pub fn may_confirm(&self, revision: u64, connection: Option<&Connection>) -> bool {
        self.0.unconfirmed.may_confirm(revision, connection)
    }

    /// Digests of the stored keys that what is in force names.
    pub fn keys_in_force(&self) -> BTreeSet<Digest> {
        self.0.current.borrow().keys.clone()
    }
}

#[cfg(test)]
mod tests;
