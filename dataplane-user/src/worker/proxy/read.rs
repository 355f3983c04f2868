//! Reads a header, in whatever pieces it comes, and not a byte behind it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::SIGNATURE;

/// Version 1: the longest line, with its end.
const LONGEST_LINE: usize = 107;
/// Version 2: signature, version, family, length.
const FIXED: usize = 16;
/// Version 2: the most that may follow. Addresses take 36 bytes; the rest are TLVs, and one that carries a client's
/// certificate needs some thousand.
const MOST: usize = 4096;
/// The TLV with the header's checksum, and its length.
const PP2_TYPE_CRC32C: u8 = 3;
const CRC32C: usize = 4;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// The connection belongs to a client with this address.
    Client(SocketAddr),
    /// It is the balancer's own (`LOCAL`: health checks), or whose it is cannot be said (`UNKNOWN`, `UNSPEC`, a Unix socket).
    Nobody,
}

/// Why a connection's first bytes are no PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadHeader {
    /// It begins otherwise.
    #[error("the connection does not begin with a PROXY header")]
    None,
    /// Longer than the protocol or our bound allows.
    #[error("the PROXY header is longer than 107 bytes (version 1) or 4096 (version 2)")]
    TooLong,
    /// It breaks the protocol.
    #[error("the PROXY header is malformed")]
    Malformed,
    /// Its checksum is another one.
    #[error("the PROXY header's CRC32C does not fit it")]
    Checksum,
}

/// What came of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// All of them are the header's, which goes on.
    All,
    /// So many are its last; what follows is the connection's own.
    Last(usize, Said),
}

/// A header on its way.
#[derive(Debug, Default)]
pub struct Header {
    held: Vec<u8>,
}

impl Header {
    /// Takes the header's part of `offered`, which follows what was taken before.
    ///
    /// # Errors
    /// This is no header.
    pub fn take(&mut self, offered: &[u8]) -> Result<Taken, BadHeader> {
        let before = self.held.len();
        self.held.extend_from_slice(offered);
        match parse(&self.held)? {
            Some((length, said)) => Ok(Taken::Last(length.saturating_sub(before), said)),
            None => Ok(Taken::All),
        }
    }
}

/// A header's length and what it says; nothing while it is not whole.
fn parse(bytes: &[u8]) -> Result<Option<(usize, Said)>, BadHeader> {
    const LINE: &[u8] = b"PROXY ";
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(byte, expected)| byte == expected);
    if begins(LINE) {
        if bytes.len() <= LINE.len() { Ok(None) } else { version1(bytes) }
    } else if begins(&SIGNATURE) {
        version2(bytes)
    } else {
        Err(BadHeader::None)
    }
}

/// Section 2.1: a line of text.
fn version1(bytes: &[u8]) -> Result<Option<(usize, Said)>, BadHeader> {
    let window = bytes.get(..LONGEST_LINE).unwrap_or(bytes);
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if window.len() == LONGEST_LINE { Err(BadHeader::TooLong) } else { Ok(None) };
    };
    let line = window.get(..end).and_then(|line| std::str::from_utf8(line).ok());
    let said = line.and_then(line_says).ok_or(BadHeader::Malformed)?;
    Ok(Some((end + 2, said)))
}

fn line_says(line: &str) -> Option<Said> {
    let mut words = line.split(' ').skip(1);
    let source = match words.next()? {
        // Whatever follows is to be ignored.
        "UNKNOWN" => return Some(Said::Nobody),
        "TCP4" => endpoints::<Ipv4Addr>(&mut words)?,
        "TCP6" => endpoints::<Ipv6Addr>(&mut words)?,
        _ => return None,
    };
    words.next().is_none().then_some(Said::Client(source))
}

