//! The REST API as a stranger's tool would use it: one connection a call, the token and CA from `cli.json`.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;

use super::DemoError;

/// How to reach the console.
#[derive(Clone)]
pub(super) struct Api {
    authority: String,
    token: String,
    tls: Arc<rustls::ClientConfig>,
    /// The console CA, PEM: also signs the demo's certificates.
    pub(super) ca: String,
}

impl Api {
    /// Reads `cli.json`; nothing when it is not there or not complete yet.
    pub(super) fn from_file(path: &Path) -> Option<Self> {
        let file: Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        let ca = file["ca"].as_str()?.to_owned();
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
            roots.add(certificate.ok()?).ok()?;
        }
        Some(Self {
            authority: file["url"].as_str()?.strip_prefix("https://")?.trim_end_matches('/').to_owned(),
            token: file["token"].as_str()?.to_owned(),
            tls: Arc::new(
                rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth(),
            ),
            ca,
        })
    }

    /// One call; the status and the JSON that came back (null when it was none).
    pub(super) async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value), DemoError> {
        let what = || format!("{method} {path}");
        let answer = async {
            let tcp = TcpStream::connect(&self.authority).await?;
            let host = self.authority.rsplit_once(':').map_or(self.authority.as_str(), |(host, _)| host);
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(host).map_err(std::io::Error::other)?;
            let tls = tokio_rustls::TlsConnector::from(Arc::clone(&self.tls)).connect(name, tcp).await?;
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls))
                .await
                .map_err(std::io::Error::other)?;
            let request = hyper::Request::builder()
                .method(method)
                .uri(path)
                .header("host", &self.authority)
                .header("authorization", format!("Bearer {}", self.token))
                .header("content-type", "application/json")
                .body(Full::new(Bytes::from(body.map_or_else(String::new, Value::to_string))))
                .map_err(std::io::Error::other)?;
            let exchange = async {
                let response = sender.send_request(request).await.map_err(std::io::Error::other)?;
                let status = response.status().as_u16();
                let bytes = response.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes();
                Ok((status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
            };
            tokio::pin!(exchange);
            tokio::select! {
                answer = &mut exchange => answer,
                ended = connection => match ended {
                    Ok(()) => exchange.await,
                    Err(error) => Err(std::io::Error::other(error)),
                },
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), answer)
            .await
            .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
            .map_err(DemoError::io(what()))
    }

    /// A call that must succeed.
    pub(super) async fn must(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, DemoError> {
        match self.call(method, path, body).await? {
            (200..=299, value) => Ok(value),
            (status, said) => {
                Err(DemoError::Api { what: format!("{method} {path}"), status, said: said.to_string() })
            }
        }
    }
}
