//! What a new snapshot takes over from the one before, and why one is refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::digest::Digest;
use model::name::Name;
use model::snapshot::{
    Certificate, ExpectedName, FORMAT, Limits, Listener, Origin, OriginGroup, OriginSecurity, PathMatch,
    Route, Snapshot, SnapshotId, TlsVersion, Trust, TrustBundle,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{RootCertStore, ServerConfig};

use super::{Door, Live, LiveError, SecurityLive};
use crate::worker::proxy::write::Behalf;
use crate::worker::refusal::Reason;
use crate::worker::tls::dial::{self, Alpn, DialError};
use crate::worker::tls::tests::Ca;

type Keys = BTreeMap<Digest, PrivateKeyDer<'static>>;
type Change = Box<dyn Fn(&mut Snapshot)>;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn build(snapshot: &Snapshot, keys: &Keys, previous: Option<&Live>) -> Result<Live, LiveError> {
    Live::build(snapshot.clone(), keys, &Arc::new(RootCertStore::empty()), previous)
}

fn certificate(ca: &Ca, keys: &mut Keys, named: &str, host: &str) -> Certificate {
    let (chain, key, digest) = ca.issue(&[host]);
    keys.insert(digest, key);
    Certificate { name: name(named), chain, key: digest, hostnames: vec![host.parse().unwrap()] }
}

fn origin(address: &str, security: OriginSecurity) -> Origin {
    Origin { address: address.parse().unwrap(), security, share: Default::default() }
}

fn verified(trust: Trust) -> OriginSecurity {
    OriginSecurity::Verified { trust, expected: ExpectedName::Dns("o.test".parse().unwrap()) }
}

fn route(named: &str, host: &str, certificate: Option<&str>) -> Route {
    Route {
        name: name(named),
        listeners: vec![name("https")],
        hostnames: vec![host.parse().unwrap()],
        passthrough: false,
        paths: vec![PathMatch::Prefix("/".to_owned())],
        matches: Vec::new(),
        certificate: certificate.map(name),
        origin_group: Some(name("g")),
        allow_encoded_slash: false,
        response_timeout_ms: 1000,
        transform: Default::default(),
        upgrades: model::upgrade::usual(),
    }
}

/// One of everything.
fn snapshot(ca: &Ca, keys: &mut Keys) -> Snapshot {
    Snapshot {
        format: FORMAT,
        node: name("node"),
        id: SnapshotId { epoch: 1, revision: 1 },
        listeners: vec![Listener {
            name: name("https"),
            addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            port: "443".parse().unwrap(),
            take_over: false,
            clear_text: None,
            min_version: TlsVersion::V12,
            default_certificate: None,
            certificates: vec![name("a"), name("b")],
            trusted_prefixes: Vec::new(),
            proxy_protocol: Vec::new(),
            limits: Limits::default(),
            error_pages: Vec::new(),
        }],
        certificates: vec![certificate(ca, keys, "a", "a.test"), certificate(ca, keys, "b", "*.test")],
        routes: vec![route("one", "a.test", None), route("two", "c.test", Some("a"))],
        origin_groups: vec![OriginGroup {
            name: name("g"),
            origins: vec![
                origin("o.test:443", verified(Trust::Bundle(name("internal")))),
                origin("192.0.2.7:80", OriginSecurity::ClearText),
            ],
            connect_timeout_ms: 1000,
            protocols: Default::default(),
            http2: Default::default(),
            choice: Default::default(),
            client_certificate: None,
            proxy_protocol: None,
            sni: None,
        }],
        trust_bundles: vec![TrustBundle { name: name("internal"), certificates: ca.pem.clone() }],
        filter: Vec::new(),
        filter_protocols: Vec::new(),
        filter_budgets: Default::default(),
        trial_ms: None,
    }
}

fn tls<'a>(live: &'a Live, listener: &Name) -> &'a Arc<ServerConfig> {
    match &live.listeners[listener].door {
        Door::Tls(config) => config,
        Door::ClearText(_) => panic!("{listener} speaks no TLS"),
    }
}

