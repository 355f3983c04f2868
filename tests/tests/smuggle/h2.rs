//! HTTP/2 frames by hand: no library stands between the corpus and the wire.

use std::io::{Read, Write};

use super::corpus::{Case, with_host};
use sallyport_tests::client::{Dial, ended};

/// What became of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// It ended with a head and this much text.
    pub text: Option<String>,
    /// RST_STREAM or GOAWAY came, or the connection ended.
    pub broken: bool,
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame's length").to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags, 0, 0, 0, stream]);
    frame.extend(payload);
    frame
}

/// HPACK, literals without indexing and without Huffman coding (RFC 7541, 6.2.2).
fn block(fields: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            match u8::try_from(text.len()) {
                Ok(short @ ..127) => out.push(short),
                _ => {
                    let rest = text.len() - 127;
                    assert!(rest < 128 * 128, "a longer text than this writer writes");
                    out.push(127);
                    if rest >= 128 {
                        out.push(u8::try_from(rest % 128).expect("seven bits") | 128);
                        out.push(u8::try_from(rest / 128).expect("seven bits"));
                    } else {
                        out.push(u8::try_from(rest).expect("seven bits"));
                    }
                }
            }
            out.extend(text);
        }
    }
    out
}

/// Fills the buffer; whether the connection went on for so long. A time-out is an error: it says nothing of the case.
fn read(stream: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<bool> {
    match stream.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if ended(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The case on stream 1, a right request for `marker` on stream 3.
#[expect(clippy::too_many_lines, reason = "a connection from its first frame to its last")]
pub(crate) fn run(dial: &Dial, case: &Case, host: &str, marker: &str) -> std::io::Result<[Outcome; 2]> {
    let mut connection = dial.open()?;
    let put = |fields: &[(Vec<u8>, Vec<u8>)]| {
        let filled: Vec<_> =
            fields.iter().map(|(name, value)| (with_host(name, host), with_host(value, host))).collect();
        block(&filled)
    };
    let right = [(":method", "GET"), (":scheme", "https"), (":authority", host), (":path", marker)]
        .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
    let bodies: Vec<&Vec<u8>> = case.pieces.iter().filter(|piece| !piece.is_empty()).collect();
    let ended = bodies.is_empty() && case.trailers.is_empty();
    let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    out.extend(frame(4, 0, 0, &[]));
    out.extend(frame(1, 4 | u8::from(ended), 1, &put(&case.fields)));
    for (at, body) in bodies.iter().enumerate() {
        let last = at + 1 == bodies.len() && case.trailers.is_empty();
        out.extend(frame(0, u8::from(last), 1, &with_host(body, host)));
    }
    if !case.trailers.is_empty() {
        out.extend(frame(1, 5, 1, &put(&case.trailers)));
    }
    out.extend(frame(1, 5, 3, &put(&right)));
    let stream = connection.stream();
    stream.write_all(&out)?;
    stream.flush()?;
    let mut outcomes = [Outcome::default(), Outcome::default()];
    let mut texts = [Vec::new(), Vec::new()];
    let mut head = [0; 9];
    while outcomes.iter().any(|outcome| outcome.text.is_none() && !outcome.broken) {
        if !read(stream, &mut head)? {
            break;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).expect("length")];
        if !read(stream, &mut payload)? {
            break;
        }
        let at = match head[8] {
            1 => 0,
            3 => 1,
            _ => {
                match (head[3], head[4]) {
                    (4, 0) => stream.write_all(&frame(4, 1, 0, &[]))?,
                    (7, _) => break,
                    _ => {}
                }
                continue;
            }
        };
        match head[3] {
            0 => texts[at].extend(payload),
            3 => outcomes[at].broken |= outcomes[at].text.is_none(),
            _ => {}
        }
        if matches!(head[3], 0 | 1) && head[4] & 1 == 1 {
            outcomes[at].text = Some(String::from_utf8_lossy(&texts[at]).into_owned());
        }
    }
    for outcome in &mut outcomes {
        outcome.broken |= outcome.text.is_none();
    }
    Ok(outcomes)
}
