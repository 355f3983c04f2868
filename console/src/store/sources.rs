//! What became of fetching prefix sets.

use super::{Store, StoreError, signed, unsigned};

/// What became of fetching a prefix set; times are milliseconds since the Unix epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceRow {
    /// The set.
    pub name: String,
    /// The spec's source this is about, as JSON.
    pub source: String,
    /// `ETag` of the list that was taken last.
    pub etag: Option<String>,
    /// Its `Last-Modified`.
    pub modified: Option<String>,
    /// Digest of its prefixes.
    pub digest: Option<String>,
    /// When the origin last had what was taken.
    pub current_ms: Option<i64>,
    /// When it was last asked.
    pub tried_ms: i64,
    /// Failures in a row.
    pub failures: u64,
    /// The last one's word.
    pub reason: Option<String>,
    /// Its sentence.
    pub problem: Option<String>,
}

impl Store {
    /// All of them.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sources(&self) -> Result<Vec<SourceRow>, StoreError> {
        let rows = sqlx::query!(
            "SELECT name, source, etag, modified, digest, current_ms, tried_ms, failures, reason, problem
             FROM prefix_sources ORDER BY name"
        )
        .fetch_all(&self.reader)
        .await?;
        let row = rows.into_iter().map(|row| SourceRow {
            name: row.name,
            source: row.source,
            etag: row.etag,
            modified: row.modified,
            digest: row.digest,
            current_ms: row.current_ms,
            tried_ms: row.tried_ms,
            failures: unsigned(row.failures),
            reason: row.reason,
            problem: row.problem,
        });
        Ok(row.collect())
    }

    /// Writes one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_source(&self, row: &SourceRow) -> Result<(), StoreError> {
        let failures = signed(row.failures);
        sqlx::query!(
            "INSERT INTO prefix_sources
                 (name, source, etag, modified, digest, current_ms, tried_ms, failures, reason, problem)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (name) DO UPDATE SET source = excluded.source, etag = excluded.etag,
                 modified = excluded.modified, digest = excluded.digest, current_ms = excluded.current_ms,
                 tried_ms = excluded.tried_ms, failures = excluded.failures, reason = excluded.reason,
                 problem = excluded.problem",
            row.name,
            row.source,
            row.etag,
            row.modified,
            row.digest,
            row.current_ms,
            row.tried_ms,
            failures,
            row.reason,
            row.problem
        )
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    /// Forgets one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove_source(&self, name: &str) -> Result<(), StoreError> {
        sqlx::query!("DELETE FROM prefix_sources WHERE name = ?", name).execute(&self.writer).await?;
        Ok(())
    }

    /// Addresses that people signed in from since then, the last ones first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn signed_in_from(&self, since_ms: i64, most: u32) -> Result<Vec<String>, StoreError> {
        let most = i64::from(most);
        Ok(sqlx::query_scalar!(
            "SELECT address AS \"address!\" FROM audit WHERE at_ms >= ? AND address <> '' AND act = 'logged in'
             GROUP BY address ORDER BY MAX(id) DESC LIMIT ?",
            since_ms,
            most
        )
        .fetch_all(&self.reader)
        .await?)
    }
}
