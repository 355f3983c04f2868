//! What a node tells its console about traffic, drops and itself.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::listen;
use crate::name::Name;
use crate::net::OriginAddress;

/// One report. Counts are since the report before, so that a lost one loses its interval and nothing else.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Report {
    /// The interval's end, milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// The interval, milliseconds.
    pub interval_ms: u32,
    /// Routes that had a request.
    pub routes: Vec<RouteReport>,
    /// Refusals and drops, kernel and userspace.
    pub drops: Vec<Drops>,
    /// State of every origin in force.
    pub origins: Vec<OriginReport>,
    /// State of every listener in force.
    pub listeners: Vec<ListenerReport>,
    /// What of the kernel and the sandbox is in use, and why the rest is not.
    pub features: Vec<Feature>,
    /// Open client connections.
    pub connections: u32,
    /// Worker threads.
    pub threads: u32,
    /// What is refused for too much to do. Not said where nothing is: consoles before this field read such a report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overload: Option<Overload>,
    /// SYNs of unknown sources, where they have a budget: nobody who reads reports and not this field gives them one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syn_pressure: Option<SynPressure>,
}

/// Whether SYNs of unknown sources to listeners are over the budget that they have together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SynPressure {
    /// They were, a few seconds ago at most.
    pub now: bool,
    /// What becomes of what is over.
    pub over: OverBudget,
}

/// What becomes of SYNs that are over the budget of all unknown sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OverBudget {
    /// They are answered with SYN cookies.
    Cookie,
    /// They are dropped, because no cookie can be sent.
    Drop,
    /// They pass: the budget is only observed, or no budget can be kept.
    Passes,
}

impl OverBudget {
    /// Its name, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cookie => "cookie",
            Self::Drop => "drop",
            Self::Passes => "passes",
        }
    }
}

/// What a node refuses for too much to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Overload {
    /// Worker threads that refuse new connections.
    pub connections: u32,
    /// Those of them that refuse new requests too.
    pub requests: u32,
    /// What there is too much of, at the thread that refuses most.
    pub why: String,
}

impl Overload {
    /// One sentence for people.
    pub fn sentence(&self) -> String {
        let threads = |count: u32| format!("{count} thread{}", if count == 1 { "" } else { "s" });
        let requests = match self.requests {
            0 => String::new(),
            count => format!(" and new requests by {count}"),
        };
        format!("new connections are refused by {}{requests}: {}", threads(self.connections), self.why)
    }
}

/// One route's traffic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteReport {
    /// Which.
    pub route: Name,
    /// Answers by class: 1xx-2xx, 3xx, 4xx, 5xx.
    pub responses: [u64; 4],
    /// Time we added: request head read to response head written, less the origin's part.
    pub added: Histogram,
    /// Request head read to response end written.
    pub total: Histogram,
    /// The client leg last seen.
    pub client: Option<Leg>,
    /// The origin leg last seen.
    pub origin: Option<Leg>,
}

/// One leg of a hop, as seen on traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Leg {
    /// `TLSv1.3`, `TLSv1.2` or `none` (clear text).
    pub version: String,
    /// IANA name of the cipher suite; empty in clear text.
    pub suite: String,
    /// IANA name of the key-exchange group; empty in clear text.
    pub group: String,
    /// The name that was sent as SNI; empty when none was.
    pub sni: String,
    /// The name the peer's certificate was verified for; empty when it was not verified.
    pub verified: String,
}

/// Drops or refusals of one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Drops {
    /// `kernel` or `proxy`.
    pub place: Place,
    /// The reason's name in its closed list, kebab case.
    pub reason: String,
    /// The packet filter rule that decided; 0 where none did.
    pub rule: u32,
    /// Packets (kernel) or requests and connections (proxy).
    pub count: u64,
}

/// Where a drop happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Place {
    /// XDP or `sk_lookup`.
    Kernel,
    /// The worker.
    Proxy,
}

/// One origin's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OriginReport {
    /// Its group.
    pub group: Name,
    /// The origin.
    pub address: OriginAddress,
    /// Requests sent to it in the interval.
    pub requests: u64,
    /// Attempts that failed in the interval.
    pub failures: u64,
    /// The last failure's sentence, while no attempt has succeeded since.
    pub failing: Option<String>,
    /// The addresses its name stands for at present.
    pub resolved: Vec<IpAddr>,
    /// Since when its name could not be resolved again, milliseconds since the Unix epoch; the last answer is used meanwhile.
    pub stale_since_ms: Option<i64>,
    /// What its probes found; nothing where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeReport>,
    /// Left alone after failures in a row.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ejected: bool,
}

/// What the probes of an origin found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProbeReport {
    /// Enough of the last ones were good.
    pub healthy: bool,
    /// What good ones take, microseconds; nothing before the first.
    pub latency_us: Option<u32>,
    /// Why the last one failed, one sentence; nothing where it did not.
    pub why: Option<String>,
}

