//! Where WebSocket's frames begin and end (RFC 6455, 5.2): enough to say a last word between two of them. Nothing of a
//! frame is kept, and no bound is checked: what passes is the two sides' own.

use model::upgrade::Protocol;

/// A frame's head without its mask is at most this long.
const HEAD: usize = 10;

/// One direction's frames.
#[derive(Debug, Default)]
pub struct Frames {
    head: [u8; HEAD],
    /// Of the head, how much has passed.
    had: usize,
    /// Of the mask and the payload, how much has not.
    left: u64,
    /// A Close has passed: nothing may follow it.
    closed: bool,
}

impl Frames {
    /// For a protocol that has frames.
    pub fn of(protocol: &Protocol) -> Option<Self> {
        (protocol.as_str() == Protocol::WEBSOCKET).then(Self::default)
    }

    /// These bytes pass.
    pub fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let now = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            (_, bytes) = bytes.split_at(now);
            self.left -= now as u64;
            let Some((first, rest)) = bytes.split_first().filter(|_| self.left == 0) else { continue };
            bytes = rest;
            if let Some(place) = self.head.get_mut(self.had) {
                *place = *first;
            }
            self.had += 1;
            if let Some(length) = self.complete() {
                self.closed |= self.head.first().is_some_and(|first| first & 0x0f == 8);
                (self.left, self.had) = (length, 0);
            }
        }
    }

    /// What follows a head that is complete.
    fn complete(&self) -> Option<u64> {
        let [_, second, long @ ..] = self.head;
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let payload = match (second & 0x7f, self.had) {
            (126, 4) => u64::from(u16::from_be_bytes([long[0], long[1]])),
            (127, 10) => u64::from_be_bytes(long),
            (length @ ..126, 2) => u64::from(length),
            (_, _) => return None,
        };
        Some(payload.saturating_add(mask))
    }

    /// A Close with status 1001, going away, where one may stand now. From a client it is masked, with zeros: the mask
    /// protects caches from a client's choice of bytes, and these are ours.
    pub fn going_away(&self, client: bool) -> Option<&'static [u8]> {
        let between = self.had == 0 && self.left == 0 && !self.closed;
        between.then_some(match client {
            true => &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9],
            false => &[0x88, 0x02, 0x03, 0xe9],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, masked: bool, length: usize) -> Vec<u8> {
        let bit = if masked { 0x80 } else { 0 };
        let mut frame = vec![first];
        match length {
            ..126 => frame.push(bit | length as u8),
            126..65536 => {
                frame.push(bit | 126);
                frame.extend((length as u16).to_be_bytes());
            }
            _ => {
                frame.push(bit | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.resize(frame.len() + length + if masked { 4 } else { 0 }, 0x88);
        frame
    }

    #[test]
    fn a_last_word_stands_between_frames_however_they_are_cut() {
        for masked in [false, true] {
            let mut bytes = Vec::new();
            let mut ends = vec![0];
            for length in [0, 1, 125, 126, 300, 65_535, 65_536, 70_000, 2] {
                bytes.extend(frame(0x82, masked, length));
                ends.push(bytes.len());
            }
            for step in [1, 2, 3, 7, 1000, 100_000] {
                let (mut frames, mut at) = (Frames::default(), 0);
                for piece in bytes.chunks(step) {
                    assert_eq!(
                        frames.going_away(masked).is_some(),
                        ends.contains(&at),
                        "{masked} {step} {at}"
                    );
                    frames.pass(piece);
                    at += piece.len();
                }
                assert!(frames.going_away(masked).is_some());
            }
        }
    }

    #[test]
    fn the_last_word_is_a_close_and_stands_alone() {
        for client in [false, true] {
            let mut frames = Frames::default();
            let close = frames.going_away(client).unwrap();
            assert_eq!(close.first(), Some(&0x88));
            assert!(close.ends_with(&1001_u16.to_be_bytes()));
            frames.pass(close);
            assert!(frames.going_away(client).is_none());
        }
    }
}
