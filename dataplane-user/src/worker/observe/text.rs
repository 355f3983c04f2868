//! `/metrics`: the Prometheus text format, version 0.0.4. docs/metrics.md says what each series means.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Instant;

use model::report::{Histogram, SynPressure};

use super::Observe;
use super::totals::{MOST_ORIGINS, Totals};
use crate::worker::live::{Live, OriginLive};
use crate::worker::origin::health::clock;
use crate::worker::overload::Refusing;

/// An origin's value at a moment of [`clock`]; nothing where it has none.
type Figure = fn(&OriginLive, u64) -> Option<f64>;

/// Upper bounds of the histograms' buckets: microseconds, and seconds as written. A duration is counted below a bound only
/// when the whole of the finer bucket it was counted in lies below.
const BOUNDS: [(u64, &str); 14] = [
    (100, "0.0001"),
    (250, "0.00025"),
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (1_000_000, "1"),
    (2_500_000, "2.5"),
    (10_000_000, "10"),
];

/// Series by name, ready to be written.
pub(super) struct Page(String);

impl Page {
    pub(super) fn new() -> Self {
        Self(String::new())
    }

    pub(super) fn finish(self) -> String {
        self.0
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{label}=\"", if at == 0 { '{' } else { ',' });
            for c in text.chars() {
                match c {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    c => self.0.push(c),
                }
            }
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    fn histogram(&mut self, name: &str, labels: &[(&str, &str)], counts: &BTreeMap<u8, u64>, sum_us: u64) {
        let mut labels = labels.to_vec();
        let bucket = format!("{name}_bucket");
        let mut all = 0;
        let mut counts = counts.iter().peekable();
        for (bound, text) in BOUNDS {
            while let Some((_, count)) = counts.next_if(|(at, _)| Histogram::upper(**at) <= bound) {
                all += count;
            }
            labels.push(("le", text));
            self.sample(&bucket, &labels, all);
            labels.pop();
        }
        all += counts.map(|(_, count)| count).sum::<u64>();
        labels.push(("le", "+Inf"));
        self.sample(&bucket, &labels, all);
        labels.pop();
        self.sample(&format!("{name}_sum"), &labels, sum_us as f64 / 1e6);
        self.sample(&format!("{name}_count"), &labels, all);
    }

    /// Everything but the per-thread gauges.
    pub(super) fn totals(&mut self, totals: &Totals) {
        self.requests(totals);
        self.family("sallyport_refusals_total", "counter", "Requests and connections refused, by reason.");
        for (reason, count) in &totals.refusals {
            let fault = format!("{:?}", reason.fault()).to_lowercase();
            self.sample("sallyport_refusals_total", &[("reason", reason.name()), ("fault", &fault)], count);
        }
        self.family(
            "sallyport_http2_floods_total",
            "counter",
            "Client connections ended as http2-abuse, by what there was too much of.",
        );
        for (flood, count) in totals.floods.iter().filter(|(_, count)| **count > 0) {
            self.sample("sallyport_http2_floods_total", &[("kind", flood.name())], count);
        }
        self.family(
            "sallyport_kernel_drops_total",
            "counter",
            "Packets the kernel dropped, by reason and rule id.",
        );
        for ((reason, rule), count) in &totals.kernel {
            let rule = rule.to_string();
            self.sample("sallyport_kernel_drops_total", &[("reason", reason), ("rule", &rule)], count);
        }
        const OBSERVED: &str = "sallyport_observed_connections_total";
        self.family(OBSERVED, "counter", "Connections let in because a rule is only observed, by rule id.");
        for (rule, count) in &totals.observed {
            self.sample(OBSERVED, &[("rule", &rule.to_string())], count);
        }
        self.family(
            "sallyport_tls_handshakes_total",
            "counter",
            "TLS handshakes with clients that succeeded.",
        );
        for ((version, group, resumed), count) in &totals.handshakes {
            let resumed = if *resumed { "true" } else { "false" };
            let labels = [("version", version.as_str()), ("group", group), ("resumed", resumed)];
            self.sample("sallyport_tls_handshakes_total", &labels, count);
        }
        self.origins(totals);
        self.family(
            "sallyport_connections_accepted_total",
            "counter",
            "Client connections accepted, by worker thread.",
        );
        for (thread, accepted) in totals.accepted.iter().enumerate() {
            let thread = thread.to_string();
            self.sample("sallyport_connections_accepted_total", &[("thread", &thread)], accepted);
        }
        self.family(
            "sallyport_accept_errors_total",
            "counter",
            "Failures of accept, such as no descriptor left.",
        );
        self.sample("sallyport_accept_errors_total", &[], totals.accept_errors);
    }

