use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Duration, sleep};

use super::bench::{Bench, answering, local, origin, read_all, read_head, read_some};
use crate::worker::hops::Stop;
use crate::worker::refusal::Reason;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
const GET: &str = "GET /x?q=1 HTTP/1.1\r\nHost: a.test\r\n\r\n";
const LAST: &str = "GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";

#[test]
fn a_request_goes_through_and_hop_by_hop_fields_do_not() {
    local(|| async {
        let (address, seen) = answering(
            "HTTP/1.1 200 Fine\r\nContent-Length: 2\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: a\r\nX-Kept: 2\r\n\r\nhi",
        )
        .await;
        let bench = Bench::new(&[address]);
        let answer = bench
            .ask(
                "GET /x/./y?q=%zz HTTP/1.1\r\nHost: A.test:443\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\n\
                 X-Forwarded-For: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Request-Id: mine\r\nX-Other: 3\r\n\
                 X-Forwarded-Client-Cert: 6.6.6.6\r\nX_Forwarded_Prefix: /6.6.6.6\r\n\r\n",
            )
            .await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nhi"), "{answer}");
        for (field, there) in
            [("X-Kept: 2", true), ("X-Hop", false), ("Keep-Alive", false), ("Via: 1.1 sallyport", true)]
        {
            assert_eq!(answer.contains(field), there, "{field} {answer}");
        }
        assert!(answer.contains("\r\nDate: ") && answer.contains("Connection: close\r\n"), "{answer}");
        let request = seen.borrow()[0].clone();
        assert!(request.starts_with("GET /x/y?q=%zz HTTP/1.1\r\nHost: a.test:443\r\n"), "{request}");
        for (field, there) in [
            ("X-Mine", false),
            ("6.6.6.6", false),
            ("X-Request-Id: mine", false),
            ("X-Other: 3", true),
            ("X-Forwarded-For: 192.0.2.9\r\n", true),
            ("X-Forwarded-Proto: https\r\n", true),
            ("X-Forwarded-Host: a.test:443\r\n", true),
            ("X-Forwarded-Port: 443\r\n", true),
            ("Forwarded: for=192.0.2.9;host=\"a.test:443\";proto=https\r\n", true),
        ] {
            assert_eq!(request.contains(field), there, "{field} {request}");
        }
        let told = bench.told(1).await;
        assert_eq!((told[0].status, told[0].refusal, told[0].sent), (200, None, 2));
    });
}

#[test]
fn a_trusted_client_is_believed() {
    local(|| async {
        let (address, seen) = answering(OK).await;
        let bench = Bench::with(&[address], |snapshot| {
            snapshot.listeners[0].trusted_prefixes = vec!["192.0.2.0/24".parse().unwrap()];
        });
        bench
            .ask(
                "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nX-Forwarded-For: 7.7.7.7\r\n\
                 X-Forwarded-Proto: http\r\nForwarded: for=7.7.7.7\r\nX-Forwarded-Prefix: /shop\r\n\r\n",
            )
            .await;
        let request = seen.borrow()[0].clone();
        assert!(request.contains("X-Forwarded-For: 7.7.7.7, 192.0.2.9\r\n"), "{request}");
        assert!(request.contains("X-Forwarded-Proto: http\r\n"), "{request}");
        assert!(request.contains("Forwarded: for=7.7.7.7, for=192.0.2.9;"), "{request}");
        assert!(request.contains("X-Forwarded-Prefix: /shop\r\n"), "{request}");
    });
}

#[test]
fn pipelined_requests_are_answered_in_order_over_one_pooled_connection() {
    local(|| async {
        let (address, seen) = answering(OK).await;
        let bench = Bench::new(&[address]);
        let answer = bench.ask(&format!("{GET}{GET}{LAST}")).await;
        assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 3, "{answer}");
        assert_eq!(seen.borrow().len(), 3);
        let told = bench.told(3).await;
        assert_eq!(told.iter().map(|told| told.reused).collect::<Vec<_>>(), [false, true, true]);
        assert_eq!(bench.ctx.pool.borrow().idle(), 1);
    });
}

