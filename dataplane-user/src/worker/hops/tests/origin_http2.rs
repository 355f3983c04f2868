//! HTTP/2 towards origins, which are `h2` servers in this process.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{RecvStream, client};
use http::{HeaderMap, Request, Response};
use model::snapshot::Protocols;
use tokio::io::AsyncWriteExt;
use tokio::time::{Duration, sleep};

use super::bench::{Bench, answering, local, origin, read_all, read_head};
use crate::worker::refusal::Reason;

const LAST: &str = "GET /x?q=\"1\" HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nX-Other: 3\r\n\r\n";

/// What an `h2` origin saw.
#[derive(Default)]
struct Seen {
    connections: Cell<usize>,
    streams: Cell<usize>,
    requests: RefCell<Vec<http::request::Parts>>,
}

/// An origin that takes `most` streams a connection and runs `script` on each stream, with its number.
async fn h2_origin<F: Future<Output = ()> + 'static>(
    most: u32,
    script: impl Fn(usize, Request<RecvStream>, SendResponse<Bytes>) -> F + Clone + 'static,
) -> (SocketAddr, Rc<Seen>) {
    let seen = Rc::new(Seen::default());
    let kept = Rc::clone(&seen);
    let address = origin(move |_, stream| {
        let (seen, script) = (Rc::clone(&kept), script.clone());
        async move {
            seen.connections.set(seen.connections.get() + 1);
            let mut builder = server::Builder::new();
            let Ok(mut connection) = builder.max_concurrent_streams(most).handshake::<_, Bytes>(stream).await
            else {
                return;
            };
            while let Some(Ok((request, respond))) = connection.accept().await {
                let (parts, body) = request.into_parts();
                seen.requests.borrow_mut().push(parts.clone());
                let number = seen.streams.replace(seen.streams.get() + 1);
                tokio::task::spawn_local(script(number, Request::from_parts(parts, body), respond));
            }
        }
    })
    .await;
    (address, seen)
}

fn http2(address: SocketAddr) -> Bench {
    Bench::with(&[address], |snapshot| snapshot.origin_groups[0].protocols = Protocols::Http2)
}

async fn say(mut respond: SendResponse<Bytes>, body: &'static str) {
    let mut send = respond.send_response(Response::new(()), false).unwrap();
    send.send_data(Bytes::from_static(body.as_bytes()), true).unwrap();
}

#[test]
fn requests_of_http11_clients_share_a_connection() {
    local(|| async {
        let (address, seen) = h2_origin(100, |_, _, respond| async move {
            sleep(Duration::from_millis(20)).await;
            say(respond, "hi").await;
        })
        .await;
        let bench = http2(address);
        let (one, other) = tokio::join!(bench.ask(LAST), bench.ask(LAST));
        for answer in [&one, &other, &bench.ask(LAST).await] {
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("hi"), "{answer}");
        }
        assert_eq!((seen.connections.get(), seen.streams.get()), (1, 3));
        let requests = seen.requests.take();
        assert_eq!(requests[0].uri, "http://a.test/x?q=%221%22");
        let value = |name: &str| requests[0].headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!((value("x-other"), value("via")), (Some("3"), Some("1.1 sallyport")));
        assert_eq!(value("x-forwarded-for"), Some("192.0.2.9"));
        assert!(value("host").is_none() && value("connection").is_none());
        let told = bench.told(3).await;
        assert_eq!(told.iter().filter(|told| told.reused).count(), 2);
        assert_eq!(bench.ctx.pool.borrow().idle(), 1);
    });
}

#[test]
fn limits_of_either_side_make_more_connections() {
    for (ours, theirs) in [(1, 100), (100, 1)] {
        local(|| async {
            let (address, seen) = h2_origin(theirs, |_, _, respond| async move {
                sleep(Duration::from_millis(50)).await;
                say(respond, "hi").await;
            })
            .await;
            let bench = Bench::with(&[address], |snapshot| {
                snapshot.origin_groups[0].protocols = Protocols::Http2;
                snapshot.origin_groups[0].http2.streams = ours;
            });
            let answers = tokio::join!(bench.ask(LAST), bench.ask(LAST), bench.ask(LAST));
            assert!([answers.0, answers.1, answers.2].iter().all(|answer| answer.contains(" 200 OK")));
            assert_eq!(seen.connections.get(), 3, "ours {ours}, theirs {theirs}");
        });
    }
}

