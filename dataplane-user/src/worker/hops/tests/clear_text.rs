//! Requests in clear text.

use model::clear_text::{ClearText, OpenAnswer};
use model::route::NormalPath;
use model::snapshot::ProxyVersion;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Duration, timeout};

use super::bench::{Bench, answering, local, read_all, read_head};
use crate::worker::hops::Stop;
use crate::worker::refusal::Reason;

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nproof";

fn open(answer: OpenAnswer) -> ClearText {
    let health_path = Some(NormalPath::parse("/healthz").unwrap());
    ClearText { answer, health_path, acme_origin_group: None, h2c_prefixes: Vec::new() }
}

/// A listener that redirects to port 443, and tells of its health.
fn redirecting() -> Bench {
    with(open(OpenAnswer::Redirect { port: 443 }))
}

fn with(clear: ClearText) -> Bench {
    Bench::with(&["127.0.0.1:1".parse().unwrap()], |snapshot| snapshot.listeners[0].clear_text = Some(clear))
}

/// A request after which the connection is to end.
fn last(line: &str) -> String {
    format!("{line}\r\nHost: a.test\r\nConnection: close\r\n\r\n")
}

fn location(answer: &str) -> &str {
    answer.split("Location: ").nth(1).and_then(|rest| rest.split("\r\n").next()).unwrap_or(answer)
}

#[test]
fn redirects_keep_path_and_query_byte_for_byte() {
    local(|| async {
        let bench = redirecting();
        for (line, host, expected) in [
            ("GET / HTTP/1.1", "a.test", "https://a.test/"),
            ("GET /a/../%7eb//c?x=%2f&y=a+b HTTP/1.1", "a.test", "https://a.test/a/../%7eb//c?x=%2f&y=a+b"),
            ("GET /a%2fb? HTTP/1.1", "a.test:80", "https://a.test/a%2fb?"),
            ("GET / HTTP/1.1", "A.Test:8080", "https://a.test/"),
            ("GET /x HTTP/1.1", "192.0.2.1:80", "https://192.0.2.1/x"),
            ("GET /x HTTP/1.1", "[2001:DB8::1]:80", "https://[2001:db8::1]/x"),
            ("GET //evil.test/ HTTP/1.1", "a.test", "https://a.test//evil.test/"),
            ("GET http://a.test/b?c HTTP/1.1", "a.test", "https://a.test/b?c"),
            ("GET http://a.test?c HTTP/1.1", "a.test", "https://a.test/?c"),
            ("DELETE http://a.test HTTP/1.1", "a.test", "https://a.test/"),
            ("OPTIONS * HTTP/1.1", "a.test", "https://a.test"),
            ("BREW /pot HTTP/1.1", "a.test", "https://a.test/pot"),
            ("GET /old HTTP/1.0", "a.test", "https://a.test/old"),
        ] {
            let answer = bench.ask(&format!("{line}\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 308 Permanent Redirect\r\n"), "{line}: {answer}");
            assert_eq!(location(&answer), expected, "{line}");
            assert!(answer.contains("Connection: close\r\n"), "{answer}");
        }
        let told = bench.told(13).await;
        assert!(told.iter().all(|told| told.status == 308 && told.refusal.is_none() && told.attempts == 0));
        let elsewhere = with(open(OpenAnswer::Redirect { port: 8443 }));
        let answer = elsewhere.ask(&last("HEAD /a?b HTTP/1.1")).await;
        assert_eq!(location(&answer), "https://a.test:8443/a?b");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    });
}

