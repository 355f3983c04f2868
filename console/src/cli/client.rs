//! The API's client.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::out::Failure;
use super::places::{console_dir, state_dir};
use super::ServerArgs;
use crate::api::ApiProblem;

/// One request, connection included.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest answer.
const ANSWER: usize = 256 << 20;

/// What the console leaves for its own command line, mode 0600.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CliFile {
    /// `https://host:port`.
    pub(crate) url: String,
    /// An API token.
    pub(crate) token: String,
    /// The console's CA, PEM.
    pub(crate) ca: String,
}

/// Talks to one console.
#[derive(Clone)]
pub(crate) struct Client {
    authority: String,
    host: String,
    token: String,
    tls: TlsConnector,
}

#[derive(Deserialize)]
struct Problems {
    problems: Vec<ApiProblem>,
}

impl Client {
    /// The console that the arguments, or its cli.json, name.
    pub(crate) fn find(args: &ServerArgs) -> Result<Self, Failure> {
        if let (Some(url), Some(token)) = (&args.server, &args.token) {
            let ca = match &args.ca {
                Some(path) => Some(std::fs::read_to_string(path).map_err(|error| cannot_read(path, &error))?),
                None => None,
            };
            return Self::new(url, token, ca.as_deref());
        }
        Self::of_state(&state_dir(args.state_dir.as_deref()))
    }

    /// The console whose state is here.
    pub(crate) fn of_state(state_dir: &Path) -> Result<Self, Failure> {
        let path = console_dir(state_dir).join("cli.json");
        let text = std::fs::read_to_string(&path).map_err(|error| cannot_read(&path, &error))?;
        let file: CliFile = serde_json::from_str(&text)
            .map_err(|error| Failure::unreachable(format!("{}: {error}; restart the console", path.display())))?;
        Self::new(&file.url, &file.token, Some(&file.ca))
    }

    fn new(url: &str, token: &str, ca: Option<&str>) -> Result<Self, Failure> {
        let wrong = || Failure::unreachable(format!("{url} is no console's URL; write https://host:port"));
        let uri: Uri = url.parse().map_err(|_uri| wrong())?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("https")).ok_or_else(wrong)?;
        let mut roots = RootCertStore::empty();
        match ca {
            Some(pem) => {
                for der in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                    let added = der.ok().map(|der| roots.add(der));
                    if !matches!(added, Some(Ok(()))) {
                        return Err(Failure::unreachable("the console's CA is no PEM certificate"));
                    }
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::fault(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let port = authority.port_u16().unwrap_or(443);
        Ok(Self {
            authority: format!("{}:{port}", authority.host()),
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            token: token.to_owned(),
            tls: TlsConnector::from(Arc::new(config)),
        })
    }

    /// `GET`.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.call(Method::GET, path, None).await
    }

    /// `POST`.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// One request: a JSON answer, or the problems as sentences.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let (status, bytes) = tokio::time::timeout(PATIENCE, self.exchange(method, path, body))
            .await
            .map_err(|_elapsed| self.unreachable("it did not answer in time"))??;
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|_json| self.unreachable("its answer is not JSON"));
        }
        match serde_json::from_slice::<Problems>(&bytes) {
            Ok(answer) => Err(refused(&answer.problems)),
            Err(_) => Err(self.unreachable(&format!("it answered {status}"))),
        }
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(StatusCode, Bytes), Failure> {
        let failed = |error: &dyn std::fmt::Display| self.unreachable(&error.to_string());
        let stream = TcpStream::connect(&self.authority).await.map_err(|error| failed(&error))?;
        let name = ServerName::try_from(self.host.clone()).map_err(|error| failed(&error))?;
        let stream = self.tls.connect(name, stream).await.map_err(|error| failed(&error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
        let driver = tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.authority)
            .header(AUTHORIZATION, format!("Bearer {}", self.token));
        let mut bytes = Bytes::new();
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json");
            bytes = serde_json::to_vec(body).map_err(|error| failed(&error))?.into();
        }
        let request = request.body(Full::new(bytes)).map_err(|error| failed(&error))?;
        let answer = sender.send_request(request).await.map_err(|error| failed(&error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER).collect().await.map_err(|error| failed(&error))?;
        driver.abort();
        Ok((status, body.to_bytes()))
    }

    fn unreachable(&self, why: &str) -> Failure {
        Failure::unreachable(format!(
            "the console at https://{} cannot be reached: {why}; is it running? (`sallyport up` starts one)",
            self.authority
        ))
    }
}

fn refused(problems: &[ApiProblem]) -> Failure {
    let sentence = |problem: &ApiProblem| match (problem.object.as_str(), problem.field.as_str()) {
        ("", "") => problem.message.clone(),
        ("", field) => format!("{field}: {}", problem.message),
        (object, "") => format!("{object}: {}", problem.message),
        (object, field) => format!("{object} {field}: {}", problem.message),
    };
    let mut sentences: Vec<String> = problems.iter().map(sentence).collect();
    if problems.iter().all(|problem| problem.code == "needs-confirmation") {
        sentences.push("nothing was changed; add --confirm to do it all the same".to_owned());
    }
    Failure::refused(sentences)
}

fn cannot_read(path: &PathBuf, error: &std::io::Error) -> Failure {
    Failure::unreachable(format!(
        "{} cannot be read ({error}); is the console running, and is this its user? (--state-dir, or --server and --token, say where it is)",
        path.display()
    ))
}
