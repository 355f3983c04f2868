//! Traffic of a connection whose handshake is over, as a tokio stream.
//!
//! One receive and one send for up to 64 KiB; records are opened into the reader's buffer and sealed from the writer's.
//! The large buffers belong to the thread: an idle connection has none. Written bytes that the socket does not take at
//! once wait here until [`AsyncWrite::poll_flush`] or the next write, so a writer flushes when it has said all.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::ContentType;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::control::{Control, Said};
use super::handshake::Rest;
use super::record::{HEADER, OVERHEAD, Opener, PLAIN, RECORD, RecordError, Sealer, body_length};

/// Plaintext sealed by one write.
const BATCH: usize = 4 * PLAIN;
/// A full TLS 1.3 record is this much longer than its plaintext: a reader with room for n of them gets n, to the byte.
const TLS13_OVERHEAD: usize = 22;
/// Up to here slices written together become one record, and waiting records leave together with new ones.
const SMALL: usize = 4096;

thread_local! {
    static RECEIVED: RefCell<Box<[u8]>> = RefCell::new(vec![0; BATCH + 2 * RECORD].into());
    static SEALED: RefCell<Box<[u8]>> = RefCell::new(vec![0; SMALL + BATCH + 16 * OVERHEAD].into());
}

/// A secured connection, either end.
pub struct TlsStream {
    tcp: TcpStream,
    sealer: Sealer,
    opener: Opener,
    control: Control,
    /// Ciphertext received and not yet opened, mostly the front of a record.
    received: Vec<u8>,
    /// Plaintext that did not fit into the reader's buffer.
    opened: Waiting,
    /// Sealed and not yet taken by the socket.
    sealed: Waiting,
    /// The peer said it sends no more.
    ended: bool,
    /// We said so.
    said_end: bool,
    /// The peer asked us to change our key: we do before the next traffic, once for all it asked until then.
    pub(super) owed: bool,
    /// What was received is not to be trusted, or the peer gave up: nothing after that counts, least of all an orderly end.
    broken: bool,
}

/// Bytes taken from the front; without any it holds no memory.
#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    from: usize,
}

impl Waiting {
    fn of(bytes: Vec<u8>) -> Self {
        Self { bytes, from: 0 }
    }

    fn get(&self) -> &[u8] {
        &self.bytes[self.from..]
    }

    fn is_empty(&self) -> bool {
        self.from == self.bytes.len()
    }

    fn take(&mut self, count: usize) {
        self.from += count;
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

impl std::fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsStream").field("tcp", &self.tcp).finish_non_exhaustive()
    }
}

/// What a handshake leaves over.
pub(crate) struct Leftovers {
    /// Ciphertext behind the handshake's last record.
    pub(crate) received: Vec<u8>,
    /// Traffic that came with the peer's last flight.
    pub(crate) opened: Vec<u8>,
    /// Our last flight, which leaves with the first write.
    pub(crate) sealed: Vec<u8>,
    /// The peer has said that it sends no more.
    pub(crate) ended: bool,
}

impl TlsStream {
    pub(crate) fn new(tcp: TcpStream, sealer: Sealer, opener: Opener, rest: Rest, left: Leftovers) -> Self {
        Self {
            tcp,
            sealer,
            opener,
            control: Control::new(rest),
            received: left.received,
            opened: Waiting::of(left.opened),
            sealed: Waiting::of(left.sealed),
            ended: left.ended,
            said_end: false,
            owed: false,
            broken: false,
        }
    }

