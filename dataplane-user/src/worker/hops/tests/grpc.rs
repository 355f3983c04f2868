//! gRPC calls: how long they may take, and how they end that we end.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use h2::client::{self, ResponseFuture, SendRequest};
use h2::server::{self, SendResponse};
use h2::{RecvStream, SendStream};
use http::{Request, Response};
use model::snapshot::{Protocols, Snapshot};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time::{Duration, Instant, sleep};

use super::bench::{Bench, local, origin, read_all, read_head};
use crate::worker::origin::health::clock;
use crate::worker::refusal::Reason;

/// A gRPC message of three bytes.
const MESSAGE: &[u8] = &[0, 0, 0, 0, 3, b'a', b'b', b'c'];

/// What the origin saw.
#[derive(Default)]
struct Seen {
    connections: Cell<usize>,
    timeouts: RefCell<Vec<Option<String>>>,
    resets: RefCell<Vec<h2::Reason>>,
}

/// An origin that runs a script, which answers with its half of the stream, on each call; then it waits for a reset.
async fn calls<F: Future<Output = Half> + 'static>(
    script: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Clone + 'static,
) -> (SocketAddr, Rc<Seen>) {
    let seen = Rc::new(Seen::default());
    let kept = Rc::clone(&seen);
    let address = origin(move |_, stream| {
        let (seen, script) = (Rc::clone(&kept), script.clone());
        async move {
            seen.connections.set(seen.connections.get() + 1);
            let mut connection = server::handshake(stream).await.unwrap();
            while let Some(Ok((request, respond))) = connection.accept().await {
                let (seen, script) = (Rc::clone(&seen), script.clone());
                tokio::task::spawn_local(async move {
                    let timeout = request.headers().get("grpc-timeout");
                    let timeout = timeout.map(|timeout| timeout.to_str().unwrap().to_owned());
                    seen.timeouts.borrow_mut().push(timeout);
                    let mut half = script(request, respond).await;
                    let reset = std::future::poll_fn(|cx| match &mut half {
                        Half::Before(respond) => respond.poll_reset(cx),
                        Half::After(send) => send.poll_reset(cx),
                    });
                    if let Ok(reason) = reset.await {
                        seen.resets.borrow_mut().push(reason);
                    }
                });
            }
        }
    })
    .await;
    (address, seen)
}

/// The origin's half of a stream, before or after its head.
enum Half {
    Before(SendResponse<Bytes>),
    After(SendStream<Bytes>),
}

fn head(mut respond: SendResponse<Bytes>) -> SendStream<Bytes> {
    let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    respond.send_response(head, false).unwrap()
}

async fn connect(bench: &Bench) -> SendRequest<Bytes> {
    let (send, connection) = client::handshake(bench.connect_as(256 * 1024, true, None)).await.unwrap();
    tokio::task::spawn_local(async move { drop(connection.await) });
    send.ready().await.unwrap()
}

fn call(
    send: &mut SendRequest<Bytes>,
    timeouts: &[&str],
    ended: bool,
) -> (ResponseFuture, SendStream<Bytes>) {
    let mut request =
        Request::post("https://a.test/pkg.Service/Call").header("content-type", "application/grpc");
    for timeout in timeouts {
        request = request.header("grpc-timeout", *timeout);
    }
    send.send_request(request.body(()).unwrap(), ended).unwrap()
}

/// Waits for the other side to notice.
async fn eventually(seen: impl Fn() -> bool) {
    for _ in 0..400 {
        if seen() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("it is never seen");
}

/// Trailers-Only: all in the head.
fn only(response: &Response<RecvStream>, status: &str, reason: Reason) {
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["grpc-status"], status);
    let message = response.headers()["grpc-message"].to_str().unwrap();
    assert!(message.starts_with(&format!("{} (request ", reason.name())), "{message}");
    assert!(response.body().is_end_stream());
}

