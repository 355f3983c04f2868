//! The REST API's client: one connection a call, the token and CA from `cli.json` unless told otherwise.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use model::problem::Problem;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;

/// The longest a call may take: a publish of 10,000 objects on a busy machine, and then some.
const PATIENCE: Duration = Duration::from_secs(60);

/// How to reach the console.
#[derive(Clone)]
pub(crate) struct Client {
    authority: String,
    token: String,
    tls: Arc<rustls::ClientConfig>,
    /// The CA the console is verified against, PEM.
    pub(crate) ca: String,
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("cannot read {}; is the console running on this machine, and may you read it? (--server, --token-file and --ca name another one)", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} is not complete; start the console again, it writes it anew", .0.display())]
    Incomplete(PathBuf),
    #[error("{0:?} is no console's address; write https://host:port")]
    Address(String),
    #[error("the CA file holds no PEM certificate")]
    Ca,
    #[error("cannot reach the console at https://{authority}")]
    Unreachable {
        authority: String,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "nobody answers at https://{0}: the console is not running; start it (`sallyport up`), or name another with --state-dir, or --server"
    )]
    NotRunning(String),
    #[error(
        "the console at https://{0} is another one than was meant: its certificate is not of the CA that it is verified against; name the one that runs there with --state-dir (or its CA with --ca, beside --server)"
    )]
    Another(String),
    #[error("the console did not answer within {} s", PATIENCE.as_secs())]
    TimedOut,
    #[error("the console refuses the token: it knows none like it, or it was revoked")]
    Token,
    /// 400, 409 and 422.
    #[error("refused")]
    Problems(Vec<Problem>),
    /// One sentence of the console's.
    #[error("{0}")]
    Said(String),
    #[error("the console answered {status}: {said}")]
    Status { status: u16, said: String },
}

impl Client {
    /// The console whose state is on this machine.
    pub(crate) fn local(path: &Path) -> Result<Self, ClientError> {
        let text =
            std::fs::read(path).map_err(|source| ClientError::File { path: path.to_owned(), source })?;
        let file: Value = serde_json::from_slice(&text).unwrap_or_default();
        match (file["url"].as_str(), file["token"].as_str(), file["ca"].as_str()) {
            (Some(url), Some(token), Some(ca)) => Self::new(url, token, ca),
            _ => Err(ClientError::Incomplete(path.to_owned())),
        }
    }

    /// Any console.
    pub(crate) fn new(url: &str, token: &str, ca: &str) -> Result<Self, ClientError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()).flatten() {
            roots.add(certificate).map_err(|_not_x509| ClientError::Ca)?;
        }
        if roots.is_empty() {
            return Err(ClientError::Ca);
        }
        let authority = url.strip_prefix("https://").map(|rest| rest.trim_end_matches('/').to_owned());
        let authority = authority.filter(|authority| !authority.contains('/'));
        let mut authority = authority.ok_or_else(|| ClientError::Address(url.to_owned()))?;
        if authority.rsplit(':').next().is_none_or(|port| port.parse::<u16>().is_err()) {
            authority.push_str(":443");
        }
        let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Ok(Self { authority, token: token.to_owned(), tls: Arc::new(tls), ca: ca.to_owned() })
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.authority)
    }

    /// One call; the status and the JSON that came back (null when it was none).
    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value), ClientError> {
        let exchange = tokio::time::timeout(PATIENCE, self.exchange(method, path, body)).await;
        exchange
            .map_err(|_elapsed| ClientError::TimedOut)?
            .map_err(|source| unreachable(&self.authority, source))
    }

    /// A call that must succeed.
    pub(crate) async fn must(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        let (status, value) = self.call(method, path, body).await?;
        if (200..=299).contains(&status) {
            return Ok(value);
        }
        Err(refused(status, &value))
    }

    /// A call whose answer is handed on as it comes, a piece at a time, until `piece` has enough of it; what comes of a refusal is
    /// as with [`Self::must`].
    pub(crate) async fn stream(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        mut piece: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
        let unreachable = |source| unreachable(&self.authority, source);
        let (mut sender, connection) = self.connect().await.map_err(unreachable)?;
        let request = self.request(method, path, body).map_err(unreachable)?;
        let exchange = async {
            let answer = sender.send_request(request).await.map_err(std::io::Error::other)?;
            let status = answer.status().as_u16();
            let (mut body, mut refusal) = (answer.into_body(), Vec::new());
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(std::io::Error::other)?;
                let Some(bytes) = frame.data_ref() else { continue };
                if status != 200 {
                    refusal.extend_from_slice(bytes);
                } else if piece(bytes).is_break() {
                    break;
                }
            }
            Ok((status, serde_json::from_slice(&refusal).unwrap_or(Value::Null)))
        };
        let (status, value) = with_connection(exchange, connection).await.map_err(unreachable)?;
        if status == 200 { Ok(()) } else { Err(refused(status, &value)) }
    }

    async fn connect(
        &self,
    ) -> std::io::Result<(SendRequest<Full<Bytes>>, impl Future<Output = Result<(), hyper::Error>>)> {
        let tcp = TcpStream::connect(&self.authority).await?;
        let host = self.authority.rsplit_once(':').map_or(self.authority.as_str(), |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(std::io::Error::other)?;
        let tls = tokio_rustls::TlsConnector::from(Arc::clone(&self.tls)).connect(name, tcp).await?;
        hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.map_err(std::io::Error::other)
    }

    fn request(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> std::io::Result<hyper::Request<Full<Bytes>>> {
        hyper::Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.authority)
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.map_or_else(String::new, Value::to_string))))
            .map_err(std::io::Error::other)
    }

    async fn exchange(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> std::io::Result<(u16, Value)> {
        let (mut sender, connection) = self.connect().await?;
        let request = self.request(method, path, body)?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(std::io::Error::other)?;
            let status = response.status().as_u16();
            let bytes = response.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes();
            Ok((status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
        };
        with_connection(exchange, connection).await
    }
}

/// An exchange and the connection it is made on.
async fn with_connection<T>(
    exchange: impl Future<Output = std::io::Result<T>>,
    connection: impl Future<Output = Result<(), hyper::Error>>,
) -> std::io::Result<T> {
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        ended = connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(std::io::Error::other(error)),
        },
    }
}

/// Why there is no console to talk to: of the usual causes what to do.
fn unreachable(authority: &str, source: std::io::Error) -> ClientError {
    let authority = authority.to_owned();
    let cause = source.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match (source.kind(), cause) {
        (std::io::ErrorKind::ConnectionRefused, _) => ClientError::NotRunning(authority),
        (_, Some(rustls::Error::InvalidCertificate(_))) => ClientError::Another(authority),
        _ => ClientError::Unreachable { authority, source },
    }
}

/// What a refusal says.
fn refused(status: u16, value: &Value) -> ClientError {
    let problems = serde_json::from_value::<Vec<Problem>>(value["problems"].clone()).unwrap_or_default();
    match (status, problems.as_slice()) {
        (401, _) => ClientError::Token,
        (400 | 409 | 422, [_, ..]) => ClientError::Problems(problems),
        (_, [problem, ..]) => ClientError::Status { status, said: problem.to_string() },
        // Codes of the API alone (`fault`, `not-found`): the sentence says it.
        _ => match value["problems"][0]["message"].as_str() {
            Some(sentence) => ClientError::Said(sentence.to_owned()),
            None => ClientError::Status { status, said: value.to_string() },
        },
    }
}
