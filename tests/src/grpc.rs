//! gRPC as an origin and a client of these tests need it: messages that come back as they are, in calls of one and of many.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use rustls::server::Accepted;
use tokio_rustls::StartHandshake;

use crate::client::Dial;
use crate::h2client::{self, OnDrop};
use crate::stage::HOST;

/// Serves an origin's connection whose client wants HTTP/2, to its end.
///
/// # Errors
/// What the handshake, or HTTP/2, says.
pub(crate) fn serve(accepted: Accepted, tcp: TcpStream, tls: Arc<rustls::ServerConfig>) -> io::Result<()> {
    tcp.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let tcp = tokio::net::TcpStream::from_std(tcp)?;
        let stream = StartHandshake::from_parts(accepted, tcp).into_stream(tls).await?;
        let mut connection = h2::server::handshake(stream).await.map_err(io::Error::other)?;
        while let Some(call) = connection.accept().await {
            let (request, respond) = call.map_err(io::Error::other)?;
            tokio::spawn(async move {
                // A call that the node gave up ends here, and nobody minds.
                let _ = echo(request, respond).await;
            });
        }
        Ok(())
    })
}

/// Answers a call: what comes goes back. `/late` never answers.
async fn echo(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
    if request.uri().path() == "/late" {
        return std::future::poll_fn(|cx| respond.poll_reset(cx)).await.map(drop);
    }
    let mut head = Response::new(());
    head.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
    let mut send = respond.send_response(head, false)?;
    let mut body = request.into_body();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        send.send_data(data, false)?;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", 0.into());
    send.send_trailers(trailers)
}

/// A call of some messages, each of which comes back before the next is sent, on a TCP connection without TLS.
///
/// # Errors
/// As [`Channel::call`], [`Call::say`] and [`Call::end`].
pub async fn call_in_clear_text(tcp: TcpStream) -> io::Result<()> {
    let (requests, driver) = h2client::clear_text(tcp).await?;
    let channel = Channel { requests, _driver: OnDrop(driver) };
    let mut call = channel.call("one").await?;
    call.say("two").await?;
    call.say("three").await?;
    call.end().await
}

/// A client's connection.
#[derive(Debug)]
pub(crate) struct Channel {
    requests: SendRequest<Bytes>,
    _driver: OnDrop,
}

impl Channel {
    /// Opens it.
    ///
    /// # Errors
    /// What connecting, the handshake or HTTP/2 says.
    pub(crate) async fn open(dial: &Dial) -> io::Result<Self> {
        let (requests, driver) = h2client::secure(dial.tcp()?, dial).await?;
        let requests = requests.ready().await.map_err(io::Error::other)?;
        Ok(Self { requests, _driver: OnDrop(driver) })
    }

    /// Begins a call; its answer's head has come.
    ///
    /// # Errors
    /// What HTTP/2 says; an answer that is none, or a refusal.
    pub(crate) async fn call(&self, first: &str) -> io::Result<Call> {
        let request = Request::post(format!("https://{HOST}/test.Echo/Echo"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        let request = request.body(()).map_err(io::Error::other)?;
        let requests = self.requests.clone().ready().await;
        let mut requests = requests.map_err(io::Error::other)?;
        let (answer, mut send) = requests.send_request(request, false).map_err(io::Error::other)?;
        // The first message may go before there is an answer.
        send.send_data(message(first), false).map_err(io::Error::other)?;
        let answer = answer.await.map_err(io::Error::other)?;
        if answer.status() != 200 || answer.headers().contains_key("grpc-status") {
            return Err(io::Error::other(format!("{} {:?}", answer.status(), answer.headers())));
        }
        let mut call = Call { send, body: answer.into_body(), unread: Vec::new() };
        call.came(first).await?;
        Ok(call)
    }

    /// A call of one message.
    ///
    /// # Errors
    /// As [`Channel::call`] and [`Call::end`].
    pub(crate) async fn unary(&self, text: &str) -> io::Result<()> {
        self.call(text).await?.end().await
    }
}

/// A call that is open.
#[derive(Debug)]
pub(crate) struct Call {
    send: SendStream<Bytes>,
    body: RecvStream,
    unread: Vec<u8>,
}

impl Call {
    /// Sends a message and waits until it comes back.
    ///
    /// # Errors
    /// What HTTP/2 says; the end of the answer, or another message.
    pub(crate) async fn say(&mut self, text: &str) -> io::Result<()> {
        self.send.send_data(message(text), false).map_err(io::Error::other)?;
        self.came(text).await
    }

    async fn came(&mut self, text: &str) -> io::Result<()> {
        let expected = message(text);
        while self.unread.len() < expected.len() {
            let data = self.body.data().await.ok_or(io::ErrorKind::UnexpectedEof)?;
            let data = data.map_err(io::Error::other)?;
            self.body.flow_control().release_capacity(data.len()).map_err(io::Error::other)?;
            self.unread.extend_from_slice(&data);
        }
        let came: Vec<u8> = self.unread.drain(..expected.len()).collect();
        if came == expected { Ok(()) } else { Err(io::Error::other(format!("{came:?} and not {text}"))) }
    }

    /// Ends the client's half, and reads the other to its status.
    ///
    /// # Errors
    /// What HTTP/2 says; more messages; a status that is not OK.
    pub(crate) async fn end(mut self) -> io::Result<()> {
        self.send.send_data(Bytes::new(), true).map_err(io::Error::other)?;
        if let Some(more) = self.body.data().await {
            let more = more.map_err(io::Error::other)?;
            if !more.is_empty() {
                return Err(io::Error::other(format!("{} bytes more", more.len())));
            }
        }
        let trailers = self.body.trailers().await.map_err(io::Error::other)?.unwrap_or_default();
        match trailers.get("grpc-status").map(http::HeaderValue::as_bytes) {
            Some(b"0") => Ok(()),
            _ => Err(io::Error::other(format!("ends with {trailers:?}"))),
        }
    }
}

/// A message as it travels: not compressed, its length, itself.
fn message(text: &str) -> Bytes {
    let length = u32::try_from(text.len()).unwrap_or_default().to_be_bytes();
    [&[0][..], &length, text.as_bytes()].concat().into()
}
