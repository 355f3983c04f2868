//! Answers over HTTP/2 that come before the end of their request: complete at once, and not followed by a reset that the client
//! could take for the whole answer's, as long as its body has an end soon.

use std::future::poll_fn;

use bytes::Bytes;
use h2::SendStream;
use http::Request;
use tokio::time::{Duration, Instant, timeout};

use super::bench::{Bench, local, origin, read_all, read_head};
use super::floods::frame;
use super::http2::{body_of, connect};
use super::resets::Client;
use crate::worker::hops::Stop;
use crate::worker::hops::http1::{LINGER, LINGER_BYTES};
use crate::worker::refusal::Reason;

const NOWHERE: &str = "127.0.0.1:9";
const PIECE: usize = 16 * 1024;

fn post(uri: &str) -> Request<()> {
    Request::post(uri).body(()).unwrap()
}

/// The code of the stream's reset, if one comes within this time.
async fn reset(stream: &mut SendStream<Bytes>, within: Duration) -> Option<h2::Reason> {
    timeout(within, poll_fn(|cx| stream.poll_reset(cx))).await.ok().map(Result::unwrap)
}

/// Sends pieces until the stream is reset: how many bytes, and the code.
async fn without_end(stream: &mut SendStream<Bytes>) -> (usize, h2::Reason) {
    let mut sent = 0;
    loop {
        stream.reserve_capacity(PIECE);
        match poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(Ok(room)) if stream.send_data(Bytes::from(vec![7; room.min(PIECE)]), false).is_ok() => {
                sent += room.min(PIECE);
            }
            _ => return (sent, reset(stream, Duration::ZERO).await.unwrap()),
        }
    }
}

#[test]
fn a_refusal_is_complete_at_once_and_no_reset_follows_a_body_that_ends() {
    local(|| async {
        let bench = Bench::new(&[NOWHERE.parse().unwrap()]);
        let mut send = connect(&bench).await;
        for (at, length) in [2, 200_000].into_iter().enumerate() {
            let (response, mut body) = send.send_request(post("https://no.test/"), false).unwrap();
            let response = response.await.unwrap();
            assert_eq!(response.status(), 404);
            assert!(String::from_utf8(body_of(response).await.0).unwrap().contains("no-route"));
            // Told when it is answered, not when its body has ended.
            assert_eq!(bench.told(at + 1).await[at].refusal, Some(Reason::NoRoute));
            assert_eq!(reset(&mut body, Duration::from_millis(100)).await, None);
            body.send_data(Bytes::from(vec![7; length]), true).unwrap();
            send = send.ready().await.unwrap();
        }
    });
}

/// curl 7.88 misses the end of its own stream, if ours came first, and is woken by any frame.
#[test]
fn who_ends_a_stream_after_us_is_sent_a_ping() {
    local(|| async {
        let bench = Bench::new(&[NOWHERE.parse().unwrap()]);
        let mut client = Client::connect(&bench, 64 * 1024).await;
        // :method POST, :scheme https, :path / and :authority b.test, which no route has.
        let block = [0x83, 0x87, 0x84, 0x41, 6, b'b', b'.', b't', b'e', b's', b't'];
        for id in [1, 3, 5] {
            client.say(&frame(1, 4, id, &block)).await;
            while !matches!(client.frame().await, (0, stream, _) if stream == id) {}
            client.say(&frame(0, 1, id, b"{}")).await;
            let ping = loop {
                match client.frame().await {
                    (6, 0, ping) => break ping,
                    (3, ..) => panic!("reset"),
                    _ => {}
                }
            };
            client.say(&frame(6, 1, 0, &ping)).await;
        }
    });
}

