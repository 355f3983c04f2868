//! Why the store failed.

use std::path::PathBuf;

/// Why the store failed; each sentence says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Anything else the database says.
    #[error("the database failed: {0}")]
    Database(#[source] sqlx::Error),
    /// `SQLITE_FULL`, `ENOSPC`.
    #[error("the disk with the console's database is full: nothing was changed; make room and try again")]
    Full,
    /// `SQLITE_READONLY`.
    #[error(
        "the console's database cannot be written: nothing was changed; check the owner and mode of its files"
    )]
    ReadOnly,
    /// `SQLITE_CORRUPT`, `SQLITE_NOTADB`.
    #[error(
        "the console's database {file} is damaged ({reason}); it was left as it is. Stop the console, move the file and \
         those beside it (-wal, -shm) away, put a backup in its place and start again; nodes go on with what they have"
    )]
    Corrupt {
        /// The file, as a person finds it.
        file: String,
        /// SQLite's words.
        reason: String,
    },
    /// It could not be opened.
    #[error("{path} cannot be opened as the console's database: {reason}")]
    Open {
        /// The file.
        path: PathBuf,
        /// SQLite's words.
        reason: String,
    },
    /// A newer console has migrated it.
    #[error("{0} was written by a newer console; use that release, or restore a backup made by this one")]
    Newer(PathBuf),
    /// A row that this release did not write.
    #[error("the console's database has a {0} that this release cannot read; restore a backup")]
    Row(&'static str),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        // Primary result codes, https://www.sqlite.org/rescode.html; extended codes have them in the low byte.
        match code(&error).map(|code| code & 0xff) {
            Some(13) => Self::Full,
            Some(8) => Self::ReadOnly,
            // SQLite does not say which file; a console has one.
            Some(11 | 26) => Self::Corrupt {
                file: "console.sqlite in the console's state directory".to_owned(),
                reason: error.to_string(),
            },
            _ => Self::Database(error),
        }
    }
}

/// SQLite's result code.
pub(super) fn code(error: &sqlx::Error) -> Option<u32> {
    error.as_database_error()?.code()?.parse().ok()
}
