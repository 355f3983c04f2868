//! Settings: the console CA, the snapshot key, what is needed to recognise the master key.

use super::{Store, StoreError};

impl Store {
    /// A setting's value.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn setting(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(sqlx::query_scalar!("SELECT value FROM settings WHERE name = ?", name)
            .fetch_optional(&self.writer)
            .await?)
    }

    /// Writes several settings at once.
    ///
    /// # Errors
    /// When the database fails; then none is written.
    pub async fn set_settings(&self, settings: &[(&str, &[u8])]) -> Result<(), StoreError> {
        let mut write = self.writer.begin().await?;
        for (name, value) in settings {
            sqlx::query!(
                "INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                name,
                value
            )
            .execute(&mut *write)
            .await?;
        }
        write.commit().await?;
        Ok(())
    }
}
