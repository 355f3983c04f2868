//! One HTTP/2 connection over mutual TLS to the console, as `model::link` describes it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderValue, Method, Request};
use model::digest::Digest;
use model::flow::FlowMessage;
use model::link::{MAX_FRAME, NodeMessage};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

use super::enrol::PinnedCa;
use crate::worker::vault::NodeCertificate;

/// Connect, handshake, and any answer but the link's own.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest answer outside the link, bytes.
const MAX_ANSWER: usize = 1 << 20;

/// Snapshots are the largest things the console sends; a window of this size keeps them moving.
const WINDOW: u32 = 4 << 20;

/// The link's own path.
const LINK: &str = "/node/v1/link";

/// Why there is no talking to the console.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The token's `host:port`.
    #[error("the console's address {0} is not host:port")]
    Address(String),
    /// Nobody there.
    #[error("the console at {console} cannot be reached")]
    Connect {
        /// Where.
        console: String,
        /// Why.
        source: std::io::Error,
    },
    /// Not our console, or it does not know us.
    #[error("the TLS handshake with the console at {console} failed")]
    Tls {
        /// Where.
        console: String,
        /// Why.
        source: std::io::Error,
    },
    /// Took too long.
    #[error("the console did not answer within {} s", PATIENCE.as_secs())]
    Timeout,
    /// HTTP/2's word.
    #[error("the connection to the console broke")]
    Http2(#[from] h2::Error),
    /// An answer other than 200.
    #[error("the console refused {what} ({status}): {message}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// The status.
        status: u16,
        /// The console's own sentence.
        message: String,
    },
    /// Longer than allowed.
    #[error("the console sent more than allowed")]
    TooLong,
    /// Not what `model::link` says.
    #[error("the console's message cannot be read (is it a newer release?)")]
    Json(#[from] serde_json::Error),
    /// Our own certificate, or the CA's.
    #[error("the node's certificate cannot be used")]
    Certificate(#[from] rustls::Error),
    /// The CA's PEM text.
    #[error("the console's CA certificate cannot be read")]
    Ca,
    /// The console ended the link.
    #[error("the console closed the link")]
    Closed,
}

/// A connection on which requests can be made.
#[derive(Debug, Clone)]
pub struct Connection {
    requests: SendRequest<Bytes>,
    /// Both ends, as [`model::link::ENDS`] says them; absent where the socket does not know.
    ends: Option<HeaderValue>,
}

/// Whom the node says it is.
#[derive(Debug, Clone, Copy)]
pub enum Credentials<'a> {
    /// Nobody yet: the console is recognised by its CA's digest alone.
    Token {
        /// SHA-256 of the CA's certificate.
        ca: &'a Digest,
    },
    /// An enrolled node.
    Node(&'a NodeCertificate),
}

impl std::fmt::Debug for NodeCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeCertificate").finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects to the console.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn open(console: &str, credentials: Credentials<'_>) -> Result<Self, LinkError> {
        patiently(Self::open_slowly(console, credentials)).await
    }

    async fn open_slowly(console: &str, credentials: Credentials<'_>) -> Result<Self, LinkError> {
        let bad_address = || LinkError::Address(console.to_owned());
        let (host, _) = console.rsplit_once(':').ok_or_else(bad_address)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned()).map_err(|_not_a_name| bad_address())?;
        let config = Arc::new(client_config(credentials)?);
        let connected = TcpStream::connect(console).await;
        let stream =
            connected.map_err(|source| LinkError::Connect { console: console.to_owned(), source })?;
        // Acknowledgements are short and waited for.
        let _ = stream.set_nodelay(true);
        let ends = ends(&stream);
        let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await;
        let stream = stream.map_err(|source| LinkError::Tls { console: console.to_owned(), source })?;
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(WINDOW).initial_connection_window_size(2 * WINDOW).enable_push(false);
        let (requests, connection) = builder.handshake(stream).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to the console ended");
            }
        });
        Ok(Self { requests, ends })
    }

    /// A request with a JSON body and a JSON answer.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn post<T: DeserializeOwned>(
        &self,
        what: &'static str,
        body: &impl Serialize,
    ) -> Result<T, LinkError> {
        let path = format!("/node/v1/{what}");
        let answer =
            patiently(self.exchange(Method::POST, &path, what, Some(serde_json::to_vec(body)?.into())))
                .await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// A private key, PKCS#8 DER.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn key(&self, digest: &Digest) -> Result<zeroize::Zeroizing<Vec<u8>>, LinkError> {
        let path = format!("/node/v1/keys/{digest}");
        patiently(self.exchange(Method::GET, &path, "a private key", None)).await
    }

    /// The link itself: what goes out, and what comes in.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn link(&self) -> Result<(Outgoing, Incoming), LinkError> {
        self.stream("link", "the link").await
    }

    /// An open-ended exchange: what goes out, and what comes in.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn stream(&self, path: &str, what: &'static str) -> Result<(Outgoing, Incoming), LinkError> {
        let (answer, send) = self.request(Method::POST, &format!("/node/v1/{path}"), false).await?;
        let answer = patiently(async { Ok(answer.await?) }).await?;
        let status = answer.status().as_u16();
        let takes = |field: &str| answer.headers().contains_key(field);
        let (senders, refusals) = (takes(model::link::SENDERS), takes(model::link::REFUSALS));
        let mut body = answer.into_body();
        if status != 200 {
            let message = patiently(read_all(&mut body)).await.unwrap_or_default();
            return Err(refused(what, status, &message));
        }
        Ok((Outgoing { send, senders, refusals }, Incoming { body, buffer: BytesMut::new() }))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        what: &'static str,
        body: Option<Bytes>,
    ) -> Result<zeroize::Zeroizing<Vec<u8>>, LinkError> {
        let (answer, mut send) = self.request(method, path, body.is_none()).await?;
        if let Some(body) = body {
            send.send_data(body, true)?;
        }
        let answer = answer.await?;
        let status = answer.status().as_u16();
        let bytes = read_all(&mut answer.into_body()).await?;
        if status == 200 { Ok(bytes) } else { Err(refused(what, status, &bytes)) }
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        end: bool,
    ) -> Result<(h2::client::ResponseFuture, SendStream<Bytes>), LinkError> {
        let mut ready = self.requests.clone().ready().await?;
        let request = Request::builder().method(method).uri(format!("https://console{path}")).body(());
        let mut request = request.map_err(|_invalid| LinkError::Closed)?;
        if path == LINK
            && let Some(ends) = &self.ends
        {
            request.headers_mut().insert(model::link::ENDS, ends.clone());
        }
        Ok(ready.send_request(request, end)?)
    }
}

