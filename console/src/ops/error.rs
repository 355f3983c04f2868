//! Why an operation did not happen.

use model::problem::{Code, Problem};

use crate::secrets::SealError;
use crate::store::StoreError;

/// Why an operation did not happen.
#[derive(Debug, thiserror::Error)]
pub enum OpsError {
    /// What was asked for is wrong, with every problem at once; never empty.
    #[error("{}", sentences(.0))]
    Problems(Vec<Problem>),
    /// Nothing has this name; the sentence says what.
    #[error("{0}")]
    NotFound(String),
    /// The actor may not do this; the sentence says what is needed.
    #[error("{0}")]
    Forbidden(&'static str),
    /// The console itself failed (disk, database, cryptography); logged where it is answered.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Sealing or opening failed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A part of the console stopped in the middle.
    #[error("the console stopped in the middle of this; look at its log, then at the changes page")]
    Stopped,
}

impl OpsError {
    /// One problem.
    pub fn problem(
        object: impl Into<String>,
        field: impl Into<String>,
        code: Code,
        message: impl Into<String>,
    ) -> Self {
        Self::Problems(vec![Problem::new(object, field, code, message)])
    }

    /// Whether the only thing missing is a second confirmation.
    pub fn needs_confirmation(&self) -> bool {
        matches!(self, Self::Problems(problems) if problems.iter().all(|p| p.code == Code::NeedsConfirmation))
    }
}

fn sentences(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