#[test]
fn bodies_both_ways_with_trailers() {
    local(|| async {
        let address = origin(|_, mut stream| async move {
            let head = read_head(&mut stream).await.unwrap();
            assert!(head.contains("Transfer-Encoding: chunked\r\n"), "{head}");
            let body = read_some(&mut stream, "5\r\nhello\r\n0\r\nT: 1\r\n\r\n".len()).await;
            assert_eq!(body, b"5\r\nhello\r\n0\r\nT: 1\r\n\r\n");
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: U\r\n\r\n3;x\r\nabc\r\n0\r\nU: 2\r\n\r\n")
                .await
                .unwrap();
            read_all(&mut stream).await;
        })
        .await;
        let bench = Bench::new(&[address]);
        let request = "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
                       2;ext\r\nhe\r\n3\r\nllo\r\n0\r\nT: 1\r\n\r\n";
        let answer = bench.ask(request).await;
        assert!(answer.ends_with("\r\n\r\n3\r\nabc\r\n0\r\nU: 2\r\n\r\n"), "{answer}");
        let told = bench.told(1).await;
        assert_eq!((told[0].received, told[0].sent), (5, 3));
    });
}

#[test]
fn bodies_without_one() {
    local(|| async {
        for (method, answer, ends) in [
            ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "Content-Length: 5\r\n\r\n"),
            ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "Content-Length: 5\r\n\r\n"),
            ("GET", "HTTP/1.1 204 No Content\r\n\r\n", "\r\n\r\n"),
        ] {
            let (address, _) = answering(answer).await;
            let bench = Bench::new(&[address]);
            let one = format!("{method} / HTTP/1.1\r\nHost: a.test\r\n\r\n");
            let mut client = bench.connect();
            for _ in 0..2 {
                client.write_all(one.as_bytes()).await.unwrap();
                let head = read_head(&mut client).await.unwrap();
                assert!(head.ends_with(ends), "{head}");
            }
            bench.told(2).await;
        }
    });
}

#[test]
fn http10_clients_get_lengths_or_the_end_of_the_connection() {
    local(|| async {
        let (address, _) =
            answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").await;
        let bench = Bench::new(&[address]);
        let answer = bench.ask("GET / HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n").await;
        assert!(answer.ends_with("Connection: close\r\n\r\nabc"), "{answer}");
        let (address, _) = answering(OK).await;
        let bench = Bench::new(&[address]);
        let mut client = bench.connect();
        for _ in 0..2 {
            client
                .write_all(b"GET / HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n")
                .await
                .unwrap();
            let head = read_head(&mut client).await.unwrap();
            assert!(head.contains("Connection: keep-alive\r\n"), "{head}");
            assert_eq!(read_some(&mut client, 2).await, b"hi");
        }
    });
}

#[test]
fn an_origin_that_closes_to_end_its_body() {
    local(|| async {
        let address = origin(|_, mut stream| async move {
            read_head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nto the end").await.unwrap();
        })
        .await;
        let bench = Bench::new(&[address]);
        let answer = bench.ask(LAST).await;
        assert!(answer.ends_with("a\r\nto the end\r\n0\r\n\r\n"), "{answer}");
        assert_eq!(bench.ctx.pool.borrow().idle(), 0);
    });
}

