//! HTTP/2: requests and unary gRPC calls, several at once on each connection.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{Method, Request};

use super::Client;
use crate::Result;
use crate::workload::Kind;

impl Client {
    pub(super) async fn http2(self: Arc<Self>, streams: usize) -> Result<()> {
        let host = self.host()?.to_owned();
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(1 << 20)
            .initial_connection_window_size(1 << 24)
            .handshake::<_, Bytes>(self.connect(&host).await?)
            .await?;
        let driver = tokio::spawn(connection);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..streams {
            let (client, send, uri) =
                (self.clone(), send.clone(), format!("https://{host}{}", self.workload.path()));
            tasks.spawn(async move { client.stream(send, uri).await });
        }
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        drop(send);
        driver.abort();
        Ok(())
    }

    async fn stream(&self, send: SendRequest<Bytes>, uri: String) -> Result<()> {
        let grpc = matches!(self.workload.kind, Kind::Grpc(_));
        let message = message(&self.expected);
        let mut send = send;
        while !self.stopped() {
            send = send.ready().await?;
            let mut request = Request::builder().uri(uri.as_str());
            if grpc {
                request = request
                    .method(Method::POST)
                    .header("content-type", "application/grpc")
                    .header("te", "trailers");
            }
            let (response, mut body) = send.send_request(request.body(())?, !grpc)?;
            if grpc {
                body.send_data(message.clone(), true)?;
            }
            let response = response.await?;
            if response.status() != 200 {
                return Err(format!("answered {}", response.status()).into());
            }
            let expected = if grpc { &message[..] } else { &self.expected[..] };
            read(response.into_body(), expected, grpc).await?;
            self.count();
        }
        Ok(())
    }
}

/// A gRPC message: no compression, the length, the bytes.
fn message(bytes: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(bytes.len() + 5);
    message.put_u8(0);
    message.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    message.put_slice(bytes);
    message.freeze()
}

async fn read(mut body: h2::RecvStream, expected: &[u8], grpc: bool) -> Result<()> {
    let mut left = expected;
    while let Some(data) = body.data().await {
        let data = data?;
        left = left.strip_prefix(&data[..]).ok_or("the body is not what the origin sent")?;
        body.flow_control().release_capacity(data.len())?;
    }
    if !left.is_empty() {
        return Err(format!("the answer lacks {} bytes", left.len()).into());
    }
    if grpc {
        let trailers = body.trailers().await?.ok_or("a gRPC answer without trailers")?;
        if trailers.get("grpc-status").is_none_or(|status| status != "0") {
            return Err("a gRPC answer without status 0".into());
        }
    }
    Ok(())
}
