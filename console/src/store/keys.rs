//! Sealed private keys.

use std::collections::BTreeSet;

use model::digest::Digest;

use super::{Store, StoreError};

impl Store {
    /// Digests of all stored keys.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn key_digests(&self) -> Result<BTreeSet<Digest>, StoreError> {
        let rows = sqlx::query_scalar!("SELECT digest FROM keys").fetch_all(&self.writer).await?;
        rows.into_iter().map(|digest| digest.parse().map_err(|_invalid| StoreError::Row("key"))).collect()
    }

    /// A key, still sealed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sealed_key(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let digest = digest.to_string();
        Ok(sqlx::query_scalar!("SELECT sealed FROM keys WHERE digest = ?", digest)
            .fetch_optional(&self.reader)
            .await?)
    }
}
