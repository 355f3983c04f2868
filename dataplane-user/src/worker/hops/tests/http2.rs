use bytes::Bytes;
use h2::client::{self, SendRequest};
use http::{HeaderMap, HeaderName, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Duration, sleep};

use super::bench::{Bench, answering, local, origin, read_all, read_head, read_some};
use crate::worker::hops::Stop;
use crate::worker::refusal::Reason;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\nhi";

pub(super) async fn connect(bench: &Bench) -> SendRequest<Bytes> {
    let stream = bench.connect_as(256 * 1024, true, None);
    let (send, connection) = client::handshake(stream).await.unwrap();
    tokio::task::spawn_local(async move { drop(connection.await) });
    send.ready().await.unwrap()
}

fn get(uri: &str) -> Request<()> {
    Request::get(uri).body(()).unwrap()
}

pub(super) async fn body_of(response: Response<h2::RecvStream>) -> (Vec<u8>, Option<HeaderMap>) {
    let (mut body, mut all) = (response.into_body(), Vec::new());
    while let Some(piece) = body.data().await {
        let piece = piece.unwrap();
        all.extend_from_slice(&piece);
        body.flow_control().release_capacity(piece.len()).unwrap();
    }
    (all, body.trailers().await.unwrap())
}

#[test]
fn a_request_goes_through_as_http11_and_cookies_are_joined() {
    local(|| async {
        let (address, seen) = answering(OK).await;
        let bench = Bench::new(&[address]);
        let mut send = connect(&bench).await;
        let request = Request::get("https://A.test/x/./y?q=1")
            .header("cookie", "a=1")
            .header("x-other", "3")
            .header("cookie", "b=2")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let response = send.send_request(request, true).unwrap().0.await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-length"], "2");
        assert_eq!(response.headers()["via"], "1.1 sallyport");
        assert!(response.headers().contains_key("date") && !response.headers().contains_key("x-hop"));
        assert_eq!(body_of(response).await.0, b"hi");
        let request = seen.borrow()[0].clone();
        assert!(request.starts_with("GET /x/y?q=1 HTTP/1.1\r\nHost: a.test\r\n"), "{request}");
        for field in ["cookie: a=1; b=2\r\n", "x-other: 3\r\n", "Via: 2.0 sallyport\r\n", "TE: trailers\r\n"]
        {
            assert!(request.contains(field), "{request}");
        }
        assert!(!request.contains("Content-Length") && !request.contains("Transfer-Encoding"), "{request}");
        let told = bench.told(1).await;
        assert_eq!((told[0].status, told[0].sent, told[0].refusal), (200, 2, None));
    });
}

#[test]
fn bodies_both_ways_with_trailers() {
    local(|| async {
        let address = origin(|_, mut stream| async move {
            let head = read_head(&mut stream).await.unwrap();
            assert!(head.contains("Transfer-Encoding: chunked\r\n"), "{head}");
            let expected = "5\r\nhello\r\n0\r\nt: 1\r\n\r\n";
            assert_eq!(read_some(&mut stream, expected.len()).await, expected.as_bytes());
            stream
                .write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nU: 2\r\n\r\n")
                .await
                .unwrap();
            read_all(&mut stream).await;
        })
        .await;
        let bench = Bench::new(&[address]);
        let mut send = connect(&bench).await;
        let request = Request::post("https://a.test/").header("content-length", "5").header("trailer", "t");
        let (mut response, mut body) = send.send_request(request.body(()).unwrap(), false).unwrap();
        body.send_data(Bytes::from_static(b"hello"), false).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("t", "1".parse().unwrap());
        body.send_trailers(trailers).unwrap();
        let hints = std::future::poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
        assert_eq!((hints.status().as_u16(), hints.headers()["link"].as_bytes()), (103, &b"</a>"[..]));
        let (body, trailers) = body_of(response.await.unwrap()).await;
        assert_eq!((body.as_slice(), trailers.unwrap()["u"].as_bytes()), (&b"abc"[..], &b"2"[..]));
        let told = bench.told(1).await;
        assert_eq!((told[0].received, told[0].sent), (5, 3));
    });
}

