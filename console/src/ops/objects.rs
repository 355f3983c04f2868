//! Objects and revisions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::digest::Digest;
use model::draft::{Kind, ListenerSpec, Object, Spec};
use model::problem::{Code, Problem};
use time::OffsetDateTime;

use super::{
    Actor, ChangeLine, Changes, Connection, Event, ListQuery, Ops, OpsError, Page, PublishOptions, Published,
    Review, Revision, Role, Stored, allowed,
};
use crate::publish::{Current, Planned, Wish, difference, used_by};
use crate::store::RevisionRow;

/// Rollback by itself happens within these bounds.
const ROLLBACK_AFTER: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(5)..=Duration::from_secs(24 * 3600);

/// What is wrong with the time of a rollback by itself; `present` is the newest revision.
fn untimely(options: &PublishOptions, present: u64) -> Option<Problem> {
    let message = match options.rollback_after? {
        after if !ROLLBACK_AFTER.contains(&after) => {
            "rolls back after 5 seconds at the earliest and a day at the latest; choose a time between"
        }
        _ if present == 0 => {
            "this is the first revision, so there is none to roll back to; publish it without a time"
        }
        _ => return None,
    };
    Some(Problem::new("", "rollbackAfterSeconds", Code::Invalid, message))
}

impl Ops {
    /// One page of objects, searched and sorted in SQL.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(&self, query: &ListQuery) -> Result<Page<Stored>, OpsError> {
        Ok(self.0.store.list(query).await?)
    }

    /// One object.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn get(&self, kind: Kind, name: &str) -> Result<Option<Stored>, OpsError> {
        Ok(self.0.store.get(kind, name).await?)
    }

    /// What is in force, compiled: for questions such as "which certificate does this host get".
    pub fn current(&self) -> Arc<Current> {
        Arc::clone(&self.0.publisher.current().borrow())
    }

    /// Names of all objects of a kind, sorted (for selects).
    ///
    /// # Errors
    /// None at present.
    pub async fn names(&self, kind: Kind) -> Result<Vec<String>, OpsError> {
        let current = self.current();
        Ok(current.objects.keys().filter(|(of, _)| *of == kind).map(|(_, name)| name.clone()).collect())
    }

    /// How many objects of each kind there are.
    ///
    /// # Errors
    /// None at present.
    pub async fn counts(&self) -> Result<BTreeMap<Kind, u64>, OpsError> {
        let mut counts = BTreeMap::new();
        for (kind, _) in self.current().objects.keys() {
            *counts.entry(*kind).or_default() += 1;
        }
        Ok(counts)
    }

    /// Objects that refer to this one.
    ///
    /// # Errors
    /// None at present.
    pub async fn used_by(&self, kind: Kind, name: &str) -> Result<Vec<(Kind, String)>, OpsError> {
        Ok(used_by(&self.current().objects, &(kind, name.to_owned())))
    }

    /// Objects for `export`, by kind and name: no key, only references.
    ///
    /// # Errors
    /// When one is named that does not exist.
    pub async fn export(&self, kind: Option<Kind>, name: Option<&str>) -> Result<Vec<Object>, OpsError> {
        let current = self.current();
        let wanted = current
            .objects
            .iter()
            .filter(|((k, n), _)| kind.is_none_or(|kind| kind == *k) && name.is_none_or(|name| name == n));
        let found: Vec<Object> = wanted.map(|(_, object)| object.clone()).collect();
        match (kind, name) {
            (Some(kind), Some(name)) if found.is_empty() => {
                Err(OpsError::NotFound(format!("there is no {} named {name}", kind.words())))
            }
            _ => Ok(found),
        }
    }

    /// What publishing these changes would do; problems are in the review, not in the error.
    ///
    /// # Errors
    /// When the actor may not, or the store fails.
    pub async fn plan(&self, changes: &Changes, actor: &Actor) -> Result<Review, OpsError> {
        self.plan_with(changes, actor, &PublishOptions::default()).await
    }

    /// What publishing these changes in this way would do.
    ///
    /// # Errors
    /// As [`Ops::plan`].
    pub async fn plan_with(
        &self,
        changes: &Changes,
        actor: &Actor,
        options: &PublishOptions,
    ) -> Result<Review, OpsError> {
        allowed(actor, Role::Operator)?;
        self.planned(Wish::Changes(changes.clone()), actor, options).await
    }

    async fn planned(&self, wish: Wish, actor: &Actor, options: &PublishOptions) -> Result<Review, OpsError> {
        let Planned { mut review, base, compiled } = self.0.publisher.plan(wish, actor, options).await?;
        review.problems.extend(untimely(options, base.id.revision));
        if let Some(compiled) = compiled {
            review.effect = self.filter_effect(base, compiled).await?;
        }
        Ok(review)
    }

    /// Publishes.
    ///
    /// # Errors
    /// Problems, a conflict, a missing confirmation or role; or the store failed. Then nothing has changed.
    pub async fn publish(
        &self,
        changes: Changes,
        actor: &Actor,
        options: PublishOptions,
    ) -> Result<Published, OpsError> {
        self.grant(Wish::Changes(changes), actor, options).await
    }

    /// A new revision with the objects of an old one.
    ///
    /// # Errors
    /// As [`Ops::publish`], and when there is no such revision.
    pub async fn rollback(
        &self,
        to: u64,
        actor: &Actor,
        options: PublishOptions,
    ) -> Result<Published, OpsError> {
        let message = match options.message.is_empty() {
            true => format!("back to revision {to}"),
            false => options.message.clone(),
        };
        self.grant(Wish::Rollback(to), actor, PublishOptions { message, ..options }).await
    }

    /// What a rollback would do.
    ///
    /// # Errors
    /// When there is no such revision.
    pub async fn plan_rollback(&self, to: u64, actor: &Actor) -> Result<Review, OpsError> {
        allowed(actor, Role::Operator)?;
        self.planned(Wish::Rollback(to), actor, &PublishOptions::default()).await
    }

    /// Keeps a private key (PEM) in memory for an hour, sealed, so that a form can carry its digest from review to publish.
    ///
    /// # Errors
    /// When it is no private key.
    pub async fn stage_key(&self, pem: &str, actor: &Actor) -> Result<Digest, OpsError> {
        allowed(actor, Role::Operator)?;
        self.0.publisher.stage_key(pem)
    }

    /// Keeps a revision that would roll back by itself.
    ///
    /// # Errors
    /// When it does not wait for a confirmation, other changes are being made for too long, or the actor's connection is older than
    /// the revision; that one is closed then.
    pub async fn confirm(&self, revision: u64, actor: &Actor) -> Result<(), OpsError> {
        allowed(actor, Role::Operator)?;
        if !self.0.publisher.may_confirm(revision, actor.connection.as_ref()) {
            actor.connection.iter().for_each(Connection::close);
            let message = format!(
                "revision {revision} is confirmed over a connection that was opened after it was published, to show that one \
                 still can be; this one is older and closes now: confirm once more, and a new one is opened"
            );
            return Err(OpsError::problem("", "", Code::Conflict, message));
        }
        if !self.0.publisher.confirm(revision).await? {
            let message = format!(
                "revision {revision} does not wait for a confirmation (any more); look at the changes"
            );
            return Err(OpsError::problem("", "", Code::Conflict, message));
        }
        self.0.store.audit(actor, &format!("confirmed revision {revision}")).await?;
        Ok(())
    }

    /// Rolls back what nobody confirmed in time (decision 22).
    ///
    /// # Errors
    /// When the store fails.
    pub async fn roll_back_unconfirmed(&self, now: OffsetDateTime) -> Result<(), OpsError> {
        let Some(RevisionRow { number, rollback: Some((at, to)), .. }) = self.0.store.newest().await? else {
            return Ok(());
        };
        if at > now {
            return Ok(());
        }
        let message = format!("nobody confirmed revision {number} in time: back to revision {to}");
        let options = PublishOptions { confirm: true, message, ..PublishOptions::default() };
        self.grant(Wish::Unconfirmed { revision: number, now }, &Actor::console(), options).await?;
        Ok(())
    }

    /// Begins a higher epoch with the same objects: nodes have seen newer numbers than this (restored) database has.
    pub(crate) async fn raise_epoch(&self, to: u64) -> Result<(), OpsError> {
        self.again(to, format!("the database was restored from a backup: epoch {to} begins")).await
    }

    /// A new number for the same objects: what a node must obey differs although nobody changed an object.
    pub(crate) async fn renumber(&self, message: String) -> Result<(), OpsError> {
        self.again(self.current().id.epoch, message).await
    }

    async fn again(&self, epoch: u64, message: String) -> Result<(), OpsError> {
        let options = PublishOptions { confirm: true, message, ..PublishOptions::default() };
        self.grant(Wish::Again { epoch }, &Actor::console(), options).await?;
        Ok(())
    }

    /// What a console has before anyone has written anything: a listener. Does nothing after the first revision.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn begin(&self, port: u16) -> Result<(), OpsError> {
        if self.current().id.revision > 0 {
            return Ok(());
        }
        let listener = ListenerSpec { port: u32::from(port).into(), ..ListenerSpec::default() };
        let changes = Changes::put(Object::new("https", Spec::Listener(listener)));
        let options = PublishOptions { message: "first start".to_owned(), ..PublishOptions::default() };
        self.grant(Wish::Changes(changes), &Actor::console(), options).await?;
        Ok(())
    }

    async fn grant(&self, wish: Wish, actor: &Actor, options: PublishOptions) -> Result<Published, OpsError> {
        allowed(actor, Role::Operator)?;
        let before = self.current().id.revision;
        if let Some(untimely) = untimely(&options, before) {
            return Err(OpsError::Problems(vec![untimely]));
        }
        let published = self.0.publisher.publish(wish, actor, options).await?;
        if published.revision != before {
            self.tell(Event::Published { revision: published.revision });
        }
        if published.rollback_at.is_some() {
            // Only a new connection may confirm: whoever published comes back over one.
            actor.connection.iter().for_each(Connection::close);
        }
        Ok(published)
    }

    /// Revisions, newest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn revisions(&self, page: u32, per_page: u32) -> Result<Page<Revision>, OpsError> {
        let per_page =
            if per_page == 0 { super::DEFAULT_PER_PAGE } else { per_page.min(super::MAX_PER_PAGE) };
        let page = page.max(1);
        let offset = u64::from(page - 1) * u64::from(per_page);
        let (rows, total) = self.0.store.revisions(per_page, offset).await?;
        let mut items = Vec::with_capacity(rows.len());
        for row in rows {
            items.push(self.with_answers(row).await?);
        }
        Ok(Page { items, total, page, per_page })
    }

    /// One revision.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn revision(&self, number: u64) -> Result<Option<Revision>, OpsError> {
        match self.0.store.revision(number).await? {
            Some(row) => Ok(Some(self.with_answers(row).await?)),
            None => Ok(None),
        }
    }

    async fn with_answers(&self, row: RevisionRow) -> Result<Revision, OpsError> {
        let nodes = self.0.store.answers(row.number).await?;
        Ok(Revision {
            number: row.number,
            epoch: row.epoch,
            at: row.at,
            actor: row.actor,
            message: row.message,
            changes: row.changes,
            rollback_at: row.rollback.map(|(at, _)| at),
            rollback_to: row.rollback.map(|(_, to)| to),
            nodes,
        })
    }

    /// The difference between two revisions in words.
    ///
    /// # Errors
    /// When one of them does not exist.
    pub async fn compare(&self, from: u64, to: u64) -> Result<Vec<ChangeLine>, OpsError> {
        let newest = self.current().id.revision;
        if let Some(missing) = [from, to].into_iter().find(|number| *number > newest) {
            return Err(OpsError::NotFound(format!(
                "there is no revision {missing}; the newest is {newest}"
            )));
        }
        Ok(difference(&self.0.store.objects_at(from).await?, &self.0.store.objects_at(to).await?))
    }
}
