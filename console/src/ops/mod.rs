//! The operations of the console: the one room that forms, REST and the command line share.
//!
//! In: words of the model, and who asks ([`Actor`]). Out: rows made for reading (pages, reviews, figures) and new
//! revisions. Deliberately absent: HTTP, HTML and SQL.

mod connection;
mod effect;
mod error;
mod figures;
mod flows;
mod needs;
mod nodes;
mod objects;
mod senders;
mod setup;
mod sources;
mod traffic;
mod types;
mod users;

use std::sync::Arc;

use tokio::sync::broadcast;

pub use connection::Connection;
pub use effect::{Count, FilterEffect, NodeEffect, PlaceEffect, SourceEffect};
pub(crate) use effect::{grouped, span};
pub use error::OpsError;
pub use figures::*;
pub use flows::{CaptureQuery, FlowQuery, Numbered};
pub use senders::{Record, Recorded, SentTo, Source};
pub use setup::OpenError;
pub use sources::SourceState;
pub use types::*;

use crate::flows::Hub;
use crate::nodes::{Figures, Live};
use crate::publish::{Links, Publisher};
use crate::secrets::{Authority, MasterKey, Signer};
use crate::store::Store;

/// The operations; cheap to clone.
#[derive(Debug, Clone)]
pub struct Ops(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    master: MasterKey,
    authority: Authority,
    signer: Signer,
    publisher: Publisher,
    links: Links,
    live: Live,
    figures: Figures,
    sources: sources::Sources,
    flows: Hub,
    events: broadcast::Sender<Event>,
    /// The second in which pages were last told of figures.
    told_traffic: std::sync::atomic::AtomicI64,
    /// Where nodes reach this console, `host:port`, as enrolment tokens say it.
    node_address: String,
}

impl Ops {
    /// Events from now on, for `/events`.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.0.events.subscribe()
    }

    /// Tells open pages; nobody listening is fine.
    pub(crate) fn tell(&self, event: Event) {
        // An error only says that no page is open.
        let _nobody = self.0.events.send(event);
    }

    /// Tells open pages that there are new figures, at most once a second.
    pub(crate) fn tell_traffic(&self) {
        let now = crate::clock::now().unix_timestamp();
        if self.0.told_traffic.swap(now, std::sync::atomic::Ordering::Relaxed) != now {
            self.tell(Event::Traffic);
        }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }

    pub(crate) fn authority(&self) -> &Authority {
        &self.0.authority
    }

    pub(crate) fn signer(&self) -> &Signer {
        &self.0.signer
    }

    pub(crate) fn publisher(&self) -> &Publisher {
        &self.0.publisher
    }

    pub(crate) fn links(&self) -> &Links {
        &self.0.links
    }

    pub(crate) fn live(&self) -> &Live {
        &self.0.live
    }

    pub(crate) fn figures(&self) -> &Figures {
        &self.0.figures
    }

    pub(crate) fn flows(&self) -> &Hub {
        &self.0.flows
    }

    /// A stored private key, PKCS#8.
    pub(crate) async fn private_key(
        &self,
        digest: &model::digest::Digest,
    ) -> Result<Option<zeroize::Zeroizing<Vec<u8>>>, OpsError> {
        let Some(sealed) = self.0.store.sealed_key(digest).await? else { return Ok(None) };
        Ok(Some(self.0.master.open(&crate::publish::key_purpose(digest), &sealed)?))
    }
}

/// Only an actor of at least this role goes on.
fn allowed(actor: &Actor, needed: Role) -> Result<(), OpsError> {
    if actor.role >= needed {
        return Ok(());
    }
    Err(OpsError::Forbidden(match needed {
        Role::Administrator => "this needs the role administrator",
        Role::Operator | Role::Viewer => "this needs the role operator",
    }))
}

#[cfg(test)]
mod tests;