#[test]
fn an_origins_early_answer_is_no_different() {
    local(|| async {
        let address = origin(|_, mut stream| async move {
            read_head(&mut stream).await;
            let early = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 7\r\n\r\nnot you";
            tokio::io::AsyncWriteExt::write_all(&mut stream, early).await.unwrap();
            read_all(&mut stream).await;
        })
        .await;
        let bench = Bench::new(&[address]);
        let mut send = connect(&bench).await;
        let (response, mut body) = send.send_request(post("https://a.test/"), false).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 401);
        assert_eq!(body_of(response).await.0, b"not you");
        assert_eq!(reset(&mut body, Duration::from_millis(100)).await, None);
    });
}

#[test]
fn a_body_without_end_is_cut_off_at_the_bound() {
    local(|| async {
        let bench = Bench::new(&[NOWHERE.parse().unwrap()]);
        let mut send = connect(&bench).await;
        let (response, mut body) = send.send_request(post("https://no.test/"), false).unwrap();
        assert_eq!(response.await.unwrap().status(), 404);
        let began = Instant::now();
        let (sent, code) = without_end(&mut body).await;
        assert_eq!(code, h2::Reason::NO_ERROR);
        // What was on its way when the bound was met has been sent too: a window of it at most.
        assert!((LINGER_BYTES..3 * LINGER_BYTES).contains(&sent), "{sent}");
        assert!(began.elapsed() < LINGER, "{:?}", began.elapsed());
        // All that was thrown away has been given back to the connection's window: many more such streams fit through it.
        for _ in 0..8 {
            send = send.ready().await.unwrap();
            let (response, mut body) = send.send_request(post("https://no.test/"), false).unwrap();
            assert_eq!(response.await.unwrap().status(), 404);
            assert!(without_end(&mut body).await.0 >= LINGER_BYTES);
        }
    });
}

#[test]
fn silent_bodies_hold_their_streams_for_a_bounded_time_and_a_drain_no_longer() {
    local(|| async {
        let bench = Bench::new(&[NOWHERE.parse().unwrap()]);
        let mut send = connect(&bench).await;
        let streams = bench.snapshot.listeners[0].limits.streams as usize;
        let mut held = Vec::new();
        let began = Instant::now();
        for _ in 0..streams {
            send = send.ready().await.unwrap();
            let (response, body) = send.send_request(post("https://no.test/"), false).unwrap();
            let response = response.await.unwrap();
            assert_eq!(response.status(), 404);
            body_of(response).await;
            held.push(body);
        }
        bench.told(streams).await;
        // The places of all of them are free again in time, although nothing has come.
        let next = timeout(Duration::from_secs(5), send.ready()).await.expect("places").unwrap();
        let (response, last) = { next }.send_request(post("https://no.test/"), false).unwrap();
        assert_eq!(response.await.unwrap().status(), 404);
        assert!((LINGER / 2..2 * LINGER).contains(&began.elapsed()), "{:?}", began.elapsed());
        for body in &mut held {
            assert_eq!(reset(body, Duration::from_secs(1)).await, Some(h2::Reason::NO_ERROR));
        }
        // A drain waits for what is left of that time.
        held.push(last);
        let began = Instant::now();
        bench.ctx.set_stop(Stop::Drain { deadline: began + Duration::from_secs(60) });
        let last = held.last_mut().unwrap();
        assert_eq!(reset(last, Duration::from_secs(5)).await, Some(h2::Reason::NO_ERROR));
        assert!(began.elapsed() < 2 * LINGER, "{:?}", began.elapsed());
        assert_eq!(*bench.log.floods.borrow(), []);
    });
}

#[test]
fn nobody_is_read_on_from_while_requests_are_refused() {
    local(|| async {
        let bench = Bench::new(&[NOWHERE.parse().unwrap()]);
        let mut send = connect(&bench).await;
        for _ in 0..3 {
            bench.ctx.overload.woke(Duration::from_secs(3));
        }
        let (response, mut body) = send.send_request(post("https://a.test/"), false).unwrap();
        assert_eq!(response.await.unwrap().status(), 503);
        assert_eq!(reset(&mut body, LINGER / 4).await, Some(h2::Reason::NO_ERROR));
        assert_eq!(bench.told(1).await[0].refusal, Some(Reason::Overloaded));
    });
}
