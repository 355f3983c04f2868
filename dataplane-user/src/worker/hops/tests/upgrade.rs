//! Changes of protocol: WebSocket over both versions of HTTP, others by list, and every way in which one fails.

use bytes::Bytes;
use h2::client::{self, SendRequest};
use h2::ext::Protocol;
use http::{Method, Request};
use model::snapshot::Protocols;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant, sleep};

use super::bench::{Bench, answering, local, origin, read_all, read_head, read_some};
use crate::worker::hops::Stop;
use crate::worker::origin::health::clock;
use crate::worker::refusal::Reason;

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn switching(accept: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\nX-App: 1\r\n\r\n"
    )
}

/// What an origin makes of the key it reads.
fn accept_of(head: &str) -> String {
    let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).expect("a key");
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, digest)
}

async fn echo(mut stream: TcpStream) {
    let (mut from, mut to) = stream.split();
    let _ = tokio::io::copy(&mut from, &mut to).await;
    let _ = to.shutdown().await;
}

/// An origin that changes to WebSocket and then sends everything back.
async fn echoing() -> std::net::SocketAddr {
    origin(|_, mut stream| async move {
        let head = read_head(&mut stream).await.unwrap();
        // The first bytes of the other protocol come with the head.
        let answer = switching(&accept_of(&head)) + "hello ";
        stream.write_all(answer.as_bytes()).await.unwrap();
        echo(stream).await;
    })
    .await
}

async fn connect(bench: &Bench) -> SendRequest<Bytes> {
    let stream = bench.connect_as(256 * 1024, true, None);
    let (send, connection) = client::handshake(stream).await.unwrap();
    tokio::task::spawn_local(async move { drop(connection.await) });
    let send = send.ready().await.unwrap();
    // The server's SETTINGS say that it may be asked.
    for _ in 0..100 {
        if send.is_extended_connect_protocol_enabled() {
            break;
        }
        sleep(Duration::from_millis(5)).await;
    }
    assert!(send.is_extended_connect_protocol_enabled());
    send
}

fn extended(protocol: &'static str) -> Request<()> {
    Request::builder()
        .method(Method::CONNECT)
        .uri("https://a.test/chat")
        .extension(Protocol::from_static(protocol))
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "a client's own is not passed on")
        .body(())
        .unwrap()
}

#[test]
fn http1_to_http1_with_half_closed_ends() {
    local(|| async {
        let (seen, saw) = tokio::sync::oneshot::channel();
        let seen = std::cell::RefCell::new(Some(seen));
        let address = origin(move |_, mut stream| {
            let seen = seen.borrow_mut().take();
            async move {
                let head = read_head(&mut stream).await.unwrap();
                stream.write_all(switching(ACCEPT).as_bytes()).await.unwrap();
                seen.unwrap().send(head).unwrap();
                // Answers only when the client has ended its direction.
                let asked = read_all(&mut stream).await;
                stream.write_all(format!("you said {asked}").as_bytes()).await.unwrap();
            }
        })
        .await;
        let bench = Bench::new(&[address]);
        let mut client = bench.connect();
        client.write_all(ASK.as_bytes()).await.unwrap();
        let head = read_head(&mut client).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
        for field in
            ["Connection: Upgrade\r\n", "Upgrade: websocket\r\n", "X-App: 1\r\n", "Via: 1.1 sallyport\r\n"]
        {
            assert_eq!(head.matches(field).count(), 1, "{field} in {head}");
        }
        assert!(head.contains(ACCEPT) && !head.contains("Transfer-Encoding"), "{head}");
        let request = saw.await.unwrap();
        for field in [
            "Connection: Upgrade\r\n",
            "Upgrade: websocket\r\n",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        ] {
            assert_eq!(request.matches(field).count(), 1, "{field} in {request}");
        }
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(read_all(&mut client).await, "you said GET / HTTP/1.1\r\n\r\n");
        let told = bench.told(1).await;
        assert_eq!((told[0].status, told[0].refusal, told[0].method.as_str()), (101, None, "GET"));
        assert_eq!((told[0].received, told[0].sent), (18, 27));
        assert_eq!(bench.ctx.pool.borrow().idle(), 0);
    });
}

#[test]
fn http2_to_http1_with_a_key_of_our_own() {
    local(|| async {
        let bench = Bench::new(&[echoing().await]);
        let mut send = connect(&bench).await;
        let (response, mut up) = send.send_request(extended("websocket"), false).unwrap();
        let response = response.await.unwrap();
        assert_eq!((response.status().as_u16(), response.headers()["x-app"].as_bytes()), (200, &b"1"[..]));
        for name in ["sec-websocket-accept", "upgrade", "connection"] {
            assert!(!response.headers().contains_key(name), "{name}");
        }
        up.send_data(Bytes::from_static(b"world"), true).unwrap();
        let (mut down, mut all) = (response.into_body(), Vec::new());
        while let Some(piece) = down.data().await {
            let piece = piece.unwrap();
            down.flow_control().release_capacity(piece.len()).unwrap();
            all.extend_from_slice(&piece);
        }
        assert_eq!(all, b"hello world");
        let told = bench.told(1).await;
        assert_eq!((told[0].status, told[0].refusal, told[0].method.as_str()), (200, None, "GET"));
        assert_eq!((told[0].received, told[0].sent, told[0].path.as_str()), (5, 11, "/chat"));
    });
}

