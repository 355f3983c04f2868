use std::sync::OnceLock;

use super::walk::{Walk, *};
use super::{Flood, Guard, MOST_CREDIT, Peer, earned};
use tokio::time::{Duration, Instant};

const PRI: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const CLIENT: Peer = Peer::Client { streams: 100 };
const ORIGIN: Peer = Peer::Origin { streams: 100 };

/// A clock on which no time passes.
fn stopped() -> Instant {
    static NOW: OnceLock<Instant> = OnceLock::new();
    *NOW.get_or_init(Instant::now)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// What is left of `bytes` when they come in pieces.
fn read(guard: &mut Guard, bytes: &[u8], piece: usize) -> Vec<u8> {
    let mut left = Vec::new();
    for piece in bytes.chunks(piece) {
        let mut piece = piece.to_vec();
        let kept = guard.received(&mut piece);
        left.extend_from_slice(&piece[..kept]);
    }
    left
}

/// A connection of a client that has said its preface and opened stream 1.
fn client() -> Guard {
    let mut guard = Guard::new(CLIENT, stopped);
    read(&mut guard, &[PRI, &frame(HEADERS, END_HEADERS, 1, b"head")].concat(), 1000);
    guard
}

/// How many of a frame pass, one after the other.
fn passes(guard: &mut Guard, frame: &[u8]) -> u32 {
    (0..MOST_CREDIT * 2).find(|_| (read(guard, frame, 100), guard.flood()).1.is_some()).expect("no bound")
}

#[test]
fn heads_are_found_however_they_are_cut() {
    let frames = [
        frame(SETTINGS, 0, 0, &[0; 12]),
        frame(DATA, 0, 1, &[9; 300]),
        frame(DATA, END_STREAM, 3, b""),
        frame(0xfe, 0xff, 0x7fff_ffff, &[1; 70_000]),
        frame(PING, ACK, 0, &[0; 8]),
    ];
    let bytes = [PRI, &frames.concat()].concat();
    for piece in [1, 2, 8, 9, 10, 13, 1000, 100_000] {
        let (mut walk, mut heads) = (Walk::new(true), Vec::new());
        for mut piece in bytes.chunks(piece) {
            while !piece.is_empty() {
                let (length, head) = walk.step(piece);
                heads.extend(head);
                piece = &piece[length..];
            }
        }
        let found: Vec<_> =
            heads.iter().map(|head| (head.kind, head.flags, head.stream, head.length)).collect();
        let expected =
            [(4, 0, 0, 12), (0, 0, 1, 300), (0, 1, 3, 0), (0xfe, 0xff, 0x7fff_ffff, 70_000), (6, 1, 0, 8)];
        assert_eq!(found, expected, "{piece}");
    }
}

#[test]
fn each_kind_has_its_budget() {
    let empty = Flood::Empty;
    for (sent, flood, most) in [
        (frame(SETTINGS, 0, 0, b""), Flood::Settings, 100),
        (frame(PING, 0, 0, &[0; 8]), Flood::Ping, 1000),
        (frame(PING, ACK, 0, &[0; 8]), Flood::Ping, 1000),
        (frame(RST_STREAM, 0, 1, &[0; 4]), Flood::Reset, 400),
        (frame(PRIORITY, 0, 1, &[0; 5]), Flood::Priority, 1016),
        (frame(PRIORITY_UPDATE, 0, 0, b"\0\0\0\x01u=3"), Flood::Priority, 1016),
        (frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]), Flood::WindowUpdate, 1002),
        (frame(DATA, 0, 1, b""), empty, 1000),
        (frame(HEADERS, 0, 3, b""), empty, 1000),
        (frame(CONTINUATION, 0, 1, b""), empty, 1000),
        (frame(0xfa, 0, 0, b"grease"), Flood::Other, 1004),
        (frame(7, 0, 0, &[0; 8]), Flood::Other, 1004),
    ] {
        let mut guard = client();
        let passed = passes(&mut guard, &sent);
        assert_eq!((guard.flood(), passed), (Some(flood), most), "{sent:?}");
        // Nothing behind it is read any more.
        assert!(read(&mut guard, &frame(DATA, END_STREAM, 1, b"x"), 100).is_empty());
    }
}

