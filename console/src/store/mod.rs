//! All SQL: rows in, rows out; the rules are in `ops` and `publish`.
//!
//! SQLite in WAL mode: one writer connection, several readers. Objects are versioned by row ([`objects`]), so that a
//! revision costs what it changed and a rollback is a new revision with the old rows.

mod audit;
mod error;
mod keys;
mod nodes;
mod objects;
mod open;
mod revisions;
mod settings;
mod sources;
mod traffic;
mod users;

pub use error::StoreError;
pub use nodes::{NodeRow, SecretOutcome};
pub use objects::{ObjectRow, object_key};
pub use revisions::{NewRevision, RevisionRow};
pub use sources::SourceRow;
pub use traffic::{DropRow, MinuteRow, TrafficRow};
pub use users::{SessionRow, UserRow};

use sqlx::SqlitePool;

/// The database; cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    writer: SqlitePool,
    reader: SqlitePool,
}

/// SQLite's integers are signed.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