#[test]
fn what_is_no_upgrade_or_a_false_one() {
    local(|| async {
        let without = |what: &str| {
            ASK.lines()
                .filter(|line| !line.starts_with(what))
                .fold(String::new(), |all, line| all + line + "\r\n")
        };
        let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
        let false_proof: &'static str = switching("AAAAAAAAAAAAAAAAAAAAAAAAAAA=").leak();
        let no_proof =
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        let other: &'static str = switching(ACCEPT).replace("Upgrade: websocket", "Upgrade: h2c").leak();
        let two: &'static str =
            switching(ACCEPT).replace("Upgrade: websocket", "Upgrade: websocket, h2c").leak();
        for (request, answer, status, refusal) in [
            // The origin goes on in HTTP: its answer is passed on, and the connection ends with it.
            (ASK.to_owned(), ok, 200, None),
            (ASK.to_owned(), false_proof, 502, Some(Reason::BadUpgrade)),
            (ASK.to_owned(), no_proof, 502, Some(Reason::BadUpgrade)),
            (ASK.to_owned(), other, 502, Some(Reason::BadUpgrade)),
            (ASK.to_owned(), two, 502, Some(Reason::BadUpgrade)),
            // Nobody asked.
            (without("Upgrade"), no_proof, 502, Some(Reason::MalformedResponse)),
            (without("Connection"), no_proof, 502, Some(Reason::MalformedResponse)),
            (ASK.replace("HTTP/1.1", "HTTP/1.0"), no_proof, 502, Some(Reason::MalformedResponse)),
            // RFC 6455, 4.2.1.
            (without("Sec-WebSocket-Key"), ok, 400, Some(Reason::MalformedRequest)),
            (ASK.replace("ub25jZQ==", "ub25jZQ="), ok, 400, Some(Reason::MalformedRequest)),
            (ASK.replace("GET", "POST"), ok, 400, Some(Reason::MalformedRequest)),
            (ASK.to_owned() + "GET /smuggled HTTP/1.1\r\n\r\n", ok, 400, Some(Reason::PrematureUpgrade)),
        ] {
            let (address, seen) = answering(answer).await;
            let bench = Bench::new(&[address]);
            let mut client = bench.connect();
            client.write_all(request.as_bytes()).await.unwrap();
            client.shutdown().await.unwrap();
            let said = read_all(&mut client).await;
            assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{request} {said}");
            let told = bench.told(1).await;
            assert_eq!((told[0].refusal, told[0].status), (refusal, status), "{request}");
            assert!(seen.borrow().iter().all(|head| !head.contains("smuggled")));
            if request.contains("\r\nUpgrade: ")
                && request.contains("Connection: ")
                && request.contains("HTTP/1.1")
            {
                assert!(said.contains("Connection: close\r\n"), "{request} {said}");
            }
        }
    });
}

#[test]
fn a_declined_upgrade_leaves_no_connection_behind() {
    local(|| async {
        let (address, seen) = answering("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno").await;
        let bench = Bench::new(&[address]);
        let mut client = bench.connect();
        client.write_all(ASK.as_bytes()).await.unwrap();
        let head = read_head(&mut client).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 426 ") && head.contains("Connection: close\r\n"), "{head}");
        // What was meant for the other protocol is not read as a request.
        client.write_all(b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
        assert_eq!(read_all(&mut client).await, "no");
        assert_eq!((seen.borrow().len(), bench.ctx.pool.borrow().idle()), (1, 0));
    });
}

#[test]
fn the_route_says_which() {
    local(|| async {
        let address = origin(|_, mut stream| async move {
            let head = read_head(&mut stream).await.unwrap();
            if !head.contains("Upgrade: chat/2\r\n") {
                assert!(!head.contains("Upgrade"), "{head}");
                return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            }
            let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat/2\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
            echo(stream).await;
        })
        .await;
        let bench = Bench::with(&[address], |snapshot| {
            snapshot.routes[0].upgrades = vec!["chat/2".parse().unwrap()];
        });
        let ask = |upgrade: &str| {
            format!(
                "POST / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
            )
        };
        let mut client = bench.connect();
        // Nobody lists it: an ordinary request, and the connection goes on.
        client.write_all(ask("h2c").as_bytes()).await.unwrap();
        let head = read_head(&mut client).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200 ") && !head.contains("close"), "{head}");
        client.write_all(ask("h2c, CHAT/2, websocket").as_bytes()).await.unwrap();
        let head = read_head(&mut client).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("Upgrade: chat/2\r\n"), "{head}");
        client.write_all(b"ping").await.unwrap();
        assert_eq!(read_some(&mut client, 4).await, b"ping");
        drop(client);
        bench.told(2).await;
        let said = bench.ask(ASK).await;
        assert!(said.starts_with("HTTP/1.1 403 ") && said.contains("Connection: close\r\n"), "{said}");
        let mut send = connect(&bench).await;
        for (protocol, status) in [("websocket", 403), ("other", 403)] {
            let response = send.send_request(extended(protocol), false).unwrap().0.await.unwrap();
            assert_eq!(response.status(), status);
        }
        let told = bench.told(5).await;
        assert!(told.iter().skip(2).all(|told| told.refusal == Some(Reason::UpgradeRefused)), "{told:?}");
    });
}