#[test]
fn informational_responses_and_expect_continue() {
    local(|| async {
        let address = origin(|_, mut stream| async move {
            let head = read_head(&mut stream).await.unwrap();
            assert!(head.contains("Expect: 100-continue\r\n"), "{head}");
            stream
                .write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
                .await
                .unwrap();
            assert_eq!(read_some(&mut stream, 5).await, b"hello");
            stream.write_all(OK.as_bytes()).await.unwrap();
        })
        .await;
        let bench = Bench::new(&[address]);
        let mut client = bench.connect();
        client
            .write_all(b"PUT / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(read_head(&mut client).await.unwrap(), "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
        assert_eq!(read_head(&mut client).await.unwrap(), "HTTP/1.1 100 Continue\r\n\r\n");
        client.write_all(b"hello").await.unwrap();
        let head = read_head(&mut client).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK") && !head.contains("Connection: close"), "{head}");
    });
}

#[test]
fn an_early_answer_stops_the_upload() {
    local(|| async {
        let address = origin(|_, mut stream| async move {
            read_head(&mut stream).await;
            stream
                .write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
                .await
                .unwrap();
        })
        .await;
        let bench = Bench::new(&[address]);
        let mut client = bench.connect();
        client
            .write_all(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000\r\n\r\nabc")
            .await
            .unwrap();
        let answer = read_all(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("Connection: close\r\n"), "{answer}");
        assert!(answer.ends_with("big"));
        let told = bench.told(1).await;
        assert_eq!((told[0].status, told[0].refusal), (413, None));
    });
}

#[test]
fn a_stale_connection_is_retried_only_when_that_is_safe() {
    // Each connection answers once; a second request on it is read and then the connection is cut.
    let cutting = || {
        origin(|_, mut stream| async move {
            read_head(&mut stream).await;
            stream.write_all(OK.as_bytes()).await.unwrap();
            read_head(&mut stream).await;
        })
    };
    local(|| async {
        let bench = Bench::new(&[cutting().await]);
        let answer = bench.ask(&format!("{GET}{LAST}")).await;
        assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
        let told = bench.told(2).await;
        assert_eq!((told[1].attempts, told[1].reused, told[1].status), (2, false, 200));

        let bench = Bench::new(&[cutting().await]);
        let post = "POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let answer = bench.ask(&format!("{GET}{post}")).await;
        assert!(answer.contains("HTTP/1.1 502 ") && answer.contains("origin-gone"), "{answer}");
        assert_eq!(bench.told(2).await[1].refusal, Some(Reason::OriginGone));
    });
}

#[test]
fn a_connection_the_origin_closed_while_idle_is_not_used() {
    local(|| async {
        let address = origin(|_, mut stream| async move {
            read_head(&mut stream).await;
            stream.write_all(OK.as_bytes()).await.unwrap();
        })
        .await;
        let bench = Bench::new(&[address]);
        let mut client = bench.connect();
        for _ in 0..3 {
            client.write_all(b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            assert!(read_head(&mut client).await.unwrap().starts_with("HTTP/1.1 200"));
            read_some(&mut client, 2).await;
            sleep(Duration::from_millis(20)).await;
        }
        assert!(bench.told(3).await.iter().all(|told| !told.reused && told.attempts == 1));
    });
}

#[test]
fn the_next_origin_takes_over_and_the_dead_one_is_tried_last() {
    local(|| async {
        let (address, _) = answering(OK).await;
        let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let bench = Bench::new(&[dead, address]);
        let post = "POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc";
        let (mut attempts, mut failures) = (0, 0);
        for count in 1..=6 {
            // The answering origin leaves the body unread in its stream; a new connection each time.
            let answer = bench.ask(post).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            attempts += bench.told(count).await[count - 1].attempts;
            failures = bench.log.failures.borrow().len();
        }
        assert_eq!((attempts, failures), (7, 1), "tried once, then left alone");
    });
}

#[test]
fn a_slow_client_holds_back_a_fast_origin() {
    local(|| async {
        let written = std::rc::Rc::new(std::cell::Cell::new(0_usize));
        let count = std::rc::Rc::clone(&written);
        let address = origin(move |_, mut stream| {
            let count = std::rc::Rc::clone(&count);
            async move {
                read_head(&mut stream).await;
                let total = 64 * 1024 * 1024;
                stream
                    .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n").as_bytes())
                    .await
                    .unwrap();
                let piece = vec![7; 64 * 1024];
                while count.get() < total && stream.write_all(&piece).await.is_ok() {
                    count.set(count.get() + piece.len());
                }
            }
        })
        .await;
        let bench = Bench::new(&[address]);
        let mut client = bench.connect_as(16 * 1024, false, None);
        client.write_all(LAST.as_bytes()).await.unwrap();
        sleep(Duration::from_millis(300)).await;
        let held = written.get();
        assert!(held < 16 * 1024 * 1024, "only the kernel's and our own small buffers fill: {held}");
        let mut all = 0;
        let mut piece = vec![0; 256 * 1024];
        loop {
            match client.read(&mut piece).await.unwrap() {
                0 => break,
                read => all += read,
            }
        }
        assert!(all > 64 * 1024 * 1024);
        assert_eq!(bench.told(1).await[0].sent, 64 * 1024 * 1024);
    });
}

#[test]
fn a_slow_origin_holds_back_a_fast_client() {
    local(|| async {
        let (go, went) = tokio::sync::oneshot::channel::<()>();
        let went = std::cell::RefCell::new(Some(went));
        let address = origin(move |_, mut stream| {
            let went = went.borrow_mut().take();
            async move {
                read_head(&mut stream).await;
                went.unwrap().await.unwrap();
                let mut left = 64 * 1024 * 1024;
                let mut piece = vec![0; 256 * 1024];
                while left > 0 {
                    left -= stream.read(&mut piece).await.unwrap();
                }
                stream.write_all(OK.as_bytes()).await.unwrap();
            }
        })
        .await;
        let bench = Bench::new(&[address]);
        let mut client = bench.connect();
        client
            .write_all(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 67108864\r\n\r\n")
            .await
            .unwrap();
        let (mut written, piece) = (0, vec![7; 64 * 1024]);
        while let Ok(result) =
            tokio::time::timeout(Duration::from_millis(200), client.write_all(&piece)).await
        {
            result.unwrap();
            written += piece.len();
        }
        assert!(written < 16 * 1024 * 1024, "{written}");
        drop(client);
        drop(go);
        bench.told(1).await;
    });
}

#[test]
fn a_large_upload_arrives_whole() {
    local(|| async {
        let address = origin(|_, mut stream| async move {
            read_head(&mut stream).await;
            let (mut left, mut sum) = (8 * 1024 * 1024, 0_u64);
            let mut piece = vec![0; 100_000];
            while left > 0 {
                let read = stream.read(&mut piece).await.unwrap();
                sum += piece[..read].iter().map(|byte| u64::from(*byte)).sum::<u64>();
                left -= read;
            }
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{sum:020}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        })
        .await;
        let bench = Bench::new(&[address]);
        let body: Vec<u8> = (0..8 * 1024 * 1024_u32).map(|at| (at % 251) as u8).collect();
        let sum: u64 = body.iter().map(|byte| u64::from(*byte)).sum();
        let mut client = bench.connect();
        client
            .write_all(
                b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 8388608\r\nConnection: close\r\n\r\n",
            )
            .await
            .unwrap();
        client.write_all(&body).await.unwrap();
        assert!(read_all(&mut client).await.ends_with(&format!("{sum:020}")));
    });
}

#[test]
fn a_drain_finishes_what_is_under_way() {
    local(|| async {
        let address = origin(|_, mut stream| async move {
            read_head(&mut stream).await;
            sleep(Duration::from_millis(100)).await;
            stream.write_all(OK.as_bytes()).await.unwrap();
        })
        .await;
        let bench = Bench::new(&[address]);
        let mut idle = bench.connect();
        let mut busy = bench.connect();
        busy.write_all(GET.as_bytes()).await.unwrap();
        sleep(Duration::from_millis(30)).await;
        bench.ctx.set_stop(Stop::Drain { deadline: tokio::time::Instant::now() + Duration::from_secs(5) });
        assert_eq!(read_all(&mut idle).await, "");
        let answer = read_all(&mut busy).await;
        assert!(answer.contains("Connection: close") && answer.ends_with("hi"), "{answer}");
    });
}

#[test]
fn a_retiring_worker_lets_idle_connections_ask_once_more() {
    local(|| async {
        let (address, _) = answering(OK).await;
        let bench = Bench::new(&[address]);
        let (mut asked, mut fresh, mut silent) = (bench.connect(), bench.connect(), bench.connect());
        asked.write_all(GET.as_bytes()).await.unwrap();
        read_head(&mut asked).await.unwrap();
        read_some(&mut asked, 2).await;
        let began = tokio::time::Instant::now();
        bench.ctx.set_stop(Stop::Retire { deadline: began + Duration::from_secs(3) });
        // Longer than a draining node waits for a first request.
        sleep(Duration::from_millis(1500)).await;
        for client in [&mut asked, &mut fresh] {
            client.write_all(GET.as_bytes()).await.unwrap();
            let answer = read_all(client).await;
            assert!(answer.contains("Connection: close") && answer.ends_with("hi"), "{answer}");
        }
        assert_eq!(read_all(&mut silent).await, "");
        assert!(began.elapsed() >= Duration::from_millis(2900), "{:?}", began.elapsed());
    });
}

#[test]
fn a_drained_node_tells_connections_and_ends_them_at_the_listeners_deadline() {
    local(|| async {
        let (address, _) = answering(OK).await;
        let stuck = origin(|_, mut stream| async move {
            read_head(&mut stream).await;
            sleep(Duration::from_secs(60)).await;
        })
        .await;
        for (address, answered) in [(address, true), (stuck, false)] {
            let mut bench = Bench::new(&[address]);
            bench.apply(|snapshot| snapshot.listeners[0].limits.drain_ms = 300);
            let (mut idle, mut busy) = (bench.connect(), bench.connect());
            busy.write_all(GET.as_bytes()).await.unwrap();
            sleep(Duration::from_millis(50)).await;
            let began = tokio::time::Instant::now();
            bench.ctx.set_stop(Stop::Drained);
            assert_eq!(read_all(&mut idle).await, "");
            if !answered {
                read_all(&mut busy).await;
                assert!(began.elapsed() >= Duration::from_millis(250), "{:?}", began.elapsed());
            }
            assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
            // Back to work, at the same snapshot: new connections stay.
            bench.ctx.set_stop(Stop::Run);
            if answered {
                let mut again = bench.connect();
                again.write_all(GET.as_bytes()).await.unwrap();
                let head = read_head(&mut again).await.unwrap();
                assert!(head.starts_with("HTTP/1.1 200") && !head.contains("Connection: close"), "{head}");
            }
        }
    });
}

#[test]
fn a_new_snapshot_is_seen_by_the_next_request_of_a_live_connection() {
    local(|| async {
        let (address, _) = answering(OK).await;
        let mut bench = Bench::new(&[address]);
        let mut client = bench.connect();
        client.write_all(GET.as_bytes()).await.unwrap();
        assert!(read_head(&mut client).await.unwrap().starts_with("HTTP/1.1 200"));
        read_some(&mut client, 2).await;
        bench.apply(|snapshot| snapshot.routes.clear());
        client.write_all(GET.as_bytes()).await.unwrap();
        assert!(read_head(&mut client).await.unwrap().starts_with("HTTP/1.1 404"));
        bench.apply(|snapshot| snapshot.listeners.clear());
        read_all(&mut client).await;
        assert_eq!(bench.told(2).await[1].refusal, Some(Reason::NoRoute));
    });
}

#[test]
fn an_idle_connection_stays_small() {
    local(|| async {
        let bench = Bench::new(&["127.0.0.1:9".parse().unwrap()]);
        let (_, stream) = tokio::io::duplex(64);
        let secured = bench.secured(stream, false, None);
        let size = size_of_val(&crate::worker::hops::serve(secured, &bench.ctx));
        assert!(size < 4096, "every connection holds this future: {size}");
    });
}
