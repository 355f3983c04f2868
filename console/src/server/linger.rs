//! Requests that are answered before their bodies have been read, as refusals are.
//!
//! Letting go of such a body resets the stream behind the answer (RFC 9113, 8.1), or closes a connection of HTTP/1.1, and some
//! clients that are still sending forget the answer then. So a body is read on for a little when whoever answers has let go of
//! it, and thrown away.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderValue, Method, Version, header};
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use tokio::runtime::Handle;

/// How long and how much: a stream's window, which a client may have on its way when it is answered. Then it is let go of after
/// all: a body without end holds a place among its connection's streams no longer than that.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1 << 20;

/// Reads on behind requests.
pub(super) async fn linger(request: Request, next: Next) -> Response {
    // Who waits for 100 (Continue) sends nothing yet, and over HTTP/1.1 reading would ask for it.
    let asks = request.version() < Version::HTTP_2 && request.headers().contains_key(header::EXPECT);
    if asks || request.body().is_end_stream() {
        return next.run(request).await;
    }
    let has_answer_body = request.method() != Method::HEAD;
    let answer = next.run(request.map(|body| Body::new(Lingering(body)))).await;
    if has_answer_body { worded(answer) } else { answer }
}

/// A refusal without a word gets its status as one. When curl 7.88 ends a stream of HTTP/2 after us it does not see that this was
/// the last of it, and waits for ever, unless it knows by the answer's length that it has all of it.
fn worded(mut answer: Response) -> Response {
    let status = answer.status();
    if (status.is_client_error() || status.is_server_error()) && answer.body().is_end_stream() {
        *answer.body_mut() = Body::from(format!("{status}\n"));
        let headers = answer.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    }
    answer
}

/// A body that is read on when it is dropped before its end.
struct Lingering(Body);

impl HttpBody for Lingering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        // Where there is no runtime there is no connection any more either.
        let Ok(runtime) = Handle::try_current() else { return };
        if !self.0.is_end_stream() {
            runtime.spawn(read_on(std::mem::take(&mut self.0)));
        }
    }
}

/// Reads and throws away, until the end, the bound, or the time is over.
async fn read_on(mut body: Body) {
    let reading = async {
        let mut left = LINGER_BYTES;
        while let Some(Ok(frame)) = body.frame().await
            && let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len))
        {
            left = rest;
        }
    };
    // However it ended, dropping the body lets go of the stream.
    let _late = tokio::time::timeout(LINGER, reading).await;
}