#[test]
fn what_did_not_change_is_the_same_and_what_did_is_not() {
    let (ca, mut keys) = (Ca::new("ca"), Keys::new());
    let mut next = snapshot(&ca, &mut keys);
    let first = build(&next, &keys, None).unwrap();
    // Keys of certificates that are already there need not be handed in again.
    let second = build(&next, &Keys::new(), Some(&first)).unwrap();
    let (https, group) = (name("https"), name("g"));
    assert!(Arc::ptr_eq(&first.groups[&group], &second.groups[&group]));
    assert!(Arc::ptr_eq(tls(&first, &https), tls(&second, &https)));
    assert!(Arc::ptr_eq(&first.listeners[&https].open, &second.listeners[&https].open));

    next.origin_groups[0].connect_timeout_ms = 2000;
    next.origin_groups[0].origins.push(origin("192.0.2.8:443", verified(Trust::Bundle(name("internal")))));
    next.certificates[1] = certificate(&ca, &mut keys, "b", "*.test");
    next.routes.push(route("three", "d.test", None));
    let third = build(&next, &keys, Some(&second)).unwrap();
    let (before, after) = (&second.groups[&group], &third.groups[&group]);
    assert!(!Arc::ptr_eq(before, after));
    assert!(before.origins().zip(after.origins()).all(|(before, after)| Arc::ptr_eq(before, after)));
    let configs: Vec<_> = after
        .origins()
        .filter_map(|origin| match &origin.security {
            SecurityLive::Tls { clients, .. } => Some(clients),
            SecurityLive::ClearText => None,
        })
        .collect();
    assert!(Arc::ptr_eq(configs[0], configs[1]), "one trust, one session store");
    assert!(!Arc::ptr_eq(tls(&second, &https), tls(&third, &https)));
    assert!(Arc::ptr_eq(&tls(&second, &https).ticketer, &tls(&third, &https).ticketer));

    // Other roots behind the same name are another trust.
    next.trust_bundles[0].certificates = Ca::new("ca").pem;
    let fourth = build(&next, &keys, Some(&third)).unwrap();
    assert!(!Arc::ptr_eq(&third.groups[&group].members[0].origin, &fourth.groups[&group].members[0].origin));
    assert!(
        Arc::ptr_eq(&third.groups[&group].members[1].origin, &fourth.groups[&group].members[1].origin),
        "clear text has no trust"
    );
}

/// Sends a byte to the first origin of a group and gets it back.
async fn talk(live: &Live, group: &str, address: std::net::SocketAddr) -> Result<(), DialError> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let origin = &live.groups[&name(group)].members[0].origin;
    let mut stream = dial::dial(origin, address, Alpn::Http1, &Behalf::Own).await?.stream;
    stream.write_all(b"x").await.unwrap();
    // A ticket comes before the answer.
    let mut back = Vec::new();
    stream.read_to_end(&mut back).await.unwrap();
    assert_eq!(back, b"x");
    Ok(())
}

/// An origin that remembers sessions: each connection gets one byte back; whether it was resumed.
async fn origin_with_tickets(ca: &Ca) -> (std::net::SocketAddr, tokio::sync::mpsc::UnboundedReceiver<bool>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (chain, key, _) = ca.issue(&["o.test"]);
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().unwrap();
    let config = ServerConfig::builder_with_provider(crate::worker::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(tcp).await else { continue };
            let resumed = stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
            let mut byte = [0];
            if stream.read_exact(&mut byte).await.is_ok() {
                tell.send(resumed).unwrap();
                stream.write_all(&byte).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        }
    });
    (address, told)
}