#[test]
fn success_without_101_is_none_over_http2() {
    local(|| async {
        for (answer, status, refusal) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 502, Some(Reason::BadUpgrade)),
            ("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", 404, None),
        ] {
            let (address, _) = answering(answer).await;
            let bench = Bench::new(&[address]);
            let mut send = connect(&bench).await;
            let response = send.send_request(extended("websocket"), false).unwrap().0.await.unwrap();
            assert_eq!(response.status(), status);
            assert_eq!(bench.told(1).await[0].refusal, refusal);
        }
    });
}

#[test]
fn a_silent_tunnel_ends_and_a_busy_one_does_not() {
    local(|| async {
        let bench = Bench::with(&[echoing().await], |snapshot| {
            snapshot.listeners[0].limits.tunnel_idle_ms = 150;
            snapshot.listeners[0].limits.idle_ms = 50;
            snapshot.listeners[0].limits.stall_ms = 50;
        });
        let mut client = bench.connect();
        client.write_all(ASK.as_bytes()).await.unwrap();
        read_head(&mut client).await.unwrap();
        read_some(&mut client, 6).await;
        for _ in 0..5 {
            sleep(Duration::from_millis(80)).await;
            client.write_all(b"ping").await.unwrap();
            assert_eq!(read_some(&mut client, 4).await, b"ping");
        }
        let began = Instant::now();
        assert_eq!(read_all(&mut client).await, "");
        assert!(began.elapsed() >= Duration::from_millis(100));
        let told = bench.told(1).await;
        assert_eq!((told[0].refusal, told[0].received, told[0].sent), (Some(Reason::TunnelIdle), 20, 26));
    });
}

#[test]
fn a_snapshot_closes_what_it_denies_and_touches_nothing_else() {
    local(|| async {
        for alpn_h2 in [false, true] {
            let mut bench = Bench::new(&[echoing().await]);
            let mut open = Vec::new();
            let mut streams = None;
            if alpn_h2 {
                let mut send = connect(&bench).await;
                let (response, up) = send.send_request(extended("websocket"), false).unwrap();
                streams = Some((send, up, response.await.unwrap()));
            } else {
                let mut client = bench.connect();
                client.write_all(ASK.as_bytes()).await.unwrap();
                read_head(&mut client).await.unwrap();
                open.push(client);
            }
            bench.apply(|snapshot| snapshot.routes[0].response_timeout_ms += 1);
            sleep(Duration::from_millis(30)).await;
            assert_eq!(bench.log.exchanges.borrow().len(), 0);
            bench.apply(|snapshot| snapshot.routes[0].upgrades.clear());
            let told = bench.told(1).await;
            assert_eq!(told[0].refusal, Some(Reason::UpgradeRefused));
            if let Some(client) = open.first_mut() {
                assert_eq!(read_all(client).await, "hello ");
            }
            drop(streams);
        }
    });
}

#[test]
fn a_drain_leaves_it_until_the_deadline() {
    local(|| async {
        let bench = Bench::new(&[echoing().await]);
        let mut client = bench.connect();
        client.write_all(ASK.as_bytes()).await.unwrap();
        read_head(&mut client).await.unwrap();
        read_some(&mut client, 6).await;
        bench.ctx.set_stop(Stop::Drain { deadline: Instant::now() + Duration::from_millis(300) });
        sleep(Duration::from_millis(100)).await;
        client.write_all(b"still here").await.unwrap();
        assert_eq!(read_some(&mut client, 10).await, b"still here");
        assert_eq!(read_all(&mut client).await, "");
        let told = bench.told(1).await;
        assert_eq!((told[0].refusal, told[0].received, told[0].sent), (Some(Reason::DrainExpired), 10, 16));
    });
}

