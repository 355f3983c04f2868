//! Figures as the reader sees them: after several threads, routes beyond the bound, and a log that does not flow.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use model::name::Name;
use model::report::{Drops, Leg, ListenerReport, OverBudget, Place, SynPressure};

use super::totals::{MOST_ROUTES, MOST_RULES, OTHER};
use super::{Exchange, Observe, OriginPart};
use crate::handover::message::FilterState;
use crate::worker::live::{
    Door, GroupLive, ListenerLive, Live, Member, OriginLive, RouteLive, SecurityLive, Target,
};
use crate::worker::origin::health::{Ejection, Health};
use crate::worker::refusal::Reason;
use crate::worker::tls::certificates::Resolver;
use crate::worker::tls::serve;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn observe(threads: usize) -> Observe {
    Observe::new(threads, Arc::new(ArcSwap::from_pointee(Live::empty())), None).unwrap()
}

fn listener(text: &str) -> ListenerLive {
    let tickets = rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
    let resolver = Resolver(crate::worker::live::BySni::default());
    let snapshot = model::snapshot::Snapshot {
        format: model::snapshot::FORMAT,
        node: name("node"),
        id: Default::default(),
        listeners: Vec::new(),
        certificates: Vec::new(),
        routes: Vec::new(),
        origin_groups: Vec::new(),
        trust_bundles: Vec::new(),
        filter: Vec::new(),
        filter_protocols: Vec::new(),
        filter_budgets: Default::default(),
        trial_ms: None,
    };
    ListenerLive {
        name: name(text),
        limits: Default::default(),
        error_pages: Vec::new(),
        door: Door::Tls(serve::config(model::snapshot::TlsVersion::V13, resolver, tickets).unwrap()),
        open: Arc::default(),
        certificates: Default::default(),
        routes: model::route::Table::build(&snapshot, &name(text), |_| unreachable!()),
        passthrough: None,
        trusted: Vec::new(),
        proxies: Vec::new(),
    }
}

fn route(slot: usize) -> RouteLive {
    let group = group(Vec::new());
    RouteLive {
        name: name(&format!("r{slot}")),
        slot,
        target: Target::Origins(Arc::new(group)),
        allow_encoded_slash: false,
        response_timeout: Duration::from_secs(1),
        transform: None,
        upgrades: Vec::new(),
    }
}

fn leg(version: &str) -> Leg {
    let empty = String::new;
    Leg { version: version.to_owned(), suite: empty(), group: empty(), sni: empty(), verified: empty() }
}

fn exchange<'a>(listener: &'a ListenerLive, route: Option<&'a RouteLive>, leg: &'a Leg) -> Exchange<'a> {
    Exchange {
        listener,
        route,
        peer: "192.0.2.1:5".parse::<std::net::SocketAddr>().unwrap().into(),
        client_leg: leg,
        protocol: "HTTP/2",
        request_id: "0123456789abcdef",
        method: "GET",
        host: "a.test",
        path: "/",
        status: 204,
        refusal: None,
        received: 3,
        sent: 5,
        total: Duration::from_micros(900),
        waited: Duration::from_micros(600),
        origin: None,
    }
}

/// Every sample by its name and labels; panics on a line that is no sample, a duplicate, or one without its family.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let (mut families, mut samples) = (Vec::new(), BTreeMap::new());
    for line in text.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            families.push(family.split(' ').next().unwrap().to_owned());
            continue;
        }
        if line.starts_with("# HELP ") {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let bare = series.split('{').next().unwrap();
        let family = families.last().unwrap();
        let suffix =
            bare.strip_prefix(family.as_str()).unwrap_or_else(|| panic!("{line} is not of {family}"));
        assert!(["", "_bucket", "_sum", "_count"].contains(&suffix), "{line}");
        assert!(samples.insert(series.to_owned(), value.parse().unwrap()).is_none(), "twice: {line}");
    }
    samples
}

fn group(origins: Vec<Arc<OriginLive>>) -> GroupLive {
    GroupLive {
        name: name("g"),
        slot: 0,
        members: origins.into_iter().map(member).collect(),
        connect_timeout: Duration::from_secs(1),
        protocols: Default::default(),
        http2: crate::worker::origin::http2::Settings { streams: 1, ping: None },
        sensitivity: None,
        slow_start: Duration::ZERO,
        ejection: Ejection {
            after: 2,
            base: Duration::from_secs(9),
            most: Duration::from_secs(9),
            share: 100,
            statuses: false,
        },
        retry_percent: 0,
        probe: None,
    }
}

fn member(origin: Arc<OriginLive>) -> Member {
    Member { origin, enabled: true, priority: 1, weight: 1, gate: None }
}

