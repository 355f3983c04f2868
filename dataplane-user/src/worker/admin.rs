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
use zeroize::Zeroizing;

use crate::worker::observe::Observe;

/// A request head, bytes.
const MOST_HEAD: usize = 8 * 1024;
/// Connections at once; more wait in the socket's queue.
const MOST_OPEN: usize = 32;
/// For a whole request and its answer.
const WITHIN: Duration = Duration::from_secs(5);

const BEARER: &[u8] = b"Bearer ";
const WRONG_TOKEN: &str = "this node's metrics need the bearer token in its --metrics-token-file; send it as Authorization: Bearer TOKEN\n";
const NO_TOKEN: &str =
    "metrics are for this machine only: start the node with --metrics-token-file to let others ask\n";

/// Status, fields beyond the usual, text.
type Answer = (&'static str, &'static str, String);

/// Who may see what.
#[derive(Debug)]
pub struct Admin {
    observe: Arc<Observe>,
    /// Needed for `/metrics` where it is set.
    token: Option<Zeroizing<String>>,
    /// Whether the socket is reachable from this machine only.
    loopback: bool,
}

impl Admin {
    /// Serves `socket` until dropped. Where there is a token `/metrics` needs it; without one it is refused on an address
    /// other than loopback. Health is for everyone, and says why the node is not ready only to who may see figures.
    ///
    /// # Errors
    /// The descriptor is no listening socket.
    pub async fn serve(
        socket: StdListener,
        token: Option<Zeroizing<String>>,
        observe: Arc<Observe>,
    ) -> io::Result<()> {
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
            let (status, more, text) = loop {
                if tcp.read_buf(&mut head).await? == 0 {
                    return Ok(());
                }
                if let Some(answer) = self.answer(&head) {
                    break answer;
                }
            };
            let answer = format!(
                "HTTP/1.1 {status}\r\n{more}Content-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
                 Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n{text}",
                text.len()
            );
            tcp.write_all(answer.as_bytes()).await?;
            tcp.shutdown().await
        };
        // A scraper that is slow or gone asks again.
        let _: Result<io::Result<()>, _> = tokio::time::timeout(WITHIN, exchange).await;
    }

    /// The answer to a head, when it is complete: status, fields beyond the usual, text.
    fn answer(&self, head: &[u8]) -> Option<Answer> {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut fields);
        match request.parse(head) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) if head.len() < MOST_HEAD => return None,
            Ok(httparse::Status::Partial) => {
                return Some(("431 Request Header Fields Too Large", "", String::new()));
            }
            Err(_) => return Some(("400 Bad Request", "", "not HTTP/1.1\n".to_owned())),
        }
        if request.method != Some("GET") {
            return Some(("405 Method Not Allowed", "Allow: GET\r\n", "only GET\n".to_owned()));
        }
        let path = request.path.unwrap_or_default();
        Some(match path.split('?').next().unwrap_or_default() {
            "/healthz" => ("200 OK", "", "ok\n".to_owned()),
            "/readyz" => match self.observe.ready() {
                Ok(()) => ("200 OK", "", "ready\n".to_owned()),
                // Why has figures in it: they are for who may see the others.
                Err(why) if self.permitted(request.headers) => ("503 Service Unavailable", "", why + "\n"),
                Err(_) => ("503 Service Unavailable", "", "not ready\n".to_owned()),
            },
            "/metrics" if self.permitted(request.headers) => ("200 OK", "", self.observe.metrics_text()),
            "/metrics" => {
                self.observe.metrics_denied();
                match self.token {
                    // RFC 6750, 3.
                    Some(_) => ("401 Unauthorized", "WWW-Authenticate: Bearer\r\n", WRONG_TOKEN.to_owned()),
                    None => ("403 Forbidden", "", NO_TOKEN.to_owned()),
                }
            }
            _ => ("404 Not Found", "", "there are /metrics, /healthz and /readyz\n".to_owned()),
        })
    }

    fn permitted(&self, fields: &[httparse::Header<'_>]) -> bool {
        let Some(token) = &self.token else { return self.loopback };
        let mut given = fields.iter().filter(|field| field.name.eq_ignore_ascii_case("authorization"));
        // Two fields are a request that two readers would read differently.
        let (Some(field), None) = (given.next(), given.next()) else { return false };
        let Some((scheme, given)) = field.value.split_at_checked(BEARER.len()) else { return false };
        scheme.eq_ignore_ascii_case(BEARER)
            && aws_lc_rs::constant_time::verify_slices_are_equal(given, token.as_bytes()).is_ok()
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
            let token = token.map(|token| Zeroizing::new(token.to_owned()));
            let served = Admin::serve(socket, token, Arc::clone(&observe));
            tokio::spawn(async move { served.await.unwrap() });
            std::net::SocketAddr::from(([127, 0, 0, 1], port))
        };
        let (local, guarded, open) =
            (start("127.0.0.1:0", None), start("0.0.0.0:0", Some("s3")), start("0.0.0.0:0", None));
        let get = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n");
        for (address, request, status) in [
            (local, get("/metrics", ""), 200),
            (local, get("/metrics?x", ""), 200),
            (guarded, get("/metrics", ""), 401),
            (guarded, get("/metrics", "Authorization: Bearer s4\r\n"), 401),
            (guarded, get("/metrics", "Authorization: Bearer s33\r\n"), 401),
            (guarded, get("/metrics", "Authorization: s3\r\n"), 401),
            (guarded, get("/metrics", "Authorization: Bearer s3\r\nAuthorization: Bearer s3\r\n"), 401),
            (guarded, get("/metrics", "authorization: bearer s3\r\n"), 200),
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
        let denied = ask(local, &get("/metrics", "")).await;
        assert!(denied.contains("\nsallyport_metrics_denied_total 6\n"), "{denied}");
        assert!(ask(guarded, &get("/metrics", "")).await.contains("WWW-Authenticate: Bearer\r\n"));
        // Why it is not ready is a figure too.
        let why = "no snapshot is in force yet";
        assert!(ask(local, &get("/readyz", "")).await.contains(why));
        assert!(!ask(guarded, &get("/readyz", "")).await.contains(why));
        assert!(ask(guarded, &get("/readyz", "Authorization: Bearer s3\r\n")).await.contains(why));
        let mut now = Live::empty();
        now.id = SnapshotId { epoch: 1, revision: 1 };
        live.store(Arc::new(now));
        assert!(ask(local, &get("/readyz", "")).await.starts_with("HTTP/1.1 200 "));
    }
}
