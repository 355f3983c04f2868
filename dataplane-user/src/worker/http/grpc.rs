//! What of gRPC a gateway has to know: how long a client waits, and how a call is ended whose answer has begun
//! (gRPC, "gRPC over HTTP2"). Messages themselves pass unread.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use model::grpc::{InvalidTimeout, Timeout};

use super::request::Request;
use crate::worker::refusal::Reason;

const TIMEOUT: &[u8] = b"grpc-timeout";

/// How long the client gives its call, where it is one and says so.
///
/// # Errors
/// It says so in no valid way, or twice.
pub fn timeout(request: &Request) -> Result<Option<Timeout>, InvalidTimeout> {
    if !request.grpc() {
        return Ok(None);
    }
    let mut said = request.fields.iter().filter(|(_, name, _)| name.eq_ignore_ascii_case(TIMEOUT));
    match (said.next(), said.next()) {
        (None, _) => Ok(None),
        (Some((_, _, value)), None) => Timeout::try_from(value).map(Some),
        (Some(_), Some(_)) => Err(InvalidTimeout),
    }
}

/// `grpc-message` of a refusal. Names and ids need none of its percent-encoding.
pub fn message(reason: Reason, request_id: &str) -> String {
    format!("{} (request {request_id})", reason.name())
}

/// The trailers that end an answer which has begun.
pub fn trailers(reason: Reason, request_id: &str) -> Option<HeaderMap> {
    let mut trailers = HeaderMap::with_capacity(2);
    trailers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from(u16::from(reason.grpc())));
    let message = HeaderValue::from_str(&message(reason, request_id)).ok()?;
    trailers.insert(HeaderName::from_static("grpc-message"), message);
    Some(trailers)
}

/// A message's prefix: compressed or not, and its length.
const PREFIX: usize = 5;

/// Where messages begin and end ("Length-Prefixed-Message"): enough to know whether trailers may follow. Nothing of a
/// message is kept, and no bound is checked: what passes is the two sides' own.
#[derive(Debug, Default)]
pub struct Messages {
    prefix: [u8; PREFIX],
    /// Of the prefix, how much has passed.
    had: usize,
    /// Of the message, how much has not.
    left: usize,
}

impl Messages {
    /// These bytes pass.
    pub fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let now = self.left.min(bytes.len());
            (_, bytes) = bytes.split_at(now);
            self.left -= now;
            let Some((first, rest)) = bytes.split_first().filter(|_| self.left == 0) else { continue };
            bytes = rest;
            if let Some(place) = self.prefix.get_mut(self.had) {
                *place = *first;
            }
            self.had += 1;
            if self.had == PREFIX {
                let [_, length @ ..] = self.prefix;
                self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                self.had = 0;
            }
        }
    }

    /// Whether all messages that have begun are complete.
    pub fn between(&self) -> bool {
        self.had == 0 && self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_end_where_they_end_however_they_are_cut() {
        let (mut bytes, mut ends) = (Vec::new(), vec![0]);
        for length in [0_u32, 1, 4, 5, 6, 300, 70_000, 0, 2] {
            bytes.push(0);
            bytes.extend(length.to_be_bytes());
            bytes.resize(bytes.len() + length as usize, 1);
            ends.push(bytes.len());
        }
        for step in [1, 2, 3, 5, 7, 1000, 100_000] {
            let (mut messages, mut at) = (Messages::default(), 0);
            for piece in bytes.chunks(step) {
                assert_eq!(messages.between(), ends.contains(&at), "{step} {at}");
                messages.pass(piece);
                at += piece.len();
            }
            assert!(messages.between());
        }
    }

    #[test]
    fn trailers_say_status_and_reason() {
        let trailers = trailers(Reason::GrpcDeadline, "0123").unwrap();
        assert_eq!(trailers["grpc-status"], "4");
        assert_eq!(trailers["grpc-message"], "grpc-deadline (request 0123)");
    }
}