#[test]
fn an_answer_that_pauses_leaves_the_clients_window_to_others() {
    local(|| async {
        let address = origin(|_, mut stream| async move {
            let head = read_head(&mut stream).await.unwrap();
            let size = if head.starts_with("GET /events") { 1_000_000 } else { 200_000 };
            let sent = if size == 1_000_000 { 3 } else { size };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&vec![b'x'; sent]).await.unwrap();
            read_all(&mut stream).await;
        })
        .await;
        let bench = Bench::new(&[address]);
        // A client with the windows of RFC 9113: 65,535 bytes for all streams together.
        let mut send = connect(&bench).await;
        let events = send.send_request(get("https://a.test/events"), true).unwrap().0.await.unwrap();
        let mut events = events.into_body();
        let piece = events.data().await.unwrap().unwrap();
        events.flow_control().release_capacity(piece.len()).unwrap();
        sleep(Duration::from_millis(20)).await;
        let response = send.send_request(get("https://a.test/"), true).unwrap().0.await.unwrap();
        let read = tokio::time::timeout(Duration::from_secs(3), body_of(response)).await;
        assert_eq!(read.expect("its window is held by the silent one").0.len(), 200_000);
    });
}

#[test]
fn connections_end_in_an_orderly_way_by_count_and_when_idle() {
    local(|| async {
        let (address, seen) = answering(OK).await;
        let bench = Bench::with(&[address], |snapshot| {
            snapshot.listeners[0].limits.requests_per_connection = 2;
            snapshot.listeners[0].limits.idle_ms = 100;
        });
        let mut send = connect(&bench).await;
        for _ in 0..2 {
            let request = Request::post("https://a.test/").body(()).unwrap();
            let response = send.send_request(request, true).unwrap().0.await.unwrap();
            assert_eq!(body_of(response).await.0, b"hi");
        }
        assert!(seen.borrow()[0].contains("Content-Length: 0\r\n"));
        sleep(Duration::from_millis(20)).await;
        assert!(send.send_request(get("https://a.test/"), true).is_err() || send.ready().await.is_err());

        let stream = bench.connect_as(65536, true, None);
        let (_send, connection) = client::handshake(stream).await.unwrap();
        tokio::time::timeout(Duration::from_secs(5), connection).await.expect("closed when idle").unwrap();
    });
}

#[test]
fn refusals_are_answers_on_their_stream() {
    local(|| async {
        let (address, _) = answering(OK).await;
        let bench = Bench::with(&[address], |snapshot| {
            snapshot.listeners[0].limits.body_bytes = 10;
            snapshot.listeners[0].limits.header_count = 5;
            snapshot.listeners[0].limits.target_bytes = 30;
        });
        let mut send = connect(&bench).await;
        let long = format!("https://a.test/{}", "x".repeat(40));
        let mut many = get("https://a.test/");
        for at in 0..6 {
            many.headers_mut().append("x", at.into());
        }
        let connect_method = Request::connect("a.test:443").body(()).unwrap();
        let other_host = Request::get("https://a.test/").header("host", "b.test").body(()).unwrap();
        let mut quoted = get("https://a.test/");
        quoted.headers_mut().append(HeaderName::from_lowercase(b"a\"b").unwrap(), 1.into());
        let large = Request::post("https://a.test/").header("content-length", "11").body(()).unwrap();
        for (request, reason) in [
            (get("https://b.test/"), Reason::NoRoute),
            (get("https://a.test/%00"), Reason::BadPath),
            (get(&long), Reason::TargetTooLong),
            (many, Reason::HeaderTooLarge),
            (connect_method, Reason::ConnectRefused),
            (other_host, Reason::BadHost),
            (quoted, Reason::MalformedRequest),
            (large, Reason::BodyTooLarge),
        ] {
            let ended = request.method() != "POST";
            let response = send.send_request(request, ended).unwrap().0.await.unwrap();
            assert_eq!(response.status().as_u16(), reason.status());
            let (body, _) = body_of(response).await;
            assert!(String::from_utf8(body).unwrap().contains(reason.name()), "{reason:?}");
        }
        let response = send.send_request(get("https://a.test/"), true).unwrap().0.await.unwrap();
        assert_eq!(response.status(), 200, "the connection goes on");
        assert_eq!(bench.told(9).await[8].refusal, None);
    });
}