#[test]
fn grpc_goes_over_http2_with_trailers_and_hints_both_ways() {
    local(|| async {
        let (address, seen) = h2_origin(100, |_, request, mut respond| async move {
            let mut body = request.into_body();
            let mut read = 0;
            while let Some(Ok(data)) = body.data().await {
                body.flow_control().release_capacity(data.len()).unwrap();
                read += data.len();
            }
            assert_eq!(read, 5);
            assert_eq!(body.trailers().await.unwrap().unwrap()["t"], "1");
            let hints = Response::builder().status(103).header("link", "</a>").body(()).unwrap();
            respond.send_informational(hints).unwrap();
            let mut send = respond.send_response(Response::new(()), false).unwrap();
            send.send_data(Bytes::from_static(b"abc"), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            send.send_trailers(trailers).unwrap();
        })
        .await;
        // The default: HTTP/1.1, but for gRPC.
        let bench = Bench::new(&[address]);
        let (send, connection) = client::handshake(bench.connect_as(65536, true, None)).await.unwrap();
        tokio::task::spawn_local(async move { drop(connection.await) });
        let request = Request::post("https://a.test/pkg.Service/Call")
            .header("content-type", "application/grpc+proto")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let (mut response, mut body) = send.ready().await.unwrap().send_request(request, false).unwrap();
        body.send_data(Bytes::from_static(b"hello"), false).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("t", "1".parse().unwrap());
        body.send_trailers(trailers).unwrap();
        let hints = std::future::poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
        assert_eq!((hints.status().as_u16(), hints.headers()["link"].as_bytes()), (103, &b"</a>"[..]));
        let mut body = response.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "abc");
        assert!(body.data().await.is_none());
        assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
        let requests = seen.requests.take();
        let value = |name: &str| requests[0].headers[name].to_str().unwrap().to_owned();
        assert_eq!([value("te"), value("via")], ["trailers", "2.0 sallyport"]);
        let told = bench.told(1).await;
        assert_eq!((told[0].received, told[0].sent, told[0].refusal), (5, 3, None));
    });
}

#[test]
fn what_the_origin_did_not_look_at_is_sent_again_and_nothing_else() {
    local(|| async {
        let (address, seen) = h2_origin(100, |number, _, mut respond| async move {
            match number {
                0 | 2 => respond.send_reset(h2::Reason::REFUSED_STREAM),
                1 => say(respond, "hi").await,
                _ => respond.send_reset(h2::Reason::INTERNAL_ERROR),
            }
        })
        .await;
        let bench = http2(address);
        assert!(bench.ask(LAST).await.contains(" 200 OK"));
        // Its body was read, so it is not here any more.
        let post = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\nConnection: close\r\n\r\nab";
        assert!(bench.ask(post).await.contains("origin-gone"));
        assert!(
            bench.ask(LAST).await.contains("origin-gone"),
            "INTERNAL_ERROR says nothing of what was done"
        );
        assert_eq!(seen.streams.get(), 4);
    });
}

#[test]
fn an_origin_that_always_refuses_is_not_asked_for_ever() {
    local(|| async {
        let refuse = |_, _, mut respond: SendResponse<Bytes>| async move {
            respond.send_reset(h2::Reason::REFUSED_STREAM);
        };
        let (address, seen) = h2_origin(100, refuse).await;
        assert!(http2(address).ask(LAST).await.contains("origin-gone"));
        assert_eq!(seen.streams.get(), 3);
    });
}

