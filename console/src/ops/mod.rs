//! The operations of the console: the one room that forms, REST and the command line share.
//!
//! In: words of the model, and who asks ([`Actor`]). Out: rows made for reading (pages, reviews, figures) and new
//! revisions. Deliberately absent: HTTP, HTML and SQL.

mod error;
mod interface_draft;
mod types;

pub use error::OpsError;
pub use interface_draft::Ops;
pub use types::*;