#[tokio::test]
async fn a_ticket_is_good_only_under_the_trust_and_the_name_it_was_got_under() {
    let (ca, other, mut keys) = (Ca::new("ca"), Ca::new("other"), Keys::new());
    let (address, mut told) = origin_with_tickets(&ca).await;
    let mut next = snapshot(&ca, &mut keys);
    next.trust_bundles.push(TrustBundle { name: name("other"), certificates: other.pem.clone() });
    let host = |host: &str| ExpectedName::Dns(host.parse().unwrap());
    let group = |named: &str, security| OriginGroup {
        name: name(named),
        origins: vec![origin(&address.to_string(), security)],
        connect_timeout_ms: 1000,
        protocols: Default::default(),
        http2: Default::default(),
        choice: Default::default(),
        client_certificate: None,
        proxy_protocol: None,
        sni: None,
    };
    let bundle = |named: &str| Trust::Bundle(name(named));
    next.origin_groups.extend([
        group("blind", OriginSecurity::Unverified { sni: host("o.test") }),
        group("right", verified(bundle("internal"))),
        group("same", verified(bundle("internal"))),
        group("distrust", verified(bundle("other"))),
        group("renamed", OriginSecurity::Verified { trust: bundle("internal"), expected: host("p.test") }),
        // The name under which there is a ticket is sent, and another one expected.
        OriginGroup {
            sni: Some("o.test".parse().unwrap()),
            ..group(
                "fronted",
                OriginSecurity::Verified { trust: bundle("internal"), expected: host("p.test") },
            )
        },
    ]);
    let live = build(&next, &keys, None).unwrap();
    let mut talks = async |live: &Live, group: &str| match talk(live, group, address).await {
        Ok(()) => Ok(told.recv().await.unwrap()),
        Err(error) => Err(error.reason()),
    };
    // Tickets of the group that believes anyone are nobody else's.
    assert_eq!(talks(&live, "blind").await, Ok(false));
    assert_eq!(talks(&live, "blind").await, Ok(true));
    assert_eq!(talks(&live, "right").await, Ok(false));
    assert_eq!(talks(&live, "right").await, Ok(true));
    assert_eq!(talks(&live, "same").await, Ok(true), "the same trust and name");
    for group in ["distrust", "renamed", "fronted"] {
        assert_eq!(talks(&live, group).await, Err(Reason::OriginUnverified), "{group}");
    }
    // The bundle keeps its name and changes its roots: what was got before is worth nothing.
    next.trust_bundles[0].certificates = other.pem.clone();
    let later = build(&next, &keys, Some(&live)).unwrap();
    assert_eq!(talks(&later, "right").await, Err(Reason::OriginUnverified));
    assert_eq!(talks(&later, "blind").await, Ok(true));
}

#[test]
fn slots_belong_to_names() {
    let (ca, mut keys) = (Ca::new("ca"), Keys::new());
    let mut next = snapshot(&ca, &mut keys);
    let slot = |live: &Live, host: &str| {
        let path = model::route::NormalPath::parse("/").unwrap();
        live.listeners[&name("https")].routes.find(&host.parse().unwrap(), &path, &()).unwrap().slot
    };
    let first = build(&next, &keys, None).unwrap();
    next.routes[0].response_timeout_ms += 1;
    let second = build(&next, &keys, Some(&first)).unwrap();
    assert_eq!(slot(&first, "a.test"), slot(&second, "a.test"));
    next.routes[0].name = name("other");
    let third = build(&next, &keys, Some(&second)).unwrap();
    let slots = [slot(&first, "a.test"), slot(&first, "c.test"), slot(&third, "a.test")];
    assert!(slots[0] != slots[1] && slots[1] != slots[2] && slots[0] != slots[2], "{slots:?}");
}

