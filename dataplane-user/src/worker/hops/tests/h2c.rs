//! HTTP/2 in clear text, from peers that are trusted with it and from others.

use bytes::Bytes;
use h2::client::{self, SendRequest};
use http::{Method, Request};
use model::clear_text::{ClearText, OpenAnswer};
use model::route::NormalPath;
use model::snapshot::Snapshot;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Duration, Instant, sleep, timeout};

use super::bench::{Bench, answering, local, origin, read_all, read_head};
use crate::worker::refusal::Reason;

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Where the bench's clients are.
const OURS: &str = "192.0.2.0/24";
/// Where they are not.
const OTHERS: &str = "198.51.100.0/24";
/// SETTINGS, and GOAWAY with HTTP_1_1_REQUIRED.
const TURNED_AWAY: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 13];

fn trusting(prefixes: &[&str]) -> impl Fn(&mut Snapshot) {
    let clear = ClearText {
        answer: OpenAnswer::Redirect { port: 443 },
        health_path: Some(NormalPath::parse("/healthz").unwrap()),
        acme_origin_group: None,
        h2c_prefixes: prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect(),
    };
    move |snapshot| snapshot.listeners[0].clear_text = Some(clear.clone())
}

async fn speak(bench: &Bench) -> (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    let (send, connection) = client::handshake(bench.connect()).await.unwrap();
    (send, spawn_local(connection))
}

async fn get(send: &mut SendRequest<Bytes>, path: &str) -> Result<(u16, Bytes), h2::Error> {
    let request = Request::get(format!("http://a.test{path}")).body(()).unwrap();
    let response = send.send_request(request, true)?.0.await?;
    let status = response.status().as_u16();
    Ok((status, response.into_body().data().await.transpose()?.unwrap_or_default()))
}

#[test]
fn a_trusted_peer_gets_routes_and_the_origin_hears_of_clear_text() {
    local(|| async {
        let (address, seen) = answering(HELLO).await;
        let bench = Bench::with(&[address], trusting(&[OTHERS, OURS]));
        let (mut send, _driver) = speak(&bench).await;
        assert_eq!(get(&mut send, "/a").await.unwrap(), (200, "hello".into()));
        // The listener's own paths stay its own, and nothing is sent on to HTTPS.
        assert_eq!(get(&mut send, "/healthz").await.unwrap(), (200, "ok\n".into()));
        bench.told(2).await;
        let head = seen.borrow()[0].clone();
        assert_eq!(seen.borrow().len(), 1);
        assert!(head.starts_with("GET /a HTTP/1.1\r\nHost: a.test\r\n"), "{head}");
        for expected in
            ["X-Forwarded-Proto: http\r\n", "X-Forwarded-Port: 80\r\n", "host=\"a.test\";proto=http\r\n"]
        {
            assert!(head.contains(expected), "{head}");
        }
        let elsewhere = Request::get("http://b.test/").body(()).unwrap();
        let status = send.send_request(elsewhere, true).unwrap().0.await.unwrap().status();
        assert_eq!(status, 404, "a host without a route");
        // The same peer by HTTP/1.1.
        let answer = bench.ask("GET /a HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
        assert_eq!(bench.told(4).await[2].refusal, Some(Reason::NoRoute));
    });
}

#[test]
fn whoever_is_not_trusted_is_told_to_speak_http11() {
    local(|| async {
        let (address, seen) = answering(HELLO).await;
        let bench = Bench::with(&[address], trusting(&[OTHERS, "2001:db8::/32"]));
        let mut raw = bench.connect();
        // A request has come along with the preface.
        raw.write_all(PREFACE).await.unwrap();
        raw.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 1, 5, 0, 0, 0, 1, 0x82]).await.unwrap();
        let mut told = Vec::new();
        timeout(Duration::from_millis(500), raw.read_to_end(&mut told)).await.unwrap().unwrap();
        assert_eq!(told, TURNED_AWAY);
        drop(raw);
        let (mut send, driver) = speak(&bench).await;
        assert!(get(&mut send, "/a").await.is_err());
        let ended = driver.await.unwrap().unwrap_err();
        assert_eq!(ended.reason(), Some(h2::Reason::HTTP_1_1_REQUIRED), "{ended}");
        assert_eq!(*bench.log.refused.borrow(), [Reason::H2cRefused; 2]);
        let answer = bench.ask("GET /a HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
        bench.told(1).await;
        assert!(seen.borrow().is_empty(), "{:?}", seen.borrow());
    });
}

#[test]
fn only_the_first_bytes_of_a_connection_are_a_preface_and_only_where_h2c_is_spoken() {
    local(|| async {
        let (address, _) = answering(HELLO).await;
        let mut bench = Bench::with(&[address], trusting(&[]));
        let preface = std::str::from_utf8(PREFACE).unwrap();
        assert!(bench.ask(preface).await.starts_with("HTTP/1.1 505 "));
        bench.apply(trusting(&[OURS]));
        for request in [
            format!("\r\n{preface}"),
            preface.replacen("2.0", "2.1", 1),
            preface.replacen("2.0\r\n", "2.0\r\nHost: a.test\r\n", 1),
            format!("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n{preface}"),
            format!("GET / HTTP/1.2\r\nHost: a.test\r\n\r\n{preface}"),
        ] {
            let answer = bench.ask(&request).await;
            let last = answer.rsplit("HTTP/1.1 ").next().unwrap();
            assert!(last.starts_with("505 ") || last.starts_with("400 "), "{request}: {answer}");
        }
        assert!(bench.log.refused.borrow().is_empty());
        let statuses: Vec<u16> = bench.told(7).await.iter().map(|told| told.status).collect();
        assert_eq!(statuses, [505, 505, 505, 505, 308, 505, 505]);
    });
}

