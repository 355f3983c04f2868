//! A worker thread end to end: real sockets, rustls clients, an origin in clear text.

mod node;
mod observed;
mod passthrough;
mod told;

use std::time::Duration;

use model::clear_text::{ClearText, OpenAnswer};
use model::snapshot::{FilterAction, FilterRule, TlsVersion};
use rustls::HandshakeKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::worker::accept::exhausted;
use crate::worker::refusal::Reason;
use crate::worker::thread::Stop;

use node::{Node, client, client_with};

#[tokio::test]
async fn sni_chooses_exact_then_wildcard_then_default() {
    let node = Node::start(|snapshot, pki| {
        let exact = pki.certificate(snapshot, "exact", &["a.test"]);
        let wildcard = pki.certificate(snapshot, "wildcard", &["*.test"]);
        let default = pki.certificate(snapshot, "default", &["default.example"]);
        snapshot.listeners[0].certificates = vec![default.clone(), exact, wildcard];
        snapshot.listeners[0].default_certificate = Some(default);
    })
    .await;
    for (sni, served) in [
        ("a.test", "a.test"),
        ("A.TEST", "a.test"),
        ("b.test", "*.test"),
        ("b.a.test", "default.example"),
        ("other.example", "default.example"),
        ("127.0.0.1", "default.example"),
    ] {
        let stream = node.shake_unverified(sni).await.unwrap();
        let leaf = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
        let (_, leaf) = x509_parser::parse_x509_certificate(&leaf).unwrap();
        let names = leaf.subject_alternative_name().unwrap().unwrap().value.general_names.clone();
        assert_eq!(names, [x509_parser::extensions::GeneralName::DNSName(served)], "{sni}");
    }
}

#[tokio::test]
async fn a_name_without_certificate_gets_the_alert_that_says_so() {
    let node = Node::start(|_, _| {}).await;
    for sni in ["other.example", "127.0.0.1"] {
        let refused = node.shake_unverified(sni).await.unwrap_err().to_string();
        assert!(refused.contains("UnrecognisedName"), "{refused}");
    }
    node.refused(Reason::NoCertificate, 2).await;
}

#[tokio::test]
async fn versions_suites_and_protocols_are_agreed_and_logged() {
    let node = Node::start(|_, _| {}).await;
    for (version, alpn, agreed) in [
        (&rustls::version::TLS13, vec!["h2", "http/1.1"], Some("h2")),
        (&rustls::version::TLS13, vec!["http/1.1"], Some("http/1.1")),
        (&rustls::version::TLS12, vec!["h2"], Some("h2")),
        (&rustls::version::TLS12, vec![], None),
    ] {
        let config = client_with(&node.pki.ca, &[version], |config| {
            config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        });
        let stream = node.shake(&config, "a.test").await.unwrap();
        let state = stream.get_ref().1;
        assert_eq!(state.alpn_protocol(), agreed.map(str::as_bytes));
        assert_eq!(state.protocol_version(), Some(version.version));
    }
    let config = client(&node.pki.ca);
    let mut stream = node.shake(&config, "a.test").await.unwrap();
    let group = stream.get_ref().1.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
    assert!(node::get(&mut stream, "a.test", "/x\"y").await.starts_with("HTTP/1.1 "));
    node.get_ok(&config).await;
    let line = node.log_line(|line| line["status"] == 200).await;
    assert_eq!(line["clientTls"]["version"], "TLSv1.3");
    assert_eq!(line["clientTls"]["suite"], "TLS_AES_128_GCM_SHA256");
    assert_eq!(line["clientTls"]["group"], "X25519MLKEM768");
    assert_eq!(line["clientTls"]["sni"], "a.test");
    assert_eq!(line["origin"]["tls"]["version"], "none");
    assert_eq!(line["route"], "all");
    assert_eq!(line["sent"], 5);
}

#[tokio::test]
async fn a_listener_for_tls_1_3_alone_refuses_1_2() {
    let node = Node::start(|snapshot, _| snapshot.listeners[0].min_version = TlsVersion::V13).await;
    let config = client_with(&node.pki.ca, &[&rustls::version::TLS12], |_| {});
    assert!(node.shake(&config, "a.test").await.unwrap_err().to_string().contains("ProtocolVersion"));
    node.refused(Reason::HandshakeFailed, 1).await;
    node.get_ok(&client(&node.pki.ca)).await;
}

