//! Bodies on HTTP/1.1: where one ends, and the chunked coding under any split of its bytes.

use bytes::BytesMut;

use super::fields::Fields;
use super::request::{Framing, trailer};
use super::scan::Scan;

/// Bytes of chunk extensions in one body before it is refused: they mean nothing to anybody and cost every parser.
const MOST_EXTENSION: u32 = 4096;

/// Bytes and fields of a trailer section.
const MOST_TRAILER_BYTES: usize = 16 * 1024;
const MOST_TRAILER_FIELDS: usize = 64;

/// Hexadecimal digits of a chunk's size: 60 bits, so that no sum overflows.
const MOST_DIGITS: u8 = 15;

/// Reads one body. Sans-IO: it is handed what has been read and moves the body's bytes to the front of it.
#[derive(Debug)]
pub struct BodyReader {
    state: State,
    extension: u32,
    scan: Scan,
    pending: BytesMut,
    trailers: Option<Fields>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Done,
    Length(u64),
    Close,
    Size {
        size: u64,
        digits: u8,
    },
    /// White space after the size: only an extension may follow.
    Blank {
        size: u64,
    },
    Extension {
        size: u64,
        quoted: bool,
        escaped: bool,
    },
    SizeLf {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    Trailers,
}

/// What one call did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of the input that belong to this body.
    pub consumed: usize,
    /// Bytes of body now at the front of the input.
    pub produced: usize,
}

/// The body's framing is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadBody;

impl BodyReader {
    /// A reader for a body framed in this way.
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size { size: 0, digits: 0 },
            Framing::Close => State::Close,
        };
        Self { state, extension: 0, scan: Scan::default(), pending: BytesMut::new(), trailers: None }
    }

    /// Whether the body is complete.
    pub fn done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the end of the connection is a proper end of this body.
    pub fn ends_with_connection(&self) -> bool {
        self.state == State::Close
    }

    /// Bytes still to come, where that is known.
    pub fn left(&self) -> Option<u64> {
        match self.state {
            State::Done => Some(0),
            State::Length(left) => Some(left),
            State::Close
            | State::Size { .. }
            | State::Blank { .. }
            | State::Extension { .. }
            | State::SizeLf { .. }
            | State::Data { .. }
            | State::DataCr
            | State::DataLf
            | State::Trailers => None,
        }
    }

    /// The trailers, once the body is done.
    pub fn take_trailers(&mut self) -> Option<Fields> {
        self.trailers.take()
    }

    /// Takes what has been read. Stops behind the body's last byte.
    ///
    /// # Errors
    /// The framing is broken.
    pub fn decode(&mut self, bytes: &mut [u8]) -> Result<Decoded, BadBody> {
        match self.state {
            State::Done => Ok(Decoded::default()),
            State::Close => Ok(Decoded { consumed: bytes.len(), produced: bytes.len() }),
            State::Length(left) => {
                let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                let left = left - taken as u64;
                self.state = if left == 0 { State::Done } else { State::Length(left) };
                Ok(Decoded { consumed: taken, produced: taken })
            }
            State::Size { .. }
            | State::Blank { .. }
            | State::Extension { .. }
            | State::SizeLf { .. }
            | State::Data { .. }
            | State::DataCr
            | State::DataLf
            | State::Trailers => self.decode_chunks(bytes),
        }
    }

    fn decode_chunks(&mut self, bytes: &mut [u8]) -> Result<Decoded, BadBody> {
        let mut decoded = Decoded::default();
        while let Some(rest) = bytes.get(decoded.consumed..).filter(|rest| !rest.is_empty()) {
            match self.state {
                State::Data { left } => {
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    bytes.copy_within(decoded.consumed..decoded.consumed + taken, decoded.produced);
                    decoded.consumed += taken;
                    decoded.produced += taken;
                    let left = left - taken as u64;
                    self.state = if left == 0 { State::DataCr } else { State::Data { left } };
                }
                State::Trailers => {
                    decoded.consumed += self.take_trailer_bytes(rest)?;
                }
                State::Done | State::Length(_) | State::Close => break,
                State::Size { .. }
                | State::Blank { .. }
                | State::Extension { .. }
                | State::SizeLf { .. }
                | State::DataCr
                | State::DataLf => {
                    if let Some(byte) = rest.first() {
                        self.state = self.step(*byte)?;
                    }
                    decoded.consumed += 1;
                }
            }
        }
        Ok(decoded)
    }

    fn step(&mut self, byte: u8) -> Result<State, BadBody> {
        match (self.state, byte) {
            (State::Size { size, digits }, byte) if byte.is_ascii_hexdigit() && digits < MOST_DIGITS => {
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                Ok(State::Size { size: size << 4 | digit, digits: digits + 1 })
            }
            (State::Size { size, digits: 1.. } | State::Blank { size }, b';') => {
                self.extend(size, false, false)
            }
            (State::Size { size, digits: 1.. } | State::Blank { size }, b' ' | b'\t') => {
                self.extend(size, false, false)?;
                Ok(State::Blank { size })
            }
            (State::Size { size, digits: 1.. }, b'\r') => Ok(State::SizeLf { size }),
            (State::Extension { size, quoted: false, .. }, b'\r') => Ok(State::SizeLf { size }),
            (State::Extension { size, quoted, escaped }, b'\t' | b' '..=b'~' | 0x80..) => {
                let quoted = quoted ^ (byte == b'"' && !escaped);
                self.extend(size, quoted, quoted && byte == b'\\' && !escaped)
            }
            (State::SizeLf { size: 0 }, b'\n') => Ok(State::Trailers),
            (State::SizeLf { size }, b'\n') => Ok(State::Data { left: size }),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size { size: 0, digits: 0 }),
            _ => Err(BadBody),
        }
    }

    fn extend(&mut self, size: u64, quoted: bool, escaped: bool) -> Result<State, BadBody> {
        self.extension += 1;
        if self.extension > MOST_EXTENSION {
            Err(BadBody)
        } else {
            Ok(State::Extension { size, quoted, escaped })
        }
    }

    fn take_trailer_bytes(&mut self, rest: &[u8]) -> Result<usize, BadBody> {
        let before = self.pending.len();
        self.pending
            .extend_from_slice(rest.get(..rest.len().min(MOST_TRAILER_BYTES + 1)).unwrap_or_default());
        let end = self.scan.trailers(&self.pending, MOST_TRAILER_BYTES).map_err(|_unscannable| BadBody)?;
        let Some(end) = end else { return Ok(self.pending.len() - before) };
        self.pending.truncate(end);
        self.trailers = parse_trailers(std::mem::take(&mut self.pending))?;
        self.state = State::Done;
        Ok(end - before)
    }
}

fn parse_trailers(bytes: BytesMut) -> Result<Option<Fields>, BadBody> {
    if bytes.len() <= 2 {
        return Ok(None);
    }
    let text = bytes.freeze();
    let mut table = [httparse::EMPTY_HEADER; MOST_TRAILER_FIELDS];
    let headers = match httparse::parse_headers(&text, &mut table) {
        Ok(httparse::Status::Complete((end, headers))) if end == text.len() => headers,
        Ok(_) | Err(_) => return Err(BadBody),
    };
    let list: Vec<_> =
        headers.iter().map(|header| trailer(&text, header.name.as_bytes(), header.value)).collect();
    if list.iter().any(|field| field.known.forbidden_in_trailers()) {
        return Err(BadBody);
    }
    Ok(Some(Fields::new(text, list)))
}