/// The rest of an answer: its bytes, and the status in its trailers or the code of its reset.
async fn rest(body: &mut RecvStream) -> (Vec<u8>, Result<String, h2::Reason>) {
    let mut all = Vec::new();
    while let Some(piece) = body.data().await {
        match piece {
            Ok(piece) => {
                body.flow_control().release_capacity(piece.len()).unwrap();
                all.extend_from_slice(&piece);
            }
            Err(error) => return (all, Err(error.reason().unwrap())),
        }
    }
    let trailers = body.trailers().await.unwrap().unwrap();
    let text = |name: &str| trailers[name].to_str().unwrap().to_owned();
    (all, Ok(format!("{} {}", text("grpc-status"), text("grpc-message"))))
}

#[test]
fn a_call_that_is_late_ends_at_both_sides() {
    local(|| async {
        let (address, seen) = calls(|_, respond| async move { Half::Before(respond) }).await;
        let bench = Bench::new(&[address]);
        let mut send = connect(&bench).await;
        for ended in [true, false] {
            let began = Instant::now();
            let (response, _body) = call(&mut send, &["200m"], ended);
            only(&response.await.unwrap(), "4", Reason::GrpcDeadline);
            let took = began.elapsed();
            assert!((Duration::from_millis(200)..Duration::from_millis(4000)).contains(&took), "{took:?}");
        }
        let told = bench.told(2).await;
        assert!(told.iter().all(|told| (told.status, told.refusal) == (200, Some(Reason::GrpcDeadline))));
        eventually(|| seen.resets.borrow().len() == 2).await;
        assert_eq!(seen.resets.take(), [h2::Reason::CANCEL; 2]);
        assert_eq!(seen.timeouts.take(), [Some("200m".to_owned()), Some("200m".to_owned())]);
        assert_eq!(seen.connections.get(), 1, "the connection to the origin goes on");
    });
}

#[test]
fn the_routes_own_time_out_counts_where_it_is_shorter() {
    local(|| async {
        let (address, _) = calls(|_, respond| async move { Half::Before(respond) }).await;
        let bench = Bench::with(&[address], |snapshot| snapshot.routes[0].response_timeout_ms = 100);
        let mut send = connect(&bench).await;
        for timeouts in [&["5S"][..], &[], &["99999999H"]] {
            only(&call(&mut send, timeouts, true).0.await.unwrap(), "14", Reason::OriginTimeout);
        }
        only(&call(&mut send, &["50m"], true).0.await.unwrap(), "4", Reason::GrpcDeadline);
    });
}

#[test]
fn an_answer_that_is_late_ends_with_its_status_between_messages_and_else_with_cancel() {
    local(|| async {
        for (sent, cut) in [(MESSAGE.len(), false), (0, false), (3, true), (MESSAGE.len() - 1, true)] {
            let (address, seen) = calls(move |_, respond| async move {
                let mut send = head(respond);
                send.send_data(Bytes::from_static(&MESSAGE[..sent]), false).unwrap();
                Half::After(send)
            })
            .await;
            let bench = Bench::new(&[address]);
            let mut send = connect(&bench).await;
            let (response, _body) = call(&mut send, &["150000u"], false);
            let response = response.await.unwrap();
            assert!(!response.headers().contains_key("grpc-status"));
            let (data, end) = rest(&mut response.into_body()).await;
            match end {
                Ok(end) => assert!(!cut && end.starts_with("4 grpc-deadline (request "), "{sent} {end}"),
                Err(code) => assert!(cut && code == h2::Reason::CANCEL, "{sent} {code:?}"),
            }
            assert_eq!(data, &MESSAGE[..sent]);
            let told = bench.told(1).await;
            assert_eq!((told[0].status, told[0].refusal), (200, Some(Reason::GrpcDeadline)));
            eventually(|| seen.resets.borrow().len() == 1).await;
            assert_eq!(seen.resets.take(), [h2::Reason::CANCEL]);
        }
    });
}