    fn requests(&mut self, totals: &Totals) {
        const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
        self.family("sallyport_requests_total", "counter", "Requests, by class of the answer's status.");
        for ((listener, route), sums) in &totals.routes {
            for (class, count) in CLASSES.into_iter().zip(sums.classes).filter(|(_, count)| *count > 0) {
                let labels = [("listener", listener.as_str()), ("route", route), ("class", class)];
                self.sample("sallyport_requests_total", &labels, count);
            }
        }
        const PASSED: &str = "sallyport_passthrough_connections_total";
        self.family(PASSED, "counter", "Connections passed on undecrypted that have ended.");
        for ((listener, route), sums) in totals.routes.iter().filter(|(_, sums)| sums.passed > 0) {
            self.sample(PASSED, &[("listener", listener), ("route", route)], sums.passed);
        }
        for (name, help, value) in [
            ("sallyport_received_bytes_total", "Body bytes from clients, and all bytes passed on.", 0),
            ("sallyport_sent_bytes_total", "Body bytes to clients, and all bytes passed on.", 1),
        ] {
            self.family(name, "counter", help);
            for ((listener, route), sums) in &totals.routes {
                let value = [sums.received, sums.sent][value];
                self.sample(name, &[("listener", listener), ("route", route)], value);
            }
        }
        self.family(
            "sallyport_request_duration_seconds",
            "histogram",
            "Request head read to answer complete.",
        );
        for ((listener, route), sums) in &totals.routes {
            let labels = [("listener", listener.as_str()), ("route", route)];
            self.histogram("sallyport_request_duration_seconds", &labels, &sums.total, sums.total_sum);
        }
        self.family(
            "sallyport_added_duration_seconds",
            "histogram",
            "The same, less the time spent waiting for the origin.",
        );
        for ((listener, route), sums) in &totals.routes {
            let labels = [("listener", listener.as_str()), ("route", route)];
            self.histogram("sallyport_added_duration_seconds", &labels, &sums.added, sums.added_sum);
        }
    }

    fn origins(&mut self, totals: &Totals) {
        for (name, help, value) in [
            ("sallyport_origin_requests_total", "Requests answered or failed by an origin.", 0),
            ("sallyport_origin_attempts_total", "Attempts to connect an origin.", 1),
            ("sallyport_origin_failures_total", "Attempts to connect an origin that failed.", 2),
        ] {
            self.family(name, "counter", help);
            for ((group, origin), sums) in &totals.origins {
                let value = [sums.requests, sums.attempts, sums.failures][value];
                self.sample(name, &[("group", group), ("origin", origin)], value);
            }
        }
    }

    /// Origins' health, as far as they have series of their own.
    fn health(&mut self, live: &Live) {
        let now = clock(tokio::time::Instant::now());
        let mut origins: Vec<_> = live.groups.values().flat_map(|group| group.origins()).collect();
        origins.sort_by(|a, b| (&a.group, &a.label).cmp(&(&b.group, &b.label)));
        origins.truncate(MOST_ORIGINS);
        let families: [(&str, &str, Figure); 3] = [
            ("sallyport_origin_healthy", "Whether probes find the origin healthy.", |origin, _| {
                origin.health.probed().map(|healthy| f64::from(u8::from(healthy)))
            }),
            ("sallyport_origin_probe_seconds", "What probes of the origin take.", |origin, _| {
                origin.health.latency().map(|micros| f64::from(micros) / 1e6)
            }),
            (
                "sallyport_origin_ejected",
                "Whether the origin is left alone after failures.",
                |origin, now| Some(f64::from(u8::from(origin.health.ejected(now)))),
            ),
        ];
        for (name, help, value) in families {
            self.family(name, "gauge", help);
            for origin in &origins {
                if let Some(value) = value(origin, now) {
                    self.sample(name, &[("group", origin.group.as_str()), ("origin", &origin.label)], value);
                }
            }
        }
    }

