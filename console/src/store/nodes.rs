//! Nodes: who they are, what they answered.

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::digest::Digest;
use model::labels::Labels;
use model::snapshot::SnapshotId;
use time::OffsetDateTime;

use super::{Store, StoreError, signed, unsigned};
use crate::clock;

/// A node as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRow {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it says of itself: only shown.
    pub said_labels: BTreeMap<String, String>,
    /// Serial number of its newest certificate, hexadecimal; absent before it is enrolled.
    pub serial: Option<String>,
    /// Of the one before, which a node uses that stopped before it had stored the newest.
    pub previous_serial: Option<String>,
    /// When the newest ends.
    pub certificate_ends: Option<OffsetDateTime>,
    /// Shut out.
    pub revoked: bool,
    /// Drained by an operator.
    pub drained: bool,
    /// Its release.
    pub version: String,
    /// When it was last heard of.
    pub seen: Option<OffsetDateTime>,
    /// What it has in force.
    pub applied: Option<SnapshotId>,
    /// What it refused after that.
    pub refused: Option<(SnapshotId, String)>,
    /// Both ends of its last link.
    pub link_ends: Vec<IpAddr>,
}

/// What became of an enrolment secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretOutcome {
    /// It was right and cannot be used again.
    Used,
    /// No node waits for it, or it has ended.
    Unknown,
}

struct Row {
    name: String,
    labels: String,
    said_labels: String,
    serial: Option<String>,
    previous_serial: Option<String>,
    certificate_ends_ms: Option<i64>,
    revoked: i64,
    drained: i64,
    version: String,
    seen_ms: Option<i64>,
    applied_epoch: Option<i64>,
    applied_revision: Option<i64>,
    refused_epoch: Option<i64>,
    refused_revision: Option<i64>,
    refused_reason: Option<String>,
    link_ends: String,
}

fn id(epoch: Option<i64>, revision: Option<i64>) -> Option<SnapshotId> {
    Some(SnapshotId { epoch: unsigned(epoch?), revision: unsigned(revision?) })
}

impl TryFrom<Row> for NodeRow {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            name: row.name,
            labels: serde_json::from_str(&row.labels).map_err(|_json| StoreError::Row("node"))?,
            said_labels: serde_json::from_str(&row.said_labels).map_err(|_json| StoreError::Row("node"))?,
            serial: row.serial,
            previous_serial: row.previous_serial,
            certificate_ends: row.certificate_ends_ms.map(clock::from_ms),
            revoked: row.revoked != 0,
            drained: row.drained != 0,
            version: row.version,
            seen: row.seen_ms.map(clock::from_ms),
            applied: id(row.applied_epoch, row.applied_revision),
            refused: id(row.refused_epoch, row.refused_revision).zip(row.refused_reason),
            link_ends: serde_json::from_str(&row.link_ends).map_err(|_json| StoreError::Row("node"))?,
        })
    }
}

fn text(labels: &BTreeMap<String, String>) -> Result<String, StoreError> {
    serde_json::to_string(labels).map_err(|_json| StoreError::Row("label"))
}