#[test]
fn what_asks_for_something_has_no_budget() {
    let mut guard = client();
    for stream in (3..400_001).step_by(2) {
        read(&mut guard, &frame(HEADERS, END_HEADERS, stream, b"head"), 1000);
        read(&mut guard, &frame(DATA, 0, stream, b"x"), 1000);
        read(&mut guard, &frame(SETTINGS, ACK, 0, b""), 1000);
    }
    assert_eq!(guard.flood(), None);
}

#[test]
fn work_gives_budgets_back() {
    let mut guard = client();
    let (ping, window) = (frame(PING, 0, 0, &[0; 8]), frame(WINDOW_UPDATE, 0, 1, &[0, 0, 1, 0]));
    // A download in 16 KiB pieces, for each of which the client measures the path, and opens both windows every 256 bytes.
    for _ in 0..10_000 {
        guard.sent(&frame(DATA, 0, 1, &[0; 16 * 1024]));
        read(&mut guard, &ping, 1000);
        for _ in 0..128 {
            read(&mut guard, &window, 1000);
        }
    }
    // One message after the other, and a ping for each.
    for _ in 0..100_000 {
        guard.sent(&frame(DATA, 0, 1, b"message"));
        read(&mut guard, &[&ping[..], &window, &window].concat(), 1000);
    }
    // Every other request is left before its answer; each comes with a priority and a frame of a reserved type.
    for at in 0..10_000 {
        let opened = frame(HEADERS, END_HEADERS, 3 + 4 * at, b"head");
        let more = [frame(PRIORITY, 0, 3 + 4 * at, &[0; 5]), frame(0x0b, 0, 3, b"")].concat();
        read(&mut guard, &[&opened[..], &more].concat(), 1000);
        guard.sent(&frame(HEADERS, END_HEADERS | END_STREAM, 1 + 4 * at, b"head"));
        read(&mut guard, &frame(RST_STREAM, 0, 3 + 4 * at, &[0; 4]), 1000);
    }
    assert_eq!(guard.flood(), None);
}

#[test]
fn work_of_one_kind_is_no_excuse_for_another() {
    let mut guard = client();
    for _ in 0..100_000 {
        guard.sent(&frame(DATA, 0, 1, b"message"));
    }
    assert_eq!(passes(&mut guard, &frame(SETTINGS, 0, 0, b"")), 100);
    let mut guard = client();
    for _ in 0..100_000 {
        guard.sent(&frame(DATA, 0, 1, b"message"));
    }
    assert_eq!(passes(&mut guard, &frame(PING, 0, 0, &[0; 8])), MOST_CREDIT, "what is put by has an end");
}

#[test]
fn time_gives_budgets_back_up_to_what_they_were() {
    let rule = Flood::Reset.allowance(128);
    assert_eq!(rule, (512, 128));
    assert_eq!(earned(rule, Duration::from_millis(7)), 0);
    assert_eq!(earned(rule, Duration::from_secs(1)), 128);
    assert_eq!(earned(rule, Duration::from_secs(3600)), 512);
}

#[test]
fn resets_that_answer_a_clients_errors_have_a_budget() {
    let reset = |code: u8| frame(RST_STREAM, 0, 1, &[0, 0, 0, code]);
    for (code, piece, most) in
        [(1, 13, 125), (3, 13, 125), (5, 13, 1000), (7, 13, 1000), (7, 10, 1000), (8, 13, 5000)]
    {
        let mut guard = client();
        let sent = |guard: &mut Guard| reset(code).chunks(piece).for_each(|piece| guard.sent(piece));
        let passed = (0..5000).take_while(|_| (sent(&mut guard), guard.flood()).1.is_none()).count();
        assert_eq!(passed, most, "{code} in pieces of {piece}");
        // Four answers are worth two errors, or sixteen refusals.
        let mut guard = client();
        for at in 0..4 {
            guard.sent(&frame(HEADERS, END_HEADERS | END_STREAM, 1 + 2 * at, b"head"));
        }
        for _ in 0..most + most / 62 {
            sent(&mut guard);
        }
        assert_eq!(guard.flood(), None);
    }
    // An origin's errors are h2's.
    let mut guard = Guard::new(ORIGIN, stopped);
    guard.sent(PRI);
    guard.sent(&reset(3).repeat(5000));
    assert_eq!(guard.flood(), None);
}