#[test]
fn pressure_is_told_where_there_is_a_budget_for_it() {
    let observe = observe(1);
    assert!(!observe.metrics_text().contains("sallyport_syn_pressure"), "there is no such budget");
    let pressure = |now| Some(SynPressure { now, over: OverBudget::Cookie });
    for now in [false, true] {
        observe.syn_pressure(pressure(now));
        let series = r#"sallyport_syn_pressure{over="cookie"}"#;
        assert_eq!(samples(&observe.metrics_text()).get(series), Some(&f64::from(u8::from(now))));
    }
    assert_eq!(observe.report().syn_pressure, pressure(true));
}

#[test]
fn a_filter_that_is_missing_or_was_is_told() {
    let observe = observe(1);
    assert!(!observe.metrics_text().contains("sallyport_filter_"), "nothing filters in the kernel");
    let state =
        |interface: &str, attached, gaps| FilterState { interface: interface.to_owned(), attached, gaps };
    observe.filters(vec![state("eth0", true, 2), state("eth1", false, 0)]);
    let samples = samples(&observe.metrics_text());
    for (series, value) in [
        (r#"sallyport_filter_attached{interface="eth0"}"#, 1.0),
        (r#"sallyport_filter_attached{interface="eth1"}"#, 0.0),
        (r#"sallyport_filter_gaps_total{interface="eth0"}"#, 2.0),
        (r#"sallyport_filter_gaps_total{interface="eth1"}"#, 0.0),
    ] {
        assert_eq!(samples.get(series), Some(&value), "{series}");
    }
}

#[test]
fn what_a_keeper_said_is_not_told_for_long_after_it_is_silent() {
    let observe = observe(1);
    observe.filters(vec![FilterState { interface: "eth0".to_owned(), attached: true, gaps: 1 }]);
    observe.syn_pressure(Some(SynPressure { now: true, over: OverBudget::Drop }));
    let told = |text: &str| {
        ["sallyport_filter_attached", "sallyport_filter_gaps_total", "sallyport_syn_pressure"]
            .map(|family| text.contains(family))
    };
    // It was told a moment ago.
    let told_at = Instant::now();
    assert_eq!(told(&observe.metrics_text_at(told_at + Duration::from_secs(4))), [true; 3]);
    let late = observe.metrics_text_at(told_at + Duration::from_secs(6));
    assert_eq!(told(&late), [false; 3]);
    assert!(samples(&late).contains_key("sallyport_threads"), "the worker's own figures stay");
    observe.filters(vec![FilterState { interface: "eth0".to_owned(), attached: true, gaps: 1 }]);
    assert_eq!(told(&observe.metrics_text()), [true, true, true], "another keeper tells");
}

#[test]
fn threads_are_added_up_and_reports_are_differences() {
    let observe = observe(2);
    let (listener, route, leg) = (listener("l"), route(1), leg("TLSv1.3"));
    for index in 0..2 {
        let shard = observe.shard(index).unwrap();
        shard.exchange(&exchange(&listener, Some(&route), &leg));
        shard.exchange(&Exchange {
            status: 404,
            refusal: Some(Reason::NoRoute),
            ..exchange(&listener, None, &leg)
        });
        shard.denied(9);
        shard.observed(8);
        shard.refused(Reason::Denied);
        shard.handshake(&leg, index == 1);
    }
    assert!(observe.shard(2).is_none());
    observe.kernel_drops(&[Drops { place: Place::Kernel, reason: "denied".to_owned(), rule: 4, count: 7 }]);
    for _ in 0..2 {
        let samples = samples(&observe.metrics_text());
        let value = |series: &str| *samples.get(series).unwrap_or_else(|| panic!("{series} in {samples:#?}"));
        assert_eq!(value(r#"sallyport_requests_total{listener="l",route="r1",class="2xx"}"#), 2.0);
        assert_eq!(value(r#"sallyport_requests_total{listener="l",route="",class="4xx"}"#), 2.0);
        assert_eq!(value(r#"sallyport_refusals_total{reason="denied",fault="policy"}"#), 4.0);
        assert_eq!(value(r#"sallyport_kernel_drops_total{reason="denied",rule="4"}"#), 7.0);
        assert_eq!(value(r#"sallyport_observed_connections_total{rule="8"}"#), 2.0);
        assert_eq!(value(r#"sallyport_sent_bytes_total{listener="l",route="r1"}"#), 10.0);
        assert_eq!(
            value(r#"sallyport_added_duration_seconds_bucket{listener="l",route="r1",le="0.00025"}"#),
            0.0
        );
        assert_eq!(
            value(r#"sallyport_added_duration_seconds_bucket{listener="l",route="r1",le="0.0005"}"#),
            2.0
        );
        assert_eq!(value(r#"sallyport_request_duration_seconds_count{listener="l",route="r1"}"#), 2.0);
        assert!(
            (value(r#"sallyport_request_duration_seconds_sum{listener="l",route="r1"}"#) - 0.0018).abs()
                < 1e-9
        );
        assert_eq!(
            value(r#"sallyport_tls_handshakes_total{version="TLSv1.3",group="",resumed="true"}"#),
            1.0
        );
    }
    let report = observe.report();
    let [told] = report.routes.as_slice() else { panic!("{report:?}") };
    assert_eq!((told.responses, told.total.count(), told.added.quantile(500)), ([2, 0, 0, 0], 2, Some(320)));
    assert_eq!(told.client, Some(leg));
    let drops: Vec<_> =
        report.drops.iter().map(|one| (one.place, one.reason.as_str(), one.rule, one.count)).collect();
    let expected = [
        (Place::Kernel, "denied", 4, 7),
        (Place::Proxy, "denied", 9, 2),
        (Place::Proxy, "observed", 8, 2),
        (Place::Proxy, "denied", 0, 2),
        (Place::Proxy, "no-route", 0, 2),
    ];
    assert_eq!(drops, expected);
    let quiet = observe.report();
    assert!(quiet.routes.is_empty() && quiet.drops.is_empty());
}

#[test]
fn routes_beyond_the_bound_are_counted_together_and_none_is_lost() {
    let observe = observe(1);
    let shard = observe.shard(0).unwrap();
    let (listener, leg) = (listener("l"), leg("TLSv1.2"));
    let routes: Vec<_> = (0..MOST_ROUTES + 50).map(route).collect();
    for route in &routes {
        shard.exchange(&exchange(&listener, Some(route), &leg));
    }
    let samples = samples(&observe.metrics_text());
    let requests = samples.iter().filter(|(series, _)| series.starts_with("sallyport_requests_total"));
    let (series, sum) = requests.fold((0, 0.0), |(series, sum), (_, value)| (series + 1, sum + value));
    assert_eq!((series, sum), (MOST_ROUTES + 1, (MOST_ROUTES + 50) as f64));
    assert_eq!(
        samples[&format!(r#"sallyport_requests_total{{listener="{OTHER}",route="{OTHER}",class="2xx"}}"#)],
        50.0
    );
    assert_eq!(observe.report().routes.len(), MOST_ROUTES + 50);
}

#[test]
fn observed_rules_beyond_the_bound_are_counted_together_and_reported_each() {
    let (observe, most) = (observe(1), MOST_RULES as u32);
    let shard = observe.shard(0).unwrap();
    (1..=most + 50).for_each(|rule| shard.observed(rule));
    let samples = samples(&observe.metrics_text());
    let observed = samples.keys().filter(|series| series.starts_with("sallyport_observed_connections_total"));
    assert_eq!(observed.count(), MOST_RULES + 1);
    assert_eq!(samples[r#"sallyport_observed_connections_total{rule="0"}"#], 50.0);
    assert_eq!(observe.report().drops.len(), MOST_RULES + 50);
}

#[test]
fn what_a_thread_forgot_is_counted_once() {
    let observe = observe(1);
    let shard = observe.shard(0).unwrap();
    let (listener, route, leg) = (listener("l"), route(1), leg("none"));
    shard.exchange(&exchange(&listener, Some(&route), &leg));
    shard.prune(&Live::empty());
    shard.exchange(&exchange(&listener, Some(&route), &leg));
    let report = observe.report();
    assert_eq!(report.routes[0].responses, [2, 0, 0, 0]);
}

#[test]
fn an_origin_fails_until_it_answers_again() {
    let observe = observe(2);
    let origin = Arc::new(OriginLive {
        group: name("g"),
        address: "192.0.2.7:443".parse().unwrap(),
        label: "192.0.2.7:443".into(),
        key: 5,
        security: SecurityLive::ClearText,
        proxy: None,
        health: Health::default(),
    });
    let group = group(vec![Arc::clone(&origin)]);
    let mut live = Live::empty();
    live.groups.insert(name("g"), Arc::new(group));
    observe.live.store(Arc::new(live));
    let (one, other) = (observe.shard(0).unwrap(), observe.shard(1).unwrap());
    one.origin(&origin, Err("refused"));
    let report = observe.report();
    assert_eq!(report.origins[0].failing.as_deref(), Some("refused"));
    assert_eq!((report.origins[0].failures, report.origins[0].resolved.len()), (1, 1));
    std::thread::sleep(Duration::from_millis(2));
    other.origin(&origin, Ok("192.0.2.7:443".parse().unwrap()));
    let report = observe.report();
    assert_eq!((report.origins[0].failing.as_deref(), report.origins[0].failures), (None, 0));
}

/// Threads accept from sockets, whoever leads connections to them.
#[test]
fn a_node_whose_listeners_nobody_can_reach_is_not_ready() {
    let observe = observe(0);
    let mut live = Live::empty();
    live.id.revision = 1;
    live.listeners.insert(name("https"), Arc::new(listener("https")));
    observe.live.store(Arc::new(live));
    let report = |addresses: &[&str], problem: Option<&str>| ListenerReport {
        listener: name("https"),
        mode: "steered".to_owned(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        ranges: Vec::new(),
        left_out: Vec::new(),
        connections: 0,
        problem: problem.map(str::to_owned),
    };
    let (there, gone) = (report(&["0.0.0.0:443"], None), report(&[], Some("steering is off")));
    let ready = |told: &[&ListenerReport]| {
        observe.listeners(&told.iter().copied().cloned().collect::<Vec<_>>());
        observe.ready()
    };
    assert_eq!(observe.ready(), Ok(()), "before the keeper said a word");
    assert_eq!(ready(&[&there]), Ok(()));
    let why = "listener https does not accept: steering is off".to_owned();
    assert_eq!(ready(&[&gone]), Err(why));
    assert_eq!(ready(&[&gone, &there]), Ok(()));
    assert_eq!(ready(&[]), Ok(()), "a snapshot is on its way");
}

#[test]
fn a_log_that_does_not_flow_loses_lines_and_says_how_many_but_holds_nobody_up() {
    let (reader, writer) = std::io::pipe().unwrap();
    let live = Arc::new(ArcSwap::from_pointee(Live::empty()));
    let observe = Observe::new(1, live, Some(writer.into())).unwrap();
    let shard = observe.shard(0).unwrap();
    let (listener, leg) = (listener("l"), leg("TLSv1.3"));
    let path = format!("/{}", "x".repeat(8000));
    let began = Instant::now();
    let told = 2500;
    for _ in 0..told {
        shard.exchange(&Exchange { path: &path, ..exchange(&listener, None, &leg) });
    }
    shard.flush();
    assert!(began.elapsed() < Duration::from_secs(5));
    let dropped = observe.sink.dropped();
    assert!(dropped > 0);
    let read = std::thread::spawn(move || std::io::read_to_string(reader).unwrap());
    drop((shard, observe));
    let text = read.join().unwrap();
    assert_eq!(text.lines().count() as u64, told - dropped);
    assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
}

#[test]
fn a_line_has_both_legs() {
    let (reader, writer) = std::io::pipe().unwrap();
    let observe =
        Observe::new(1, Arc::new(ArcSwap::from_pointee(Live::empty())), Some(writer.into())).unwrap();
    let shard = observe.shard(0).unwrap();
    let (listener, route, leg) = (listener("l"), route(1), leg("TLSv1.3"));
    let origin = OriginLive {
        group: name("g"),
        address: "o.test:443".parse().unwrap(),
        label: "o.test:443".into(),
        key: 1,
        security: SecurityLive::ClearText,
        proxy: None,
        health: Health::default(),
    };
    let seen = Leg { verified: "o.test".to_owned(), ..leg.clone() };
    let address = "[2001:db8::1]:443".parse().unwrap();
    let part =
        OriginPart { origin: &origin, address: Some(address), leg: Some(&seen), reused: true, attempts: 2 };
    shard.exchange(&Exchange {
        origin: Some(part),
        refusal: Some(Reason::OriginGone),
        path: "/\"\u{7f}",
        ..exchange(&listener, Some(&route), &leg)
    });
    drop((shard, observe));
    let line: serde_json::Value = serde_json::from_str(&std::io::read_to_string(reader).unwrap()).unwrap();
    assert_eq!(line["time"].as_str().unwrap().len(), 24);
    assert_eq!((line["route"].as_str(), line["path"].as_str()), (Some("r1"), Some("/\"\u{7f}")));
    assert_eq!((line["reason"].as_str(), line["totalUs"].as_u64()), (Some("origin-gone"), Some(900)));
    assert_eq!(line["origin"]["peer"], "[2001:db8::1]:443");
    assert_eq!(line["origin"]["tls"]["verified"], "o.test");
    assert_eq!(
        (line["origin"]["reused"].as_bool(), line["origin"]["attempts"].as_u64()),
        (Some(true), Some(2))
    );
    assert_eq!(line["clientTls"]["version"], "TLSv1.3");
}
