//! The record layer over the traffic of a connection whose handshake rustls finished (RFC 8446, 5; RFC 5246, 6.2.3 with
//! the AEAD suites of RFC 5288 and 7905). Nonces, additional data, content types, padding and sequence numbers are
//! here; keys come from rustls and are never seen.
//!
//! Why not rustls's own: it decrypts into one allocation, copies to the next, and copies again on the way out. Here a
//! record is opened straight into the reader's buffer and sealed straight from the writer's.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rustls::{ConnectionTrafficSecrets, ContentType, ProtocolVersion};

/// A record's header: type, version, length.
pub(crate) const HEADER: usize = 5;
/// The most plaintext in a record.
pub(crate) const PLAIN: usize = 1 << 14;
/// Of every suite here.
const TAG: usize = 16;
/// The part of TLS 1.2's GCM nonce that travels.
const EXPLICIT: usize = 8;
/// The most that may follow a header: RFC 8446, 5.2 (TLS 1.2 allows more; with these suites nobody needs it).
const BODY: usize = PLAIN + 256;
/// What a sealed record is longer than its plaintext, at most.
pub(crate) const OVERHEAD: usize = HEADER + EXPLICIT + TAG + 1;
/// A header and the longest body.
pub(crate) const RECORD: usize = HEADER + BODY;
/// Records under one key. RFC 8446, 5.5 allows AES-GCM 2^24.5 full ones.
const RECORDS_PER_KEY: u64 = 1 << 24;

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Type, version or length no record of ours can have.
    #[error("the peer sent something that is no TLS record")]
    Malformed,
    /// It does not decrypt: changed on the way, or made with another key.
    #[error("a TLS record does not decrypt")]
    Forged,
    /// The key has been used as often as is safe, and this version cannot change it.
    #[error("the TLS keys of this connection are worn out")]
    WornOut,
    /// Nothing but empty records and key updates comes.
    #[error("the peer sends TLS records without traffic")]
    Idle,
    /// rustls gave keys for a suite this layer does not know.
    #[error("the suite is not supported here")]
    Suite,
}

/// One direction's key and place in the sequence.
struct Direction {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Content type inside, header authenticated.
    Tls13,
    /// Explicit part of the nonce in front.
    Tls12Gcm,
    /// Nonce from the sequence number alone.
    Tls12ChaCha,
}

impl Direction {
    fn new(version: ProtocolVersion, secrets: (u64, ConnectionTrafficSecrets)) -> Result<Self, RecordError> {
        let (algorithm, key, iv) = match &secrets.1 {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(RecordError::Suite),
        };
        let kind = match (version, &secrets.1) {
            (ProtocolVersion::TLSv1_3, _) => Kind::Tls13,
            (_, ConnectionTrafficSecrets::Chacha20Poly1305 { .. }) => Kind::Tls12ChaCha,
            _ => Kind::Tls12Gcm,
        };
        let unbound = UnboundKey::new(algorithm, key.as_ref()).ok().ok_or(RecordError::Suite)?;
        let iv = *iv.as_ref().first_chunk::<12>().ok_or(RecordError::Suite)?;
        Ok(Self { key: LessSafeKey::new(unbound), iv, sequence: secrets.0, kind })
    }

    /// The static part xor the sequence number (RFC 8446, 5.3; for TLS 1.2 as rustls does).
    fn nonce(&self) -> [u8; 12] {
        let mut nonce = self.iv;
        for (byte, counted) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= counted;
        }
        nonce
    }

    /// TLS 1.2's additional data (RFC 5246, 6.2.3.3).
    fn data12(&self, typ: u8, length: usize) -> [u8; 13] {
        let mut data = [0; 13];
        data[..8].copy_from_slice(&self.sequence.to_be_bytes());
        data[8] = typ;
        data[9..11].copy_from_slice(&[3, 3]);
        data[11..].copy_from_slice(&length16(length));
        data
    }
}

/// Lengths here are never above [`BODY`].
#[expect(clippy::cast_possible_truncation, reason = "bounded by BODY, which fits")]
fn length16(length: usize) -> [u8; 2] {
    (length as u16).to_be_bytes()
}

/// The length of the body that follows a header, checked.
pub(crate) fn body_length(header: [u8; HEADER]) -> Result<usize, RecordError> {
    let [typ, major, _, high, low] = header;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if !(20..=23).contains(&typ) || major != 3 || length > BODY {
        return Err(RecordError::Malformed);
    }
    Ok(length)
}

/// Makes records.
pub(crate) struct Sealer(Direction);

impl Sealer {
    pub(crate) fn new(
        version: ProtocolVersion,
        secrets: (u64, ConnectionTrafficSecrets),
    ) -> Result<Self, RecordError> {
        Direction::new(version, secrets).map(Self)
    }

