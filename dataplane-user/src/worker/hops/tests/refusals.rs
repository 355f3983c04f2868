//! Every reason of the path, provoked.

use model::error_page::{ErrorPage, PageForm};
use model::snapshot::Snapshot;
use tokio::io::AsyncWriteExt;
use tokio::time::{Duration, sleep};

use super::bench::{Bench, answering, local, origin, read_all, read_head};
use crate::worker::refusal::Reason;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";

fn tight(snapshot: &mut Snapshot) {
    let limits = &mut snapshot.listeners[0].limits;
    limits.header_bytes = 512;
    limits.header_count = 4;
    limits.target_bytes = 64;
    limits.body_bytes = 10;
    limits.header_ms = 50;
    limits.idle_ms = 100;
    limits.stall_ms = 80;
    limits.requests_per_connection = 2;
    snapshot.routes[0].response_timeout_ms = 90;
    snapshot.origin_groups[0].connect_timeout_ms = 100;
}

async fn refused(bench: &Bench, request: &str, reason: Reason) {
    let before = bench.log.exchanges.borrow().len();
    let answer = bench.ask(request).await;
    let told = bench.told(before + 1).await;
    assert_eq!(told[before].refusal, Some(reason), "{request:?} {answer}");
    assert_eq!(told[before].status, reason.status(), "{request:?}");
    assert!(answer.starts_with(&format!("HTTP/1.1 {} ", reason.status())), "{request:?} {answer}");
    assert!(answer.contains(reason.name()) || request.starts_with("HEAD"), "{request:?} {answer}");
}

#[test]
fn requests_that_break_the_rules() {
    local(|| async {
        let (address, _) = answering(OK).await;
        let bench = Bench::with(&[address], tight);
        for (request, reason) in [
            ("GET / HTTP/1.1\nHost: a.test\n\n", Reason::MalformedRequest),
            (
                "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                Reason::AmbiguousFraming,
            ),
            (
                "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc",
                Reason::AmbiguousFraming,
            ),
            ("GET / HTTP/1.1\r\n\r\n", Reason::BadHost),
            ("GET /%00 HTTP/1.1\r\nHost: a.test\r\n\r\n", Reason::BadPath),
            ("GET /a%2fb HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n", Reason::BadPath),
            ("GET / HTTP/1.9\r\nHost: a.test\r\n\r\n", Reason::UnsupportedVersion),
            ("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: gzip\r\n\r\n", Reason::UnsupportedCoding),
            ("CONNECT a.test:1 HTTP/1.1\r\nHost: a.test:1\r\n\r\n", Reason::ConnectRefused),
            ("PUT / HTTP/1.1\r\nHost: a.test\r\nExpect: x\r\n\r\n", Reason::ExpectationFailed),
            ("GET / HTTP/1.1\r\nHost: b.test\r\nConnection: close\r\n\r\n", Reason::NoRoute),
            ("GET / HTTP/1.1\r\nHost: 192.0.2.1\r\nConnection: close\r\n\r\n", Reason::NoRoute),
            (
                "GET / HTTP/1.1\r\nHost: a.test\r\na: 1\r\nb: 2\r\nc: 3\r\nd: 4\r\n\r\n",
                Reason::HeaderTooLarge,
            ),
            ("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 11\r\n\r\n", Reason::BodyTooLarge),
            (
                "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n01234567890\r\n0\r\n\r\n",
                Reason::BodyTooLarge,
            ),
            ("GET / HTTP/1.1\r\nHost: a.test\r\nX: ", Reason::HeaderTimeout),
        ] {
            refused(&bench, request, reason).await;
        }
        let long = format!("GET /{} HTTP/1.1\r\nHost: a.test\r\n\r\n", "a".repeat(70));
        refused(&bench, &long, Reason::TargetTooLong).await;
        let large = format!("GET / HTTP/1.1\r\nHost: a.test\r\nX: {}\r\n\r\n", "a".repeat(600));
        refused(&bench, &large, Reason::HeaderTooLarge).await;
        let silent = origin(|_, mut stream| async move {
            read_head(&mut stream).await;
            read_all(&mut stream).await;
        });
        let bench = Bench::with(&[silent.await], tight);
        let slow = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nabc";
        refused(&bench, slow, Reason::BodyTimeout).await;
    });
}

