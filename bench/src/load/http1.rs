//! HTTP/1.1: downloads, uploads, handshakes.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Client, Stream};
use crate::workload::Kind;
use crate::{Result, origin};

impl Client {
    pub(super) async fn http1(&self) -> Result<()> {
        let keep = self.workload.kind != Kind::Handshake;
        let mut buffer = Vec::with_capacity(self.workload.length + 64 * 1024);
        let small = origin::body(1 << 10);
        while !self.stopped() {
            let host = self.host()?;
            let mut stream = self.connect(host).await?;
            let request = request(host, self.workload.path(), keep, self.upload());
            let expected = if self.workload.kind == Kind::Upload { &small } else { &self.expected };
            loop {
                stream.write_all(&request).await?;
                answer(&mut stream, &mut buffer, expected).await?;
                self.count();
                if !keep || self.stopped() {
                    break;
                }
            }
            // The server may close first, as asked: that is no failure of an answer that was complete.
            let _ = stream.shutdown().await;
        }
        Ok(())
    }

    fn upload(&self) -> Option<&[u8]> {
        (self.workload.kind == Kind::Upload).then_some(self.expected.as_slice())
    }
}

/// The bytes of a request, body included.
pub(super) fn request(host: &str, path: &str, keep: bool, upload: Option<&[u8]>) -> Vec<u8> {
    let connection = if keep { "keep-alive" } else { "close" };
    let (method, length) = match upload {
        Some(body) => ("POST", format!("Content-Length: {}\r\n", body.len())),
        None => ("GET", String::new()),
    };
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{length}Connection: {connection}\r\n\r\n");
    [head.as_bytes(), upload.unwrap_or_default()].concat()
}

/// Reads one answer and compares it.
pub(super) async fn answer(stream: &mut Stream, buffer: &mut Vec<u8>, expected: &[u8]) -> Result<()> {
    buffer.clear();
    let head = head(stream, buffer).await?;
    let text = std::str::from_utf8(buffer.get(..head).unwrap_or_default())?;
    if !text.starts_with("HTTP/1.1 200 ") {
        return Err(format!("answered: {text}").into());
    }
    let length = text
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .ok_or("an answer without Content-Length")?
        .1
        .parse::<usize>()?;
    while buffer.len() < head + length {
        if stream.read_buf(buffer).await? == 0 {
            return Err(format!("closed after {} of {length} bytes", buffer.len() - head).into());
        }
    }
    match buffer.get(head..) == Some(expected) {
        true => Ok(()),
        false => Err("the body is not what the origin sent".into()),
    }
}

/// Reads until a head is whole and says how long it is.
pub(super) async fn head(stream: &mut Stream, buffer: &mut Vec<u8>) -> Result<usize> {
    loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err("closed before the answer's head".into());
        }
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            return Ok(at + 4);
        }
    }
}
