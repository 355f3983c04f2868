//! Why an upgrade does not happen, one sentence each.

use super::trial::Unsuited;
use super::{CALM, MOST_FORMER, READY};
use crate::handover::{OLDEST, VERSION};
use crate::keeper::launch::LaunchError;
use crate::keeper::succeed::NotReplaced;

/// Why there is no upgrade.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("another upgrade is in progress")]
    Busy,
    #[error("the node is stopping")]
    Stopping,
    #[error(
        "{MOST_FORMER} former workers are still finishing their connections: wait, or see `sallyport-node status`"
    )]
    TooMany,
    #[error("the message has no program with it")]
    NoProgram,
    #[error(transparent)]
    Start(LaunchError),
    #[error("the new worker cannot accept connections: {0}")]
    Deaf(String),
    #[error(
        "the worker that served died meanwhile; one of the program that ran takes its place, try again when it serves"
    )]
    Died,
    #[error(transparent)]
    Unsuited(Unsuited),
    #[error("the keeper cannot be replaced")]
    Succession(#[from] NotReplaced),
    #[error("the keeper was not replaced, because it was never idle for {} seconds", CALM.as_secs())]
    Restless,
    #[error("the new worker ended before it was ready ({0}); its own words are in the node's log")]
    Ended(String),
    #[error(
        "the new worker was not ready within {} seconds; is it a sallyport-node?",
        READY.as_secs()
    )]
    Silent,
    #[error(
        "the new release speaks versions {0} to {1} between keeper and worker, the running keeper {OLDEST} to {VERSION}: \
         restart the node instead, which ends its connections"
    )]
    Incompatible(u32, u32),
    #[error("the node went back from a revision that nobody confirmed in time; begin once more")]
    Trial,
    #[error("the new release does not take the snapshot in force: {0}")]
    Snapshot(String),
}
