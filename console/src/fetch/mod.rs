//! Documents from elsewhere, over HTTPS and within bounds.
//!
//! In: an address that an administrator wrote, and how much may be read. Out: the document, or one reason of a closed list why
//! there is none. The address that was checked is the one that is connected to: a name is resolved once for each connection, so
//! nothing it resolves to later can lead elsewhere. Deliberately absent: what is in the document, clear text, proxies, cookies,
//! decompression.

mod error;
mod places;
mod reading;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::header;
use hyper_util::rt::TokioIo;
use model::https_url::HttpsUrl;
use model::net::{Host, OriginAddress};
use rustls::RootCertStore;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

pub(crate) use error::FetchError;
pub(crate) use places::Places;
use reading::{Answer, read};

/// Redirects that are followed.
const REDIRECTS: usize = 5;
/// The longest head of an answer.
const HEAD: usize = 64 << 10;

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// One address, until TLS is up.
    pub(crate) connect: Duration,
    /// All of it, redirects and document.
    pub(crate) all: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), all: Duration::from_secs(45) }
    }
}

/// Fetches.
#[derive(Debug, Default)]
pub(crate) struct Fetcher {
    pub(crate) places: Places,
    pub(crate) patience: Patience,
}

/// What is wanted.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) url: &'a HttpsUrl,
    /// Whom the origin's certificate is verified against.
    pub(crate) roots: Arc<RootCertStore>,
    /// The longest document.
    pub(crate) max_bytes: u64,
    /// What is there already.
    pub(crate) known: Validators,
}

/// What tells one state of a document from another (RFC 9110, 8.8).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Validators {
    pub(crate) etag: Option<String>,
    pub(crate) modified: Option<String>,
}

impl Validators {
    pub(crate) fn is_empty(&self) -> bool {
        self.etag.is_none() && self.modified.is_none()
    }
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fetched {
    /// It is as it was.
    Unchanged,
    /// The document.
    Document { bytes: Vec<u8>, validators: Validators },
}

impl Fetcher {
    /// Gets a document.
    pub(crate) async fn get(&self, wanted: &Wanted<'_>) -> Result<Fetched, FetchError> {
        let all = self.patience.all;
        tokio::time::timeout(all, self.follow(wanted)).await.map_err(|_elapsed| FetchError::Slow(all))?
    }

    async fn follow(&self, wanted: &Wanted<'_>) -> Result<Fetched, FetchError> {
        let mut url = wanted.url.clone();
        for _ in 0..=REDIRECTS {
            match self.once(&url, wanted).await? {
                Answer::Fetched(fetched) => return Ok(fetched),
                Answer::Moved(location) => {
                    url =
                        url.join(&location).map_err(|why| FetchError::Redirect { from: url.clone(), why })?;
                }
            }
        }
        Err(FetchError::Redirects(REDIRECTS))
    }

    async fn once(&self, url: &HttpsUrl, wanted: &Wanted<'_>) -> Result<Answer, FetchError> {
        let stream = self.connect(url, &wanted.roots).await?;
        let handshake = hyper::client::conn::http1::Builder::new()
            .max_buf_size(HEAD)
            .handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
            .await;
        let (mut sender, connection) = handshake.map_err(FetchError::Http)?;
        // Ends with this call, however that ends.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let mut request = hyper::Request::get(url.target())
            .header(header::HOST, url.authority())
            .header(header::USER_AGENT, concat!("sallyport/", env!("CARGO_PKG_VERSION")))
            .header(header::ACCEPT, "application/json, text/csv, text/plain, */*;q=0.1")
            .header(header::ACCEPT_ENCODING, "identity");
        if let Some(etag) = &wanted.known.etag {
            request = request.header(header::IF_NONE_MATCH, etag);
        }
        if let Some(modified) = &wanted.known.modified {
            request = request.header(header::IF_MODIFIED_SINCE, modified);
        }
        let request = request.body(Empty::new()).map_err(FetchError::Request)?;
        let response = sender.send_request(request).await.map_err(FetchError::Http)?;
        read(response, wanted).await
    }

    /// The first address of those it may be that answers.
    async fn connect(
        &self,
        url: &HttpsUrl,
        roots: &Arc<RootCertStore>,
    ) -> Result<TlsStream<TcpStream>, FetchError> {
        let addresses = self.places.permitted(url.address(), resolve(url.address()).await?)?;
        let name = server_name(&url.address().host)?;
        let config =
            rustls::ClientConfig::builder().with_root_certificates(Arc::clone(roots)).with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let mut last = FetchError::Name(url.address().clone(), "it has no address".to_owned());
        for address in addresses {
            let attempt = async {
                let tcp =
                    TcpStream::connect(address).await.map_err(|why| FetchError::Connect(address, why))?;
                let tls = connector.connect(name.clone(), tcp).await;
                tls.map_err(|why| FetchError::of_handshake(address, why))
            };
            match tokio::time::timeout(self.patience.connect, attempt).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(why)) => last = why,
                Err(_elapsed) => {
                    last = FetchError::ConnectSlow { address, within: self.patience.connect };
                }
            }
        }
        Err(last)
    }
}

async fn resolve(address: &OriginAddress) -> Result<Vec<SocketAddr>, FetchError> {
    match &address.host {
        Host::Address(host) => Ok(vec![SocketAddr::new(host.to_canonical(), address.port)]),
        Host::Name(name) => {
            let found = tokio::net::lookup_host((name.as_str(), address.port)).await;
            let found = found.map_err(|why| FetchError::Name(address.clone(), why.to_string()))?;
            Ok(found.collect())
        }
    }
}

fn server_name(host: &Host) -> Result<ServerName<'static>, FetchError> {
    match host {
        Host::Address(address) => Ok(ServerName::from(*address)),
        Host::Name(name) => {
            ServerName::try_from(name.as_str().to_owned()).map_err(|_dns| FetchError::Certificates)
        }
    }
}
