//! A console with something in it: three nodes, four routes, an hour of traffic.

use model::digest::Digest;
use model::draft::{
    BudgetSpec, BudgetsSpec, CertificateSpec, FilterRuleSpec, FiltersSpec, InternalCa, ListenerHttp,
    ListenerSpec, MatchSpec, Object, OriginGroupSpec, OriginSpec, OriginTls, PacketFilterSpec, PathSpec,
    PrefixSetSpec, PrefixSourceSpec, RouteSpec, Spec, TrustBundleSpec,
};
use model::filter::Payload;
use model::labels::Labels;
use model::report::{
    Drops, Feature, Histogram, Leg, ListenerReport, OriginReport, OverBudget, Place, ProbeReport, Report,
    RouteReport, SynPressure,
};
use model::senders::{Sender, Senders, Sums};
use model::snapshot::SnapshotId;
use time::Duration;

use crate::clock;
use crate::ops::{Actor, Changes, Ops, PublishOptions};

/// Fills a console that has just begun.
pub(super) async fn fill(ops: &Ops, actor: &Actor) {
    let changes = Changes { put: objects(), ..Changes::default() };
    let options = PublishOptions {
        message: "the shop goes live".to_owned(),
        confirm: true,
        ..PublishOptions::default()
    };
    let revision = ops.publish(changes, actor, options).await.unwrap().revision;
    for (index, node) in ["fra-1", "fra-2", "fra-3"].into_iter().enumerate() {
        let labels = Labels::parse(["zone=fra"]).unwrap();
        let (secret, ends) = (Digest::of(node.as_bytes()), clock::now() + Duration::days(5));
        ops.store().put_node_secret(node, &secret, ends, Some(&labels)).await.unwrap();
        ops.store().enrol(&secret, labels.as_map(), "01", ends).await.unwrap();
        let id = SnapshotId { epoch: 1, revision };
        let applied = SnapshotId { revision: if index == 2 { revision - 1 } else { revision }, ..id };
        ops.store().node_hello(node, "0.1.0", labels.as_map(), Some(applied)).await.unwrap();
        let answer =
            if index == 2 { Err("port 443 is held by another process (nginx, pid 812)") } else { Ok(12) };
        ops.store().node_answer(node, id, answer).await.unwrap();
        let (connection, _) = ops.live().connected(node, ([192, 0, 2, 10], 40_000).into(), false);
        ops.live().reported(node, connection, clock::now(), report(index, 60));
        if index != 1 {
            ops.live().sent(node, connection, senders(index));
        }
    }
    for minute in (0..70).filter(|minute| !(30..34).contains(minute)) {
        ops.figures().add(&report(0, minute), clock::now() - Duration::minutes(minute.into()));
    }
}

fn cloud() -> PrefixSetSpec {
    let url = "https://lists.example.com/cloud-a.json".to_owned();
    let source = PrefixSourceSpec { url, ..PrefixSourceSpec::default() };
    PrefixSetSpec {
        prefixes: vec!["203.0.113.0/24".to_owned(), "2001:db8:c::/48".to_owned()],
        source: Some(source),
    }
}

fn objects() -> Vec<Object> {
    let authority = rcgen::CertificateParams::new(Vec::<String>::new()).map(|mut params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "Company CA");
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
    });
    let bundle = TrustBundleSpec { certificates: authority.unwrap() };
    let certificate = |hosts: &[&str]| {
        let hostnames = hosts.iter().map(|host| (*host).to_owned()).collect();
        Spec::Certificate(CertificateSpec {
            internal_ca: Some(InternalCa { hostnames }),
            ..CertificateSpec::default()
        })
    };
    let rule = |name: &str, action: &str, prefixes: &[&str]| FilterRuleSpec {
        name: name.to_owned(),
        action: action.to_owned(),
        prefixes: prefixes.iter().map(|prefix| (*prefix).to_owned()).collect(),
        ..FilterRuleSpec::default()
    };
    let probes = FilterRuleSpec {
        mode: Some("Observe".to_owned()),
        ports: vec!["3306".to_owned(), "8000-8010".to_owned()],
        prefix_sets: vec!["cloud-a".to_owned(), "bogons".to_owned()],
        ..rule("probes", "Deny", &[])
    };
    let rules = vec![
        probes,
        rule("scanners", "Deny", &["198.51.100.0/24", "2001:db8:bad::/48"]),
        rule("offices", "Allow", &["0.0.0.0/0", "::/0"]),
    ];
    let http = ListenerSpec {
        port: 80.into(),
        protocol: Some("HTTP".to_owned()),
        http: ListenerHttp { health_path: Some("/healthz".to_owned()), ..ListenerHttp::default() },
        ..ListenerSpec::default()
    };
    vec![
        Object::new("company-ca", Spec::TrustBundle(bundle)),
        Object::new("shop-2027", certificate(&["shop.example.com", "*.shop.example.com"])),
        Object::new("id-ec", certificate(&["id.example.com", "api.example.com"])),
        Object::new("tenants-wild", certificate(&["*.tenants.example.com"])),
        group(
            "shop-origin",
            &["https://shop-origin.internal:8443", "https://shop-origin-2.internal:8443"],
            Some("company-ca"),
        ),
        group("billing", &["http://legacy.internal:8080"], None),
        group("idp", &["https://idp.internal"], Some("company-ca")),
        group("tenants", &["https://tenants.internal"], Some("company-ca")),
        route("shop", "shop.example.com", "/", "shop-2027", "shop-origin"),
        route("api", "api.example.com", "/v2", "id-ec", "billing"),
        route("id", "id.example.com", "/", "id-ec", "idp"),
        route("tenants", "*.tenants.example.com", "/", "tenants-wild", "tenants"),
        Object::new("http", Spec::Listener(http)),
        Object::new("cloud-a", Spec::PrefixSet(cloud())),
        Object::new(
            "edge",
            Spec::PacketFilter(PacketFilterSpec { rules, budgets: budgets(), ..PacketFilterSpec::default() }),
        ),
    ]
}

