//! Metrics and health over HTTP: `GET /metrics`, `/healthz`, `/readyz` on a socket the keeper opened. One request a
//! connection, nothing kept open, few at a time.

use std::io;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::worker::observe::Observe;

/// A request head, bytes.
const MOST_HEAD: usize = 8 * 1024;
/// Connections at once; more wait in the socket's queue.
const MOST_OPEN: usize = 32;
/// For a whole request and its answer.
const WITHIN: Duration = Duration::from_secs(5);

/// Who may see what.
#[derive(Debug)]
pub struct Admin {
    observe: Arc<Observe>,
    /// Needed for `/metrics` where it is set.
    token: Option<String>,
    /// Whether the socket is reachable from this machine only.
    loopback: bool,
}

impl Admin {
    /// Serves `socket` until dropped. On an address other than loopback `/metrics` needs the token, and without one it is
    /// refused; health is for everyone.
    ///
    /// # Errors
    /// The descriptor is no listening socket.
    pub async fn serve(socket: StdListener, token: Option<String>, observe: Arc<Observe>) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let socket = TcpListener::from_std(socket)?;
        let loopback = socket.local_addr()?.ip().to_canonical().is_loopback();
        let admin = Self { observe, token, loopback };
        let mut open = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(()) = open.next(), if !open.is_empty() => {}
                accepted = socket.accept(), if open.len() < MOST_OPEN => match accepted {
                    Ok((tcp, _)) => open.push(admin.connection(tcp)),
                    Err(error) => {
                        tracing::warn!(%error, "the metrics socket cannot accept");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
    }

    async fn connection(&self, mut tcp: TcpStream) {
        let exchange = async {
            let mut head = Vec::new();
            let (status, text) = loop {
                if tcp.read_buf(&mut head).await? == 0 {
                    return Ok(());
                }
                if let Some(answer) = self.answer(&head) {
                    break answer;
                }
            };
            let answer = format!(
                "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
                 Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n{text}",
                text.len()
            );
            tcp.write_all(answer.as_bytes()).await?;
            tcp.shutdown().await
        };
        // A scraper that is slow or gone asks again.
        let _: Result<io::Result<()>, _> = tokio::time::timeout(WITHIN, exchange).await;
    }

    /// The answer to a head, when it is complete.
    fn answer(&self, head: &[u8]) -> Option<(&'static str, String)> {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut fields);
        match request.parse(head) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) if head.len() < MOST_HEAD => return None,
            Ok(httparse::Status::Partial) => {
                return Some(("431 Request Header Fields Too Large", String::new()));
            }
            Err(_) => return Some(("400 Bad Request", "not HTTP/1.1\n".to_owned())),
        }
        if request.method != Some("GET") {
            return Some(("405 Method Not Allowed", "only GET\n".to_owned()));
        }
        let path = request.path.unwrap_or_default();
        Some(match path.split('?').next().unwrap_or_default() {
            "/healthz" => ("200 OK", "ok\n".to_owned()),
            "/readyz" => match self.observe.ready() {
                Ok(()) => ("200 OK", "ready\n".to_owned()),
                Err(sentence) => ("503 Service Unavailable", sentence + "\n"),
            },
            "/metrics" => match self.permitted(request.headers) {
                true => ("200 OK", self.observe.metrics_text()),
                false => ("403 Forbidden", "metrics need the node's bearer token here\n".to_owned()),
            },
            _ => ("404 Not Found", "there are /metrics, /healthz and /readyz\n".to_owned()),
        })
    }

    fn permitted(&self, fields: &[httparse::Header<'_>]) -> bool {
        let Some(token) = &self.token else { return self.loopback };
        let given = fields
            .iter()
            .filter(|field| field.name.eq_ignore_ascii_case("authorization"))
            .map(|field| field.value);
        given
            .filter_map(|value| value.strip_prefix(b"Bearer "))
            .any(|given| aws_lc_rs::constant_time::verify_slices_are_equal(given, token.as_bytes()).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::live::Live;
    use arc_swap::ArcSwap;
    use model::snapshot::SnapshotId;

    async fn ask(address: std::net::SocketAddr, request: &str) -> String {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn health_is_for_everyone_and_metrics_for_loopback_or_the_token() {
        let live = Arc::new(ArcSwap::from_pointee(Live::empty()));
        let observe = Arc::new(Observe::new(1, Arc::clone(&live), None).unwrap());
        let start = |address: &str, token: Option<&str>| {
            let socket = StdListener::bind(address).unwrap();
            let port = socket.local_addr().unwrap().port();
            let served = Admin::serve(socket, token.map(str::to_owned), Arc::clone(&observe));
            tokio::spawn(async move { served.await.unwrap() });
            std::net::SocketAddr::from(([127, 0, 0, 1], port))
        };
        let (local, guarded, open) =
            (start("127.0.0.1:0", None), start("0.0.0.0:0", Some("s3")), start("0.0.0.0:0", None));
        let get = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n");
        for (address, request, status) in [
            (local, get("/metrics", ""), 200),
            (local, get("/metrics?x", ""), 200),
            (guarded, get("/metrics", ""), 403),
            (guarded, get("/metrics", "Authorization: Bearer s4\r\n"), 403),
            (guarded, get("/metrics", "authorization: Bearer s3\r\n"), 200),
            (open, get("/metrics", ""), 403),
            (open, get("/healthz", ""), 200),
            (guarded, get("/readyz", ""), 503),
            (local, get("/", ""), 404),
            (local, get("/metrics", "").replace("GET", "POST"), 405),
            (local, "nonsense\r\n\r\n".to_owned(), 400),
        ] {
            let answer = ask(address, &request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:.60} {answer}");
        }
        let mut now = Live::empty();
        now.id = SnapshotId { epoch: 1, revision: 1 };
        live.store(Arc::new(now));
        assert!(ask(local, &get("/readyz", "")).await.starts_with("HTTP/1.1 200 "));
    }
}