#[test]
fn a_client_that_does_not_read_is_reset_when_its_time_is_up() {
    local(|| async {
        let (address, _) = calls(|_, respond| async move {
            let mut send = head(respond);
            let messages = [0, 0, 1, 0, 0].into_iter().chain(std::iter::repeat_n(7, 1 << 16));
            send.send_data(messages.collect::<Vec<_>>().repeat(4).into(), false).unwrap();
            Half::After(send)
        })
        .await;
        let bench = Bench::new(&[address]);
        let mut send = connect(&bench).await;
        let (response, _body) = call(&mut send, &["150m"], true);
        let mut body = response.await.unwrap().into_body();
        assert_eq!(bench.told(1).await[0].refusal, Some(Reason::GrpcDeadline));
        assert_eq!(rest(&mut body).await.1, Err(h2::Reason::CANCEL));
    });
}

#[test]
fn a_time_out_that_is_none_is_refused_and_one_that_is_over_asks_nobody() {
    local(|| async {
        let (address, seen) = calls(|_, respond| async move { Half::Before(respond) }).await;
        let bench = Bench::new(&[address]);
        let mut send = connect(&bench).await;
        for timeouts in [&["1"][..], &["S"], &[""], &["100000000n"], &["1 S"], &["1S", "1S"]] {
            only(&call(&mut send, timeouts, true).0.await.unwrap(), "13", Reason::BadGrpcTimeout);
        }
        only(&call(&mut send, &["0n"], true).0.await.unwrap(), "4", Reason::GrpcDeadline);
        assert_eq!(seen.connections.get(), 0);
        // To who does not speak gRPC the field says nothing.
        let request = Request::post("https://a.test/").header("grpc-timeout", "never").body(()).unwrap();
        // Held: a stream that is given up may reach no origin.
        let asked = send.send_request(request, true).unwrap();
        eventually(|| seen.connections.get() == 1).await;
        drop(asked);
    });
}

#[test]
fn connecting_takes_no_longer_than_the_client_waits() {
    local(|| async {
        // A full accept queue: the kernel answers nothing more.
        let full = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None).unwrap();
        full.bind(&"[::1]:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        full.listen(0).unwrap();
        let address = full.local_addr().unwrap().as_socket().unwrap();
        let held: Vec<_> = (0..4).map(|_| tokio::spawn(tokio::net::TcpStream::connect(address))).collect();
        sleep(Duration::from_millis(50)).await;
        let bench = Bench::with(&[address], |snapshot| snapshot.origin_groups[0].connect_timeout_ms = 10_000);
        let mut send = connect(&bench).await;
        let began = Instant::now();
        only(&call(&mut send, &["100m"], true).0.await.unwrap(), "4", Reason::GrpcDeadline);
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        drop(held);
    });
}

/// Limits that a stream would soon meet if they were for it.
fn short(snapshot: &mut Snapshot) {
    snapshot.routes[0].response_timeout_ms = 300;
    snapshot.listeners[0].limits.stall_ms = 300;
    snapshot.listeners[0].limits.tunnel_idle_ms = 2_000;
}

#[test]
fn a_stream_without_a_time_out_may_be_silent_as_a_tunnel_may() {
    local(|| async {
        let (address, _) = calls(|_, respond| async move {
            let mut send = head(respond);
            for _ in 0..3 {
                sleep(Duration::from_millis(500)).await;
                send.send_data(Bytes::from_static(MESSAGE), false).unwrap();
            }
            Half::After(send)
        })
        .await;
        let bench = Bench::with(&[address], short);
        let mut send = connect(&bench).await;
        let (response, _body) = call(&mut send, &[], false);
        let (data, end) = rest(&mut response.await.unwrap().into_body()).await;
        assert_eq!(data, MESSAGE.repeat(3));
        assert!(end.unwrap().starts_with("14 tunnel-idle (request "));
        assert_eq!(bench.told(1).await[0].refusal, Some(Reason::TunnelIdle));
    });
}

