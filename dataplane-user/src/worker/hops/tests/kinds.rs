//! Kinds of traffic beside plain requests: interim responses, expectations, pieces that must not wait, early answers,
//! half-closed clients.

use bytes::Bytes;
use h2::client::{self, SendRequest};
use http::Request;
use tokio::io::AsyncWriteExt;
use tokio::time::{Duration, sleep, timeout};

use super::bench::{Bench, answering, local, origin, read_all, read_head, read_some};
use crate::worker::hops::http1::LINGER;
use crate::worker::refusal::Reason;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

async fn connect(bench: &Bench) -> SendRequest<Bytes> {
    let stream = bench.connect_as(256 * 1024, true, None);
    let (send, connection) = client::handshake(stream).await.unwrap();
    tokio::task::spawn_local(async move { drop(connection.await) });
    send.ready().await.unwrap()
}

#[test]
fn interim_responses_are_bounded_in_number_and_size() {
    local(|| async {
        let hint =
            |length: usize| format!("HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n", "x".repeat(length));
        for (flood, passes) in [
            (hint(10).repeat(32), true),
            (hint(10).repeat(33), false),
            (hint(15_000).repeat(4), true),
            (hint(15_000).repeat(5), false),
        ] {
            let (address, _) = answering((flood + OK).leak()).await;
            let bench = Bench::new(&[address]);
            let answer = bench.ask("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").await;
            assert_eq!(answer.contains("HTTP/1.1 200 OK"), passes, "{}", answer.len());
            let refusal = bench.told(1).await[0].refusal;
            assert_eq!(refusal, (!passes).then_some(Reason::MalformedResponse));
        }
        // HTTP/1.0 has none.
        let (address, _) = answering((hint(10) + OK).leak()).await;
        let answer = Bench::new(&[address]).ask("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    });
}

#[test]
fn a_final_answer_instead_of_100_ends_the_connection_without_the_body() {
    local(|| async {
        let (address, seen) = answering("HTTP/1.1 417 No\r\nContent-Length: 2\r\n\r\nno").await;
        let bench = Bench::new(&[address]);
        let mut client = bench.connect();
        let head = "PUT / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-Continue\r\nContent-Length: 5\r\n\r\n";
        client.write_all(head.as_bytes()).await.unwrap();
        let answer = timeout(Duration::from_secs(2), read_all(&mut client)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 417 ") && answer.contains("Connection: close\r\n"), "{answer}");
        assert!(seen.borrow()[0].contains("Expect: 100-continue\r\n"));
        assert_eq!(bench.ctx.pool.borrow().idle(), 0, "the origin still waits for a body");
        assert_eq!(bench.told(1).await[0].refusal, None);
    });
}

#[test]
fn an_early_answer_over_http2_is_whole_and_the_rest_of_the_upload_is_not_wanted() {
    local(|| async {
        let (address, _) = answering("HTTP/1.1 401 Who\r\nContent-Length: 7\r\n\r\nnot you").await;
        let bench = Bench::new(&[address]);
        let mut send = connect(&bench).await;
        let request = Request::put("https://a.test/").header("content-length", "5").body(()).unwrap();
        let (response, mut up) = send.send_request(request, false).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 401);
        let mut body = response.into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "not you");
        assert!(body.is_end_stream());
        // RFC 9113, 8.1; when it has had the time to end.
        let reset = timeout(2 * LINGER, std::future::poll_fn(|cx| up.poll_reset(cx))).await;
        assert_eq!(reset.unwrap().unwrap(), h2::Reason::NO_ERROR);
    });
}

#[test]
fn expectations_over_http2() {
    local(|| async {
        let address = origin(|_, mut stream| async move {
            let head = read_head(&mut stream).await.unwrap();
            assert!(head.contains("Expect: 100-continue\r\n"), "{head}");
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
            assert_eq!(read_some(&mut stream, 5).await, b"hello");
            stream.write_all(OK.as_bytes()).await.unwrap();
        })
        .await;
        let bench = Bench::new(&[address]);
        let mut send = connect(&bench).await;
        let request = Request::put("https://a.test/")
            .header("expect", "100-continue")
            .header("content-length", "5")
            .body(())
            .unwrap();
        let (mut response, mut body) = send.send_request(request, false).unwrap();
        let interim = std::future::poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
        assert_eq!(interim.status(), 100);
        body.send_data(Bytes::from_static(b"hello"), true).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
    });
}

#[test]
fn options_of_the_whole_server_keeps_its_form() {
    local(|| async {
        let (address, seen) = answering(OK).await;
        let bench = Bench::new(&[address]);
        for target in ["*", "https://a.test"] {
            bench
                .ask(&format!("OPTIONS {target} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"))
                .await;
        }
        let mut send = connect(&bench).await;
        let request = Request::options("*").header("host", "a.test").body(()).unwrap();
        let response = send.send_request(request, true).unwrap().0.await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(seen.borrow().len(), 3);
        for head in &*seen.borrow() {
            assert!(head.starts_with("OPTIONS * HTTP/1.1\r\nHost: a.test\r\n"), "{head}");
        }
        bench.ask("GET * HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        assert_eq!(bench.told(4).await[3].refusal, Some(Reason::MalformedRequest));
    });
}

#[test]
fn te_says_trailers_and_nothing_else() {
    local(|| async {
        let (address, seen) = answering(OK).await;
        let bench = Bench::new(&[address]);
        for (te, forwarded) in
            [("Trailers", true), ("gzip, trailers", true), ("gzip;q=0.5", false), ("", false)]
        {
            let request =
                format!("GET / HTTP/1.1\r\nHost: a.test\r\nTE: {te}\r\nConnection: TE, close\r\n\r\n");
            bench.ask(&request).await;
            let head = seen.borrow().last().unwrap().clone();
            assert_eq!(head.contains("TE: trailers\r\nConnection: TE\r\n"), forwarded, "{te}: {head}");
            assert!(!head.contains("gzip"), "{head}");
        }
    });
}

#[test]
fn a_half_closed_client_gets_its_answer() {
    local(|| async {
        let address = origin(|_, mut stream| async move {
            read_head(&mut stream).await;
            assert_eq!(read_some(&mut stream, 3).await, b"abc");
            sleep(Duration::from_millis(100)).await;
            stream.write_all(OK.as_bytes()).await.unwrap();
        })
        .await;
        let bench = Bench::new(&[address]);
        let mut client = bench.connect();
        client.write_all(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc").await.unwrap();
        client.shutdown().await.unwrap();
        let answer = read_all(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("hi"), "{answer}");
        assert_eq!(bench.told(1).await[0].refusal, None);
    });
}

#[test]
fn events_are_handed_on_at_once() {
    local(|| async {
        // The next event leaves when the one before has arrived: one that waits for company waits for ever.
        let (arrived, arrivals) = tokio::sync::watch::channel(0);
        let address = origin(move |_, mut stream| {
            let mut arrivals = arrivals.clone();
            async move {
                read_head(&mut stream).await;
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
                stream.write_all(head.as_bytes()).await.unwrap();
                for at in 0..5 {
                    arrivals.wait_for(|arrived| *arrived == at).await.unwrap();
                    stream.write_all(format!("9\r\ndata: {at}\n\n\r\n").as_bytes()).await.unwrap();
                }
                read_all(&mut stream).await;
            }
        })
        .await;
        let bench = Bench::new(&[address]);
        let mut client = bench.connect();
        client.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
        assert!(read_head(&mut client).await.unwrap().contains("text/event-stream"));
        for at in 0..5 {
            assert_eq!(read_some(&mut client, 14).await, format!("9\r\ndata: {at}\n\n\r\n").into_bytes());
            arrived.send(at + 1).unwrap();
        }
        arrived.send(0).unwrap();
        let mut send = connect(&bench).await;
        let request = Request::get("https://a.test/").body(()).unwrap();
        let mut body = send.send_request(request, true).unwrap().0.await.unwrap().into_body();
        for at in 0..5 {
            assert_eq!(body.data().await.unwrap().unwrap(), format!("data: {at}\n\n"));
            arrived.send(at + 1).unwrap();
        }
    });
}

#[test]
fn an_answer_runs_beside_its_upload() {
    local(|| async {
        // The origin sends back each piece as it comes: neither direction is over before the other.
        let address = origin(|_, mut stream| async move {
            read_head(&mut stream).await;
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            for _ in 0..20 {
                let piece = read_some(&mut stream, 9).await;
                stream.write_all(&piece).await.unwrap();
            }
            read_some(&mut stream, 5).await;
            stream.write_all(b"0\r\n\r\n").await.unwrap();
            read_all(&mut stream).await;
        })
        .await;
        let bench = Bench::new(&[address]);
        let mut client = bench.connect();
        client
            .write_all(b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await
            .unwrap();
        let head = read_head(&mut client).await.unwrap();
        assert!(head.contains("Connection: close\r\n"), "who knows whether the upload ends: {head}");
        for at in 10..30 {
            let piece = format!("4\r\nab{at}\r\n");
            client.write_all(piece.as_bytes()).await.unwrap();
            assert_eq!(read_some(&mut client, 9).await, piece.as_bytes());
        }
        client.write_all(b"0\r\n\r\n").await.unwrap();
        assert_eq!(read_all(&mut client).await, "0\r\n\r\n");
        let told = bench.told(1).await;
        assert_eq!((told[0].received, told[0].sent, told[0].refusal), (80, 80, None));

        let bench = Bench::new(&[address]);
        let mut send = connect(&bench).await;
        let request = Request::post("https://a.test/").body(()).unwrap();
        let (response, mut up) = send.send_request(request, false).unwrap();
        let mut down = response.await.unwrap().into_body();
        for at in 10..30 {
            up.send_data(Bytes::from(format!("ab{at}")), false).unwrap();
            assert_eq!(down.data().await.unwrap().unwrap(), format!("ab{at}"));
        }
        up.send_data(Bytes::new(), true).unwrap();
        assert!(down.data().await.is_none_or(|last| last.unwrap().is_empty()));
    });
}
