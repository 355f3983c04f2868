//! WebSocket over HTTP/1.1: messages that come back.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Client, http1};
use crate::Result;
use crate::origin::ACCEPT;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

impl Client {
    pub(super) async fn websocket(&self) -> Result<()> {
        let host = self.host()?;
        let mut stream = self.connect(host).await?;
        let handshake = format!(
            "GET {} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n",
            self.workload.path()
        );
        stream.write_all(handshake.as_bytes()).await?;
        let mut buffer = Vec::with_capacity(4096);
        let head = http1::head(&mut stream, &mut buffer).await?;
        let text = String::from_utf8_lossy(buffer.get(..head).unwrap_or_default()).into_owned();
        if !text.starts_with("HTTP/1.1 101 ") || !text.contains(ACCEPT) {
            return Err(format!("answered: {text}").into());
        }
        let (sent, expected) = frames(&self.expected);
        let mut back = vec![0; expected.len()];
        while !self.stopped() {
            stream.write_all(&sent).await?;
            stream.read_exact(&mut back).await?;
            if back != expected {
                return Err("the message that came back is another one".into());
            }
            self.count();
        }
        let _ = stream.shutdown().await;
        Ok(())
    }
}

/// A binary message as a client sends it, masked, and as a server does (RFC 6455, 5.2).
fn frames(payload: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes();
    let masked: Vec<u8> = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    (
        [&[0x82, 0x80 | 126][..], &length, &mask, &masked].concat(),
        [&[0x82, 126][..], &length, payload].concat(),
    )
}