    /// Whether the key should be changed before the next record.
    pub(crate) fn worn(&self) -> bool {
        self.0.sequence >= RECORDS_PER_KEY
    }

    /// Writes `plain` (at most [`PLAIN`]) to the front of `out` as one record and says how long it is. `out` has room for
    /// `plain` and [`OVERHEAD`].
    pub(crate) fn seal(
        &mut self,
        typ: ContentType,
        plain: &[u8],
        out: &mut [u8],
    ) -> Result<usize, RecordError> {
        let direction = &mut self.0;
        // Where a key cannot be changed it is given up well before it is unsafe.
        if direction.sequence >= RECORDS_PER_KEY * 2 {
            return Err(RecordError::WornOut);
        }
        let nonce = direction.nonce();
        let inner = [u8::from(typ)];
        let (outer, explicit, extra): (u8, &[u8], &[u8]) = match direction.kind {
            Kind::Tls13 => (23, &[], &inner),
            Kind::Tls12Gcm => (inner[0], &nonce[4..], &[]),
            Kind::Tls12ChaCha => (inner[0], &[], &[]),
        };
        let body = explicit.len() + plain.len() + extra.len() + TAG;
        let [high, low] = length16(body);
        let header = [outer, 3, 3, high, low];
        let out =
            out.get_mut(..HEADER + body).filter(|_| plain.len() <= PLAIN).ok_or(RecordError::Malformed)?;
        let (front, rest) = out.split_at_mut(HEADER + explicit.len());
        front[..HEADER].copy_from_slice(&header);
        front[HEADER..].copy_from_slice(explicit);
        let (text, tail) = rest.split_at_mut(plain.len());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = match direction.kind {
            Kind::Tls13 => {
                direction.key.seal_out_of_place_scatter(nonce, Aad::from(header), plain, text, extra, tail)
            }
            Kind::Tls12Gcm | Kind::Tls12ChaCha => {
                let data = Aad::from(direction.data12(inner[0], plain.len()));
                direction.key.seal_out_of_place_scatter(nonce, data, plain, text, extra, tail)
            }
        };
        direction.sequence += 1;
        sealed.ok().ok_or(RecordError::WornOut)?;
        Ok(HEADER + body)
    }
}

/// Opens records.
pub(crate) struct Opener(Direction);

impl Opener {
    pub(crate) fn new(
        version: ProtocolVersion,
        secrets: (u64, ConnectionTrafficSecrets),
    ) -> Result<Self, RecordError> {
        Direction::new(version, secrets).map(Self)
    }

    /// How much room [`Opener::open`] needs for a body of this length.
    pub(crate) fn room(&self, body: usize) -> usize {
        body.saturating_sub(TAG + if self.0.kind == Kind::Tls12Gcm { EXPLICIT } else { 0 })
    }

    /// Decrypts a record's body into the front of `plain`, which has [`Opener::room`]; says what it is and how long.
    pub(crate) fn open(
        &mut self,
        header: [u8; HEADER],
        body: &[u8],
        plain: &mut [u8],
    ) -> Result<(ContentType, usize), RecordError> {
        let direction = &mut self.0;
        let mut nonce = direction.nonce();
        let mut text = body;
        if direction.kind == Kind::Tls12Gcm {
            let (explicit, rest) = body.split_at_checked(EXPLICIT).ok_or(RecordError::Malformed)?;
            nonce[..4].copy_from_slice(&direction.iv[..4]);
            nonce[4..].copy_from_slice(explicit);
            text = rest;
        }
        let (text, tag) = text.split_last_chunk::<TAG>().ok_or(RecordError::Malformed)?;
        let plain = plain.get_mut(..text.len()).ok_or(RecordError::Malformed)?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        match direction.kind {
            Kind::Tls13 if header[0] != 23 => return Err(RecordError::Malformed),
            Kind::Tls13 => direction.key.open_separate_gather(nonce, Aad::from(header), text, tag, plain),
            Kind::Tls12Gcm | Kind::Tls12ChaCha => {
                let data = Aad::from(direction.data12(header[0], text.len()));
                direction.key.open_separate_gather(nonce, data, text, tag, plain)
            }
        }
        .ok()
        .ok_or(RecordError::Forged)?;
        direction.sequence = direction.sequence.checked_add(1).ok_or(RecordError::WornOut)?;
        let (typ, length) = match direction.kind {
            Kind::Tls13 => {
                // Padding is zeros behind the type; a record of zeros alone is an error (RFC 8446, 5.4).
                let end = plain.iter().rposition(|byte| *byte != 0).ok_or(RecordError::Malformed)?;
                (ContentType::from(plain[end]), end)
            }
            Kind::Tls12Gcm | Kind::Tls12ChaCha => (ContentType::from(header[0]), plain.len()),
        };
        if length > PLAIN { Err(RecordError::Malformed) } else { Ok((typ, length)) }
    }
}
