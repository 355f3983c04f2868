//! As much of WebSocket (RFC 6455) as a client and an origin of these tests need: whole messages of up to 64 KiB.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base64::Engine;

use crate::client::Dial;
use crate::space::Space;
use crate::stage::HOST;

/// The key of RFC 6455, 1.3.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The opcode of a text message.
pub const TEXT: u8 = 1;
/// The opcode of a Close.
pub const CLOSE: u8 = 8;

/// The answer to a key (RFC 6455, 4.2.2).
pub fn accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(digest)
}

/// Reads a frame: opcode and payload.
///
/// # Errors
/// What reading says; `InvalidData` for a frame that is part of a message, or too long.
pub fn read(stream: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    stream.read_exact(&mut head)?;
    let [first, second] = head;
    let length = match second & 0x7f {
        126 => {
            let mut more = [0; 2];
            stream.read_exact(&mut more)?;
            usize::from(u16::from_be_bytes(more))
        }
        127 => return Err(io::ErrorKind::InvalidData.into()),
        length => usize::from(length),
    };
    if first & 0xf0 != 0x80 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a frame that begins with {first:#x}"),
        ));
    }
    let mut mask = [0; 4];
    if second & 0x80 != 0 {
        stream.read_exact(&mut mask)?;
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload)?;
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    Ok((first & 0x0f, payload))
}

/// Writes a frame, masked as a client's is or not.
///
/// # Errors
/// What writing says.
pub fn write(stream: &mut impl Write, kind: u8, payload: &[u8], mask: Option<[u8; 4]>) -> io::Result<()> {
    let bit = if mask.is_some() { 0x80 } else { 0 };
    let mut frame = vec![0x80 | kind];
    match u8::try_from(payload.len()) {
        Ok(length @ ..126) => frame.push(bit | length),
        _ => {
            frame.push(bit | 126);
            frame.extend(u16::try_from(payload.len()).map_err(io::Error::other)?.to_be_bytes());
        }
    }
    frame.extend(mask.into_iter().flatten());
    let mask = mask.unwrap_or_default();
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    stream.write_all(&frame)?;
    stream.flush()
}

/// How a WebSocket went.
#[derive(Debug)]
pub struct Ended {
    /// Messages that came back.
    pub echoes: u64,
    /// The status of the Close that ended it.
    pub code: u16,
    /// When it did.
    pub at: Instant,
}

/// A client that sends a message every twenty milliseconds and checks that it comes back, until one side closes.
pub struct Socket {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<Ended>>,
}

impl Socket {
    /// Opens it on `/ws`.
    pub fn open(space: &Arc<Space>, dial: &Dial) -> Self {
        let (space, dial) = (space.clone(), dial.clone());
        let stop = Arc::<AtomicBool>::default();
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            space.enter();
            talk(&dial, &told, |_| ())
        });
        Self { stop, thread }
    }

    /// Whether it has ended.
    pub fn ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Closes it from this side.
    ///
    /// # Errors
    /// Anything but a Close.
    pub fn close(self) -> io::Result<Ended> {
        self.stop.store(true, Ordering::Relaxed);
        self.finish()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Anything but a Close.
    pub fn finish(self) -> io::Result<Ended> {
        self.thread.join().expect("a WebSocket")
    }
}

/// The conversation; `echoed` is told how many messages have come back, 0 when it begins.
pub(crate) fn talk(dial: &Dial, stop: &AtomicBool, echoed: impl Fn(u64)) -> io::Result<Ended> {
    const MASK: [u8; 4] = [0x5a, 0x11, 0x7e, 0x03];
    let mut connection = dial.open()?;
    connection.send(
        format!(
            "GET /ws HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
        )
        .as_bytes(),
    )?;
    let (status, _) = connection.head()?;
    if status != 101 {
        return Err(io::Error::other(format!("status {status}")));
    }
    let stream = connection.stream();
    let mut echoes = 0;
    echoed(echoes);
    loop {
        let text = format!("message {echoes} {}", "x".repeat(usize::try_from(echoes % 300).unwrap_or(0)));
        if stop.load(Ordering::Relaxed) {
            write(stream, CLOSE, &1000_u16.to_be_bytes(), Some(MASK))?;
        } else {
            write(stream, TEXT, text.as_bytes(), Some(MASK))?;
        }
        match read(stream)? {
            (TEXT, payload) if payload == text.as_bytes() => {
                echoes += 1;
                echoed(echoes);
            }
            (CLOSE, payload) => {
                let code = payload.first_chunk().map_or(0, |code| u16::from_be_bytes(*code));
                // Its Close may meet a connection that is closed already; what matters came before.
                let _ = write(stream, CLOSE, &code.to_be_bytes(), Some(MASK));
                // An orderly end: the peer's close, not its reset.
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest)?;
                return Ok(Ended { echoes, code, at: Instant::now() });
            }
            (kind, payload) => {
                return Err(io::Error::other(format!("opcode {kind} with {} bytes", payload.len())));
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
