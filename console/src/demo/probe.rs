//! One client request and what came of it, in a few words that can stand beside an expectation.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use super::DemoError;

/// How long a client waits before it says "no answer".
const PATIENCE: Duration = Duration::from_secs(3);

/// A client and what it sends.
#[derive(Debug, Clone)]
pub(super) struct Probe {
    /// Source address; the system's choice when absent.
    pub(super) from: Option<IpAddr>,
    pub(super) to: SocketAddr,
    pub(super) sni: &'static str,
    pub(super) versions: &'static [&'static rustls::SupportedProtocolVersion],
    pub(super) send: Send,
}

/// What a client sends.
#[derive(Debug, Clone)]
pub(super) enum Send {
    /// These bytes over HTTP/1.1.
    Bytes(String),
    /// `GET` of this path over HTTP/2.
    Http2 { host: &'static str, path: &'static str },
    /// These bytes without TLS.
    ClearText(&'static str),
}

impl Probe {
    /// `GET path` for a host, over HTTP/1.1 and any TLS version.
    pub(super) fn get(to: SocketAddr, host: &'static str, path: &str) -> Self {
        let send =
            Send::Bytes(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\naccept: application/json\r\n\r\n"));
        Self { from: None, to, sni: host, versions: rustls::ALL_VERSIONS, send }
    }

    /// Performs it in a namespace (the machine's own when none): `200 from origin first`, `421 misdirected`,
    /// `handshake refused`, `no answer`, ...
    pub(super) async fn run(self, namespace: Option<&str>, ca: &str) -> Result<String, DemoError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()).flatten() {
            roots.add(certificate)?;
        }
        let mut tls = rustls::ClientConfig::builder_with_protocol_versions(self.versions)
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = match self.send {
            Send::Http2 { .. } => vec![b"h2".to_vec()],
            Send::Bytes(_) | Send::ClearText(_) => vec![b"http/1.1".to_vec()],
        };
        let (done, result) = tokio::sync::oneshot::channel();
        super::spaces::in_namespace(namespace, move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let said = runtime.map_or_else(
                |_| "no runtime".to_owned(),
                |runtime| {
                    runtime.block_on(async {
                        let attempt = tokio::time::timeout(PATIENCE, self.attempt(Arc::new(tls)));
                        attempt.await.unwrap_or_else(|_| "no answer".to_owned())
                    })
                },
            );
            drop(done.send(said));
        })?;
        Ok(result.await.unwrap_or_else(|_| "the namespace cannot be entered".to_owned()))
    }

    async fn attempt(self, tls: Arc<rustls::ClientConfig>) -> String {
        let socket = if self.to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let Ok(socket) = socket else { return "no socket".to_owned() };
        if let Some(from) = self.from
            && let Err(error) = socket.bind(SocketAddr::new(from, 0))
        {
            return format!("cannot send from {from}: {error}");
        }
        let mut tcp = match socket.connect(self.to).await {
            Ok(tcp) => tcp,
            Err(_) => return "connection refused".to_owned(),
        };
        if let Send::ClearText(text) = self.send {
            drop(tcp.write_all(text.as_bytes()).await);
            return describe(&read(tcp).await);
        }
        let Ok(name) = ServerName::try_from(self.sni) else { return "no name".to_owned() };
        let stream = match tokio_rustls::TlsConnector::from(tls).connect(name, tcp).await {
            Ok(stream) => stream,
            Err(_) => return "handshake refused".to_owned(),
        };
        match self.send {
            Send::Bytes(text) => {
                let mut stream = stream;
                drop(stream.write_all(text.as_bytes()).await);
                describe(&read(stream).await)
            }
            Send::Http2 { host, path } => http2(stream, host, path).await,
            Send::ClearText(_) => "closed without an answer".to_owned(),
        }
    }
}

/// Reads until the answer's end: its `Content-Length`, or the close.
async fn read(mut stream: impl AsyncReadExt + Unpin) -> Vec<u8> {
    let mut seen = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut seen).await {
        if complete(&seen) {
            break;
        }
    }
    seen
}

fn complete(seen: &[u8]) -> bool {
    let text = String::from_utf8_lossy(seen).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    length.is_some_and(|length| body.len() >= length)
}

fn describe(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return "closed without an answer".to_owned();
    };
    let status = head.split(' ').nth(1).unwrap_or_default();
    let origin = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("x-demo-origin:").map(str::to_owned));
    words(status, origin.as_deref(), body)
}

fn words(status: &str, origin: Option<&str>, body: &str) -> String {
    if let Some(origin) = origin {
        return format!("{status} from origin {}", origin.trim());
    }
    // A request that could not be read said nothing of the form it wants, and gets HTML.
    let json: serde_json::Value = serde_json::from_str(body.trim()).unwrap_or_default();
    let html = || body.split_once("<code>")?.1.split_once("</code>").map(|(reason, _)| reason);
    match json["reason"].as_str().or_else(html) {
        Some(reason) => format!("{status} {reason}"),
        None => status.to_owned(),
    }
}

async fn http2<S>(stream: S, host: &str, path: &str) -> String
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + std::marker::Send + 'static,
{
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let Ok((mut sender, connection)) = handshake else { return "no HTTP/2".to_owned() };
    tokio::spawn(connection);
    let request = hyper::Request::builder()
        .uri(format!("https://{host}{path}"))
        .header("accept", "application/json")
        .body(Empty::<Bytes>::new());
    let Ok(request) = request else { return "no request".to_owned() };
    let Ok(response) = sender.send_request(request).await else { return "stream reset".to_owned() };
    let status = response.status().as_u16().to_string();
    let origin =
        response.headers().get("x-demo-origin").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    words(&status, origin.as_deref(), &String::from_utf8_lossy(&body))
}