/// One listener's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListenerReport {
    /// Which.
    pub listener: Name,
    /// `steered` (sk_lookup) or `socket` (SO_REUSEPORT).
    pub mode: String,
    /// Where it accepts.
    pub addresses: Vec<SocketAddr>,
    /// Prefixes and any ports that it accepts on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<listen::Place>,
    /// Of any port, those that others listen on: they keep their connections.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// Open connections.
    pub connections: u32,
    /// Why it does not accept, one sentence.
    pub problem: Option<String>,
}

/// A port that a listener on any port leaves to whoever listens there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LeftOut {
    /// Where he listens.
    pub at: SocketAddr,
    /// His name and process id, as far as they are known.
    pub owner: String,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.at, self.owner)
    }
}

/// One thing a node can do with the kernel's help.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Feature {
    /// `xdp:eth0`, `sk_lookup`, `isolation`, `seccomp`, `landlock`, `bpffs`, ...
    pub name: String,
    /// In use.
    pub on: bool,
    /// How (`native`, `generic`) or why not, one sentence.
    pub detail: String,
}

/// Number of buckets in a [`Histogram`].
pub const BUCKETS: usize = 96;

/// Durations in microseconds, four buckets to each power of two: relative error under 19 %.
///
/// Sparse on the wire: pairs of bucket and count, sorted, counts not 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Histogram(pub Vec<(u8, u32)>);

impl Histogram {
    /// The bucket of a duration.
    pub fn bucket(micros: u64) -> u8 {
        if micros < 4 {
            return micros as u8;
        }
        let power = 63 - micros.leading_zeros();
        let quarter = (micros >> (power - 2)) & 3;
        u8::try_from((power - 1) * 4 + quarter as u32)
            .map_or(BUCKETS as u8 - 1, |bucket| bucket.min(BUCKETS as u8 - 1))
    }

    /// The exclusive upper bound of a bucket, microseconds.
    pub fn upper(bucket: u8) -> u64 {
        if bucket < 4 {
            return u64::from(bucket) + 1;
        }
        let (power, quarter) = (u32::from(bucket) / 4 + 1, u64::from(bucket) % 4);
        (5 + quarter) << (power - 2)
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(_, count)| u64::from(*count)).sum()
    }

    /// The upper bound of the bucket in which the `per_mille`-th thousandth lies, microseconds; nothing when empty.
    pub fn quantile(&self, per_mille: u32) -> Option<u64> {
        let wanted = (self.count() * u64::from(per_mille)).div_ceil(1000).max(1);
        let mut seen = 0;
        self.0.iter().find_map(|(bucket, count)| {
            seen += u64::from(*count);
            (seen >= wanted).then(|| Self::upper(*bucket))
        })
    }

    /// Adds another histogram's counts.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.0 {
            match self.0.binary_search_by_key(bucket, |(known, _)| *known) {
                Ok(at) => self.0[at].1 = self.0[at].1.saturating_add(*count),
                Err(at) => self.0.insert(at, (*bucket, *count)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_lies_below_its_buckets_bound_and_not_below_the_one_before() {
        for micros in (0..5000).chain([65_535, 65_536, 1_000_000, 12_345_678]) {
            let bucket = Histogram::bucket(micros);
            assert!(micros < Histogram::upper(bucket), "{micros} in {bucket}");
            assert!(bucket == 0 || micros >= Histogram::upper(bucket - 1), "{micros} in {bucket}");
        }
    }

    #[test]
    fn overload_is_said_where_there_is_one() {
        let report = Report { connections: 3, ..Report::default() };
        let text = serde_json::to_string(&report).unwrap();
        assert!(!text.contains("overload"), "{text}");
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
        let why = "58 of 64 MiB of memory used".to_owned();
        let overload = Overload { connections: 2, requests: 0, why };
        assert_eq!(
            overload.sentence(),
            "new connections are refused by 2 threads: 58 of 64 MiB of memory used"
        );
        let overload = Overload { connections: 1, requests: 1, ..overload };
        assert_eq!(
            overload.sentence(),
            "new connections are refused by 1 thread and new requests by 1: 58 of 64 MiB of memory used"
        );
        let report = Report { overload: Some(overload), ..report };
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }

    #[test]
    fn quantiles_of_a_merge() {
        let mut sum = Histogram(vec![(0, 50), (9, 1)]);
        sum.merge(&Histogram(vec![(4, 49)]));
        assert_eq!(sum.count(), 100);
        assert_eq!(sum.quantile(500), Some(Histogram::upper(0)));
        assert_eq!(sum.quantile(990), Some(Histogram::upper(4)));
        assert_eq!(sum.quantile(1000), Some(Histogram::upper(9)));
    }
}