#[test]
fn the_preface_may_come_byte_by_byte_but_within_header_ms() {
    local(|| async {
        let (address, _) = answering(HELLO).await;
        let bench = Bench::with(&[address], |snapshot| {
            trusting(&[OURS])(snapshot);
            snapshot.listeners[0].limits.header_ms = 300;
        });
        let mut slow = bench.connect();
        for byte in PREFACE {
            slow.write_all(&[*byte]).await.unwrap();
            sleep(Duration::from_millis(2)).await;
        }
        slow.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        let mut first = [0; 9];
        slow.read_exact(&mut first).await.unwrap();
        assert_eq!(first[3], 4, "SETTINGS first: {first:?}");
        drop(slow);
        // One limit for all of it, whoever waits.
        let begun = Instant::now();
        let mut stuck = bench.connect();
        stuck.write_all(&PREFACE[..1]).await.unwrap();
        sleep(Duration::from_millis(150)).await;
        stuck.write_all(&PREFACE[1..20]).await.unwrap();
        stuck.read_to_end(&mut Vec::new()).await.unwrap();
        assert!(begun.elapsed() < Duration::from_millis(440), "{:?}", begun.elapsed());
        assert_eq!(*bench.log.refused.borrow(), [Reason::HeaderTimeout]);
        let answer = bench.ask("PRI * HT").await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    });
}

#[test]
fn a_peer_that_is_no_longer_trusted_is_told_to_go_away() {
    local(|| async {
        let address = origin(|_, mut stream| async move {
            read_head(&mut stream).await;
            sleep(Duration::from_millis(100)).await;
            stream.write_all(HELLO.as_bytes()).await.unwrap();
            read_all(&mut stream).await;
        })
        .await;
        let mut bench = Bench::with(&[address], trusting(&[OURS]));
        let (mut send, driver) = speak(&bench).await;
        let mut second = send.clone();
        let under_way = spawn_local(async move { get(&mut second, "/begun").await });
        sleep(Duration::from_millis(30)).await;
        // A change that leaves the peer trusted.
        bench.apply(|snapshot| {
            trusting(&[OURS, OTHERS])(snapshot);
            snapshot.listeners[0].limits.header_bytes += 1;
        });
        sleep(Duration::from_millis(10)).await;
        assert!(!driver.is_finished());
        bench.apply(trusting(&[OTHERS]));
        // A request that crosses the GOAWAY finds no route.
        match get(&mut send, "/late").await {
            Ok((status, body)) => {
                assert!(status == 403 && body.windows(11).any(|word| word == b"h2c-refused"), "{body:?}");
            }
            Err(error) => assert!(error.is_remote() || error.is_go_away(), "{error}"),
        }
        assert_eq!(under_way.await.unwrap().unwrap(), (200, "hello".into()), "what had begun ends well");
        drop(send);
        timeout(Duration::from_secs(3), driver).await.unwrap().unwrap().unwrap();
        let (mut again, driver) = speak(&bench).await;
        assert!(get(&mut again, "/a").await.is_err());
        assert_eq!(driver.await.unwrap().unwrap_err().reason(), Some(h2::Reason::HTTP_1_1_REQUIRED));
        assert_eq!(bench.log.refused.borrow().last(), Some(&Reason::H2cRefused));
    });
}

#[test]
fn floods_end_it_as_behind_tls() {
    local(|| async {
        let (address, _) = answering(HELLO).await;
        let bench = Bench::with(&[address], trusting(&[OURS]));
        let mut stream = bench.connect();
        let mut bytes = PREFACE.to_vec();
        bytes.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
        (0..4000).for_each(|_| bytes.extend_from_slice(&[0, 0, 8, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
        let _ = stream.write_all(&bytes).await;
        read_all(&mut stream).await;
        assert_eq!(*bench.log.refused.borrow(), [Reason::Http2Abuse]);
    });
}

#[test]
fn a_tunnel_by_extended_connect_is_judged_as_a_route_is() {
    local(|| async {
        let (address, _) = answering(HELLO).await;
        let bench = Bench::with(&[address], |snapshot| {
            trusting(&[OURS])(snapshot);
            snapshot.routes[0].upgrades = Vec::new();
        });
        let (mut send, _driver) = speak(&bench).await;
        get(&mut send, "/").await.unwrap();
        let mut ask = Request::builder().method(Method::CONNECT).uri("http://a.test/chat");
        ask = ask.extension(h2::ext::Protocol::from("websocket"));
        ask = ask.header("sec-websocket-version", "13");
        let answer = send.send_request(ask.body(()).unwrap(), false).unwrap().0.await.unwrap();
        assert_eq!(answer.status(), 403);
        assert_eq!(bench.told(2).await[1].refusal, Some(Reason::UpgradeRefused));
    });
}
