//! The two ports for tests.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use tokio::sync::watch;

use super::serve::{bind, serve};
use super::{Port, Tls};
use crate::ops::Ops;
use crate::session::Sessions;
use crate::state::AppState;

/// Serves nodes on a free port until the sender goes.
pub(crate) async fn serve_nodes(ops: &Ops) -> (SocketAddr, watch::Sender<bool>) {
    start(ops, crate::nodes::router(ops.clone()), true).await
}

/// Serves people and tools on a free port until the sender goes.
pub(crate) async fn serve_console(ops: &Ops) -> (SocketAddr, watch::Sender<bool>) {
    let state = AppState { ops: ops.clone(), sessions: Sessions::new(ops.clone()) };
    start(ops, crate::router::router(&state), false).await
}

async fn start(ops: &Ops, router: Router, nodes: bool) -> (SocketAddr, watch::Sender<bool>) {
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0)), "--console-listen").await.unwrap();
    let address = listener.local_addr().unwrap();
    let names = (vec!["localhost".to_owned()], vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    let tls = Arc::new(Tls::new(ops.authority().clone(), names, nodes));
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(serve(listener, Port { tls, router, nodes }, stopped));
    (address, stop)
}