#[test]
fn a_client_that_reads_nothing_is_read_no_further() {
    let mut guard = client();
    let data = frame(DATA, 0, 1, b"x");
    read(&mut guard, &data.repeat(10_000), 1000);
    assert!(!guard.is_deaf());
    guard.heard(false);
    read(&mut guard, &data.repeat(4095), 1000);
    guard.heard(false);
    assert!(!guard.is_deaf());
    read(&mut guard, &data, 1000);
    assert!(guard.is_deaf());
    guard.heard(true);
    assert!(!guard.is_deaf());
}

#[test]
fn an_origin_may_refuse_every_request_and_no_more() {
    let mut guard = Guard::new(ORIGIN, stopped);
    guard.sent(PRI);
    let reset = |stream: u32| frame(RST_STREAM, 0, stream, &[0, 0, 0, 7]);
    for at in 0..10_000 {
        guard.sent(&frame(HEADERS, END_HEADERS | END_STREAM, 2 * at + 1, b"head"));
        read(&mut guard, &reset(2 * at + 1), 100);
    }
    assert_eq!(guard.flood(), None);
    assert_eq!(passes(&mut guard, &reset(1)), 400);
}

#[test]
fn empty_data_frames_are_left_out_of_what_h2_reads() {
    let nothing = frame(DATA, 0, 1, b"");
    let some = [
        frame(DATA, 0, 1, b"one"),
        frame(HEADERS, END_HEADERS, 3, b"head"),
        frame(DATA, 0, 3, &[7; 500]),
        frame(DATA, END_STREAM, 3, b""),
        frame(DATA, END_STREAM, 1, b"two"),
    ];
    let mut bytes = Vec::new();
    for one in &some {
        bytes.extend_from_slice(one);
        bytes.extend(nothing.repeat(3));
    }
    // Where heads come in one piece: the usual case, because a sender's frames stand in one record.
    let mut guard = client();
    assert_eq!(read(&mut guard, &bytes, 100_000), some.concat());
    for piece in 1..200 {
        let mut guard = client();
        let left = read(&mut guard, &bytes, piece);
        let mut walk = Walk::new(false);
        let (mut at, mut data) = (0, Vec::new());
        while at < left.len() {
            let (length, head) = walk.step(&left[at..]);
            data.extend(head.filter(|head| head.length > 0 || head.has(END_STREAM)));
            at += length;
        }
        assert_eq!(data.len(), some.len(), "{piece}");
        assert_eq!(guard.flood(), None);
    }
}

#[test]
fn what_h2_has_to_judge_is_left_to_it() {
    // In a header block, on streams that nobody opened, of the connection, with padding: all of it for h2.
    for bytes in [
        [frame(HEADERS, 0, 3, b"head"), frame(DATA, 0, 3, b"")].concat(),
        frame(DATA, 0, 5, b""),
        frame(DATA, 0, 0, b""),
        frame(DATA, PADDED, 1, b""),
    ] {
        assert_eq!(read(&mut client(), &bytes, 1000), bytes);
    }
}

#[test]
fn a_turn_ends_by_frames_and_by_bytes() {
    let mut guard = client();
    assert!(!guard.turn_is_over());
    read(&mut guard, &frame(DATA, 0, 1, b"x").repeat(512), 1000);
    assert!(guard.turn_is_over() && !guard.turn_is_over());
    read(&mut guard, &frame(DATA, 0, 1, &[0; 256 * 1024]), 16 * 1024);
    assert!(guard.turn_is_over() && !guard.turn_is_over());
}
