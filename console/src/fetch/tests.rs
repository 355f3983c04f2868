use super::testing::{Origin, Reply};
use super::*;

fn fetcher(also: &str) -> Fetcher {
    let also = also.split_whitespace().map(|text| text.parse().unwrap()).collect();
    let patience = Patience { connect: Duration::from_secs(5), all: Duration::from_secs(10) };
    Fetcher { places: Places { also }, patience }
}

async fn get(origin: &Origin, known: Validators) -> Result<Fetched, FetchError> {
    get_of(&fetcher("127.0.0.0/8"), origin, &origin.url("/list?a=b"), known).await
}

async fn get_of(
    fetcher: &Fetcher,
    origin: &Origin,
    url: &str,
    known: Validators,
) -> Result<Fetched, FetchError> {
    let url = url.parse().unwrap();
    fetcher.get(&Wanted { url: &url, roots: origin.roots(), max_bytes: 1000, known }).await
}

async fn why(origin: &Origin, reply: Reply) -> (&'static str, String) {
    origin.answers(reply);
    let error = get(origin, Validators::default()).await.unwrap_err();
    (error.reason(), error.to_string())
}

#[tokio::test]
async fn a_document_with_its_validators_and_then_none() {
    let origin = Origin::start().await;
    let modified = "Last-Modified: Sat, 28 Nov 2026 07:00:00 GMT";
    origin.answers(Reply::of(200, &["ETag: \"a\"", modified], "192.0.2.0/24"));
    let Fetched::Document { bytes, validators } = get(&origin, Validators::default()).await.unwrap() else {
        unreachable!()
    };
    assert_eq!(bytes, b"192.0.2.0/24");
    assert_eq!(validators.etag.as_deref(), Some("\"a\""));
    let request = origin.requests().remove(0).to_lowercase();
    assert!(request.starts_with("get /list?a=b http/1.1\r\n"), "{request}");
    for field in [format!("host: {}", origin.address), "accept-encoding: identity".to_owned()] {
        assert!(request.contains(&field), "{request}");
    }
    assert!(!request.contains("if-"), "{request}");
    origin.answers(Reply::of(304, &[], ""));
    assert_eq!(get(&origin, validators).await.unwrap(), Fetched::Unchanged);
    let request = origin.requests().remove(0).to_lowercase();
    assert!(request.contains("if-none-match: \"a\"\r\n"), "{request}");
    assert!(request.contains("if-modified-since: sat, 28 nov 2026 07:00:00 gmt\r\n"), "{request}");
    // Nobody asked whether anything changed.
    assert_eq!(why(&origin, Reply::of(304, &[], "")).await.0, "status");
}

#[tokio::test]
async fn what_is_no_document() {
    let origin = Origin::start().await;
    assert_eq!(why(&origin, Reply::of(404, &[], "gone")).await.1, "the origin answered 404");
    assert_eq!(why(&origin, Reply::of(500, &[], "")).await, ("status", "the origin answered 500".to_owned()));
    assert_eq!(why(&origin, Reply::of(200, &[], "x".repeat(1001))).await.0, "too-large");
    // Without a length it is the reading that ends.
    let endless = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; 5000]].concat();
    assert_eq!(why(&origin, Reply::Bytes(endless)).await.0, "too-large");
    let (reason, message) = why(&origin, Reply::of(200, &["Content-Encoding: gzip"], "x")).await;
    assert_eq!(reason, "encoded", "{message}");
    let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n192.0.2.0/24\n".to_vec();
    assert_eq!(why(&origin, Reply::Bytes(cut)).await.0, "http", "half a list is no list");
    assert_eq!(why(&origin, Reply::Bytes(b"220 ftp ready\r\n".to_vec())).await.0, "http");
    let head = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(2 * HEAD)).into_bytes();
    assert_eq!(why(&origin, Reply::Bytes(head)).await.0, "http");
}

#[tokio::test]
async fn a_slow_origin_costs_a_bounded_time() {
    let origin = Origin::start().await;
    origin.answers(Reply::Trickle);
    let all = Duration::from_millis(600);
    let fetcher = Fetcher { patience: Patience { connect: all, all }, ..fetcher("127.0.0.0/8") };
    let begun = std::time::Instant::now();
    let error = get_of(&fetcher, &origin, &origin.url("/"), Validators::default()).await.unwrap_err();
    assert_eq!(error.reason(), "timeout", "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10));
    // A port that takes connections and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", silent.local_addr().unwrap());
    let all = Duration::from_secs(20);
    let patience = Patience { connect: Duration::from_millis(100), all };
    let error = get_of(&Fetcher { patience, ..fetcher }, &origin, &url, Validators::default()).await;
    assert_eq!(error.unwrap_err().reason(), "connect");
}

#[tokio::test]
async fn redirects_are_followed_as_far_as_they_are_safe() {
    let (origin, other) = (Origin::start().await, Origin::start().await);
    let moved = |to: &str| Reply::of(302, &[&format!("Location: {to}")], "");
    assert_eq!(
        why(&origin, moved("/again")).await,
        ("redirect", "more than 5 redirects one after the other".to_owned())
    );
    assert_eq!(origin.requests().len(), 6);
    let (reason, message) = why(&origin, moved("http://127.0.0.1/")).await;
    assert!(reason == "redirect" && message.contains("clear text"), "{message}");
    assert_eq!(why(&origin, Reply::of(301, &[], "")).await.0, "redirect");
    // To an origin that nobody vouches for, and to an address that may not be asked.
    assert_eq!(why(&origin, moved(&other.url("/"))).await.0, "tls");
    assert_eq!(why(&origin, moved("https://10.0.0.1/latest/meta-data")).await.0, "refused-address");
    assert_eq!(why(&origin, moved("https://[::1]/")).await.0, "refused-address");
    assert!(other.requests().is_empty());
}

#[tokio::test]
async fn the_certificate_must_be_right() {
    let (origin, other) = (Origin::start().await, Origin::start().await);
    let url = origin.url("/");
    let error = get_of(&fetcher("127.0.0.0/8"), &other, &url, Validators::default()).await.unwrap_err();
    assert_eq!(error.reason(), "tls", "{error}");
    let url = format!("https://127.0.0.2:{}/", origin.address.port());
    let error = get_of(&fetcher("127.0.0.0/8"), &origin, &url, Validators::default()).await.unwrap_err();
    // Nothing listens there, or its certificate is for 127.0.0.1 alone.
    assert!(["tls", "connect"].contains(&error.reason()), "{error}");
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn a_name_is_no_way_to_an_address_that_may_not_be_asked() {
    let origin = Origin::start().await;
    origin.answers(Reply::list("a", "192.0.2.0/24"));
    let url = format!("https://localhost:{}/", origin.address.port());
    for (also, reason) in
        [("", Some("refused-address")), ("127.0.0.0/8", None), ("10.0.0.0/8", Some("refused-address"))]
    {
        let got = get_of(&fetcher(also), &origin, &url, Validators::default()).await;
        assert_eq!(got.as_ref().err().map(FetchError::reason), reason, "{also}: {got:?}");
    }
    let error = get_of(&fetcher(""), &origin, &origin.url("/"), Validators::default()).await.unwrap_err();
    assert!(error.to_string().contains("--fetch-from"), "{error}");
    assert_eq!(origin.requests().len(), 1);
}