#[test]
fn origins_that_fail() {
    local(|| async {
        type Script = (&'static str, u64, Reason);
        let scripts: [Script; 6] = [
            ("", 0, Reason::OriginGone),
            ("HTTP/1.1 200 OK\r\nContent-Le", 0, Reason::OriginGone),
            ("HTTP/1.1 200 OK\nContent-Length: 0\n\n", 0, Reason::MalformedResponse),
            ("HTTP/1.1 101 Switching\r\n\r\n", 0, Reason::MalformedResponse),
            ("HTTP/1.1 20", 1000, Reason::OriginTimeout),
            ("", 1000, Reason::OriginTimeout),
        ];
        for (answer, pause, reason) in scripts {
            let address = origin(move |_, mut stream| async move {
                read_head(&mut stream).await;
                stream.write_all(answer.as_bytes()).await.unwrap();
                sleep(Duration::from_millis(pause)).await;
            })
            .await;
            let bench = Bench::with(&[address], tight);
            refused(&bench, "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n", reason).await;
        }
        let hints = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(33);
        let address = origin(move |_, mut stream| {
            let hints = hints.clone();
            async move {
                read_head(&mut stream).await;
                stream.write_all(hints.as_bytes()).await.unwrap();
                read_head(&mut stream).await;
            }
        })
        .await;
        let bench = Bench::with(&[address], tight);
        let answer = bench.ask("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").await;
        assert!(answer.contains("malformed-response"), "{answer}");
    });
}

#[test]
fn origins_that_cannot_be_reached() {
    local(|| async {
        let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let close = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
        refused(&Bench::with(&[dead], tight), close, Reason::OriginUnreachable).await;
        let unresolved = |snapshot: &mut Snapshot| {
            tight(snapshot);
            snapshot.origin_groups[0].connect_timeout_ms = 8_000;
            snapshot.origin_groups[0].origins[0].address = "no-such-origin.invalid:443".parse().unwrap();
        };
        refused(&Bench::with(&[dead], unresolved), close, Reason::OriginUnresolved).await;
        // A full accept queue: the kernel answers nothing more.
        let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        full.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
        full.listen(0).unwrap();
        let address = full.local_addr().unwrap().as_socket().unwrap();
        let held: Vec<_> = (0..4).map(|_| tokio::spawn(tokio::net::TcpStream::connect(address))).collect();
        sleep(Duration::from_millis(50)).await;
        refused(&Bench::with(&[address], tight), close, Reason::OriginConnectTimeout).await;
        drop(held);
    });
}

/// Answers that break off: the client sees a cut connection, never a complete-looking message.
#[test]
fn answers_that_break_off() {
    local(|| async {
        for (answer, pause, reason) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", 0, Reason::OriginGone),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", 1000, Reason::OriginStalled),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n",
                0,
                Reason::MalformedResponse,
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", 0, Reason::OriginGone),
        ] {
            let address = origin(move |_, mut stream| async move {
                read_head(&mut stream).await;
                stream.write_all(answer.as_bytes()).await.unwrap();
                sleep(Duration::from_millis(pause)).await;
            })
            .await;
            let bench = Bench::with(&[address], tight);
            let seen = bench.ask(GET).await;
            assert!(!seen.contains("0\r\n\r\n") && !seen.contains("502"), "{seen}");
            let told = bench.told(1).await;
            assert_eq!((told[0].refusal, told[0].status), (Some(reason), 200), "{answer:?}");
        }
    });
}

#[test]
fn clients_that_leave_and_clients_that_do_not_read() {
    local(|| async {
        let address = origin(|_, mut stream| async move {
            read_head(&mut stream).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n").await;
            while stream.write_all(&[7; 65536]).await.is_ok() {}
        })
        .await;
        let bench = Bench::with(&[address], tight);
        let mut client = bench.connect();
        client.write_all(GET.as_bytes()).await.unwrap();
        assert_eq!(bench.told(1).await[0].refusal, Some(Reason::BodyTimeout));
        drop(client);

        let bench = Bench::with(&[address], tight);
        let mut client = bench.connect();
        client.write_all(GET.as_bytes()).await.unwrap();
        read_head(&mut client).await;
        drop(client);
        assert_eq!(bench.told(1).await[0].refusal, Some(Reason::ClientGone));

        let bench = Bench::with(&[address], tight);
        let mut client = bench.connect();
        client.write_all(b"GET / HT").await.unwrap();
        drop(client);
        sleep(Duration::from_millis(20)).await;
        assert_eq!(*bench.log.refused.borrow(), [Reason::ClientGone]);

        let bench = Bench::with(&[address], tight);
        let mut client = bench.connect();
        assert_eq!(read_all(&mut client).await, "", "idle for too long: closed without a word");
        assert!(bench.log.exchanges.borrow().is_empty());
    });
}