#[test]
fn a_websockets_sides_are_told_before_it_is_cut_off() {
    local(|| async {
        let heard = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let hears = std::rc::Rc::clone(&heard);
        let address = origin(move |_, mut stream| {
            let heard = std::rc::Rc::clone(&hears);
            async move {
                read_head(&mut stream).await;
                stream.write_all(switching(ACCEPT).as_bytes()).await.unwrap();
                stream.write_all(b"\x81\x02hi").await.unwrap();
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.unwrap();
                heard.borrow_mut().extend(all);
            }
        })
        .await;
        let bench = Bench::new(&[address]);
        let mut client = bench.connect();
        client.write_all(ASK.as_bytes()).await.unwrap();
        read_head(&mut client).await.unwrap();
        assert_eq!(read_some(&mut client, 4).await, b"\x81\x02hi");
        bench.ctx.set_stop(Stop::Retire { deadline: Instant::now() + Duration::from_millis(1300) });
        sleep(Duration::from_millis(100)).await;
        client.write_all(b"\x81\x82\0\0\0\0ok").await.unwrap();
        assert_eq!(read_some(&mut client, 4).await, b"\x88\x02\x03\xe9");
        assert_eq!(read_all(&mut client).await, "");
        assert_eq!(bench.told(1).await[0].refusal, None);
        sleep(Duration::from_millis(50)).await;
        assert_eq!(*heard.borrow(), b"\x81\x82\0\0\0\0ok\x88\x82\0\0\0\0\x03\xe9");
    });
}

#[test]
fn neither_side_is_read_faster_than_the_other_takes_it() {
    local(|| async {
        let written = std::rc::Rc::new(std::cell::Cell::new(0_usize));
        let count = std::rc::Rc::clone(&written);
        let address = origin(move |_, mut stream| {
            let count = std::rc::Rc::clone(&count);
            async move {
                read_head(&mut stream).await;
                stream.write_all(switching(ACCEPT).as_bytes()).await.unwrap();
                while count.get() < 64 * 1024 * 1024 && stream.write_all(&[7; 65536]).await.is_ok() {
                    count.set(count.get() + 65536);
                }
            }
        })
        .await;
        let bench = Bench::new(&[address]);
        let mut client = bench.connect_as(16 * 1024, false, None);
        client.write_all(ASK.as_bytes()).await.unwrap();
        read_head(&mut client).await.unwrap();
        sleep(Duration::from_millis(200)).await;
        assert!(written.get() < 16 * 1024 * 1024, "{}", written.get());
        // The other direction is held back by an origin that does not read.
        let much = vec![1; 64 << 20];
        assert!(tokio::time::timeout(Duration::from_millis(500), client.write_all(&much)).await.is_err());
        let (mut all, mut piece) = (0, vec![0; 256 * 1024]);
        while let Ok(read @ 1..) = client.read(&mut piece).await {
            all += read;
        }
        assert!(all > 16 * 1024 * 1024, "{all}");
    });
}

#[test]
fn it_goes_over_http11_also_where_the_group_says_http2() {
    local(|| async {
        let bench = Bench::with(&[echoing().await], |snapshot| {
            snapshot.origin_groups[0].protocols = Protocols::Http2;
            snapshot.origin_groups[0].choice.connections = 1;
        });
        for turn in 1..=2 {
            let mut client = bench.connect();
            client.write_all(ASK.as_bytes()).await.unwrap();
            let head = read_head(&mut client).await.unwrap();
            assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
            assert_eq!(read_some(&mut client, 6).await, b"hello ");
            client.shutdown().await.unwrap();
            assert_eq!(read_all(&mut client).await, "");
            // The tunnel's place at the origin is free again, once.
            assert_eq!(bench.told(turn).await[turn - 1].refusal, None);
        }
    });
}

#[test]
fn clients_cannot_have_origins_ejected_by_asking_for_what_they_do_not_have() {
    local(|| async {
        let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
        let garbage = "\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64\r\n\r\n";
        for (protocols, answer) in
            [(Protocols::Auto, ok), (Protocols::Http2, ok), (Protocols::Http2, garbage)]
        {
            let ((one, _), (other, _)) = (answering(answer).await, answering(answer).await);
            let bench = Bench::with(&[one, other], |snapshot| {
                snapshot.origin_groups[0].protocols = protocols;
                snapshot.origin_groups[0].choice.ejection.failures = 1;
            });
            let mut send = connect(&bench).await;
            for _ in 0..4 {
                let response = send.send_request(extended("websocket"), false).unwrap().0.await.unwrap();
                assert_eq!(response.status(), 502);
            }
            let live = bench.ctx.live.load_full();
            let now = clock(Instant::now());
            let mut members = live.groups.values().flat_map(|group| &group.members);
            assert!(members.all(|member| member.origin.health.well(now)), "{protocols:?} {answer:?}");
        }
    });
}
