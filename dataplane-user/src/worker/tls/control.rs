//! Records that are no traffic: alerts, key updates, tickets (RFC 8446, 4.6 and 6).

use std::io;

use rustls::{ContentType, ProtocolVersion};

use super::handshake::Rest;
use super::record::{Opener, RecordError, Sealer};

/// A key update that asks for none in return.
pub(crate) const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
/// The alert that ends a direction in an orderly way.
pub(crate) const CLOSE_NOTIFY: [u8; 2] = [1, 0];

/// A handshake message after the handshake: a ticket may be long, but not this long.
const MOST_MESSAGE: usize = 64 * 1024;
/// Records in a row that bring no traffic. More is no use to anyone but to keep us busy.
const MOST_IDLE: u32 = 64;

/// What a record asked for.
pub(crate) enum Said {
    Nothing,
    /// No more traffic comes.
    End,
    /// The peer seals with a new key, and perhaps wants us to.
    KeyUpdate {
        opener: Box<Opener>,
        answer: bool,
    },
}

/// What is known of the connection besides its traffic keys.
pub(crate) struct Control {
    rest: Box<Rest>,
    /// A handshake message that goes on in the next record.
    message: Vec<u8>,
    idle: u32,
}

impl Control {
    pub(crate) fn new(rest: Rest) -> Self {
        Self { rest: Box::new(rest), message: Vec::new(), idle: 0 }
    }

    /// Counts a record of traffic; one inside a handshake message is an error, and too many empty ones are.
    pub(crate) fn traffic(&mut self, length: usize) -> io::Result<()> {
        if !self.message.is_empty() {
            return Err(error(RecordError::Malformed));
        }
        if length > 0 {
            self.idle = 0;
            return Ok(());
        }
        self.idled()
    }

    fn idled(&mut self) -> io::Result<()> {
        self.idle += 1;
        if self.idle > MOST_IDLE { Err(error(RecordError::Idle)) } else { Ok(()) }
    }

    /// Whether this version can change keys.
    pub(crate) fn can_rekey(&self) -> bool {
        self.rest.version() == ProtocolVersion::TLSv1_3
    }

    /// The next key to seal with.
    pub(crate) fn next_sealer(&mut self) -> io::Result<Sealer> {
        let secrets = self.rest.next_tx().map_err(io::Error::other)?;
        Sealer::new(self.rest.version(), secrets).map_err(error)
    }

    /// Reads a record that is no traffic.
    pub(crate) fn record(&mut self, typ: ContentType, bytes: &[u8]) -> io::Result<Said> {
        self.idled()?;
        match (typ, bytes) {
            (ContentType::Alert, [_, 0]) => Ok(Said::End),
            // user_canceled and no_renegotiation announce nothing we act on.
            (ContentType::Alert, [_, 90] | [1, 100]) => Ok(Said::Nothing),
            (ContentType::Alert, [_, alert]) => Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                format!("the peer ended the connection with TLS alert {alert}"),
            )),
            (ContentType::Handshake, bytes) if !bytes.is_empty() => self.handshake(bytes),
            _ => Err(error(RecordError::Malformed)),
        }
    }

    fn handshake(&mut self, bytes: &[u8]) -> io::Result<Said> {
        self.message.extend_from_slice(bytes);
        if self.message.len() > MOST_MESSAGE {
            return Err(error(RecordError::Malformed));
        }
        let tls13 = self.can_rekey();
        let message = std::mem::take(&mut self.message);
        let mut rest = message.as_slice();
        while let [typ, a, b, c, tail @ ..] = rest {
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            let Some((body, tail)) = tail.split_at_checked(length) else { break };
            rest = tail;
            match (typ, body, &mut *self.rest) {
                (4, ticket, Rest::Client(client)) => {
                    client.handle_new_session_ticket(ticket).map_err(io::Error::other)?;
                }
                // Keys change at a record's end (RFC 8446, 5.1).
                (24, [answer @ (0 | 1)], _) if tls13 && rest.is_empty() => {
                    let secrets = self.rest.next_rx().map_err(io::Error::other)?;
                    let opener = Box::new(Opener::new(self.rest.version(), secrets).map_err(error)?);
                    return Ok(Said::KeyUpdate { opener, answer: *answer == 1 });
                }
                // HelloRequest: a TLS 1.2 server would like to renegotiate. We would not.
                (0, [], Rest::Client(_)) if !tls13 => {}
                _ => return Err(error(RecordError::Malformed)),
            }
        }
        self.message = rest.to_vec();
        Ok(Said::Nothing)
    }
}

fn error(error: RecordError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl From<RecordError> for io::Error {
    fn from(record: RecordError) -> Self {
        error(record)
    }
}

/// Whether the peer broke the rules of TLS, rather than the connection off.
pub(crate) fn is_peers_fault(error: &io::Error) -> bool {
    const OURS: u8 = 80;
    alert_for(error).is_some_and(|alert| alert != OURS)
}

/// The alert to send before giving up, where there is still somebody to tell.
pub(crate) fn alert_for(error: &io::Error) -> Option<u8> {
    let inner = error.get_ref()?;
    if let Some(record) = inner.downcast_ref::<RecordError>() {
        return match record {
            RecordError::Forged => Some(20),
            RecordError::Malformed | RecordError::Idle => Some(10),
            RecordError::WornOut | RecordError::Suite => Some(80),
        };
    }
    inner.is::<rustls::Error>().then_some(50)
}
