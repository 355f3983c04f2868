//! `/events`: tells an open page that something changed. The page then asks for itself, so an event carries no figures.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, stream};
use tokio_stream::wrappers::BroadcastStream;

use crate::ops::{Event, Ops};
use crate::session::SignedIn;

/// A stream ends by itself, so that a session that has ended does not look on; the browser comes back with its cookie.
const AT_MOST: Duration = Duration::from_secs(600);
/// A comment now and then tells a dead connection from a quiet one.
const QUIET: Duration = Duration::from_secs(15);

/// `GET /events`.
pub(crate) async fn stream(State(ops): State<Ops>, _: SignedIn) -> Response {
    let frames = frames(ops.events()).take_until(tokio::time::sleep(AT_MOST));
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(frames)).into_response()
}

fn frames(
    events: tokio::sync::broadcast::Receiver<Event>,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    // Whoever lagged behind has missed nothing that matters: one event is as good as many.
    let named = BroadcastStream::new(events).map(|event| match event {
        Ok(Event::Published { .. } | Event::Applied { .. } | Event::Refused { .. }) => "revision",
        Ok(Event::Node { .. }) => "node",
        Ok(Event::Traffic) | Err(_) => "traffic",
    });
    let events = named.map(|name| format!("event: {name}\ndata:\n\n"));
    let beats = stream::unfold((), |()| async {
        tokio::time::sleep(QUIET).await;
        Some((": \n\n".to_owned(), ()))
    });
    let hello = stream::once(async { "retry: 2000\n\n".to_owned() });
    hello.chain(stream::select(events, beats)).map(|text| Ok(Bytes::from(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_event_is_its_name() {
        let (send, receive) = tokio::sync::broadcast::channel(4);
        let mut frames = std::pin::pin!(frames(receive));
        send.send(Event::Published { revision: 7 }).unwrap();
        assert!(frames.next().await.unwrap().unwrap().starts_with(b"retry"));
        assert_eq!(frames.next().await.unwrap().unwrap(), "event: revision\ndata:\n\n");
    }
}
