//! Bodies off and onto an HTTP/1.1 connection, the same for both legs.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use tokio::io::{AsyncRead, AsyncWrite};

use super::body::BodyReader;
use super::fields::Fields;
use super::wire::Wire;
use super::write::{self, Delimit};

/// What one look for body bytes found.
#[derive(Debug)]
pub enum Got {
    /// This many bytes at the front of the scratch buffer.
    Data(usize),
    /// The body is complete.
    End(Option<Fields>),
}

/// Why there will be no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// The peer closed or reset before the end.
    Gone,
    /// The framing is broken.
    Bad,
}

/// Reads as much of a body as is there and fits into `scratch`.
pub fn poll_body<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    reader: &mut BodyReader,
    cx: &mut Context<'_>,
    scratch: &mut [u8],
) -> Poll<Result<Got, Broken>> {
    if reader.done() {
        return Poll::Ready(Ok(Got::End(reader.take_trailers())));
    }
    let mut filled = 0;
    while !wire.input.is_empty() && filled < scratch.len() && !reader.done() {
        let free = scratch.get_mut(filled..).unwrap_or_default();
        let taken = wire.input.len().min(free.len());
        let (piece, held) = (free.get_mut(..taken).unwrap_or_default(), wire.input.get(..taken));
        piece.copy_from_slice(held.unwrap_or_default());
        let decoded = reader.decode(piece).map_err(|_bad| Broken::Bad)?;
        wire.input.advance(decoded.consumed);
        filled += decoded.produced;
    }
    while filled < scratch.len() && !reader.done() {
        let free = scratch.get_mut(filled..).unwrap_or_default();
        let read = match wire.poll_read(cx, free) {
            Poll::Ready(Ok(0)) if filled > 0 => break,
            Poll::Ready(Ok(0)) if reader.ends_with_connection() => {
                *reader = BodyReader::new(super::request::Framing::None);
                break;
            }
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(Broken::Gone)),
            Poll::Ready(Err(_)) if filled > 0 => break,
            Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::Gone)),
            Poll::Pending if filled > 0 => break,
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(read)) => read,
        };
        let piece = free.get_mut(..read).unwrap_or_default();
        let decoded = reader.decode(piece).map_err(|_bad| Broken::Bad)?;
        wire.input.extend_from_slice(piece.get(decoded.consumed..).unwrap_or_default());
        filled += decoded.produced;
    }
    Poll::Ready(Ok(if filled > 0 { Got::Data(filled) } else { Got::End(reader.take_trailers()) }))
}

/// Writes one body.
#[derive(Debug, Clone, Copy)]
pub struct Transmit(Delimit);

impl Transmit {
    /// For a body delimited in this way.
    pub fn new(delimit: Delimit) -> Self {
        Self(delimit)
    }

    /// Takes all of `data`.
    pub fn data<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        wire: &mut Wire<S>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> io::Result<()> {
        match &mut self.0 {
            Delimit::None | Delimit::Declared(_) => Ok(()),
            Delimit::Close => wire.write(cx, data, b""),
            Delimit::Length(left) => {
                // A body longer than its head said must never reach the peer: it would be read as the next message.
                *left = left.checked_sub(data.len() as u64).ok_or(io::ErrorKind::InvalidData)?;
                wire.write(cx, data, b"")
            }
            Delimit::Chunked => {
                write::chunk_size(&mut wire.output, data.len());
                wire.write(cx, data, b"\r\n")
            }
        }
    }

    /// Ends the body. False where it is shorter than its head said: the connection must not be used again.
    pub fn finish<S>(&mut self, wire: &mut Wire<S>, trailers: Option<&Fields>) -> bool {
        match self.0 {
            Delimit::Chunked => write::last_chunk(&mut wire.output, trailers),
            Delimit::Length(left) => return left == 0,
            Delimit::None | Delimit::Declared(_) | Delimit::Close => {}
        }
        self.0 = Delimit::None;
        true
    }
}

/// Reads and throws away until the peer closes: a close with unread bytes would reset the connection and take our last
/// answer with it. At most `bound` bytes.
pub fn poll_linger<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    cx: &mut Context<'_>,
    scratch: &mut [u8],
    bound: &mut usize,
) -> Poll<()> {
    loop {
        match ready!(wire.poll_read(cx, scratch)) {
            Ok(0) | Err(_) => return Poll::Ready(()),
            Ok(read) if read >= *bound => return Poll::Ready(()),
            Ok(read) => *bound -= read,
        }
    }
}
