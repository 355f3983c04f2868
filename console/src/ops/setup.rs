//! From a state directory to operations: database, master key, authority, snapshot key.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::broadcast;

use super::sources::Sources;
use super::{Inner, Ops, OpsError};
use crate::clock;
use crate::fetch::Fetcher;
use crate::nodes::{Figures, Live};
use crate::publish::{Links, Publisher};
use crate::secrets::{Authority, IssueError, MasterKey, SealError, Signer, SignerError};
use crate::store::{Store, StoreError};

const CA: &str = "ca";
const CA_KEY: &str = "ca-key";
const SNAPSHOT_KEY: &str = "snapshot-key";
/// Events that a slow page may lag behind before it is told to look anew.
const EVENTS: usize = 256;

/// Why the console cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The master key.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The authority.
    #[error("the console's certificate authority cannot be used: {0}")]
    Authority(#[from] IssueError),
    /// The snapshot key.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// What is stored.
    #[error(transparent)]
    Ops(#[from] OpsError),
}

impl Ops {
    /// Opens (or, in an empty directory, begins) the console's state. Nodes reach it at `node_address`.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing that is there is overwritten.
    pub async fn open(directory: &Path, node_address: &str) -> Result<Self, OpenError> {
        Self::open_with(directory, node_address, Fetcher::default()).await
    }

    /// [`Ops::open`], and how prefix sets are fetched.
    pub(crate) async fn open_with(
        directory: &Path,
        node_address: &str,
        fetcher: Fetcher,
    ) -> Result<Self, OpenError> {
        let store = Store::open(&directory.join("console.sqlite")).await?;
        let sealed =
            (store.setting(CA).await?, store.setting(CA_KEY).await?, store.setting(SNAPSHOT_KEY).await?);
        let master = MasterKey::load(&directory.join("master.key"), sealed.1.is_none())?;
        let (authority, signer) = match sealed {
            (Some(ca), Some(ca_key), Some(snapshot_key)) => {
                let pem = String::from_utf8(ca).map_err(|_utf8| StoreError::Row("certificate authority"))?;
                let authority = Authority::of(&pem, &master.open(CA_KEY, &ca_key)?)?;
                (authority, Signer::of_pkcs8(&master.open(SNAPSHOT_KEY, &snapshot_key)?)?)
            }
            _ => begin(&store, &master).await?,
        };
        let (links, live) = (Links::default(), Live::default());
        for row in store.nodes().await?.into_iter().filter(|row| !row.revoked) {
            links.opened(&row.name, row.link_ends);
        }
        let (own, signing) = (store.clone(), (master.clone(), authority.clone()));
        let publisher = Publisher::open(own, signing, links.clone(), live.clone()).await?;
        let figures = Figures::load(&store).await?;
        let sources = Sources::load(&store, fetcher).await?;
        let inner = Inner {
            store,
            master,
            authority,
            signer,
            publisher,
            links,
            live,
            figures,
            sources,
            flows: crate::flows::Hub::default(),
            events: broadcast::Sender::new(EVENTS),
            told_traffic: std::sync::atomic::AtomicI64::new(0),
            node_address: node_address.to_owned(),
        };
        Ok(Self(Arc::new(inner)))
    }
}

async fn begin(store: &Store, master: &MasterKey) -> Result<(Authority, Signer), OpenError> {
    let (pem, ca_key) = Authority::make("Sallyport console", clock::now())?;
    let (signer, snapshot_key) = Signer::make()?;
    let (sealed_ca, sealed_snapshot) =
        (master.seal(CA_KEY, &ca_key)?, master.seal(SNAPSHOT_KEY, &snapshot_key)?);
    let settings: [(&str, &[u8]); 3] =
        [(CA, pem.as_bytes()), (CA_KEY, &sealed_ca), (SNAPSHOT_KEY, &sealed_snapshot)];
    store.set_settings(&settings).await?;
    Ok((Authority::of(&pem, &ca_key)?, signer))
}
