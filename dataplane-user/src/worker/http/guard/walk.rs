//! Where HTTP/2's frames begin (RFC 9113, 4.1): their heads, read as the bytes pass, and nothing of their payload.

/// Every frame's head.
pub(super) const HEAD: usize = 9;

/// What a client sends before its first frame (RFC 9113, 3.4).
const PREFACE: u64 = 24;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
/// RFC 9218, 7.
pub(super) const PRIORITY_UPDATE: u8 = 16;

pub(super) const END_STREAM: u8 = 1;
/// Of SETTINGS.
pub(super) const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;

/// A frame's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) length: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Head {
    fn read([a, b, c, kind, flags, stream @ ..]: [u8; HEAD]) -> Self {
        Self {
            length: u32::from_be_bytes([0, a, b, c]),
            kind,
            flags,
            // The first bit is reserved.
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
        }
    }

    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// One direction of a connection.
#[derive(Debug)]
pub(super) struct Walk {
    head: [u8; HEAD],
    /// Of the head, how much has passed.
    had: usize,
    /// Of the payload, how much has not.
    left: u64,
}

impl Walk {
    /// From the connection's first byte.
    pub(super) fn new(preface: bool) -> Self {
        Self { head: [0; HEAD], had: 0, left: if preface { PREFACE } else { 0 } }
    }

    /// Goes on over bytes, no further than the end of a head or a payload: how far, and the head that is complete now.
    pub(super) fn step(&mut self, bytes: &[u8]) -> (usize, Option<Head>) {
        if self.left > 0 {
            let now = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            self.left -= now as u64;
            return (now, None);
        }
        if self.had == 0
            && let Some(whole) = bytes.first_chunk()
        {
            return (HEAD, Some(self.begin(Head::read(*whole))));
        }
        let now = (HEAD - self.had).min(bytes.len());
        for (place, byte) in self.head.iter_mut().skip(self.had).zip(bytes) {
            *place = *byte;
        }
        self.had += now;
        let complete = self.had == HEAD;
        if complete {
            self.had = 0;
        }
        (now, complete.then(|| self.begin(Head::read(self.head))))
    }

    fn begin(&mut self, head: Head) -> Head {
        self.left = u64::from(head.length);
        head
    }
}
