//! Origins that are told whose connection it is.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;

use model::snapshot::ProxyVersion;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

use super::node::{Node, client, get};
use crate::worker::accept::proxied;
use crate::worker::proxy::read::Said;

/// Answers every request with whom the connection's header names; counts connections.
async fn origin(connections: Rc<Cell<u32>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn_local(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            connections.set(connections.get() + 1);
            spawn_local(answer(tcp));
        }
    });
    address
}

async fn answer(mut tcp: TcpStream) {
    let soon = tokio::time::Instant::now() + std::time::Duration::from_secs(5);
    let Ok(Said::Client(client)) = proxied::header(&mut tcp, soon).await else { return };
    let mut head = Vec::new();
    while tcp.read_buf(&mut head).await.is_ok_and(|count| count > 0) {
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            let body = format!("{client} hello");
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            let _ = tcp.write_all(answer.as_bytes()).await;
        }
    }
}

#[tokio::test]
async fn a_connection_to_an_origin_is_one_clients() {
    LocalSet::new().run_until(both_versions()).await;
}

async fn both_versions() {
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let connections = Rc::new(Cell::new(0));
        let origin = origin(Rc::clone(&connections)).await;
        let node = Node::start(|snapshot, _| {
            snapshot.origin_groups[0].proxy_protocol = Some(version);
            snapshot.origin_groups[0].origins[0].address = origin.to_string().parse().unwrap();
            snapshot.listeners[0].proxy_protocol = vec!["127.0.0.0/8".parse().unwrap()];
        })
        .await;
        let config = client(&node.pki.ca);
        for (at, last) in [(1, 7), (2, 8), (3, 7)] {
            let header = format!("PROXY TCP4 192.0.2.{last} 192.0.2.200 4000 443\r\n");
            let mut client = node.shake_behind(&config, header.as_bytes()).await.unwrap();
            for _ in 0..3 {
                let said = get(&mut client, "a.test", "/").await;
                assert!(said.ends_with(&format!("192.0.2.{last}:4000 hello")), "{version:?}: {said}");
            }
            assert_eq!(connections.get(), at, "{version:?}: one for each client's connection");
            drop(client);
            node.open(0).await;
        }
    }
}