    /// What is so at this moment, `now`.
    pub(super) fn present(&mut self, observe: &Observe, live: &Live, now: Instant) {
        self.family(
            "sallyport_log_lines_dropped_total",
            "counter",
            "Access log lines dropped because the log is slow.",
        );
        self.sample("sallyport_log_lines_dropped_total", &[], observe.sink.dropped());
        self.family(
            "sallyport_metrics_denied_total",
            "counter",
            "Requests for metrics without the right token.",
        );
        self.sample(
            "sallyport_metrics_denied_total",
            &[],
            observe.denied.load(std::sync::atomic::Ordering::Relaxed),
        );
        self.family("sallyport_connections", "gauge", "Open client connections.");
        let mut listeners: Vec<_> = live.listeners.values().collect();
        listeners.sort_by(|a, b| a.name.cmp(&b.name));
        for listener in listeners {
            let open = listener.open.count();
            self.sample("sallyport_connections", &[("listener", listener.name.as_str())], open);
        }
        self.health(live);
        self.family("sallyport_threads", "gauge", "Worker threads.");
        self.sample("sallyport_threads", &[], observe.shards.len());
        self.family("sallyport_threads_accepting", "gauge", "Worker threads that accept connections.");
        self.sample("sallyport_threads_accepting", &[], observe.accepting());
        self.family(
            "sallyport_overload",
            "gauge",
            "Worker threads that refuse new connections, or new requests too, for too much to do.",
        );
        for refuses in [Refusing::Connections, Refusing::Requests] {
            self.sample("sallyport_overload", &[("refuses", refuses.name())], observe.refusing(refuses));
        }
        self.syn_pressure(observe, now);
        self.filters(observe, now);
        self.memory(observe);
        self.family("sallyport_snapshot_epoch", "gauge", "The epoch of the snapshot in force.");
        self.sample("sallyport_snapshot_epoch", &[], live.id.epoch);
        self.family(
            "sallyport_snapshot_revision",
            "gauge",
            "The revision of the snapshot in force; 0 before the first.",
        );
        self.sample("sallyport_snapshot_revision", &[], live.id.revision);
        self.family("sallyport_build_info", "gauge", "Always 1; the release is a label.");
        self.sample("sallyport_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    }

    fn syn_pressure(&mut self, observe: &Observe, at: Instant) {
        let Some(SynPressure { now, over }) = observe.syn_pressure.at(at).flatten() else { return };
        self.family(
            "sallyport_syn_pressure",
            "gauge",
            "1 while SYNs of unknown sources are over their budget; what becomes of those is a label.",
        );
        self.sample("sallyport_syn_pressure", &[("over", over.name())], u8::from(now));
    }

    fn filters(&mut self, observe: &Observe, at: Instant) {
        let filters = observe.filters.at(at).unwrap_or_default();
        if filters.is_empty() {
            return;
        }
        const ATTACHED: &str = "sallyport_filter_attached";
        self.family(
            ATTACHED,
            "gauge",
            "1 while the packet filter is on the interface, 0 while it is missing there.",
        );
        for filter in &filters {
            self.sample(ATTACHED, &[("interface", &filter.interface)], u8::from(filter.attached));
        }
        const GAPS: &str = "sallyport_filter_gaps_total";
        self.family(
            GAPS,
            "counter",
            "How often the packet filter was found missing on the interface and put back.",
        );
        for filter in &filters {
            self.sample(GAPS, &[("interface", &filter.interface)], filter.gaps);
        }
    }

    fn memory(&mut self, observe: &Observe) {
        let memory = observe.memory();
        self.family(
            "sallyport_memory_bytes",
            "gauge",
            "The worker's resident memory, without pages of files.",
        );
        self.sample("sallyport_memory_bytes", &[], memory.used());
        if let Some(limit) = memory.limit() {
            self.family("sallyport_memory_limit_bytes", "gauge", "What the node may have.");
            self.sample("sallyport_memory_limit_bytes", &[], limit);
        }
    }
}