#[test]
fn a_connection_that_is_told_to_go_away_is_replaced() {
    local(|| async {
        let connections = Rc::new(Cell::new(0));
        let counted = Rc::clone(&connections);
        let address = origin(move |_, stream| {
            counted.set(counted.get() + 1);
            async move {
                let mut connection = server::handshake(stream).await.unwrap();
                let (_, respond) = connection.accept().await.unwrap().unwrap();
                say(respond, "hi").await;
                connection.graceful_shutdown();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    respond.send_reset(h2::Reason::INTERNAL_ERROR);
                }
            }
        })
        .await;
        let bench = http2(address);
        for _ in 0..5 {
            assert!(bench.ask(LAST).await.contains(" 200 OK"));
            sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(connections.get(), 5);
    });
}

#[test]
fn a_client_that_does_not_read_bounds_its_stream_and_holds_up_nobody() {
    local(|| async {
        let sent = Rc::new(Cell::new(0));
        let counted = Rc::clone(&sent);
        let (address, seen) = h2_origin(100, move |_, _, mut respond| {
            let sent = Rc::clone(&counted);
            async move {
                let mut send = respond.send_response(Response::new(()), false).unwrap();
                let piece = Bytes::from(vec![7; 16 * 1024]);
                for at in 0..256 {
                    send.reserve_capacity(piece.len());
                    while send.capacity() < piece.len() {
                        match std::future::poll_fn(|cx| send.poll_capacity(cx)).await {
                            Some(Ok(_)) => {}
                            Some(Err(_)) | None => return,
                        }
                    }
                    send.send_data(piece.clone(), at == 255).unwrap();
                    sent.set(sent.get() + piece.len());
                }
            }
        })
        .await;
        let bench = http2(address);
        let mut stalled = Vec::new();
        for _ in 0..20 {
            let mut client = bench.connect_as(4096, false, None);
            client.write_all(LAST.as_bytes()).await.unwrap();
            stalled.push(client);
        }
        sleep(Duration::from_millis(200)).await;
        let held = sent.get() / 20;
        assert!(held < 700 * 1024, "{held} bytes are held for each client that does not read");
        assert_eq!(bench.ask(LAST).await.matches('\u{7}').count(), 4 * 1024 * 1024);
        assert_eq!(seen.connections.get(), 1);
        assert_eq!(read_all(&mut stalled.remove(0)).await.matches('\u{7}').count(), 4 * 1024 * 1024);
    });
}

#[test]
fn a_reset_amid_a_body_cuts_the_answer() {
    local(|| async {
        let (address, _) = h2_origin(100, |_, _, mut respond| async move {
            let mut send = respond.send_response(Response::new(()), false).unwrap();
            send.send_data(Bytes::from_static(b"half"), false).unwrap();
            sleep(Duration::from_millis(20)).await;
            send.send_reset(h2::Reason::INTERNAL_ERROR);
        })
        .await;
        let bench = http2(address);
        let answer = bench.ask(LAST).await;
        assert!(answer.ends_with("4\r\nhalf\r\n"), "{answer}");
        assert_eq!(bench.told(1).await[0].refusal, Some(Reason::OriginGone));
    });
}

#[test]
fn an_origin_that_does_not_answer_pings_is_given_up() {
    local(|| async {
        let address = origin(|_, stream| async move {
            let mut connection = server::handshake(stream).await.unwrap();
            let _held = connection.accept().await.unwrap().unwrap();
            // The connection is not driven any more.
            sleep(Duration::from_secs(60)).await;
        })
        .await;
        let bench = Bench::with(&[address], |snapshot| {
            snapshot.origin_groups[0].protocols = Protocols::Http2;
            snapshot.origin_groups[0].http2.ping_ms = 50;
        });
        let post = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\nConnection: close\r\n\r\nab";
        let asked = std::time::Instant::now();
        assert!(bench.ask(post).await.contains("origin-gone"));
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    });
}

#[test]
fn an_origin_of_http11_says_so() {
    local(|| async {
        let (address, _) = answering("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
        let bench = http2(address);
        let mut client = bench.connect();
        client.write_all(LAST.as_bytes()).await.unwrap();
        let head = read_head(&mut client).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
        assert!(bench.log.failures.borrow()[0].contains("does not speak HTTP/2"));
    });
}