#[test]
fn a_connection_goes_on_after_a_redirect_and_ends_in_order_where_a_body_is_not_wanted() {
    local(|| async {
        let bench = redirecting();
        let mut client = bench.connect();
        for path in ["/one", "/two"] {
            client
                .write_all(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n").as_bytes())
                .await
                .unwrap();
            let head = read_head(&mut client).await.unwrap();
            assert!(location(&head).ends_with(path) && !head.contains("Connection: close"), "{head}");
            let length = head.split("Content-Length: ").nth(1).unwrap().split("\r\n").next().unwrap();
            client.read_exact(&mut vec![0; length.parse().unwrap()]).await.unwrap();
        }
        client
            .write_all(
                b"POST /up HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5000000000\r\n\r\nthe first of it",
            )
            .await
            .unwrap();
        let answer = timeout(Duration::from_secs(2), read_all(&mut client)).await.unwrap();
        assert!(answer.contains("Connection: close\r\n"), "{answer}");
        assert_eq!(location(&answer), "https://a.test/up");
        // What is left of the body is read away, so that the answer is not lost to a reset.
        client.write_all(&[b'x'; 4096]).await.unwrap();
    });
}

#[test]
fn strictness_is_that_of_every_listener() {
    local(|| async {
        let mut bench = redirecting();
        for (request, reason) in [
            ("GET / HTTP/1.1\r\n\r\n", Reason::BadHost),
            ("GET / HTTP/1.0\r\n\r\n", Reason::BadHost),
            ("GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n", Reason::BadHost),
            ("GET / HTTP/1.1\r\nHost: a.test/b\r\n\r\n", Reason::BadHost),
            ("GET /\\b HTTP/1.1\r\nHost: a.test\r\n\r\n", Reason::BadPath),
            ("GET / HTTP/1.1\nHost: a.test\n\n", Reason::MalformedRequest),
            ("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n", Reason::ConnectRefused),
            (
                "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                Reason::AmbiguousFraming,
            ),
            // What a TLS client sends first.
            ("\x16\x03\x01\x02\x00\x01\r\n\r\n", Reason::MalformedRequest),
        ] {
            let answer = bench.ask(request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {} ", reason.status())), "{request}: {answer}");
            assert_eq!(bench.log.exchanges.borrow().last().unwrap().refusal, Some(reason), "{request}");
        }
        bench.apply(|snapshot| {
            snapshot.listeners[0].limits.target_bytes = 20;
            snapshot.listeners[0].limits.header_ms = 50;
        });
        assert!(bench.ask(&last("GET /a-path-that-is-too-long HTTP/1.1")).await.contains(" 414 "));
        assert!(bench.ask("GET / HT").await.contains(" 408 "));
    });
}

#[test]
fn refusing_leaves_the_paths_that_are_served() {
    local(|| async {
        let bench = with(open(OpenAnswer::Refuse));
        let answer = bench.ask(&last("GET /a HTTP/1.1")).await;
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("clear-text-refused"), "{answer}");
        assert!(!answer.contains("Location"), "{answer}");
        assert!(bench.ask(&last("GET /healthz HTTP/1.1")).await.starts_with("HTTP/1.1 200 "));
        let told = bench.told(2).await;
        assert_eq!([told[0].refusal, told[1].refusal], [Some(Reason::ClearTextRefused), None]);
    });
}

#[test]
fn health_follows_the_node() {
    local(|| async {
        let bench = redirecting();
        let later = tokio::time::Instant::now() + Duration::from_secs(9);
        for (stop, status, body) in [
            (Stop::Run, 200, "ok\n"),
            // Another worker of the node accepts.
            (Stop::Retire { deadline: later }, 200, "ok\n"),
            (Stop::Drained, 503, "draining\n"),
            (Stop::Drain { deadline: later }, 503, "draining\n"),
        ] {
            bench.ctx.set_stop(stop);
            let answer = bench.ask(&last("GET /x/../healthz?verbose HTTP/1.1")).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{stop:?}: {answer}");
            assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{answer}");
            assert!(answer.contains("Cache-Control: no-store\r\n"), "{answer}");
            let head = bench.ask(&last("HEAD /healthz HTTP/1.1")).await;
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")) && head.ends_with("\r\n\r\n"), "{head}");
            assert!(bench.ask(&last("GET /healthz/ HTTP/1.1")).await.starts_with("HTTP/1.1 308 "));
        }
        bench.ctx.set_stop(Stop::Run);
        assert!(bench.ask(&last("POST /healthz HTTP/1.1")).await.starts_with("HTTP/1.1 308 "));
    });
}

#[test]
fn challenges_go_to_their_origins_and_nothing_else_does() {
    local(|| async {
        let (address, seen) = answering(HELLO).await;
        for answer in [OpenAnswer::Redirect { port: 443 }, OpenAnswer::Refuse] {
            let other = if answer == OpenAnswer::Refuse { 403 } else { 308 };
            let bench = Bench::with(&[address], |snapshot| {
                let acme_origin_group = Some(snapshot.origin_groups[0].name.clone());
                snapshot.listeners[0].clear_text = Some(ClearText { acme_origin_group, ..open(answer) });
                snapshot.listeners[0].trusted_prefixes = vec!["192.0.2.0/24".parse().unwrap()];
            });
            for (line, status) in [
                ("GET /.well-known/acme-challenge/to-k_En HTTP/1.1", 200),
                ("HEAD /.well-known/acme-challenge/token HTTP/1.0", 200),
                ("GET /.well-known/acme-challenge/ HTTP/1.1", 404),
                ("GET /.well-known/acme-challenge/a.b HTTP/1.1", 404),
                ("GET /.well-known/acme-challenge/../../etc HTTP/1.1", other),
                ("GET /.well-known/acme-challenge/a/../../../etc HTTP/1.1", other),
                ("PUT /.well-known/acme-challenge/token HTTP/1.1", 404),
                ("GET / HTTP/1.1", other),
            ] {
                let answer = bench.ask(&last(line)).await;
                assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {answer}");
            }
            let told = bench.told(8).await;
            assert_eq!(told[2].refusal, Some(Reason::ChallengeRefused));
            let seen = std::mem::take(&mut *seen.borrow_mut());
            assert_eq!(seen.len(), 2, "{seen:?}");
            assert!(
                seen[0].starts_with("GET /.well-known/acme-challenge/to-k_En HTTP/1.1\r\nHost: a.test\r\n")
            );
            assert!(seen[0].contains("X-Forwarded-Proto: http\r\n"), "{}", seen[0]);
            assert!(seen[0].contains("X-Forwarded-Port: 80\r\n"), "{}", seen[0]);
            assert!(seen[0].contains("host=\"a.test\";proto=http\r\n"), "{}", seen[0]);
        }
        // Where nobody answers challenges, ACME's servers follow the redirect.
        let answer = redirecting().ask(&last("GET /.well-known/acme-challenge/token HTTP/1.1")).await;
        assert_eq!(location(&answer), "https://a.test/.well-known/acme-challenge/token");
    });
}

/// Nobody else may use it: it would stand for as long as the pool keeps any.
#[test]
fn an_origin_that_was_told_of_a_client_keeps_no_connection_when_that_has_left() {
    local(|| async {
        let (address, seen) = answering(HELLO).await;
        let bench = Bench::with(&[address], |snapshot| {
            let group = &mut snapshot.origin_groups[0];
            group.proxy_protocol = Some(ProxyVersion::V1);
            let acme_origin_group = Some(group.name.clone());
            let clear = ClearText { acme_origin_group, ..open(OpenAnswer::Refuse) };
            snapshot.listeners[0].clear_text = Some(clear);
        });
        let mut client = bench.connect();
        for _ in 0..2 {
            let ask = b"GET /.well-known/acme-challenge/t HTTP/1.1\r\nHost: a.test\r\n\r\n";
            client.write_all(ask).await.unwrap();
            assert!(read_head(&mut client).await.unwrap().starts_with("HTTP/1.1 200 "));
            client.read_exact(&mut [0; 5]).await.unwrap();
        }
        let told = bench.told(2).await;
        assert!(told[1].reused, "{told:?}");
        assert!(seen.borrow()[0].starts_with("PROXY TCP4 192.0.2.9 "), "{:?}", seen.borrow());
        assert_eq!(bench.ctx.pool.borrow().idle(), 1);
        client.shutdown().await.unwrap();
        read_all(&mut client).await;
        assert_eq!(bench.ctx.pool.borrow().idle(), 0);
    });
}

#[test]
fn a_challenge_changes_no_protocol() {
    local(|| async {
        let (address, seen) = answering(HELLO).await;
        let bench = Bench::with(&[address], |snapshot| {
            let acme_origin_group = Some(snapshot.origin_groups[0].name.clone());
            let answer = OpenAnswer::Refuse;
            snapshot.listeners[0].clear_text = Some(ClearText { acme_origin_group, ..open(answer) });
        });
        let ask = |upgrade: &str| {
            format!(
                "GET /.well-known/acme-challenge/t HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade, close\r\nUpgrade: {upgrade}\r\n\r\n"
            )
        };
        let websocket =
            "websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13";
        assert!(bench.ask(&ask(websocket)).await.contains("upgrade-refused"));
        // RFC 9113, 3.1: nobody does this any more.
        let answer = bench.ask(&ask("h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__")).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("proof"), "{answer}");
        assert!(!seen.borrow()[0].to_ascii_lowercase().contains("upgrade"), "{:?}", seen.borrow());
    });
}

