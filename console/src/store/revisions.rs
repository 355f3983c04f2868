//! Revisions: written whole or not at all.

use model::digest::Digest;
use model::draft::Kind;
use sqlx::SqliteConnection;
use time::OffsetDateTime;

use super::{ObjectRow, Store, StoreError, signed, unsigned};
use crate::clock;
use crate::ops::{ChangeLine, NodeAnswer};

/// A revision about to be written.
#[derive(Debug)]
pub struct NewRevision<'a> {
    /// Its number: one more than the newest.
    pub number: u64,
    /// Its epoch.
    pub epoch: u64,
    /// When.
    pub at: OffsetDateTime,
    /// Who.
    pub actor: &'a str,
    /// Why.
    pub message: &'a str,
    /// In words.
    pub changes: &'a [ChangeLine],
    /// When to roll back to which revision unless confirmed.
    pub rollback: Option<(OffsetDateTime, u64)>,
    /// New and changed objects.
    pub put: Vec<ObjectRow>,
    /// Objects that go.
    pub remove: Vec<(Kind, String)>,
    /// New keys, sealed.
    pub keys: Vec<(Digest, Vec<u8>)>,
    /// Packet filter rules that have no number yet, with the number they get.
    pub rules: Vec<(String, u32)>,
}

/// A revision as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionRow {
    /// Its number.
    pub number: u64,
    /// Its epoch.
    pub epoch: u64,
    /// When.
    pub at: OffsetDateTime,
    /// Who.
    pub actor: String,
    /// Why.
    pub message: String,
    /// In words.
    pub changes: Vec<ChangeLine>,
    /// When to roll back to which revision unless confirmed.
    pub rollback: Option<(OffsetDateTime, u64)>,
}

/// The columns of a revision, as every query here selects them.
struct Row {
    number: i64,
    epoch: i64,
    at_ms: i64,
    actor: String,
    message: String,
    changes: String,
    rollback_at_ms: Option<i64>,
    rollback_to: Option<i64>,
}

impl TryFrom<Row> for RevisionRow {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            number: unsigned(row.number),
            epoch: unsigned(row.epoch),
            at: clock::from_ms(row.at_ms),
            actor: row.actor,
            message: row.message,
            changes: serde_json::from_str(&row.changes).map_err(|_json| StoreError::Row("revision"))?,
            rollback: row
                .rollback_at_ms
                .zip(row.rollback_to)
                .map(|(at, to)| (clock::from_ms(at), unsigned(to))),
        })
    }
}

impl Store {
    /// Writes a revision, its objects, keys and rule numbers in one transaction; ends the wait of the one before.
    ///
    /// # Errors
    /// When the database fails; then nothing is written.
    pub async fn write_revision(&self, new: &NewRevision<'_>) -> Result<(), StoreError> {
        let (number, epoch, at) = (signed(new.number), signed(new.epoch), clock::to_ms(new.at));
        let changes = serde_json::to_string(new.changes).map_err(|_json| StoreError::Row("change"))?;
        let rollback_at = new.rollback.map(|(at, _)| clock::to_ms(at));
        let rollback_to = new.rollback.map(|(_, to)| signed(to));
        let mut write = self.writer.begin().await?;
        sqlx::query!(
            "UPDATE revisions SET rollback_at_ms = NULL, rollback_to = NULL WHERE rollback_at_ms IS NOT NULL"
        )
        .execute(&mut *write)
        .await?;
        sqlx::query!(
            "INSERT INTO revisions
                 (number, epoch, at_ms, actor, message, changes, rollback_at_ms, rollback_to)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            number,
            epoch,
            at,
            new.actor,
            new.message,
            changes,
            rollback_at,
            rollback_to
        )
        .execute(&mut *write)
        .await?;
        for (kind, name) in
            new.put.iter().map(|row| (row.kind, &row.name)).chain(new.remove.iter().map(|(k, n)| (*k, n)))
        {
            end_version(&mut write, kind, name, number).await?;
        }
        for row in &new.put {
            begin_version(&mut write, row, number).await?;
        }
        add_keys_and_rules(&mut write, new, at).await?;
        write.commit().await?;
        Ok(())
    }