#[tokio::test]
async fn what_is_no_handshake_or_none_in_time_is_refused() {
    let node = Node::start(|snapshot, _| snapshot.listeners[0].limits.handshake_ms = 200).await;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[22, 3, 1, 0, 5, 1, 0, 0, 1, 0], &[0; 600]] {
        let mut tcp = node.connect().await;
        tcp.write_all(garbage).await.unwrap();
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    }
    node.refused(Reason::HandshakeFailed, 3).await;
    let mut tcp = node.connect().await;
    assert_eq!(tcp.read(&mut [0; 9]).await.unwrap_or(0), 0);
    node.refused(Reason::HandshakeTimeout, 1).await;
}

#[tokio::test]
async fn clear_text_needs_no_handshake_and_is_called_so() {
    let node = Node::start(|snapshot, _| {
        snapshot.listeners[0].clear_text = Some(ClearText {
            answer: OpenAnswer::Refuse,
            health_path: None,
            acme_origin_group: None,
            h2c_prefixes: Vec::new(),
        });
    })
    .await;
    for mut tcp in [node.connect().await, node.connect_v6().await] {
        tcp.write_all(b"GET /a HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    }
    let line = node.log_line(|line| line["path"] == "/a").await;
    assert_eq!(line["clientTls"], serde_json::json!({ "version": "none" }));
    assert_eq!(line["reason"], "clear-text-refused");
    node.refused(Reason::ClearTextRefused, 2).await;
    node.open(0).await;
}

#[tokio::test]
async fn tickets_outlive_a_change_of_certificate_and_route() {
    let mut node = Node::start(|_, _| {}).await;
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let config = client_with(&node.pki.ca, &[version], |_| {});
        node.get_ok(&config).await;
        node.change(|snapshot, pki| {
            snapshot.certificates.clear();
            let again = pki.certificate(snapshot, "main", &["a.test"]);
            snapshot.listeners[0].certificates = vec![again];
            snapshot.routes[0].response_timeout_ms += 1;
        });
        let mut stream = node.shake(&config, "a.test").await.unwrap();
        assert!(node::get(&mut stream, "a.test", "/").await.starts_with("HTTP/1.1 200"));
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed), "{version:?}");
    }
    // And never past the certificate: without one the ticket is worth nothing.
    let config = client(&node.pki.ca);
    node.get_ok(&config).await;
    node.change(|snapshot, pki| {
        snapshot.certificates.clear();
        let other = pki.certificate(snapshot, "other", &["b.test"]);
        snapshot.listeners[0].certificates = vec![other];
    });
    assert!(node.shake(&config, "a.test").await.is_err());
}

