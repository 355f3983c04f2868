//! Who did what that no revision tells: logins, users, tokens, nodes.

use super::{Store, StoreError};
use crate::clock;
use crate::ops::Actor;

/// Lines kept; older ones go.
const KEPT: i64 = 100_000;

impl Store {
    /// Adds a line.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn audit(&self, actor: &Actor, act: &str) -> Result<(), StoreError> {
        let at = clock::to_ms(clock::now());
        let address = actor.address.map(|address| address.to_string()).unwrap_or_default();
        let mut write = self.writer.begin().await?;
        let id = sqlx::query!(
            "INSERT INTO audit (at_ms, actor, address, act) VALUES (?, ?, ?, ?)",
            at,
            actor.name,
            address,
            act
        )
        .execute(&mut *write)
        .await?
        .last_insert_rowid();
        let oldest = id - KEPT;
        sqlx::query!("DELETE FROM audit WHERE id <= ?", oldest).execute(&mut *write).await?;
        write.commit().await?;
        Ok(())
    }
}