fn budgets() -> Option<BudgetsSpec> {
    let budget = |rate| Some(BudgetSpec { rate, burst: Some(2 * rate), mode: None });
    Some(BudgetsSpec { syn_per_source: budget(200), syn_pressure: budget(5_000), ..BudgetsSpec::default() })
}

fn group(name: &str, urls: &[&str], bundle: Option<&str>) -> Object {
    let origins = urls.iter().map(|url| OriginSpec::new(*url)).collect();
    let tls = OriginTls { trust_bundle: bundle.map(str::to_owned), ..OriginTls::default() };
    let clear_text = urls[0].starts_with("http://").then(|| "allow".to_owned());
    Object::new(
        name,
        Spec::OriginGroup(OriginGroupSpec { origins, tls, clear_text, ..OriginGroupSpec::default() }),
    )
}

fn route(name: &str, host: &str, path: &str, certificate: &str, group: &str) -> Object {
    let path = PathSpec { kind: "PathPrefix".to_owned(), value: path.to_owned() };
    let spec = RouteSpec {
        tls: None,
        listeners: Vec::new(),
        hostnames: vec![host.to_owned()],
        matches: vec![MatchSpec { path, ..MatchSpec::default() }],
        certificate: Some(certificate.to_owned()),
        origin_group: group.to_owned(),
        enabled: true,
        allow_encoded_slash: false,
        response_timeout_ms: None,
        filters: FiltersSpec::default(),
        upgrades: None,
    };
    Object::new(name, Spec::Route(spec))
}

fn leg(version: &str, sni: &str, verified: &str) -> Leg {
    let tls = version != "none";
    let text = |text: &str| if tls { text.to_owned() } else { String::new() };
    Leg {
        version: version.to_owned(),
        suite: text("TLS13_AES_256_GCM_SHA384"),
        group: text("X25519MLKEM768"),
        sni: text(sni),
        verified: verified.to_owned(),
    }
}

/// A minute of one node; figures that wander without chance.
fn report(node: usize, minute: i32) -> Report {
    let wave = |scale: f64| {
        (scale * (1.0 + 0.25 * f64::from(minute).sin() + 0.1 * (f64::from(minute) * 2.7).cos())) as u64
    };
    let histogram = |micros: u64, count: u64| {
        let bucket = |factor: u64, share: u64| {
            (Histogram::bucket(micros * factor / 10), u32::try_from(count * share / 100).unwrap())
        };
        Histogram(vec![bucket(5, 60), bucket(10, 36), bucket(32, 4)])
    };
    let traffic = |route: &str, per_minute: f64, errors: u64, origin: Leg| RouteReport {
        route: route.parse().unwrap(),
        responses: [wave(per_minute), wave(per_minute / 20.0), wave(per_minute / 40.0), errors],
        added: histogram(180 + wave(40.0), wave(per_minute)),
        total: histogram(9_000 + wave(2_000.0), wave(per_minute)),
        client: Some(leg("TLSv1.3", "shop.example.com", "")),
        origin: Some(origin),
    };
    let drops = |place, reason: &str, rule, count| Drops { place, reason: reason.to_owned(), rule, count };
    let burst = if (40..50).contains(&minute) { 600.0 } else { 20.0 };
    Report {
        at_ms: clock::to_ms(clock::now()),
        interval_ms: 60_000,
        routes: vec![
            traffic("shop", 36_000.0, 7, leg("TLSv1.3", "shop-origin.internal", "shop-origin.internal")),
            traffic("api", 16_000.0, wave(50.0), leg("none", "", "")),
            traffic("id", 5_000.0, 0, leg("TLSv1.2", "idp.internal", "idp.internal")),
        ],
        drops: vec![
            drops(Place::Kernel, "denied", 2, wave(60.0 + burst)),
            drops(Place::Kernel, "observed", 1, 3),
            drops(Place::Proxy, "observed", 1, 1),
            drops(Place::Kernel, "malformed", 0, wave(12.0)),
            drops(Place::Proxy, "no-route", 0, wave(burst)),
            drops(Place::Proxy, "origin-timeout", 0, 2),
        ],
        origins: vec![
            origin("shop-origin", "shop-origin.internal:8443", None),
            origin("shop-origin", "shop-origin-2.internal:8443", Some("connection refused")),
            origin("billing", "legacy.internal:8080", None),
            origin("idp", "idp.internal:443", None),
        ],
        listeners: vec![ListenerReport {
            listener: "https".parse().unwrap(),
            mode: if node == 1 { "socket" } else { "steered" }.to_owned(),
            addresses: vec![([0, 0, 0, 0], 8443).into()],
            ranges: Vec::new(),
            left_out: Vec::new(),
            connections: 140,
            problem: None,
        }],
        features: features(node != 1),
        connections: 140,
        threads: 4,
        overload: None,
        syn_pressure: (node != 1).then_some(SynPressure { now: node == 0, over: OverBudget::Cookie }),
    }
}

