//! Users, sessions and tokens; secrets only as hashes.

use model::digest::Digest;

use super::{Store, StoreError};
use crate::clock;
use crate::ops::{Role, User};

/// A user with the password's argon2id string.
#[derive(Debug, Clone)]
pub struct UserRow {
    /// Login name.
    pub name: String,
    /// PHC string.
    pub password: String,
    /// What the user may do.
    pub role: Role,
}

/// A session.
#[derive(Debug, Clone)]
pub struct SessionRow {
    /// The user's name.
    pub user: String,
    /// What the user may do.
    pub role: Role,
    /// The form token.
    pub csrf: String,
    /// When the session was last used, milliseconds since the Unix epoch.
    pub seen_ms: i64,
}

impl Store {
    /// A user.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn user(&self, name: &str) -> Result<Option<UserRow>, StoreError> {
        let row = sqlx::query!("SELECT name, password, role FROM users WHERE name = ?", name)
            .fetch_optional(&self.reader)
            .await?;
        row.map(|row| Ok(UserRow { name: row.name, password: row.password, role: role(&row.role)? }))
            .transpose()
    }

    /// All users, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn users(&self) -> Result<Vec<User>, StoreError> {
        let rows = sqlx::query!("SELECT name, role, created_ms FROM users ORDER BY name")
            .fetch_all(&self.reader)
            .await?;
        let user = |name, text: &str, ms| Ok(User { name, role: role(text)?, created: clock::from_ms(ms) });
        rows.into_iter().map(|row| user(row.name, &row.role, row.created_ms)).collect()
    }

    /// Adds a user or replaces the password and role of a known one, whose sessions end.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn put_user(&self, name: &str, password: &str, role: Role) -> Result<(), StoreError> {
        let (role, now) = (role_text(role), clock::to_ms(clock::now()));
        let mut write = self.writer.begin().await?;
        sqlx::query!(
            "INSERT INTO users (name, password, role, created_ms) VALUES (?, ?, ?, ?)
             ON CONFLICT (name) DO UPDATE SET password = excluded.password, role = excluded.role",
            name,
            password,
            role,
            now
        )
        .execute(&mut *write)
        .await?;
        sqlx::query!("DELETE FROM sessions WHERE user = ?", name).execute(&mut *write).await?;
        write.commit().await?;
        Ok(())
    }

    /// Makes the first user, an administrator, and takes the setting that has this digest away; whether it was there and there
    /// was no user. All or nothing, in one transaction.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn first_user(
        &self,
        setting: &str,
        secret: &Digest,
        name: &str,
        password: &str,
    ) -> Result<bool, StoreError> {
        let (secret, now) = (secret.as_bytes().as_slice(), clock::to_ms(clock::now()));
        let role = role_text(Role::Administrator);
        let mut write = self.writer.begin().await?;
        let taken = sqlx::query!("DELETE FROM settings WHERE name = ? AND value = ?", setting, secret)
            .execute(&mut *write)
            .await?;
        let users =
            sqlx::query_scalar!("SELECT COUNT(*) AS \"n!: i64\" FROM users").fetch_one(&mut *write).await?;
        if taken.rows_affected() == 0 || users > 0 {
            return Ok(false);
        }
        sqlx::query!(
            "INSERT INTO users (name, password, role, created_ms) VALUES (?, ?, ?, ?)",
            name,
            password,
            role,
            now
        )
        .execute(&mut *write)
        .await?;
        write.commit().await?;
        Ok(true)
    }

    /// Begins a session; those that have ended go.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn add_session(
        &self,
        hash: &Digest,
        user: &str,
        csrf: &str,
        ends_ms: i64,
    ) -> Result<(), StoreError> {
        let (hash, now) = (hash.as_bytes().as_slice(), clock::to_ms(clock::now()));
        let mut write = self.writer.begin().await?;
        sqlx::query!("DELETE FROM sessions WHERE expires_ms <= ?", now).execute(&mut *write).await?;
        sqlx::query!(
            "INSERT INTO sessions (hash, user, csrf, seen_ms, expires_ms) VALUES (?, ?, ?, ?, ?)",
            hash,
            user,
            csrf,
            now,
            ends_ms
        )
        .execute(&mut *write)
        .await?;
        write.commit().await?;
        Ok(())
    }

    /// A session that has not ended.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn session(&self, hash: &Digest) -> Result<Option<SessionRow>, StoreError> {
        let (hash, now) = (hash.as_bytes().as_slice(), clock::to_ms(clock::now()));
        let row = sqlx::query!(
            "SELECT s.user, s.csrf, s.seen_ms, u.role FROM sessions s JOIN users u ON u.name = s.user
             WHERE s.hash = ? AND s.expires_ms > ?",
            hash,
            now
        )
        .fetch_optional(&self.reader)
        .await?;
        row.map(|row| {
            Ok(SessionRow { user: row.user, role: role(&row.role)?, csrf: row.csrf, seen_ms: row.seen_ms })
        })
        .transpose()
    }

    /// Notes that a session was used.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn session_seen(&self, hash: &Digest, seen_ms: i64) -> Result<(), StoreError> {
        let hash = hash.as_bytes().as_slice();
        sqlx::query!("UPDATE sessions SET seen_ms = ? WHERE hash = ?", seen_ms, hash)
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// Ends a session.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn end_session(&self, hash: &Digest) -> Result<(), StoreError> {
        let hash = hash.as_bytes().as_slice();
        sqlx::query!("DELETE FROM sessions WHERE hash = ?", hash).execute(&self.writer).await?;
        Ok(())
    }

    /// Adds a token or replaces the one of this name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn put_token(&self, name: &str, hash: &Digest, role: Role) -> Result<(), StoreError> {
        let (hash, role, now) = (hash.as_bytes().as_slice(), role_text(role), clock::to_ms(clock::now()));
        sqlx::query!(
            "INSERT INTO tokens (hash, name, role, created_ms) VALUES (?, ?, ?, ?)
             ON CONFLICT (name) DO UPDATE SET hash = excluded.hash, role = excluded.role, created_ms = excluded.created_ms",
            hash,
            name,
            role,
            now
        )
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    /// A token's name and role.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn token(&self, hash: &Digest) -> Result<Option<(String, Role)>, StoreError> {
        let hash = hash.as_bytes().as_slice();
        let row = sqlx::query!("SELECT name, role FROM tokens WHERE hash = ?", hash)
            .fetch_optional(&self.reader)
            .await?;
        row.map(|row| Ok((row.name, role(&row.role)?))).transpose()
    }
}

fn role(text: &str) -> Result<Role, StoreError> {
    match text {
        "viewer" => Ok(Role::Viewer),
        "operator" => Ok(Role::Operator),
        "administrator" => Ok(Role::Administrator),
        _ => Err(StoreError::Row("role")),
    }
}

fn role_text(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Operator => "operator",
        Role::Administrator => "administrator",
    }
}
