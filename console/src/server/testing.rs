//! The node port for tests.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::sync::watch;

use super::serve::{bind, serve};
use super::{Port, Tls};
use crate::ops::Ops;

/// Serves nodes on a free port until the sender goes.
pub(crate) async fn serve_nodes(ops: &Ops) -> (SocketAddr, watch::Sender<bool>) {
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0)), "--node-listen").await.unwrap();
    let address = listener.local_addr().unwrap();
    let names = (vec!["localhost".to_owned()], vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    let tls = Arc::new(Tls::new(ops.authority().clone(), names, true));
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(serve(
        listener,
        Port { tls, router: crate::nodes::router(ops.clone()), nodes: true },
        stopped,
    ));
    (address, stop)
}
