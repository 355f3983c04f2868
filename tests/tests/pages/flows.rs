//! What the page Flows says: of each packet shown, and of how many there were.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use super::load::{Carried, Load, Stream};
use super::screen::{Seen, number};

const DAY_MS: u64 = 86_400_000;

/// A node's line.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) drops: u64,
    pub(crate) passes: u64,
    /// Of how many one is shown, at the least and the most.
    pub(crate) one_in_drops: RangeInclusive<u64>,
    pub(crate) one_in_passes: RangeInclusive<u64>,
}

/// A packet on the page.
#[derive(Debug)]
pub(crate) struct Shown {
    at_ms: u64,
    verdict: String,
    /// With the rule.
    reason: String,
    source: IpAddr,
    port: u16,
    protocol: String,
    bytes: u64,
    one_in: u64,
}

/// `12 dropped or observed (every one shown), 34 passed (1 in 2 to 8 shown)`; nothing before the node's first answer.
pub(crate) fn line(seen: &Seen) -> Option<Line> {
    let (before, rest) = seen.text("flows").split_once(" dropped or observed (")?;
    let (drops_shown, rest) = rest.split_once("), ").unwrap();
    let (passes, rest) = rest.split_once(" passed (").unwrap();
    let (passes_shown, _) = rest.split_once(')').unwrap();
    Some(Line {
        drops: number(before.split_whitespace().next_back().unwrap()),
        passes: number(passes),
        one_in_drops: rates(drops_shown),
        one_in_passes: rates(passes_shown),
    })
}

fn rates(words: &str) -> RangeInclusive<u64> {
    if words == "every one shown" {
        return 1..=1;
    }
    let words = words.strip_prefix("1 in ").unwrap().strip_suffix(" shown").unwrap();
    let (finest, coarsest) = words.split_once(" to ").unwrap_or((words, words));
    number(finest)..=number(coarsest)
}

/// The packets on the page that are of IP, newest first.
pub(crate) fn shown(seen: &Seen) -> Vec<Shown> {
    let packet = |cells: Vec<String>| {
        let [at, verdict, reason, source, destination, protocol, bytes, one_in, _node] = &cells[..] else {
            return None;
        };
        let (source, destination): (SocketAddr, SocketAddr) =
            (source.parse().ok()?, destination.parse().ok()?);
        Some(Shown {
            at_ms: time(at, seen.at_ms),
            verdict: verdict.clone(),
            reason: reason.split_whitespace().collect::<Vec<_>>().join(" "),
            source: source.ip(),
            port: destination.port(),
            protocol: protocol.clone(),
            bytes: number(bytes),
            one_in: number(one_in),
        })
    };
    seen.rows("flows").into_iter().filter_map(packet).collect()
}

/// `23:59:59.999`, of the day that makes it the past.
fn time(text: &str, now_ms: u64) -> u64 {
    let parts: Vec<u64> = text.split([':', '.']).map(|part| part.parse().unwrap()).collect();
    let [hours, minutes, seconds, ms] = parts[..] else { panic!("{text} is no time") };
    let of_day = ((hours * 60 + minutes) * 60 + seconds) * 1000 + ms;
    let (midnight, today) = (now_ms - now_ms % DAY_MS, now_ms % DAY_MS);
    midnight + of_day - if of_day > today + DAY_MS / 2 { DAY_MS } else { 0 }
}

/// A stream with what may become of its packets: verdict, and reason with rule.
pub(crate) type Fate<'a> = (Stream, &'a [[&'a str; 2]]);

/// Each packet of the load is shown as what it is, and at one of the rates that the node's line says. How many are of the load.
pub(crate) fn are_as_sent(seen: &Seen, fates: &[Fate<'_>]) -> usize {
    let line = line(seen).unwrap();
    let of_load = shown(seen).into_iter().filter(|packet| {
        let Some((stream, family, fates)) = whose(packet.source, fates) else { return false };
        let protocol = if stream.carried == Carried::Udp { "udp" } else { "tcp" };
        let sent = (stream.port, protocol, stream.length(family));
        assert_eq!((packet.port, &*packet.protocol, packet.bytes), sent, "{packet:?}");
        let fate = [&*packet.verdict, &*packet.reason];
        assert!(fates.contains(&fate), "{packet:?}, and not one of {fates:?}");
        let rates = match &*packet.verdict {
            "drop" | "observed" => &line.one_in_drops,
            _ => &line.one_in_passes,
        };
        assert!(packet.one_in.is_power_of_two() && rates.contains(&packet.one_in), "{packet:?}: {line:?}");
        true
    });
    of_load.count()
}

/// Which stream sends from this address.
fn whose<'a>(source: IpAddr, fates: &[Fate<'a>]) -> Option<(Stream, usize, &'a [[&'a str; 2]])> {
    let of = |(stream, fates): &Fate<'a>| {
        let family = match (source, stream.source(0, 0), stream.source(1, 0)) {
            (IpAddr::V4(source), IpAddr::V4(first), _) if source.octets()[0] == first.octets()[0] => 0,
            (IpAddr::V6(source), _, IpAddr::V6(first)) if source.segments()[2] == first.segments()[2] => 1,
            _ => return None,
        };
        Some((*stream, family, *fates))
    };
    fates.iter().find_map(of)
}

/// What an open page showed of the load, against what was sent at that time.
#[derive(Debug, Default)]
pub(crate) struct Sampled {
    /// For how many packets those on the page stand.
    stood: u64,
    /// How many were sent between the oldest and the newest of them.
    sent: u64,
    samples: u64,
    until_ms: u64,
}

impl Sampled {
    /// Takes up what a page shows of these streams, which is all that it shows, unless something of it was there before.
    pub(crate) fn take(&mut self, seen: &Seen, load: &Load, which: &[usize]) {
        let packets = shown(seen);
        let (Some(last), Some(first)) = (packets.first(), packets.last()) else { return };
        if first.at_ms <= self.until_ms {
            return;
        }
        self.until_ms = last.at_ms;
        let [then, now] = [first.at_ms, last.at_ms].map(|at| {
            let sent = load.sent_at(at);
            which.iter().flat_map(|stream| sent[*stream]).sum::<u64>()
        });
        self.sent += now - then;
        // From one packet to another there is one interval less than packets.
        self.stood += packets[..packets.len() - 1].iter().map(|packet| packet.one_in).sum::<u64>();
        self.samples += packets.len() as u64 - 1;
    }

    /// Samples of packets that are chosen by chance are off by one in the root of how many they are: five times that is
    /// never, and what is told at a wrong rate is off by a factor of two.
    pub(crate) fn adds_up(&self, page: &str) {
        let ratio = self.stood as f64 / self.sent as f64;
        let off = 5.0 / (self.samples as f64).sqrt();
        println!("{page}: {ratio:.3} of what was sent, within {off:.3}: {self:?}");
        assert!(self.samples >= 200, "{page}: too few to judge by: {self:?}");
        assert!((ratio - 1.0).abs() < off, "{page}: {ratio:.3}: {self:?}");
    }
}