/// Source and destination address, source and destination port: the source.
fn endpoints<'w, A: FromStr + Into<IpAddr>>(words: &mut impl Iterator<Item = &'w str>) -> Option<SocketAddr> {
    let mut address = || words.next()?.parse::<A>().ok();
    let (source, _destination) = (address()?, address()?);
    let mut port = || words.next().and_then(port);
    let (source_port, _destination_port) = (port()?, port()?);
    Some(client(source.into(), source_port))
}

/// Decimal, without a sign or leading zeros.
fn port(word: &str) -> Option<u16> {
    let digits = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    word.parse().ok().filter(|_| digits)
}

fn client(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address.to_canonical(), port)
}

/// Section 2.2: binary.
fn version2(bytes: &[u8]) -> Result<Option<(usize, Said)>, BadHeader> {
    let Some((&[version, family, high, low], rest)) =
        bytes.get(SIGNATURE.len()..).and_then(<[u8]>::split_first_chunk)
    else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > MOST {
        return Err(BadHeader::TooLong);
    }
    let local = match version {
        0x20 => true,
        0x21 => false,
        _ => return Err(BadHeader::Malformed),
    };
    let Some(block) = rest.get(..length) else { return Ok(None) };
    let said = match (local, family) {
        // The rest is to be discarded, the family with it.
        (true, _) | (false, 0x00 | 0x31) => Said::Nobody,
        (false, 0x11) => {
            let (addresses, tlvs) = block.split_first_chunk::<12>().ok_or(BadHeader::Malformed)?;
            let [a, b, c, d, _, _, _, _, high, low, _, _] = *addresses;
            verify(bytes.get(..FIXED + length).unwrap_or_default(), tlvs.len())?;
            Said::Client(client([a, b, c, d].into(), u16::from_be_bytes([high, low])))
        }
        (false, 0x21) => {
            let (addresses, tlvs) = block.split_first_chunk::<36>().ok_or(BadHeader::Malformed)?;
            let (source, rest) = addresses.split_first_chunk::<16>().ok_or(BadHeader::Malformed)?;
            let &[.., high, low, _, _] = rest else { return Err(BadHeader::Malformed) };
            verify(bytes.get(..FIXED + length).unwrap_or_default(), tlvs.len())?;
            Said::Client(client((*source).into(), u16::from_be_bytes([high, low])))
        }
        // Datagrams, which nobody sends over TCP, and what the protocol has no meaning for.
        (false, _) => return Err(BadHeader::Malformed),
    };
    Ok(Some((FIXED + length, said)))
}

/// Walks over the TLVs at the header's end and verifies the checksum where one of them has it (section 2.2.3).
fn verify(header: &[u8], tlvs: usize) -> Result<(), BadHeader> {
    let mut at = header.len() - tlvs;
    while let Some(rest) = header.get(at..).filter(|rest| !rest.is_empty()) {
        let (&[kind, high, low], values) = rest.split_first_chunk().ok_or(BadHeader::Malformed)?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let value = values.get(..length).ok_or(BadHeader::Malformed)?;
        let start = at + 3;
        at = start + length;
        if kind != PP2_TYPE_CRC32C {
            continue;
        }
        let sent: [u8; CRC32C] = value.try_into().map_err(|_length| BadHeader::Malformed)?;
        let (before, after) = (header.get(..start), header.get(at..));
        // Counted with zeros in its own place.
        let parts = [before.unwrap_or_default(), &[0; CRC32C], after.unwrap_or_default()];
        if crc32c(parts.into_iter().flatten()) != u32::from_be_bytes(sent) {
            return Err(BadHeader::Checksum);
        }
    }
    Ok(())
}

/// RFC 9260, appendix A: polynomial 0x1EDC6F41, reflected.
fn crc32c<'b>(bytes: impl Iterator<Item = &'b u8>) -> u32 {
    const TABLE: [u32; 256] = table();
    !bytes.fold(!0, |sum, byte| TABLE[usize::from(sum as u8 ^ byte)] ^ (sum >> 8))
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < table.len() {
        let mut sum = at as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 };
            bit += 1;
        }
        table[at] = sum;
        at += 1;
    }
    table
}
