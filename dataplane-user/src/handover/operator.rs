//! What `sallyport-node upgrade` and a running keeper say to each other on `control.sock`: two programs of one machine,
//! both root's or both the same user's, possibly of different releases.

use serde::{Deserialize, Serialize};

/// How long former workers may go on with what is open, seconds, unless the operator says otherwise.
pub const DEADLINE: u32 = 600;

/// The longest such time, seconds: a day.
pub const LONGEST: u32 = 86_400;

/// From the operator to the keeper.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum ToNode {
    /// Start this program beside the one that runs, let it take over. Descriptor: the program.
    Upgrade {
        /// Where it was found; for messages, and for the next `SIGHUP`.
        path: String,
        /// How long the former worker may go on, milliseconds.
        deadline_ms: u32,
        /// Replace this part alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        only: Option<Part>,
    },
}

/// A part of a node that an upgrade replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "camelCase")]
pub enum Part {
    /// `sallyport-node run`.
    Keeper,
    /// Its worker.
    Worker,
}

/// From the keeper to the operator.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum ToOperator {
    /// Something was done.
    Progress {
        /// One line.
        text: String,
    },
    /// All was done; nothing follows.
    Done {
        /// One line.
        text: String,
    },
    /// It was refused or failed, and what ran before goes on unchanged; nothing follows.
    Refused {
        /// Why, one sentence.
        reason: String,
    },
}