    /// The newest revision; absent before the first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn newest(&self) -> Result<Option<RevisionRow>, StoreError> {
        let row = sqlx::query_as!(
            Row,
            "SELECT number, epoch, at_ms, actor, message, changes, rollback_at_ms, rollback_to
             FROM revisions ORDER BY number DESC LIMIT 1"
        )
        .fetch_optional(&self.writer)
        .await?;
        row.map(RevisionRow::try_from).transpose()
    }

    /// One revision.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revision(&self, number: u64) -> Result<Option<RevisionRow>, StoreError> {
        let number = signed(number);
        let row = sqlx::query_as!(
            Row,
            "SELECT number, epoch, at_ms, actor, message, changes, rollback_at_ms, rollback_to
             FROM revisions WHERE number = ?",
            number
        )
        .fetch_optional(&self.reader)
        .await?;
        row.map(RevisionRow::try_from).transpose()
    }

    /// Revisions, newest first, and how many there are.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revisions(&self, limit: u32, offset: u64) -> Result<(Vec<RevisionRow>, u64), StoreError> {
        let (limit, offset) = (i64::from(limit), signed(offset));
        let total = sqlx::query_scalar!("SELECT COUNT(*) AS \"n!: i64\" FROM revisions")
            .fetch_one(&self.reader)
            .await?;
        let rows = sqlx::query_as!(
            Row,
            "SELECT number, epoch, at_ms, actor, message, changes, rollback_at_ms, rollback_to
             FROM revisions ORDER BY number DESC LIMIT ? OFFSET ?",
            limit,
            offset
        )
        .fetch_all(&self.reader)
        .await?;
        Ok((rows.into_iter().map(RevisionRow::try_from).collect::<Result<_, _>>()?, unsigned(total)))
    }

    /// Ends a revision's wait for its confirmation; whether it was waiting.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn confirm_revision(&self, number: u64) -> Result<bool, StoreError> {
        let number = signed(number);
        let done = sqlx::query!(
            "UPDATE revisions SET rollback_at_ms = NULL, rollback_to = NULL WHERE number = ? AND rollback_at_ms IS NOT NULL",
            number
        )
        .execute(&self.writer)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Numbers of packet filter rules, by `filter/rule`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn rule_ids(&self) -> Result<Vec<(String, u32)>, StoreError> {
        let rows = sqlx::query!("SELECT id, rule FROM rule_ids").fetch_all(&self.writer).await?;
        let pair = |id: i64, rule| Some((rule, u32::try_from(id).ok()?));
        rows.into_iter().map(|row| pair(row.id, row.rule).ok_or(StoreError::Row("rule number"))).collect()
    }

    /// What nodes answered to a revision, by node.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn answers(&self, revision: u64) -> Result<Vec<NodeAnswer>, StoreError> {
        let revision = signed(revision);
        let rows = sqlx::query!(
            "SELECT node, refused, took_ms, at_ms FROM node_answers WHERE revision = ? ORDER BY node",
            revision
        )
        .fetch_all(&self.reader)
        .await?;
        let answers = rows.into_iter().map(|row| NodeAnswer {
            node: row.node,
            refused: row.refused,
            took_ms: row.took_ms.and_then(|took| u32::try_from(took).ok()),
            at: clock::from_ms(row.at_ms),
        });
        Ok(answers.collect())
    }
}

async fn end_version(
    write: &mut SqliteConnection,
    kind: Kind,
    name: &str,
    at: i64,
) -> Result<(), StoreError> {
    let kind = kind.as_str();
    sqlx::query!(
        "UPDATE objects SET to_revision = ? WHERE kind = ? AND name = ? AND to_revision IS NULL",
        at,
        kind,
        name
    )
    .execute(write)
    .await?;
    Ok(())
}

async fn begin_version(write: &mut SqliteConnection, row: &ObjectRow, at: i64) -> Result<(), StoreError> {
    let kind = row.kind.as_str();
    sqlx::query!(
        "INSERT INTO objects (kind, name, from_revision, body, search) VALUES (?, ?, ?, ?, ?)",
        kind,
        row.name,
        at,
        row.body,
        row.search
    )
    .execute(write)
    .await?;
    Ok(())
}

async fn add_keys_and_rules(
    write: &mut SqliteConnection,
    new: &NewRevision<'_>,
    at: i64,
) -> Result<(), StoreError> {
    for (digest, sealed) in &new.keys {
        let digest = digest.to_string();
        sqlx::query!(
            "INSERT INTO keys (digest, sealed, created_ms) VALUES (?, ?, ?) ON CONFLICT (digest) DO NOTHING",
            digest,
            sealed,
            at
        )
        .execute(&mut *write)
        .await?;
    }
    for (rule, id) in &new.rules {
        sqlx::query!("INSERT INTO rule_ids (id, rule) VALUES (?, ?)", id, rule).execute(&mut *write).await?;
    }
    Ok(())
}