#[test]
fn a_client_may_be_silent_between_its_messages_before_there_is_an_answer() {
    local(|| async {
        let (address, _) = calls(|request, respond| async move {
            let mut body = request.into_body();
            while let Some(Ok(data)) = body.data().await {
                body.flow_control().release_capacity(data.len()).unwrap();
            }
            Half::After(head(respond))
        })
        .await;
        let bench = Bench::with(&[address], short);
        let mut send = connect(&bench).await;
        let (response, mut body) = call(&mut send, &[], false);
        for ended in [false, false, true] {
            sleep(Duration::from_millis(500)).await;
            body.send_data(Bytes::from_static(MESSAGE), ended).unwrap();
        }
        assert!(!response.await.unwrap().headers().contains_key("grpc-status"));
        only(&call(&mut send, &[], false).0.await.unwrap(), "2", Reason::BodyTimeout);
    });
}

#[test]
fn an_answer_whose_origin_dies_ends_with_its_status() {
    local(|| async {
        let address = origin(|_, stream| async move {
            let mut connection = server::handshake(stream).await.unwrap();
            let (_, respond) = connection.accept().await.unwrap().unwrap();
            let mut send = head(respond);
            send.send_data(Bytes::from_static(MESSAGE), false).unwrap();
            let _ = tokio::time::timeout(Duration::from_millis(100), connection.accept()).await;
        })
        .await;
        let bench = Bench::new(&[address]);
        let mut send = connect(&bench).await;
        let (response, _body) = call(&mut send, &[], false);
        let (data, end) = rest(&mut response.await.unwrap().into_body()).await;
        assert_eq!(data, MESSAGE);
        assert!(end.unwrap().starts_with("14 origin-gone (request "));
    });
}

#[test]
fn http11_origins_are_given_up_as_well() {
    local(|| async {
        let closed = Rc::new(Cell::new(false));
        let seen = Rc::clone(&closed);
        let address = origin(move |_, mut stream| {
            let seen = Rc::clone(&seen);
            async move {
                let request = read_all(&mut stream).await;
                assert!(request.contains("grpc-timeout: 100m\r\n"), "{request}");
                seen.set(true);
            }
        })
        .await;
        let bench = Bench::with(&[address], |snapshot| {
            snapshot.origin_groups[0].protocols = Protocols::Http1;
        });
        let mut send = connect(&bench).await;
        only(&call(&mut send, &["100m"], true).0.await.unwrap(), "4", Reason::GrpcDeadline);
        eventually(|| closed.get()).await;
    });
}

/// An origin of HTTP/1.1 in clear text, which takes a call's preface for a request, or waits for more of one; and one that is gone.
#[test]
fn clients_cannot_have_origins_ejected_by_calling_what_speaks_no_grpc() {
    local(|| async {
        let plain = |answers: bool| {
            origin(move |_, mut stream| async move {
                while read_head(&mut stream).await.is_some() {
                    if answers {
                        let bad = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
                        let _ = stream.write_all(bad).await;
                    }
                }
                sleep(Duration::from_secs(9)).await;
            })
        };
        let gone = || async { TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap() };
        for (protocols, origins, ejected) in [
            (Protocols::Auto, [plain(true).await, plain(true).await], false),
            (Protocols::Auto, [plain(false).await, plain(false).await], false),
            (Protocols::Http2, [plain(true).await, plain(true).await], true),
            (Protocols::Auto, [gone().await, gone().await], true),
        ] {
            let bench = Bench::with(&origins, |snapshot| {
                let group = &mut snapshot.origin_groups[0];
                (group.protocols, group.connect_timeout_ms) = (protocols, 100);
                group.choice.ejection.failures = 1;
            });
            let mut send = connect(&bench).await;
            for _ in 0..3 {
                let response = call(&mut send, &[], true).0.await.unwrap();
                assert_eq!(response.headers()["grpc-status"], "14");
            }
            let live = bench.ctx.live.load_full();
            let now = clock(Instant::now());
            let mut members = live.groups.values().flat_map(|group| &group.members);
            let none = members.all(|member| member.origin.health.well(now));
            assert_eq!(none, !ejected, "{protocols:?} {origins:?}");
        }
    });
}