impl Store {
    /// All nodes, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn nodes(&self) -> Result<Vec<NodeRow>, StoreError> {
        let rows = sqlx::query_as!(
            Row,
            "SELECT name, labels, said_labels, serial, previous_serial, certificate_ends_ms, revoked, drained, version, seen_ms, applied_epoch,
                    applied_revision, refused_epoch, refused_revision, refused_reason, link_ends
             FROM nodes ORDER BY name"
        )
        .fetch_all(&self.reader)
        .await?;
        rows.into_iter().map(NodeRow::try_from).collect()
    }

    /// One node.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn node(&self, name: &str) -> Result<Option<NodeRow>, StoreError> {
        let row = sqlx::query_as!(
            Row,
            "SELECT name, labels, said_labels, serial, previous_serial, certificate_ends_ms, revoked, drained, version, seen_ms, applied_epoch,
                    applied_revision, refused_epoch, refused_revision, refused_reason, link_ends
             FROM nodes WHERE name = ?",
            name
        )
        .fetch_optional(&self.writer)
        .await?;
        row.map(NodeRow::try_from).transpose()
    }

    /// Gives a new or known node an enrolment secret, and labels when there are some; a revoked one is let in again only by
    /// using it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn put_node_secret(
        &self,
        name: &str,
        hash: &Digest,
        ends: OffsetDateTime,
        labels: Option<&Labels>,
    ) -> Result<(), StoreError> {
        let (hash, ends) = (hash.as_bytes().as_slice(), clock::to_ms(ends));
        let labels = labels.map(|labels| text(labels.as_map())).transpose()?;
        sqlx::query!(
            "INSERT INTO nodes (name, secret_hash, secret_ends_ms, labels) VALUES (?1, ?2, ?3, COALESCE(?4, '{}'))
             ON CONFLICT (name) DO UPDATE SET secret_hash = excluded.secret_hash, secret_ends_ms = excluded.secret_ends_ms,
                    labels = COALESCE(?4, labels)",
            name,
            hash,
            ends,
            labels
        )
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    /// The node that waits for this secret.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn node_of_secret(&self, hash: &Digest) -> Result<Option<String>, StoreError> {
        let (hash, now) = (hash.as_bytes().as_slice(), clock::to_ms(clock::now()));
        let name = sqlx::query_scalar!(
            "SELECT name FROM nodes WHERE secret_hash = ? AND secret_ends_ms > ?",
            hash,
            now
        )
        .fetch_optional(&self.writer)
        .await?;
        Ok(name)
    }

    /// Uses up a secret and notes the certificate that was issued for it, at once.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn enrol(
        &self,
        hash: &Digest,
        labels: &BTreeMap<String, String>,
        serial: &str,
        ends: OffsetDateTime,
    ) -> Result<SecretOutcome, StoreError> {
        let (hash, ends, now) = (hash.as_bytes().as_slice(), clock::to_ms(ends), clock::to_ms(clock::now()));
        let labels = text(labels)?;
        // What an earlier life of the node answered says nothing about this one.
        let done = sqlx::query!(
            "UPDATE nodes SET secret_hash = NULL, secret_ends_ms = NULL, said_labels = ?, serial = ?, previous_serial = NULL,
                    certificate_ends_ms = ?,
                    revoked = 0, applied_epoch = NULL, applied_revision = NULL, refused_epoch = NULL,
                    refused_revision = NULL, refused_reason = NULL
             WHERE secret_hash = ? AND secret_ends_ms > ?",
            labels,
            serial,
            ends,
            hash,
            now
        )
        .execute(&self.writer)
        .await?;
        Ok(if done.rows_affected() > 0 { SecretOutcome::Used } else { SecretOutcome::Unknown })
    }

    /// Notes a certificate that was issued to whoever showed this one. Whether that one still was the node's: it may have
    /// been revoked, or replaced by an enrolment, meanwhile.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn renewed(
        &self,
        name: &str,
        shown: &str,
        serial: &str,
        ends: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        let ends = clock::to_ms(ends);
        let done = sqlx::query!(
            "UPDATE nodes SET previous_serial = ?2, serial = ?3, certificate_ends_ms = ?4
             WHERE name = ?1 AND revoked = 0 AND (serial = ?2 OR previous_serial = ?2)",
            name,
            shown,
            serial,
            ends
        )
        .execute(&self.writer)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Gives a node other labels; whether there is such a node.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_labels(&self, name: &str, labels: &Labels) -> Result<bool, StoreError> {
        let labels = text(labels.as_map())?;
        let done = sqlx::query!("UPDATE nodes SET labels = ? WHERE name = ?", labels, name)
            .execute(&self.writer)
            .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Shuts a node out, or drains it; absent leaves as it is. Whether there is such a node.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_node(
        &self,
        name: &str,
        revoked: Option<bool>,
        drained: Option<bool>,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE nodes SET revoked = COALESCE(?1, revoked), drained = COALESCE(?2, drained),
                    secret_hash = CASE WHEN ?1 THEN NULL ELSE secret_hash END
             WHERE name = ?3",
            revoked,
            drained,
            name
        )
        .execute(&self.writer)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Notes a node's hello.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn node_hello(
        &self,
        name: &str,
        version: &str,
        labels: &BTreeMap<String, String>,
        applied: Option<SnapshotId>,
    ) -> Result<(), StoreError> {
        let now = clock::to_ms(clock::now());
        let labels = text(labels)?;
        let (epoch, revision) = (applied.map(|id| signed(id.epoch)), applied.map(|id| signed(id.revision)));
        sqlx::query!(
            "UPDATE nodes SET version = ?, said_labels = ?, seen_ms = ?, applied_epoch = COALESCE(?, applied_epoch),
                    applied_revision = COALESCE(?, applied_revision)
             WHERE name = ?",
            version,
            labels,
            now,
            epoch,
            revision,
            name
        )
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    /// Notes both ends of a node's link.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_link_ends(&self, name: &str, ends: &[IpAddr]) -> Result<(), StoreError> {
        let ends = serde_json::to_string(ends).map_err(|_json| StoreError::Row("node"))?;
        sqlx::query!("UPDATE nodes SET link_ends = ? WHERE name = ?", ends, name)
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// Notes that a node was heard of.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn node_seen(&self, name: &str) -> Result<(), StoreError> {
        let now = clock::to_ms(clock::now());
        sqlx::query!("UPDATE nodes SET seen_ms = ? WHERE name = ?", now, name).execute(&self.writer).await?;
        Ok(())
    }

    /// Notes what a node answered to a snapshot.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn node_answer(
        &self,
        name: &str,
        id: SnapshotId,
        answer: Result<u32, &str>,
    ) -> Result<(), StoreError> {
        let (epoch, revision, now) = (signed(id.epoch), signed(id.revision), clock::to_ms(clock::now()));
        let (took, refused) = (answer.ok().map(i64::from), answer.err());
        let mut write = self.writer.begin().await?;
        sqlx::query!(
            "INSERT INTO node_answers (revision, node, refused, took_ms, at_ms) VALUES (?, ?, ?, ?, ?)
             ON CONFLICT (revision, node)
             DO UPDATE SET refused = excluded.refused, took_ms = excluded.took_ms, at_ms = excluded.at_ms",
            revision,
            name,
            refused,
            took,
            now
        )
        .execute(&mut *write)
        .await?;
        match refused {
            None => {
                sqlx::query!(
                    "UPDATE nodes SET seen_ms = ?, applied_epoch = ?, applied_revision = ? WHERE name = ?",
                    now,
                    epoch,
                    revision,
                    name
                )
                .execute(&mut *write)
                .await?;
                // A newer one may have been refused while this one was put in force.
                sqlx::query!(
                    "UPDATE nodes SET refused_epoch = NULL, refused_revision = NULL, refused_reason = NULL
                     WHERE name = ? AND (refused_epoch, refused_revision) <= (?, ?)",
                    name,
                    epoch,
                    revision
                )
                .execute(&mut *write)
                .await?
            }
            Some(reason) => {
                sqlx::query!(
                    "UPDATE nodes SET seen_ms = ?, refused_epoch = ?, refused_revision = ?, refused_reason = ? WHERE name = ?",
                    now,
                    epoch,
                    revision,
                    reason,
                    name
                )
                .execute(&mut *write)
                .await?
            }
        };
        write.commit().await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Directory;

    #[tokio::test]
    async fn a_newer_refusal_outlasts_the_answer_about_an_older_revision() {
        let directory = Directory::new();
        let ops = directory.open().await;
        let (store, labels) = (ops.store(), BTreeMap::new());
        let (secret, ends) = (Digest::of(b"a"), clock::now() + time::Duration::days(1));
        store.put_node_secret("a", &secret, ends, None).await.unwrap();
        store.enrol(&secret, &labels, "01", ends).await.unwrap();
        let id = |revision| SnapshotId { epoch: 1, revision };
        let refused = async || store.node("a").await.unwrap().unwrap().refused.map(|(id, _)| id.revision);
        store.node_answer("a", id(6), Err("port 443 is held")).await.unwrap();
        store.node_answer("a", id(5), Ok(3)).await.unwrap();
        assert_eq!(refused().await, Some(6));
        for answer in [Ok(3), Err("again"), Ok(4)] {
            store.node_answer("a", id(6), answer).await.unwrap();
            assert_eq!(refused().await, answer.is_err().then_some(6));
        }
    }
}