#[test]
fn a_route_s_own_certificate_comes_first_and_places_are_exact_before_wide() {
    let (ca, mut keys) = (Ca::new("ca"), Keys::new());
    let mut next = snapshot(&ca, &mut keys);
    let mut any = next.listeners[0].clone();
    any.name = name("any");
    any.addresses.clear();
    let mut range = any.clone();
    (range.name, range.addresses) = (name("range"), vec!["192.0.2.0/28".parse().unwrap()]);
    range.port = model::listen::Port::Any;
    next.listeners.extend([any, range]);
    let live = build(&next, &keys, None).unwrap();
    let chosen =
        |sni: &str| live.listeners[&name("https")].certificates.choose(Some(&sni.parse().unwrap())).cloned();
    assert_eq!(chosen("c.test"), Some(name("a")));
    assert_eq!(chosen("x.test"), Some(name("b")));
    assert_eq!(chosen("y.x.test"), None);
    for (local, listener) in [
        ("192.0.2.1:443", Some("https")),
        ("[::ffff:192.0.2.1]:443", Some("https")),
        ("[2001:db8::1]:443", Some("https")),
        ("192.0.2.2:443", Some("range")),
        ("192.0.2.1:444", Some("range")),
        ("192.0.2.16:443", Some("any")),
        ("192.0.2.16:444", None),
    ] {
        let found = live.listener_at(local.parse().unwrap()).map(|found| found.name.as_str());
        assert_eq!(found, listener, "{local}");
    }
}

#[test]
fn a_snapshot_that_cannot_be_served_says_why_in_one_sentence() {
    let (ca, mut keys) = (Ca::new("ca"), Keys::new());
    let good = snapshot(&ca, &mut keys);
    let (other_chain, ..) = ca.issue(&["a.test"]);
    let changes: [(&str, Change); 10] = [
        ("is not on this node", Box::new(|s| s.certificates[0].key = Digest::of(b"x"))),
        ("not PEM", Box::new(|s| s.certificates[0].chain = "-----BEGIN".to_owned())),
        ("does not belong", Box::new(move |s| s.certificates[0].chain.clone_from(&other_chain))),
        (
            "Listener/https refers to certificate gone",
            Box::new(|s| s.listeners[0].certificates.push(name("gone"))),
        ),
        ("certificate gone", Box::new(|s| s.listeners[0].default_certificate = Some(name("gone")))),
        ("certificate gone", Box::new(|s| s.routes[0].certificate = Some(name("gone")))),
        (
            "Route/one refers to origin group gone",
            Box::new(|s| s.routes[0].origin_group = Some(name("gone"))),
        ),
        ("OriginGroup/g refers to trust bundle internal", Box::new(|s| s.trust_bundles.clear())),
        ("no usable CA certificate", Box::new(|s| s.trust_bundles[0].certificates.clear())),
        ("own roots", Box::new(|s| s.origin_groups[0].origins[0].security = verified(Trust::System))),
    ];
    for (words, change) in changes {
        let mut bad = good.clone();
        change(&mut bad);
        let error = build(&bad, &keys, None).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let mut bad = good;
    bad.origin_groups[0].origins.clear();
    assert!(matches!(build(&bad, &keys, None), Err(LiveError::NoOrigin(_))));
}

/// Ten thousand of each: the first build parses them, the next one finds them parsed.
#[test]
fn ten_thousand_routes_and_certificates_are_taken_over_quickly() {
    let (ca, mut keys) = (Ca::new("ca"), Keys::new());
    let mut next = snapshot(&ca, &mut keys);
    let (chain, key, digest) = ca.issue(&["x.test"]);
    keys.insert(digest, key);
    for at in 0..10_000 {
        let host = format!("h{at}.example");
        // One pair under 10,000 chains' texts: generating as many keys would be what takes the time.
        let chain = format!("{chain}# {at}\n");
        let hostnames = vec![host.parse().unwrap()];
        next.certificates.push(Certificate { name: name(&format!("c{at}")), chain, key: digest, hostnames });
        next.listeners[0].certificates.push(name(&format!("c{at}")));
        next.routes.push(route(&format!("r{at}"), &host, None));
    }
    let first = build(&next, &keys, None).unwrap();
    next.routes[5].response_timeout_ms += 1;
    let began = std::time::Instant::now();
    let second = build(&next, &keys, Some(&first)).unwrap();
    let took = began.elapsed();
    assert!(Arc::ptr_eq(tls(&first, &name("https")), tls(&second, &name("https"))));
    // Without optimisation and on a busy machine; far below what parsing again would take.
    assert!(took < std::time::Duration::from_secs(2), "{took:?}");
}