    /// The socket below.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Opens what is complete and fits; reads from the socket, once, when no whole record waits.
    fn poll_open(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if holds_record(&self.received) {
            let mut received = std::mem::take(&mut self.received);
            let used = self.open_records(&received, buf)?;
            if used < received.len() {
                received.drain(..used);
                self.received = received;
            }
            return Poll::Ready(Ok(()));
        }
        RECEIVED.with_borrow_mut(|scratch| {
            let held = self.received.len();
            let room = buf.remaining().min(BATCH);
            let wanted = (room + room.div_ceil(PLAIN) * TLS13_OVERHEAD).max(RECORD) - held;
            let mut window = ReadBuf::new(&mut scratch[held..held + wanted]);
            ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut window))?;
            let whole = held + window.filled().len();
            if whole == held {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the peer closed the connection without saying so in TLS",
                )));
            }
            scratch[..held].copy_from_slice(&self.received);
            let used = self.open_records(&scratch[..whole], buf)?;
            if used == whole {
                self.received = Vec::new();
            } else {
                self.received.clear();
                self.received.extend_from_slice(&scratch[used..whole]);
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Opens records from the front of `bytes` while there are whole ones and the reader has room; says how much it used.
    fn open_records(&mut self, bytes: &[u8], buf: &mut ReadBuf<'_>) -> io::Result<usize> {
        let mut used = 0;
        while !self.ended && buf.remaining() > 0 {
            let Some((header, rest)) = bytes[used..].split_first_chunk::<HEADER>() else { break };
            let length = body_length(*header)?;
            let Some(body) = rest.get(..length) else { break };
            used += HEADER + length;
            let room = self.opener.room(length);
            if room <= buf.remaining() {
                let plain = buf.initialize_unfilled_to(room);
                match self.opener.open(*header, body, plain)? {
                    (ContentType::ApplicationData, length) => {
                        self.control.traffic(length)?;
                        buf.advance(length);
                    }
                    (typ, length) => {
                        let message = plain[..length].to_vec();
                        self.control(typ, &message)?;
                    }
                }
            } else {
                let mut plain = vec![0; room];
                let (typ, length) = self.opener.open(*header, body, &mut plain)?;
                plain.truncate(length);
                if typ == ContentType::ApplicationData {
                    self.control.traffic(length)?;
                    let now = length.min(buf.remaining());
                    buf.put_slice(&plain[..now]);
                    self.opened = Waiting { bytes: plain, from: 0 };
                    self.opened.take(now);
                    break;
                }
                self.control(typ, &plain)?;
            }
        }
        Ok(used)
    }

    /// Acts on a record that is no traffic.
    fn control(&mut self, typ: ContentType, message: &[u8]) -> io::Result<()> {
        match self.control.record(typ, message)? {
            Said::Nothing => {}
            Said::End => self.ended = true,
            Said::KeyUpdate { opener, answer } => {
                self.opener = *opener;
                self.owed |= answer;
            }
        }
        Ok(())
    }

    /// Changes the key we seal with, and tells the peer.
    fn rekey(&mut self) -> io::Result<()> {
        self.seal_aside(ContentType::Handshake, &super::control::KEY_UPDATE)?;
        self.sealer = self.control.next_sealer()?;
        self.owed = false;
        Ok(())
    }

    /// Seals a short record behind what already waits.
    fn seal_aside(&mut self, typ: ContentType, message: &[u8]) -> Result<(), RecordError> {
        let start = self.sealed.bytes.len();
        self.sealed.bytes.resize(start + message.len() + OVERHEAD, 0);
        let length = self.sealer.seal(typ, message, &mut self.sealed.bytes[start..])?;
        self.sealed.bytes.truncate(start + length);
        Ok(())
    }

    /// Seals up to [`BATCH`] from `slices` and offers it to the socket once; what it does not take waits.
    fn poll_seal(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.said_end {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if self.sealed.get().len() > SMALL {
            ready!(self.poll_sealed(cx))?;
        }
        // RFC 8446, 4.6.3: the answer goes before the next traffic.
        if self.owed || self.sealer.worn() && self.control.can_rekey() {
            self.rekey()?;
        }
        SEALED.with_borrow_mut(|scratch| {
            let waiting = self.sealed.get().len();
            scratch[..waiting].copy_from_slice(self.sealed.get());
            let (taken, end) = self.seal_slices(slices, scratch, waiting)?;
            let sent = match Pin::new(&mut self.tcp).poll_write(cx, &scratch[..end]) {
                Poll::Ready(sent) => sent?,
                Poll::Pending => 0,
            };
            self.sealed =
                if sent == end { Waiting::default() } else { Waiting::of(scratch[sent..end].to_vec()) };
            Poll::Ready(Ok(taken))
        })
    }

    /// Seals slices into `out` from `at` on: how much was taken, where the records end.
    fn seal_slices(
        &mut self,
        slices: &[IoSlice<'_>],
        out: &mut [u8],
        mut at: usize,
    ) -> Result<(usize, usize), RecordError> {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        if slices.len() > 1 && total <= SMALL {
            let mut together = [0; SMALL];
            let mut length = 0;
            for slice in slices {
                together[length..length + slice.len()].copy_from_slice(slice);
                length += slice.len();
            }
            at += self.sealer.seal(ContentType::ApplicationData, &together[..total], &mut out[at..])?;
            return Ok((total, at));
        }
        let mut taken = 0;
        for plain in slices.iter().flat_map(|slice| slice.chunks(PLAIN)) {
            if taken + plain.len() > BATCH || at + plain.len() + OVERHEAD > out.len() {
                break;
            }
            at += self.sealer.seal(ContentType::ApplicationData, plain, &mut out[at..])?;
            taken += plain.len();
        }
        Ok((taken, at))
    }

    /// Sends what waits.
    fn poll_sealed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.sealed.is_empty() {
            match ready!(Pin::new(&mut self.tcp).poll_write(cx, self.sealed.get()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sealed.take(sent),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Tells the peer why we stop, as far as the socket takes it now.
    fn give_up(&mut self, cx: &mut Context<'_>, error: io::Error) -> io::Error {
        self.broken = true;
        if !self.said_end
            && let Some(alert) = super::control::alert_for(&error)
        {
            self.said_end = true;
            if self.seal_aside(ContentType::Alert, &[2, alert]).is_ok() {
                let _ = self.poll_sealed(cx);
            }
        }
        error
    }
}

fn holds_record(bytes: &[u8]) -> bool {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else { return false };
    // A false header counts as a record, so that opening it says what is wrong.
    body_length(*header).map_or(true, |length| rest.len() >= length)
}

impl AsyncRead for TlsStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.opened.is_empty() {
            let waiting = this.opened.get();
            let count = waiting.len().min(buf.remaining());
            buf.put_slice(&waiting[..count]);
            this.opened.take(count);
            return Poll::Ready(Ok(()));
        }
        if this.broken {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let before = buf.filled().len();
        while !this.ended && buf.filled().len() == before && buf.remaining() > 0 {
            if let Err(error) = ready!(this.poll_open(cx, buf)) {
                return Poll::Ready(Err(this.give_up(cx, error)));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_seal(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_seal(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_sealed(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.said_end {
            this.said_end = true;
            this.seal_aside(ContentType::Alert, &super::control::CLOSE_NOTIFY)?;
        }
        ready!(this.poll_sealed(cx))?;
        Pin::new(&mut this.tcp).poll_shutdown(cx)
    }
}
