//! Which origin a request goes to, end to end: weights, priorities, what is left alone, bounds and retries.

use std::net::SocketAddr;
use std::sync::Arc;

use model::snapshot::{Probe, ProbeMethod};
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::time::{Duration, sleep};

use super::bench::{Bench, answering, local, origin, read_head};
use crate::worker::hops::Stop;
use crate::worker::origin::health::clock;
use crate::worker::origin::probe;
use crate::worker::refusal::Reason;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
const LAST: &str = "GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";

/// An address where nobody listens.
async fn nobody() -> SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[test]
fn weights_priorities_and_disabled_origins() {
    local(|| async {
        let ((a, seen_a), (b, seen_b), (c, seen_c)) =
            (answering(OK).await, answering(OK).await, answering(OK).await);
        let mut bench = Bench::with(&[a, b, c], |snapshot| {
            let origins = &mut snapshot.origin_groups[0].origins;
            (origins[0].share.weight, origins[1].share.weight) = (5, 8);
            origins[2].share.priority = 2;
        });
        for _ in 0..26 {
            assert!(bench.ask(LAST).await.contains(" 200 OK"));
        }
        let counts = || [seen_a.borrow().len(), seen_b.borrow().len(), seen_c.borrow().len()];
        let [a, b, c] = counts();
        assert!(a.abs_diff(10) <= 2 && b.abs_diff(16) <= 2 && c == 0, "{:?}", counts());
        let key = bench.ctx.live.load().groups.values().next().unwrap().members[2].origin.key;
        bench.apply(|snapshot| {
            let origins = &mut snapshot.origin_groups[0].origins;
            (origins[0].share.disabled, origins[1].share.disabled) = (true, true);
        });
        assert!(bench.ask(LAST).await.contains(" 200 OK"));
        assert_eq!(counts(), [a, b, 1]);
        let live = bench.ctx.live.load_full();
        assert_eq!(live.groups.values().next().unwrap().members[2].origin.key, key, "its state lives on");
        bench.apply(|snapshot| snapshot.origin_groups[0].origins[2].share.disabled = true);
        assert!(bench.ask(LAST).await.contains(Reason::NoOrigin.name()));
    });
}

#[test]
fn an_origin_that_fails_in_a_row_is_left_alone_and_comes_back() {
    local(|| async {
        let ((bad, seen_bad), (good, seen_good)) = (answering(BUSY).await, answering(OK).await);
        let bench = Bench::with(&[bad, good], |snapshot| {
            let ejection = &mut snapshot.origin_groups[0].choice.ejection;
            (ejection.failures, ejection.base_ms, ejection.gateway_errors) = (2, 300, true);
        });
        for _ in 0..20 {
            bench.ask(LAST).await;
        }
        assert_eq!((seen_bad.borrow().len(), seen_good.borrow().len()), (2, 18));
        sleep(Duration::from_millis(350)).await;
        for _ in 0..8 {
            bench.ask(LAST).await;
        }
        assert_eq!(seen_bad.borrow().len(), 4, "two more failures eject it again");
    });
}

#[test]
fn an_origins_exchanges_are_bounded_some_wait_and_the_rest_is_refused() {
    local(|| async {
        let address = origin(|_, mut stream| async move {
            while read_head(&mut stream).await.is_some() {
                sleep(Duration::from_millis(100)).await;
                let _ = stream.write_all(OK.as_bytes()).await;
            }
        })
        .await;
        let bench = Bench::with(&[address], |snapshot| {
            let choice = &mut snapshot.origin_groups[0].choice;
            (choice.connections, choice.pending) = (1, 1);
        });
        let answers = tokio::join!(bench.ask(LAST), bench.ask(LAST), bench.ask(LAST));
        let answers = [answers.0, answers.1, answers.2];
        let count = |what: &str| answers.iter().filter(|answer| answer.contains(what)).count();
        assert_eq!((count(" 200 OK"), count(Reason::OriginBusy.name())), (2, 1), "{answers:?}");
        // The idle connection holds no place.
        assert!(bench.ask(LAST).await.contains(" 200 OK"));
        assert!(bench.told(4).await[3].reused);
    });
}

#[test]
fn retries_have_a_budget() {
    local(|| async {
        let origins = [nobody().await, nobody().await];
        let bench = Bench::with(&origins, |snapshot| snapshot.origin_groups[0].choice.retry_percent = 0);
        let mut answers = Vec::new();
        for _ in 0..12 {
            answers.push(bench.ask(LAST).await);
        }
        let count = |what: Reason| answers.iter().filter(|answer| answer.contains(what.name())).count();
        assert_eq!((count(Reason::OriginUnreachable), count(Reason::RetryBudget)), (10, 2));
    });
}

#[test]
fn probes_find_out_who_is_healthy_and_when_none_is_all_are_used() {
    local(|| async {
        let ((good, seen_good), (bad, seen_bad)) = (answering(OK).await, answering(BUSY).await);
        let mut bench = Bench::with(&[good, bad], |snapshot| {
            snapshot.origin_groups[0].choice.probe = Some(Probe {
                method: ProbeMethod::Get,
                path: "/live".to_owned(),
                interval_ms: 100,
                timeout_ms: 1000,
                samples: 2,
                healthy: 2,
                statuses: vec![200],
            });
        });
        let (stop, stopped) = watch::channel(Stop::Run);
        let (changed, told) = watch::channel(bench.snapshot.id);
        probe::start(Arc::clone(&bench.ctx.live), told, stopped).unwrap();
        let health = |at: usize| {
            let live = bench.ctx.live.load();
            let health = &live.groups.values().next().unwrap().members[at].origin.health;
            (health.probed(), health.well(clock(tokio::time::Instant::now())), health.why())
        };
        for _ in 0..100 {
            if health(0).0.is_some() && health(1).0.is_some() {
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(health(0), (Some(true), true, None));
        assert_eq!(health(1), (Some(false), false, Some("answered 503".to_owned())));
        let probe = seen_good.borrow()[0].clone();
        assert!(probe.starts_with("GET /live HTTP/1.1\r\nHost: 127.0.0.1:"), "{probe}");
        assert!(probe.contains("User-Agent: Sallyport-Probe\r\nX-Sallyport-Probe: 1\r\n"), "{probe}");
        for _ in 0..10 {
            assert!(bench.ask(LAST).await.contains(" 200 OK"));
        }
        // Another status is good now: the other one is asked.
        bench.apply(|snapshot| {
            snapshot.origin_groups[0].choice.probe.as_mut().unwrap().statuses = vec![503, 599];
        });
        changed.send_replace(bench.snapshot.id);
        sleep(Duration::from_millis(300)).await;
        let before = seen_bad.borrow().iter().filter(|head| head.starts_with("GET /x")).count();
        assert_eq!(before, 0);
        assert!(bench.ask(LAST).await.contains(" 503 "));
        // None is healthy: all are used.
        bench.apply(|snapshot| {
            snapshot.origin_groups[0].choice.probe.as_mut().unwrap().statuses = vec![599];
        });
        changed.send_replace(bench.snapshot.id);
        sleep(Duration::from_millis(300)).await;
        let mut good = 0;
        for _ in 0..10 {
            good += usize::from(bench.ask(LAST).await.contains(" 200 OK"));
        }
        assert!((3..=7).contains(&good), "{good}");
        stop.send_replace(Stop::Now);
    });
}