#[test]
fn many_streams_and_large_bodies_share_a_connection() {
    local(|| async {
        const SIZE: usize = 3 * 1024 * 1024;
        let address = origin(|_, mut stream| async move {
            while read_head(&mut stream).await.is_some() {
                let mut body = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n").into_bytes();
                body.resize(body.len() + SIZE, 7);
                stream.write_all(&body).await.unwrap();
            }
        })
        .await;
        let bench = Bench::new(&[address]);
        let mut send = connect(&bench).await;
        let responses: Vec<_> =
            (0..12).map(|_| send.send_request(get("https://a.test/"), true).unwrap().0).collect();
        for body in futures_util::future::join_all(
            responses.into_iter().map(async |r| body_of(r.await.unwrap()).await.0),
        )
        .await
        {
            assert_eq!(body.len(), SIZE);
        }
        bench.told(12).await;
    });
}

#[test]
fn a_client_that_does_not_read_holds_back_its_origin() {
    local(|| async {
        let written = std::rc::Rc::new(std::cell::Cell::new(0_usize));
        let count = std::rc::Rc::clone(&written);
        let address = origin(move |_, mut stream| {
            let count = std::rc::Rc::clone(&count);
            async move {
                read_head(&mut stream).await;
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await.unwrap();
                while stream.write_all(&[7; 65536]).await.is_ok() {
                    count.set(count.get() + 65536);
                }
            }
        })
        .await;
        let bench = Bench::new(&[address]);
        let mut send = connect(&bench).await;
        let response = send.send_request(get("https://a.test/"), true).unwrap().0.await.unwrap();
        sleep(Duration::from_millis(200)).await;
        assert!(written.get() < 16 * 1024 * 1024, "{}", written.get());
        drop(response);
        assert_eq!(bench.told(1).await[0].refusal, Some(Reason::ClientGone), "a reset ends the exchange");
    });
}

#[test]
fn an_origin_that_does_not_read_holds_back_its_client() {
    local(|| async {
        let address = origin(|_, mut stream| async move {
            read_head(&mut stream).await;
            sleep(Duration::from_millis(500)).await;
            let mut piece = vec![0; 1 << 20];
            let mut left = 40 * 1024 * 1024;
            while left > 0 {
                left -= stream.read(&mut piece).await.unwrap();
            }
            stream.write_all(OK.as_bytes()).await.unwrap();
            read_all(&mut stream).await;
        })
        .await;
        let bench = Bench::new(&[address]);
        let mut send = connect(&bench).await;
        let request = Request::post("https://a.test/").header("content-length", "41943040").body(()).unwrap();
        let (response, mut body) = send.send_request(request, false).unwrap();
        let (mut left, mut held) = (40 * 1024 * 1024_usize, None);
        while left > 0 {
            body.reserve_capacity(left.min(65536));
            let room = tokio::time::timeout(
                Duration::from_millis(250),
                std::future::poll_fn(|cx| body.poll_capacity(cx)),
            );
            let Ok(room) = room.await else {
                held.get_or_insert(40 * 1024 * 1024 - left);
                continue;
            };
            let room = room.unwrap().unwrap().min(left);
            left -= room;
            body.send_data(Bytes::from(vec![7; room]), left == 0).unwrap();
        }
        assert!(held.is_some_and(|held| held < 20 * 1024 * 1024), "{held:?}");
        assert_eq!(response.await.unwrap().status(), 200);
        assert_eq!(bench.told(1).await[0].received, 40 * 1024 * 1024);
    });
}