#[test]
fn the_last_request_of_a_connection_is_told_so() {
    local(|| async {
        let (address, _) = answering(OK).await;
        let bench = Bench::with(&[address], tight);
        let answer = bench.ask(&GET.repeat(3)).await;
        assert_eq!(answer.matches("200 OK").count(), 2, "{answer}");
        assert_eq!(answer.matches("Connection: close").count(), 1, "{answer}");
    });
}

#[test]
fn a_client_that_a_new_snapshot_denies_is_cut_off() {
    local(|| async {
        let (address, _) = answering(OK).await;
        let mut bench = Bench::new(&[address]);
        let mut client = bench.connect();
        client.write_all(GET.as_bytes()).await.unwrap();
        read_head(&mut client).await;
        bench.apply(|snapshot| {
            snapshot.filter.push(model::snapshot::FilterRule::new(
                1,
                "f/r",
                model::snapshot::FilterAction::Deny,
                vec!["192.0.2.9/32".parse().unwrap()],
            ));
        });
        read_all(&mut client).await;
        assert_eq!(*bench.log.refused.borrow(), [Reason::Denied]);
    });
}

#[test]
fn an_operators_page_stands_in_for_ours_where_it_fits_best() {
    local(|| async {
        let bench = Bench::with(&["127.0.0.1:9".parse().unwrap()], |snapshot| {
            let page = |statuses: &str, form, body: &str| ErrorPage {
                statuses: statuses.parse().unwrap(),
                form,
                body: body.parse().unwrap(),
            };
            snapshot.listeners[0].error_pages = vec![
                page("all", PageForm::Html, "<p>all {{status}}</p>"),
                page("404", PageForm::Html, "<p>here: {{title}}, {{reason}}, {{requestId}}</p>"),
                page("4xx", PageForm::Html, "<p>client</p>"),
                page("5xx", PageForm::Json, "{}"),
            ];
        });
        for (host, accept, expected) in [
            ("no.test", "text/html", "<p>here: Not Found, no-route, "),
            ("a.test", "text/html", "\r\n\r\n<p>all 502</p>"),
            ("a.test", "application/json", "\r\n\r\n{}"),
            ("no.test", "application/json", "\"reason\":\"no-route\""),
            ("no.test", "text/plain", "reason: no-route"),
        ] {
            let request =
                format!("GET / HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
            let answer = bench.ask(&request).await;
            assert!(answer.contains(expected), "{expected} {answer}");
        }
    });
}

#[test]
fn error_pages_come_in_the_form_the_client_prefers() {
    local(|| async {
        let bench = Bench::with(&["127.0.0.1:9".parse().unwrap()], tight);
        for (accept, kind) in [
            ("text/html,*/*;q=0.8", "text/html"),
            ("application/json", "application/problem+json"),
            ("text/html;q=0.5, application/problem+json;q=0.6", "application/problem+json"),
            ("text/plain", "text/plain"),
            ("*/*", "text/plain"),
        ] {
            let request =
                format!("GET / HTTP/1.1\r\nHost: no.test\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
            let answer = bench.ask(&request).await;
            assert!(
                answer.contains(&format!("Content-Type: {kind}")) && answer.contains("no-route"),
                "{answer}"
            );
        }
        let grpc = "POST /a.B/C HTTP/1.1\r\nHost: no.test\r\nContent-Type: application/grpc+proto\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let answer = bench.ask(grpc).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\n"), "{answer}");
        assert!(answer.contains("Grpc-Status: 12\r\nGrpc-Message: no-route (request "), "{answer}");
        assert!(answer.contains("Content-Length: 0\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
        let answer = bench.ask("HEAD / HTTP/1.1\r\nHost: no.test\r\nConnection: close\r\n\r\n").await;
        assert!(answer.ends_with("\r\n\r\n") && answer.contains("Content-Length: "), "{answer}");
    });
}
