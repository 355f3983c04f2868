//! Connections that are not decrypted: to an origin that sends everything back, and says so where nothing comes.

use std::net::SocketAddr;
use std::time::Duration;

use model::snapshot::{FilterAction, FilterRule, Origin, OriginSecurity, Snapshot};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::node::{Node, client, get};
use crate::worker::refusal::Reason;

/// Sends back what it gets and ends when its client does; under the first `silent` connections it closes at once.
async fn echo(mut silent: u32) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            if silent > 0 {
                silent -= 1;
                let _ = tcp.read(&mut [0; 4000]).await;
                continue;
            }
            tokio::spawn(async move {
                let (mut from, mut to) = tcp.split();
                tokio::io::copy(&mut from, &mut to).await.unwrap_or_default();
                to.shutdown().await.unwrap_or_default();
            });
        }
    });
    address
}

/// The route `pass` for `*.test`, beside the terminated `a.test`, to these origins.
fn pass(snapshot: &mut Snapshot, origins: &[SocketAddr]) {
    let mut group = snapshot.origin_groups[0].clone();
    group.name = "pass".parse().unwrap();
    let origin = |address: &SocketAddr| Origin {
        address: address.to_string().parse().unwrap(),
        security: OriginSecurity::ClearText,
        share: Default::default(),
    };
    group.origins = origins.iter().map(origin).collect();
    let mut route = snapshot.routes[0].clone();
    (route.name, route.passthrough, route.origin_group) =
        (group.name.clone(), true, Some(group.name.clone()));
    (route.hostnames, route.paths) = (vec!["*.test".parse().unwrap()], Vec::new());
    snapshot.origin_groups.push(group);
    snapshot.routes.push(route);
}

