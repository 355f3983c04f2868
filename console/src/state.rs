//! What every handler is given.

use axum::extract::FromRef;

use crate::ops::Ops;
use crate::session::Sessions;

/// What every handler is given; cheap to clone.
#[derive(Debug, Clone)]
pub struct AppState {
    /// The operations.
    pub ops: Ops,
    /// Logins.
    pub sessions: Sessions,
}

impl FromRef<AppState> for Ops {
    fn from_ref(state: &AppState) -> Self {
        state.ops.clone()
    }
}

impl FromRef<AppState> for Sessions {
    fn from_ref(state: &AppState) -> Self {
        state.sessions.clone()
    }
}