/// A listener may come to speak TLS, or cease to, under its name: who came by the one door gets nothing by the other's rules.
#[test]
fn connections_keep_to_the_door_they_came_by() {
    local(|| async {
        let (address, seen) = answering(HELLO).await;
        let clear = open(OpenAnswer::Redirect { port: 443 });
        let mut bench =
            Bench::with(&[address], |snapshot| snapshot.listeners[0].clear_text = Some(clear.clone()));
        let request = b"GET /secret HTTP/1.1\r\nHost: a.test\r\n\r\n";
        let mut open = bench.connect();
        open.write_all(request).await.unwrap();
        assert!(read_head(&mut open).await.unwrap().starts_with("HTTP/1.1 308 "));
        // Half a request is under way.
        open.write_all(&request[..9]).await.unwrap();
        bench.apply(|snapshot| snapshot.listeners[0].clear_text = None);
        open.write_all(&request[9..]).await.unwrap();
        let answer = read_all(&mut open).await;
        assert!(answer.contains("HTTP/1.1 308 ") && answer.contains("Connection: close\r\n"), "{answer}");
        assert!(seen.borrow().is_empty(), "{:?}", seen.borrow());

        let mut secured = bench.connect();
        secured.write_all(request).await.unwrap();
        assert!(read_head(&mut secured).await.unwrap().starts_with("HTTP/1.1 200 "));
        secured.write_all(&request[..9]).await.unwrap();
        bench.apply(|snapshot| snapshot.listeners[0].clear_text = Some(clear));
        secured.write_all(&request[9..]).await.unwrap();
        let answer = read_all(&mut secured).await;
        assert!(answer.contains("HTTP/1.1 200 ") && answer.contains("Connection: close\r\n"), "{answer}");
        assert_eq!(seen.borrow().len(), 2);
    });
}