#[tokio::test]
async fn a_full_listener_ends_who_waits_and_nobody_who_does_not() {
    let node = Node::start(|snapshot, _| snapshot.listeners[0].limits.connections = 2).await;
    let config = client(&node.pki.ca);
    // Half a handshake, and a head that does not end: the first waits for its client, the second is at work.
    let mut mute = node.connect().await;
    let mut busy = node.shake(&config, "a.test").await.unwrap();
    busy.write_all(b"GET / HT").await.unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let kept = node.shake(&config, "a.test").await.unwrap();
    assert_eq!(mute.read(&mut [0; 9]).await.unwrap_or(0), 0);
    node.refused(Reason::IdleEvicted, 1).await;
    // Who has waited for less than a second stays.
    assert!(node.shake(&config, "a.test").await.is_err());
    node.refused(Reason::TooManyConnections, 1).await;
    assert_eq!(node.observe.connections(), 2);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    node.get_ok(&config).await;
    node.refused(Reason::IdleEvicted, 2).await;
    drop(kept);
    busy.write_all(b"TP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
    assert!(busy.read(&mut [0; 100]).await.unwrap() > 0);
}

#[tokio::test]
async fn connections_are_limited_by_listener_and_by_address() {
    let mut node = Node::start(|snapshot, _| snapshot.listeners[0].limits.connections = 2).await;
    let config = client(&node.pki.ca);
    let first = node.shake(&config, "a.test").await.unwrap();
    let second = node.shake(&config, "a.test").await.unwrap();
    assert!(node.shake(&config, "a.test").await.is_err());
    node.refused(Reason::TooManyConnections, 1).await;
    assert_eq!(node.observe.connections(), 2);
    drop((first, second));
    node.open(0).await;
    node.change(|snapshot, _| {
        snapshot.listeners[0].limits.connections = 100;
        snapshot.listeners[0].limits.connections_per_address = 1;
    });
    let first = node.shake(&config, "a.test").await.unwrap();
    assert!(node.shake(&config, "a.test").await.is_err());
    node.refused(Reason::TooManyFromAddress, 1).await;
    // Another address has a count of its own.
    node.shake_v6(&config).await.unwrap();
    drop(first);
    node.open(0).await;
    node.get_ok(&config).await;
}

#[tokio::test]
async fn denied_clients_are_reset_before_and_after_the_handshake() {
    let mut node = Node::start(|_, _| {}).await;
    let config = client(&node.pki.ca);
    let mut open = node.shake(&config, "a.test").await.unwrap();
    let mut allowed = node.shake_v6(&config).await.unwrap();
    assert!(node::get(&mut open, "a.test", "/").await.starts_with("HTTP/1.1 200"));
    node.change(|snapshot, _| {
        snapshot.filter =
            vec![FilterRule::new(7, "f/deny", FilterAction::Deny, vec!["127.0.0.0/8".parse().unwrap()])];
    });
    let closed = open.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(closed.kind(), std::io::ErrorKind::ConnectionReset);
    node.refused(Reason::Denied, 1).await;
    assert!(node.shake(&config, "a.test").await.is_err());
    node.refused(Reason::Denied, 2).await;
    // Both were told with their rule: the one that was open and the one that came after.
    let report = node.observe.report();
    let told = report.drops.iter().find(|drops| drops.reason == "denied" && drops.rule == 7);
    assert_eq!(told.map(|drops| drops.count), Some(2), "{:?}", report.drops);
    // Who is still allowed notices nothing.
    assert!(node::get(&mut allowed, "a.test", "/").await.starts_with("HTTP/1.1 200"));
    node.change(|snapshot, _| snapshot.filter[0].action = FilterAction::Allow);
    node.get_ok(&config).await;
    assert!(allowed.read_to_end(&mut Vec::new()).await.is_err());
}

#[tokio::test]
async fn a_port_without_listener_is_reset_and_a_removed_listener_drains() {
    let mut node = Node::start(|_, _| {}).await;
    let config = client(&node.pki.ca);
    let mut open = node.shake(&config, "a.test").await.unwrap();
    node.change(|snapshot, _| snapshot.listeners[0].port = "1".parse().unwrap());
    assert!(node.shake(&config, "a.test").await.is_err());
    node.refused(Reason::NoListener, 1).await;
    // The listener moved; what was open on it is still its own.
    assert!(node::get(&mut open, "a.test", "/").await.starts_with("HTTP/1.1 200"));
    node.change(|snapshot, _| {
        snapshot.listeners.clear();
        snapshot.routes.clear();
    });
    let answer = node::get(&mut open, "a.test", "/").await;
    assert!(answer.is_empty() || answer.to_lowercase().contains("connection: close"), "{answer}");
    node.open(0).await;
}

#[tokio::test]
async fn a_stopping_thread_answers_what_is_under_way_and_then_ends() {
    let node = Node::start(|_, _| {}).await;
    let config = client(&node.pki.ca);
    let mut open = node.shake(&config, "a.test").await.unwrap();
    open.write_all(b"GET /slow HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
    open.flush().await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    node.stop(Stop::Drain { deadline: tokio::time::Instant::now() + Duration::from_secs(5) });
    let mut answer = String::new();
    open.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
    node.joined().await;
}

#[tokio::test]
async fn connections_that_do_not_end_are_cut_off_at_the_deadline() {
    let node = Node::start(|_, _| {}).await;
    let mut tcp = node.connect().await;
    let began = std::time::Instant::now();
    node.stop(Stop::Drain { deadline: tokio::time::Instant::now() + Duration::from_millis(200) });
    node.joined().await;
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(tcp.read(&mut [0; 9]).await.unwrap_or(0), 0);
}

#[test]
fn only_a_lack_of_descriptors_or_memory_makes_accept_wait() {
    use rustix::io::Errno;
    for (errno, waits) in
        [(Errno::MFILE, true), (Errno::NOBUFS, true), (Errno::CONNABORTED, false), (Errno::PERM, false)]
    {
        assert_eq!(exhausted(&errno.into()), waits, "{errno}");
    }
}

/// The first bytes of a connection that a balancer passes on.
fn proxy_line(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 192.0.2.200 40000 443\r\n").into_bytes()
}

#[tokio::test]
async fn a_balancers_clients_are_who_its_headers_say() {
    let mut node = Node::start(|snapshot, _| {
        snapshot.listeners[0].proxy_protocol = vec!["127.0.0.0/8".parse().unwrap()];
        snapshot.listeners[0].limits.connections_per_address = 1;
    })
    .await;
    let config = client(&node.pki.ca);
    let mut first = node.shake_behind(&config, &proxy_line("192.0.2.1")).await.unwrap();
    assert!(node::get(&mut first, "a.test", "/").await.starts_with("HTTP/1.1 200"));
    let line = node.log_line(|line| line["client"] == "192.0.2.1:40000").await;
    assert!(line["via"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
    // A second connection of the same client is one too many; another client's is not.
    assert!(node.shake_behind(&config, &proxy_line("192.0.2.1")).await.is_err());
    node.refused(Reason::TooManyFromAddress, 1).await;
    let mut second = node.shake_behind(&config, &proxy_line("192.0.2.2")).await.unwrap();
    assert!(node::get(&mut second, "a.test", "/").await.starts_with("HTTP/1.1 200"));
    // Denied: who the header names, at once and at the next snapshot; the balancer's other clients are not touched.
    let deny = |prefix: &str, action| FilterRule::new(1, "f/r", action, vec![prefix.parse().unwrap()]);
    node.change(|snapshot, _| snapshot.filter = vec![deny("192.0.2.1/32", FilterAction::Deny)]);
    assert!(first.read_to_end(&mut Vec::new()).await.is_err());
    assert!(node.shake_behind(&config, &proxy_line("192.0.2.1")).await.is_err());
    node.refused(Reason::Denied, 2).await;
    assert!(node::get(&mut second, "a.test", "/").await.starts_with("HTTP/1.1 200"));
    // An allow list is about who reaches the listener: the balancer.
    node.change(|snapshot, _| snapshot.filter = vec![deny("127.0.0.0/8", FilterAction::Allow)]);
    assert!(node::get(&mut second, "a.test", "/").await.starts_with("HTTP/1.1 200"));
    node.change(|snapshot, _| snapshot.filter = vec![deny("192.0.2.0/24", FilterAction::Allow)]);
    assert!(second.read_to_end(&mut Vec::new()).await.is_err());
}

#[tokio::test]
async fn only_balancers_send_headers_and_they_must() {
    let node = Node::start(|snapshot, _| {
        snapshot.listeners[0].proxy_protocol = vec!["127.0.0.0/8".parse().unwrap()];
        snapshot.listeners[0].limits.handshake_ms = 300;
    })
    .await;
    let config = client(&node.pki.ca);
    // Without a header, with a broken one, with a part of one, with nothing at all.
    assert!(node.shake(&config, "a.test").await.is_err());
    assert!(node.shake_behind(&config, b"PROXY TCP4 192.0.2.1\r\n").await.is_err());
    for part in [&b"PROXY TCP4 192.0"[..], b""] {
        let mut tcp = node.connect().await;
        tcp.write_all(part).await.unwrap();
        assert_eq!(tcp.read(&mut [0; 9]).await.unwrap_or(0), 0);
    }
    node.refused(Reason::BadProxyHeader, 4).await;
    // Others' connections begin with TLS, whatever they send.
    let mut other = node.shake_v6(&config).await.unwrap();
    assert!(node::get(&mut other, "a.test", "/").await.starts_with("HTTP/1.1 200"));
    let line = node.log_line(|line| line["status"] == 200).await;
    assert!(line["client"].as_str().unwrap().starts_with("[::1]:") && line["via"].is_null(), "{line}");
    assert!(node.shake_v6_behind(&config, &proxy_line("192.0.2.1")).await.is_err());
    node.refused(Reason::HandshakeFailed, 1).await;
    // A balancer's own connections are its own.
    let mut own = node.shake_behind(&config, b"PROXY UNKNOWN\r\n").await.unwrap();
    assert!(node::get(&mut own, "a.test", "/own").await.starts_with("HTTP/1.1 200"));
    let line = node.log_line(|line| line["path"] == "/own").await;
    assert!(line["client"].as_str().unwrap().starts_with("127.0.0.1:") && line["via"].is_null(), "{line}");
}
