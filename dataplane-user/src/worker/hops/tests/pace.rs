//! Clients that send or take a body slower than `bodyBytesPerSecond`, and those that may.

use model::snapshot::{Protocols, Snapshot};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Duration, sleep};

use super::bench::{Bench, local, origin, read_all, read_head, read_some};
use crate::worker::refusal::Reason;

/// Twice the stall below in drips that are far shorter than it.
const DRIPS: usize = 24;
const DRIP: Duration = Duration::from_millis(25);

/// No wait as long as a stall, and the given rate.
fn pace(bytes_per_second: u32) -> impl FnOnce(&mut Snapshot) {
    move |snapshot| {
        let limits = &mut snapshot.listeners[0].limits;
        limits.stall_ms = 300;
        limits.body_bytes_per_second = bytes_per_second;
        // Whatever is asked: the origins here speak nothing else.
        snapshot.origin_groups[0].protocols = Protocols::Http1;
    }
}

async fn drip(mut to: impl AsyncWriteExt + Unpin) {
    for _ in 0..DRIPS {
        sleep(DRIP).await;
        if to.write_all(b"a").await.is_err() {
            return;
        }
    }
}

/// Answers when it has the whole body.
async fn patient() -> std::net::SocketAddr {
    origin(|_, mut stream| async move {
        read_head(&mut stream).await;
        read_some(&mut stream, DRIPS).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        read_all(&mut stream).await;
    })
    .await
}

#[test]
fn a_body_that_drips_is_cut_by_its_rate() {
    local(|| async {
        for (rate, refusal) in [(1000, Some(Reason::BodyTimeout)), (0, None), (30, None)] {
            let bench = Bench::with(&[patient().await], pace(rate));
            let (mut read, mut write) = tokio::io::split(bench.connect());
            let head = format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {DRIPS}\r\n\r\n");
            write.write_all(head.as_bytes()).await.unwrap();
            tokio::join!(drip(&mut write), read_head(&mut read));
            let told = bench.told(1).await;
            let status = refusal.map_or(200, Reason::status);
            assert_eq!((told[0].refusal, told[0].status), (refusal, status), "{rate} bytes a second");
        }
    });
}

#[test]
fn a_body_waits_for_the_origin_for_nothing() {
    local(|| async {
        let slow = origin(|_, mut stream| async move {
            read_head(&mut stream).await;
            // What fits into the sockets arrives at once; the rest when it is taken, which takes three stalls.
            for _ in 0..20 {
                sleep(Duration::from_millis(45)).await;
                read_some(&mut stream, 1_000_000).await;
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            read_all(&mut stream).await;
        });
        // The client sends as fast as it is let, and that is far below its rate.
        let bench = Bench::with(&[slow.await], pace(1_000_000_000));
        let (mut read, mut write) = tokio::io::split(bench.connect());
        let head = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 20000000\r\n\r\n";
        let body = vec![0; 20_000_000];
        let upload = async {
            write.write_all(head.as_bytes()).await.unwrap();
            write.write_all(&body).await.unwrap();
        };
        tokio::join!(upload, read_head(&mut read));
        assert_eq!(bench.told(1).await[0].refusal, None);
    });
}

#[test]
fn an_answer_that_is_sipped_is_cut_by_its_rate() {
    local(|| async {
        for (rate, refusal) in [(4_000_000, Some(Reason::BodyTimeout)), (0, None), (1000, None)] {
            let address = origin(|_, mut stream| async move {
                read_head(&mut stream).await;
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 800000\r\n\r\n").await.unwrap();
                stream.write_all(&vec![b'x'; 800_000]).await.unwrap();
                read_all(&mut stream).await;
            });
            let bench = Bench::with(&[address.await], pace(rate));
            let mut client = bench.connect_as(1024, false, None);
            client.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
            // About a million bytes a second: a piece of 64 KiB long before it stalls.
            let mut some = [0; 4096];
            let mut taken = 0;
            while let Ok(read @ 1..) = client.read(&mut some).await {
                taken += read;
                if taken >= 800_000 {
                    break;
                }
                sleep(Duration::from_millis(1)).await;
            }
            drop(client);
            assert_eq!(bench.told(1).await[0].refusal, refusal, "{rate} bytes a second");
        }
    });
}

#[test]
fn grpc_calls_and_conversations_may_be_slow() {
    local(|| async {
        let bench = Bench::with(&[patient().await], pace(1_000_000));
        let (send, connection) =
            h2::client::handshake(bench.connect_as(64 * 1024, true, None)).await.unwrap();
        tokio::task::spawn_local(async move { drop(connection.await) });
        let call = http::Request::post("https://a.test/").header("content-type", "application/grpc");
        let call = call.header("content-length", DRIPS).body(()).unwrap();
        let (answer, mut body) = send.ready().await.unwrap().send_request(call, false).unwrap();
        for at in 0..DRIPS {
            sleep(DRIP).await;
            body.send_data("a".into(), at == DRIPS - 1).unwrap();
        }
        assert_eq!(answer.await.unwrap().status(), 200);
        assert_eq!(bench.told(1).await[0].refusal, None);

        let talker = origin(|_, mut stream| async move {
            read_head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
            for _ in 0..DRIPS {
                let said = stream.read_u8().await.unwrap();
                stream.write_all(&[b'1', b'\r', b'\n', said, b'\r', b'\n']).await.unwrap();
            }
            stream.write_all(b"0\r\n\r\n").await.unwrap();
        });
        let bench = Bench::with(&[talker.await], pace(1_000_000));
        let (mut read, mut write) = tokio::io::split(bench.connect());
        let head = format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {DRIPS}\r\n\r\n");
        write.write_all(head.as_bytes()).await.unwrap();
        tokio::join!(drip(&mut write), async {
            let mut all = Vec::new();
            while !all.ends_with(b"0\r\n\r\n") && read.read_buf(&mut all).await.is_ok_and(|read| read > 0) {}
        });
        assert_eq!(bench.told(1).await[0].refusal, None);
    });
}