/// Who sends to a node; the first samples one packet in eight.
fn senders(node: usize) -> Senders {
    let now = clock::to_ms(clock::now());
    let sender = |source: &str, payload, packets: u64, drops: u64| Sender {
        source: source.parse().unwrap(),
        destination: if source.contains(':') { "2001:db8:20::1" } else { "192.0.2.10" }.parse().unwrap(),
        payload,
        sums: Sums { packets, bytes: packets * 60, syns: packets / 4, drops },
        first_ms: now - 3_000_000,
        last_ms: now - 20_000,
    };
    let https = Payload::Tcp(8443);
    let senders = match node {
        0 => vec![
            sender("203.0.113.9", https, 24_576, 0),
            sender("2001:db8:c::17", https, 16_384, 0),
            sender("198.51.100.23", Payload::Tcp(22), 4_096, 4_096),
            sender("2001:db8:20::77", Payload::Icmpv6(128), 64, 0),
        ],
        _ => vec![
            sender("192.0.2.200", Payload::Tcp(80), 12, 0),
            sender("192.0.2.200", Payload::Udp(53), 9, 0),
        ],
    };
    let others = Sums { packets: 800, ..Sums::default() };
    Senders {
        since_ms: now - 57 * 60_000,
        at_ms: now - 4_000,
        shift: if node == 0 { 3 } else { 0 },
        others: if node == 0 { others } else { Sums::default() },
        senders,
    }
}

fn features(kernel: bool) -> Vec<Feature> {
    let feature =
        |name: &str, on: bool, detail: &str| Feature { name: name.to_owned(), on, detail: detail.to_owned() };
    let why = "the driver of eth0 refused native mode and generic mode is off";
    vec![
        feature("xdp:eth0", kernel, if kernel { "native" } else { why }),
        feature("sk_lookup", kernel, if kernel { "attached" } else { "CAP_NET_ADMIN is missing" }),
        feature("isolation", true, "keeper and worker are separate users"),
    ]
}

fn origin(group: &str, address: &str, failing: Option<&str>) -> OriginReport {
    OriginReport {
        group: group.parse().unwrap(),
        address: address.parse().unwrap(),
        requests: if failing.is_some() { 0 } else { 36_000 },
        failures: if failing.is_some() { 12 } else { 0 },
        failing: failing.map(str::to_owned),
        resolved: vec!["10.20.3.4".parse().unwrap(), "2001:db8:20::4".parse().unwrap()],
        stale_since_ms: None,
        probe: Some(ProbeReport {
            healthy: failing.is_none(),
            latency_us: failing.is_none().then_some(1_800),
            why: failing.map(|_| "answered 503".to_owned()),
        }),
        ejected: failing.is_some(),
    }
}

/// Serves the sample on `127.0.0.1:18081` for an hour: `cargo test -p sallyport serve_the_sample -- --ignored`.
#[tokio::test]
#[ignore = "for looking at the pages in a browser"]
async fn serve_the_sample() {
    let browser = super::Browser::with_sample().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:18081").await.unwrap();
    let serve = async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = hyper_util::service::TowerToHyperService::new(browser.app());
            tokio::spawn(async move {
                let io = hyper_util::rt::TokioIo::new(stream);
                let _gone = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
            });
        }
    };
    let _over = tokio::time::timeout(std::time::Duration::from_secs(3_600), serve).await;
}