#[test]
fn an_answer_that_breaks_off_resets_its_stream_only() {
    local(|| async {
        let address = origin(|at, mut stream| async move {
            read_head(&mut stream).await;
            stream
                .write_all(if at == 0 {
                    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc"
                } else {
                    OK.as_bytes()
                })
                .await
                .unwrap();
        })
        .await;
        let bench = Bench::new(&[address]);
        let mut send = connect(&bench).await;
        // The reset may overtake what was queued before it, the head included.
        if let Ok(response) = send.send_request(get("https://a.test/"), true).unwrap().0.await {
            let mut body = response.into_body();
            assert!(loop {
                match body.data().await {
                    Some(Ok(_)) => {}
                    Some(Err(_)) => break true,
                    None => break false,
                }
            });
        }
        assert_eq!(bench.told(1).await[0].refusal, Some(Reason::OriginGone));
        let response = send.send_request(get("https://a.test/"), true).unwrap().0.await.unwrap();
        assert_eq!(body_of(response).await.0, b"hi");
    });
}

#[test]
fn a_drain_sends_goaway_and_finishes_streams() {
    local(|| async {
        let address = origin(|_, mut stream| async move {
            read_head(&mut stream).await;
            sleep(Duration::from_millis(100)).await;
            stream.write_all(OK.as_bytes()).await.unwrap();
        })
        .await;
        let bench = Bench::new(&[address]);
        let mut send = connect(&bench).await;
        let response = send.send_request(get("https://a.test/"), true).unwrap().0;
        sleep(Duration::from_millis(30)).await;
        bench.ctx.set_stop(Stop::Drain { deadline: tokio::time::Instant::now() + Duration::from_secs(5) });
        sleep(Duration::from_millis(30)).await;
        assert!(send.send_request(get("https://a.test/"), true).is_err() || send.ready().await.is_err());
        assert_eq!(body_of(response.await.unwrap()).await.0, b"hi");
        bench.told(1).await;
    });
}

#[test]
fn rapid_resets_end_the_connection() {
    local(|| async {
        let address = origin(|_, mut stream| async move {
            read_all(&mut stream).await;
        })
        .await;
        let bench = Bench::new(&[address]);
        let mut stream = bench.connect_as(256 * 1024, true, None);
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
        // :method GET, :scheme https, :path / and :authority a.test, then RST_STREAM.
        let head = [0x82, 0x87, 0x84, 0x41, 6, b'a', b'.', b't', b'e', b's', b't'];
        for id in (1..4000_u32).step_by(2) {
            bytes.extend_from_slice(&[0, 0, head.len() as u8, 1, 5]);
            bytes.extend_from_slice(&id.to_be_bytes());
            bytes.extend_from_slice(&head);
            bytes.extend_from_slice(&[0, 0, 4, 3, 0]);
            bytes.extend_from_slice(&id.to_be_bytes());
            bytes.extend_from_slice(&[0, 0, 0, 8]);
        }
        let _ = stream.write_all(&bytes).await;
        read_all(&mut stream).await;
        assert_eq!(*bench.log.refused.borrow(), [Reason::Http2Abuse]);
    });
}

#[test]
fn a_wrong_preface_is_answered_before_the_connection_ends() {
    local(|| async {
        let bench = Bench::new(&["127.0.0.1:9".parse().unwrap()]);
        let mut stream = bench.connect_as(64 * 1024, true, None);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
        let answer = {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            all
        };
        assert!(answer.windows(5).any(|window| window == [0, 0, 8, 7, 0]), "GOAWAY in {answer:?}");
        assert_eq!(*bench.log.refused.borrow(), [Reason::MalformedRequest]);
    });
}

#[test]
fn a_refused_grpc_call_ends_with_its_head() {
    local(|| async {
        let bench = Bench::new(&["127.0.0.1:9".parse().unwrap()]);
        let mut send = connect(&bench).await;
        let call = Request::post("https://no.test/a.B/C")
            .header("content-type", "application/grpc")
            .body(())
            .unwrap();
        let response = send.send_request(call, true).unwrap().0.await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "12");
        assert_eq!(response.headers()["content-type"], "application/grpc");
        assert!(response.headers()["grpc-message"].to_str().unwrap().starts_with("no-route (request "));
        assert!(!response.headers().contains_key("content-length") && response.body().is_end_stream());
        let told = bench.told(1).await;
        assert_eq!((told[0].status, told[0].refusal), (200, Some(Reason::NoRoute)));
    });
}
