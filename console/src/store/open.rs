//! Opening: never creates over, repairs or overwrites a file that is not a sound database of ours.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use super::{Store, StoreError};

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// Readers beside the one writer.
const READERS: u32 = 4;

impl Store {
    /// Opens the database, makes it when there is none, and brings it up to this release.
    ///
    /// # Errors
    /// When it is damaged, newer, not ours, or cannot be written.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        private(path)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            // A revision that was answered for survives a power cut.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5));
        let named = |error| name_file(path, error);
        let writer =
            SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await.map_err(named)?;
        // A pragma's columns are unknown until it runs, so the macro cannot check it.
        let sound: String =
            sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&writer).await.map_err(named)?;
        if sound != "ok" {
            return Err(StoreError::Corrupt { file: path.display().to_string(), reason: sound });
        }
        MIGRATIONS.run(&writer).await.map_err(|error| migration(path, error))?;
        let reader = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_with(options.read_only(true))
            .await
            .map_err(named)?;
        Ok(Self { writer, reader })
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query_scalar!("SELECT COUNT(*) AS \"n!: i64\" FROM settings").fetch_one(&self.reader).await?;
        Ok(())
    }

    /// Waits for what is open and closes.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

/// Makes the file when there is none, for its owner only: SQLite gives its journals the same mode.
fn private(path: &Path) -> Result<(), StoreError> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match made {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(StoreError::Open { path: path.to_owned(), reason: error.to_string() })
        }
        _ => Ok(()),
    }
}

fn name_file(path: &Path, error: sqlx::Error) -> StoreError {
    let error = StoreError::from(error);
    match error {
        StoreError::Database(_) => StoreError::Open { path: path.to_owned(), reason: error.to_string() },
        StoreError::Corrupt { reason, .. } => {
            StoreError::Corrupt { file: path.display().to_string(), reason }
        }
        known @ (StoreError::Full
        | StoreError::ReadOnly
        | StoreError::Open { .. }
        | StoreError::Newer(_)
        | StoreError::Row(_)) => known,
    }
}

fn migration(path: &Path, error: MigrateError) -> StoreError {
    if let MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) = error {
        return name_file(path, error);
    }
    if matches!(error, MigrateError::VersionMissing(_) | MigrateError::VersionMismatch(_)) {
        return StoreError::Newer(path.to_owned());
    }
    StoreError::Open { path: path.to_owned(), reason: error.to_string() }
}