/// A ClientHello.
fn hello(node: &Node, name: &str) -> Vec<u8> {
    let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
    let mut connection = rustls::ClientConnection::new(client(&node.pki.ca), name).unwrap();
    let mut bytes = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// A connection through which the ClientHello has come back.
async fn passed(node: &Node, name: &str) -> TcpStream {
    let hello = hello(node, name);
    let mut tcp = node.connect().await;
    let (one, two) = hello.split_at(7);
    tcp.write_all(one).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    tcp.write_all(two).await.unwrap();
    let mut back = vec![0; hello.len()];
    tcp.read_exact(&mut back).await.unwrap();
    assert!(back == hello, "other bytes");
    tcp
}

#[tokio::test]
async fn bytes_go_as_they_are_and_each_direction_ends_for_itself() {
    let origin = echo(0).await;
    let node = Node::start(|snapshot, _| pass(snapshot, &[origin])).await;
    let mut tcp = passed(&node, "b.test").await;
    // More than any buffer on the way, while nobody reads.
    let sent: Vec<u8> = (0..8_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (mut from, mut to) = tcp.split();
    let mut back = Vec::new();
    let send = async {
        to.write_all(&sent).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let receive = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        from.read_to_end(&mut back).await.unwrap();
    };
    tokio::join!(send, receive);
    assert!(back == sent, "{} bytes came back of {}", back.len(), sent.len());
    let line = node.log_line(|line| line["route"] == "pass").await;
    assert_eq!((line["protocol"].as_str(), line["host"].as_str()), (Some("TLS"), Some("b.test")));
    assert!(line["reason"].is_null() && line["received"] == line["sent"], "{line}");
    assert_eq!(line["received"], 8_000_000 + hello(&node, "b.test").len());
    node.open(0).await;
    // The more exact host is terminated, in the same place.
    node.get_ok(&client(&node.pki.ca)).await;
}

#[tokio::test]
async fn the_next_origin_takes_what_one_cannot() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let origin = echo(1).await;
    let node = Node::start(|snapshot, _| pass(snapshot, &[unused, origin])).await;
    // An origin that takes the ClientHello and closes: nothing is tried again behind that.
    let mut tcp = node.connect().await;
    tcp.write_all(&hello(&node, "b.test")).await.unwrap();
    assert!(tcp.read_to_end(&mut Vec::new()).await.is_err());
    node.refused(Reason::OriginGone, 1).await;
    for _ in 0..4 {
        passed(&node, "b.test").await;
    }
    let unreachable = Node::start(|snapshot, _| pass(snapshot, &[unused])).await;
    let mut tcp = unreachable.connect().await;
    tcp.write_all(&hello(&unreachable, "b.test")).await.unwrap();
    assert!(tcp.read_to_end(&mut Vec::new()).await.is_err());
    unreachable.refused(Reason::OriginUnreachable, 1).await;
}

#[tokio::test]
async fn what_a_snapshot_denies_or_no_longer_passes_is_closed_and_the_rest_is_not() {
    let origin = echo(0).await;
    let mut node = Node::start(|snapshot, _| pass(snapshot, &[origin])).await;
    let (mut kept, mut gone) = (passed(&node, "b.test").await, passed(&node, "c.test").await);
    let config = client(&node.pki.ca);
    let mut terminated = node.shake(&config, "a.test").await.unwrap();
    node.change(|snapshot, _| snapshot.routes[1].hostnames = vec!["b.test".parse().unwrap()]);
    assert!(gone.read_to_end(&mut Vec::new()).await.is_err());
    node.refused(Reason::NoRoute, 1).await;
    kept.write_all(b"more").await.unwrap();
    kept.read_exact(&mut [0; 4]).await.unwrap();
    // A host that is passed through now is not served by its name in a request.
    node.change(|snapshot, _| {
        snapshot.routes[1].hostnames = ["a.test", "b.test"].map(|host| host.parse().unwrap()).to_vec();
        snapshot.routes[0].hostnames = vec!["z.test".parse().unwrap()];
    });
    assert!(get(&mut terminated, "a.test", "/").await.starts_with("HTTP/1.1 421"));
    node.change(|snapshot, _| {
        snapshot.filter =
            vec![FilterRule::new(1, "f/r", FilterAction::Deny, vec!["127.0.0.0/8".parse().unwrap()])];
    });
    assert!(kept.read_to_end(&mut Vec::new()).await.is_err());
    let line = node.log_line(|line| line["reason"] == "denied" && line["protocol"] == "TLS").await;
    assert_eq!(line["host"], "b.test");
}

#[tokio::test]
async fn limits_hold_for_what_is_passed_and_for_what_is_no_hello() {
    let origin = echo(0).await;
    let node = Node::start(|snapshot, _| {
        pass(snapshot, &[origin]);
        snapshot.listeners[0].limits.handshake_ms = 300;
        snapshot.listeners[0].limits.tunnel_idle_ms = 300;
    })
    .await;
    let mut tcp = passed(&node, "b.test").await;
    tcp.write_all(b"more").await.unwrap();
    assert!(tcp.read_to_end(&mut Vec::new()).await.is_err());
    node.refused(Reason::TunnelIdle, 1).await;
    let mut half = node.connect().await;
    half.write_all(&hello(&node, "b.test")[..50]).await.unwrap();
    let _ = half.read_to_end(&mut Vec::new()).await;
    node.refused(Reason::HandshakeTimeout, 1).await;
    // Half a handshake with the origin is half a handshake.
    let mut half = passed(&node, "b.test").await;
    assert!(half.read_to_end(&mut Vec::new()).await.is_err());
    node.refused(Reason::HandshakeTimeout, 2).await;
    // What is no ClientHello is told so by who shakes hands, whose alert it gets.
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 600]] {
        let mut tcp = node.connect().await;
        tcp.write_all(garbage).await.unwrap();
        let mut answer = Vec::new();
        let _ = tcp.read_to_end(&mut answer).await;
        assert_eq!(answer.first(), Some(&21), "an alert");
    }
    node.refused(Reason::HandshakeFailed, 2).await;
    // Without a name nothing is passed.
    let refused = node.shake_unverified("127.0.0.1").await.unwrap_err().to_string();
    assert!(refused.contains("UnrecognisedName"), "{refused}");
}

#[tokio::test]
async fn half_handshakes_with_origins_make_room_and_tunnels_do_not() {
    let origin = echo(0).await;
    let node = Node::start(|snapshot, _| {
        pass(snapshot, &[origin]);
        snapshot.listeners[0].limits.connections = 2;
    })
    .await;
    let mut busy = passed(&node, "b.test").await;
    busy.write_all(b"more").await.unwrap();
    busy.read_exact(&mut [0; 4]).await.unwrap();
    let mut half = passed(&node, "b.test").await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    node.get_ok(&client(&node.pki.ca)).await;
    assert!(half.read_to_end(&mut Vec::new()).await.is_err());
    node.refused(Reason::IdleEvicted, 1).await;
    busy.write_all(b"more").await.unwrap();
    busy.read_exact(&mut [0; 4]).await.unwrap();
}