/// Both ends of a connection as this machine sees them.
fn ends(stream: &TcpStream) -> Option<HeaderValue> {
    let (own, console) = (stream.local_addr().ok()?.ip(), stream.peer_addr().ok()?.ip());
    HeaderValue::try_from(format!("{own} {console}")).ok()
}

/// Where the node's messages go.
#[derive(Debug)]
pub struct Outgoing {
    send: SendStream<Bytes>,
    /// The console takes [`NodeMessage::Senders`].
    senders: bool,
    /// The console takes [`FlowMessage::Refused`].
    refusals: bool,
}

impl Outgoing {
    /// Sends one message of the link, unless it is one that this console does not take.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn tell(&mut self, message: &NodeMessage) -> Result<(), LinkError> {
        if matches!(message, NodeMessage::Senders(_)) && !self.senders {
            return Ok(());
        }
        self.send(message).await
    }

    /// Sends one message of the stream of flows, unless it is one that this console does not take.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn tell_flow(&mut self, message: &FlowMessage) -> Result<(), LinkError> {
        if matches!(message, FlowMessage::Refused { .. }) && !self.refusals {
            return Ok(());
        }
        self.send(message).await
    }

    /// Sends one message; waits until the console takes it.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn send(&mut self, message: &impl Serialize) -> Result<(), LinkError> {
        let json = serde_json::to_vec(message)?;
        let length =
            u32::try_from(json.len()).ok().filter(|_| json.len() <= MAX_FRAME).ok_or(LinkError::TooLong)?;
        let mut rest = Bytes::from([&length.to_be_bytes(), json.as_slice()].concat());
        while rest.has_remaining() {
            self.send.reserve_capacity(rest.len());
            let granted = std::future::poll_fn(|context| self.send.poll_capacity(context)).await;
            let granted = granted.ok_or(LinkError::Closed)??;
            self.send.send_data(rest.split_to(granted.min(rest.len())), false)?;
        }
        Ok(())
    }
}

