//! Streams that end in a reset of ours: what they cost an origin, and whom they are held against.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;

use model::snapshot::Protocols;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{Duration, timeout};

use super::bench::{Bench, answering, local, origin, read_all};
use super::floods::{GET, PREFACE, WHOLE, frame};
use crate::worker::refusal::Reason;

/// RST_STREAM's codes (RFC 9113, 7).
const FLOW_CONTROL_ERROR: u8 = 3;
const STREAM_CLOSED: u8 = 5;
const REFUSED_STREAM: u8 = 7;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// A client of frames.
pub(super) struct Client {
    stream: DuplexStream,
    read: Vec<u8>,
}

impl Client {
    pub(super) async fn connect(bench: &Bench, pipe: usize) -> Self {
        let mut stream = bench.connect_as(pipe, true, None);
        stream.write_all(PREFACE).await.unwrap();
        Self { stream, read: Vec::new() }
    }

    pub(super) async fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next stream that is over: with an answer, or with a reset's code.
    async fn over(&mut self) -> (u32, Option<u8>) {
        loop {
            let (kind, stream, payload) = self.frame().await;
            match kind {
                1 => return (stream, None),
                3 => return (stream, Some(payload[3])),
                7 => panic!("sent away: {payload:?}"),
                _ => {}
            }
        }
    }

    pub(super) async fn frame(&mut self) -> (u8, u32, Vec<u8>) {
        loop {
            if let Some(([a, b, c, kind, _, stream @ ..], rest)) = self.read.split_first_chunk::<9>()
                && let Some(payload) = rest.get(..u32::from_be_bytes([0, *a, *b, *c]) as usize)
            {
                let frame = (*kind, u32::from_be_bytes(*stream), payload.to_vec());
                self.read.drain(..9 + frame.2.len());
                return frame;
            }
            let more = timeout(Duration::from_secs(5), self.stream.read_buf(&mut self.read)).await;
            assert!(more.expect("silence").unwrap() > 0, "the connection is closed");
        }
    }
}

/// A stream whose window grows beyond what a window may be: our error to reset, the client's to make.
fn overflowing(id: u32) -> Vec<u8> {
    [frame(1, WHOLE, id, GET), frame(8, 0, id, &[0x7f, 0xff, 0xff, 0xff])].concat()
}

#[test]
fn who_opens_too_many_streams_is_served_however_often() {
    local(|| async {
        const AT_ONCE: usize = 12;
        let (address, _) = answering(OK).await;
        let bench =
            Bench::with(&[address], |snapshot| snapshot.listeners[0].limits.streams = AT_ONCE as u32 / 3);
        let mut client = Client::connect(&bench, 64 * 1024).await;
        let (mut ids, mut refused, mut answered) = ((1..).step_by(2), 0, 0);
        while answered < 500 {
            // The refused ones are asked again, beside new ones.
            let opened: BTreeSet<u32> = ids.by_ref().take(AT_ONCE).collect();
            let heads: Vec<u8> = opened.iter().flat_map(|id| frame(1, WHOLE, *id, GET)).collect();
            client.say(&heads).await;
            for _ in &opened {
                match client.over().await {
                    (_, None) => answered += 1,
                    (_, Some(REFUSED_STREAM)) => refused += 1,
                    other => panic!("{other:?}"),
                }
            }
        }
        assert!(refused > 900, "{refused}");
        assert_eq!(*bench.log.floods.borrow(), []);
    });
}

#[test]
fn no_origin_is_asked_for_a_stream_that_is_over_already() {
    local(|| async {
        let connections = Rc::new(Cell::new(0));
        let count = Rc::clone(&connections);
        let address = origin(move |_, mut stream| {
            count.set(count.get() + 1);
            async move {
                stream.write_all(OK.as_bytes()).await.unwrap();
                read_all(&mut stream).await;
            }
        })
        .await;
        let bench = Bench::new(&[address]);
        let mut client = Client::connect(&bench, 64 * 1024).await;
        for wave in 0..5 {
            let ids: Vec<u32> = (1..40).step_by(2).map(|id| id + wave * 40).collect();
            client.say(&ids.iter().flat_map(|id| overflowing(*id)).collect::<Vec<_>>()).await;
            for _ in &ids {
                assert_eq!(client.over().await.1, Some(FLOW_CONTROL_ERROR));
            }
        }
        assert_eq!(connections.get(), 0);
        client.say(&frame(1, WHOLE, 1001, GET)).await;
        assert_eq!((client.over().await, connections.get()), ((1001, None), 1));
    });
}

#[test]
fn a_dial_ends_with_its_stream() {
    let left = frame(3, 0, 1, &[0, 0, 0, 8]);
    let overflows = frame(8, 0, 1, &[0x7f, 0xff, 0xff, 0xff]);
    for end in [left, overflows] {
        local(|| async move {
            let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
            // It never says its settings: the connection to it never stands.
            let address = origin(move |_, mut stream| {
                let tell = tell.clone();
                async move {
                    tell.send("open").unwrap();
                    read_all(&mut stream).await;
                    tell.send("closed").unwrap();
                }
            })
            .await;
            let bench = Bench::with(&[address], |snapshot| {
                snapshot.origin_groups[0].protocols = Protocols::Http2;
                snapshot.origin_groups[0].connect_timeout_ms = 60_000;
            });
            let mut client = Client::connect(&bench, 64 * 1024).await;
            client.say(&frame(1, WHOLE, 1, GET)).await;
            assert_eq!(told.recv().await, Some("open"));
            client.say(&end).await;
            let closed = timeout(Duration::from_secs(5), told.recv()).await;
            assert_eq!(closed.expect("the dial goes on"), Some("closed"));
            assert_eq!(bench.told(1).await[0].refusal, Some(Reason::ClientGone));
            assert_eq!(*bench.log.failures.borrow(), [""; 0]);
        });
    }
}

#[test]
fn resets_that_nobody_reads_have_an_end() {
    local(|| async {
        let (address, _) = answering(OK).await;
        let bench = Bench::new(&[address]);
        let mut client = Client::connect(&bench, 4096).await;
        // Data for streams that are long gone, each of which is answered with a reset.
        client.say(&frame(1, WHOLE, 100_001, GET)).await;
        let late: Vec<u8> = (1..100_000).step_by(2).flat_map(|id| frame(0, 0, id, b"x")).collect();
        let write = client.stream.write_all(&late);
        assert!(timeout(Duration::from_millis(500), write).await.is_err(), "all of it was read");
        // Whoever reads after all is heard again, and told when it was too much.
        let mut closed = 0;
        let goaway = loop {
            match client.frame().await {
                (3, _, code) => closed += u32::from(code[3] == STREAM_CLOSED),
                (7, _, payload) => break payload[7],
                _ => {}
            }
        };
        assert_eq!((closed >= 1000, goaway), (true, 11), "{closed}");
    });
}