/// Where the console's messages come from.
#[derive(Debug)]
pub struct Incoming {
    body: RecvStream,
    buffer: BytesMut,
}

impl Incoming {
    /// The next message. Nothing is lost when the future is dropped before it is ready.
    ///
    /// # Errors
    /// See [`LinkError`]; the link is of no further use then.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> Result<T, LinkError> {
        loop {
            if let Some((length, rest)) = self.buffer.split_first_chunk::<4>() {
                let length = u32::from_be_bytes(*length) as usize;
                if length > MAX_FRAME {
                    return Err(LinkError::TooLong);
                }
                if rest.len() >= length {
                    self.buffer.advance(4);
                    return Ok(serde_json::from_slice(&self.buffer.split_to(length))?);
                }
            }
            let data = self.body.data().await.ok_or(LinkError::Closed)??;
            self.body.flow_control().release_capacity(data.len())?;
            self.buffer.extend_from_slice(&data);
        }
    }
}

async fn patiently<T>(task: impl Future<Output = Result<T, LinkError>>) -> Result<T, LinkError> {
    tokio::time::timeout(PATIENCE, task).await.map_err(|_elapsed| LinkError::Timeout)?
}

async fn read_all(body: &mut RecvStream) -> Result<zeroize::Zeroizing<Vec<u8>>, LinkError> {
    let mut all = zeroize::Zeroizing::new(Vec::new());
    while let Some(data) = body.data().await.transpose()? {
        body.flow_control().release_capacity(data.len())?;
        if all.len() + data.len() > MAX_ANSWER {
            return Err(LinkError::TooLong);
        }
        all.extend_from_slice(&data);
    }
    Ok(all)
}

fn refused(what: &'static str, status: u16, body: &[u8]) -> LinkError {
    #[derive(serde::Deserialize)]
    struct Answer {
        message: String,
    }
    let message =
        serde_json::from_slice(body).map_or_else(|_| "no reason given".to_owned(), |a: Answer| a.message);
    LinkError::Refused { what, status, message }
}

fn client_config(credentials: Credentials<'_>) -> Result<rustls::ClientConfig, LinkError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone());
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13])?;
    let mut config = match credentials {
        Credentials::Token { ca } => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PinnedCa::new(*ca, provider)))
            .with_no_client_auth(),
        Credentials::Node(node) => {
            let mut roots = RootCertStore::empty();
            for ca in CertificateDer::pem_slice_iter(node.ca.as_bytes()) {
                roots.add(ca.map_err(|_pem| LinkError::Ca)?)?;
            }
            let chain: Result<Vec<_>, _> =
                CertificateDer::pem_slice_iter(node.certificate.as_bytes()).collect();
            let chain = chain.map_err(|_pem| LinkError::Ca)?;
            builder.with_root_certificates(roots).with_client_auth_cert(chain, private_key(node)?)?
        }
    };
    config.alpn_protocols = vec![model::link::ALPN.to_vec()];
    Ok(config)
}

fn private_key(node: &NodeCertificate) -> Result<PrivateKeyDer<'static>, LinkError> {
    use base64::Engine as _;
    let der = base64::engine::general_purpose::STANDARD.decode(&node.key).map_err(|_base64| LinkError::Ca)?;
    Ok(PrivatePkcs8KeyDer::from(der).into())
}

#[cfg(test)]
mod tests;
