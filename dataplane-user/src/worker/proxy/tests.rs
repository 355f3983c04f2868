//! Headers as others write them, byte by byte from the protocol's text.

use std::net::SocketAddr;

use model::snapshot::ProxyVersion;
use proptest::prelude::*;

use super::SIGNATURE;
use super::read::{BadHeader, Header, Said, Taken};
use super::write::{Behalf, header};

/// Reads a header that comes in pieces of this length, and what follows it.
fn read(bytes: &[u8], piece: usize) -> Result<Option<(usize, Said)>, BadHeader> {
    let (mut header, mut taken) = (Header::default(), 0);
    for piece in bytes.chunks(piece) {
        match header.take(piece)? {
            Taken::All => taken += piece.len(),
            Taken::Last(length, said) => return Ok(Some((taken + length, said))),
        }
    }
    Ok(None)
}

fn one(bytes: &[u8]) -> Result<Option<(usize, Said)>, BadHeader> {
    read(bytes, bytes.len().max(1))
}

fn client(address: &str) -> Said {
    Said::Client(address.parse().unwrap())
}

/// A version 2 header.
fn binary(version: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [&SIGNATURE[..], &[version, family], &length, block].concat()
}

fn block(source: SocketAddr, destination: SocketAddr) -> (u8, Vec<u8>) {
    let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    match (source, destination) {
        (SocketAddr::V4(source), SocketAddr::V4(destination)) => {
            (0x11, [&source.ip().octets()[..], &destination.ip().octets(), &ports].concat())
        }
        (SocketAddr::V6(source), SocketAddr::V6(destination)) => {
            (0x21, [&source.ip().octets()[..], &destination.ip().octets(), &ports].concat())
        }
        _ => panic!("one family"),
    }
}

#[test]
fn lines_say_the_source() {
    for (line, said) in [
        ("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n", client("192.0.2.1:56324")),
        ("PROXY TCP6 2001:db8::1 2001:db8::2 0 65535\r\n", client("[2001:db8::1]:0")),
        ("PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", client("192.0.2.1:1")),
        ("PROXY UNKNOWN\r\n", Said::Nobody),
        ("PROXY UNKNOWN ffff::1 and whatever\r\n", Said::Nobody),
    ] {
        let bytes = format!("{line}rest");
        assert_eq!(one(bytes.as_bytes()), Ok(Some((line.len(), said))), "{line}");
    }
    let longest = format!("PROXY UNKNOWN {}\r\n", "f".repeat(107 - 16));
    assert_eq!(one(longest.as_bytes()), Ok(Some((107, Said::Nobody))));
}

#[test]
fn headers_are_written_as_the_protocol_shows_them() {
    let behalf = |client: &str, reached: &str| Behalf::Client {
        client: client.parse().unwrap(),
        reached: reached.parse().unwrap(),
    };
    let line = |behalf| String::from_utf8(header(ProxyVersion::V1, &behalf)).unwrap();
    assert_eq!(
        line(behalf("192.0.2.1:56324", "198.51.100.1:443")),
        "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n"
    );
    assert_eq!(
        line(behalf("[2001:db8::1]:1", "198.51.100.1:443")),
        "PROXY TCP6 2001:db8::1 ::ffff:198.51.100.1 1 443\r\n"
    );
    assert_eq!(line(Behalf::Own), "PROXY UNKNOWN\r\n");
    for (source, destination) in
        [("192.0.2.1:56324", "198.51.100.1:443"), ("[2001:db8::1]:1", "[2001:db8::2]:443")]
    {
        let (family, block) = block(source.parse().unwrap(), destination.parse().unwrap());
        assert_eq!(header(ProxyVersion::V2, &behalf(source, destination)), binary(0x21, family, &block));
    }
    assert_eq!(header(ProxyVersion::V2, &Behalf::Own), binary(0x20, 0, &[]));
}

#[test]
fn lines_that_break_the_protocol_are_refused() {
    for (line, why) in [
        ("GET / HTTP/1.1\r\n\r\n", BadHeader::None),
        ("proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n", BadHeader::None),
        ("PROXY\tUNKNOWN\r\n", BadHeader::None),
        ("PROXY \r\n", BadHeader::Malformed),
        ("PROXY TCP4\r\n", BadHeader::Malformed),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", BadHeader::Malformed),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n", BadHeader::Malformed),
        ("PROXY TCP4 192.0.2.1  192.0.2.2 1 2\r\n", BadHeader::Malformed),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n", BadHeader::Malformed),
        ("PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n", BadHeader::Malformed),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n", BadHeader::Malformed),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n", BadHeader::Malformed),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n", BadHeader::Malformed),
        ("PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n", BadHeader::Malformed),
        ("PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n", BadHeader::Malformed),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n\r\n", BadHeader::Malformed),
        ("PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n", BadHeader::Malformed),
    ] {
        assert_eq!(one(line.as_bytes()), Err(why), "{line}");
    }
    let too_long = format!("PROXY UNKNOWN {}\r\n", "f".repeat(107 - 15));
    assert_eq!(one(too_long.as_bytes()), Err(BadHeader::TooLong));
    assert_eq!(one(&[b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat()), Err(BadHeader::TooLong));
}

#[test]
fn binary_headers_without_a_client() {
    for header in [
        binary(0x20, 0x00, &[]),
        binary(0x20, 0x11, &[7; 12]),
        binary(0x20, 0x99, &[7; 3]),
        binary(0x21, 0x00, &[7; 5]),
        binary(0x21, 0x31, &[7; 216]),
    ] {
        assert_eq!(one(&header), Ok(Some((header.len(), Said::Nobody))), "{header:?}");
    }
}

#[test]
fn binary_headers_that_break_the_protocol_are_refused() {
    let (family, v4) = block("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap());
    let with = |tlvs: &[u8]| binary(0x21, family, &[&v4[..], tlvs].concat());
    for (header, why) in [
        (binary(0x11, family, &v4), BadHeader::Malformed),
        (binary(0x22, family, &v4), BadHeader::Malformed),
        (binary(0x21, 0x12, &v4), BadHeader::Malformed),
        (binary(0x21, 0x41, &v4), BadHeader::Malformed),
        (binary(0x21, 0x21, &v4), BadHeader::Malformed),
        (binary(0x21, family, &v4[..11]), BadHeader::Malformed),
        (binary(0x20, 0x00, &vec![0; 4097]), BadHeader::TooLong),
        (with(&[1]), BadHeader::Malformed),
        (with(&[1, 0, 2, 7]), BadHeader::Malformed),
        (with(&[3, 0, 3, 7, 7, 7]), BadHeader::Malformed),
        (with(&[3, 0, 4, 7, 7, 7, 7]), BadHeader::Checksum),
    ] {
        assert_eq!(one(&header), Err(why), "{header:?}");
    }
    let mut other = with(&[]);
    other[11] = b'\r';
    assert_eq!(one(&other), Err(BadHeader::None));
}

#[test]
fn a_checksum_is_verified() {
    let mut header =
        binary(0x21, 0x11, &[127, 0, 0, 1, 127, 0, 0, 1, 0x9c, 0x40, 0x1f, 0x90, 3, 0, 4, 0, 0, 0, 0]);
    let sum = slow_crc32c(&header).to_be_bytes();
    let at = header.len() - 4;
    header[at..].copy_from_slice(&sum);
    assert_eq!(one(&header), Ok(Some((header.len(), client("127.0.0.1:40000")))));
    // Except in the byte that says that there is a checksum.
    for bit in (0..header.len() * 8).filter(|bit| bit / 8 != 28) {
        let mut wrong = header.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        assert_ne!(one(&wrong).map(|taken| taken.map(|(_, said)| said)), Ok(Some(client("127.0.0.1:40000"))));
    }
}

/// Bit by bit, as RFC 9260 writes it.
fn slow_crc32c(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 };
        }
    }
    !sum
}

#[test]
fn the_reference_checksum_is_the_known_one() {
    assert_eq!(slow_crc32c(b"123456789"), 0xe306_9283);
}

fn endpoints() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    prop_oneof![
        any::<(std::net::SocketAddrV4, std::net::SocketAddrV4)>().prop_map(|(a, b)| (a.into(), b.into())),
        any::<(([u8; 16], u16), ([u8; 16], u16))>()
            .prop_map(|(a, b)| (SocketAddr::from((a.0, a.1)), SocketAddr::from((b.0, b.1)))),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read((source, destination) in endpoints(), other in endpoints(), version in 0..2) {
        let version = [ProxyVersion::V1, ProxyVersion::V2][version as usize];
        for reached in [destination, other.1] {
            let written = header(version, &Behalf::Client { client: source, reached });
            let said = Said::Client(SocketAddr::new(source.ip().to_canonical(), source.port()));
            prop_assert_eq!(one(&written), Ok(Some((written.len(), said))));
        }
        let own = header(version, &Behalf::Own);
        prop_assert_eq!(one(&own), Ok(Some((own.len(), Said::Nobody))));
    }

    #[test]
    fn every_split_reads_the_same(
        (source, destination) in endpoints(),
        binary_header: bool,
        tlvs in prop::collection::vec((4_u8.., prop::collection::vec(any::<u8>(), 0..40)), 0..9),
        rest in prop::collection::vec(any::<u8>(), 0..50),
        piece in 1_usize..200,
    ) {
        let header = if binary_header {
            let (family, mut block) = block(source, destination);
            for (kind, value) in &tlvs {
                block.extend([*kind, 0, value.len() as u8]);
                block.extend(value);
            }
            binary(0x21, family, &block)
        } else {
            let family = if source.is_ipv4() { 4 } else { 6 };
            let (s, d) = (source.ip(), destination.ip());
            format!("PROXY TCP{family} {s} {d} {} {}\r\n", source.port(), destination.port()).into_bytes()
        };
        let said = Said::Client(SocketAddr::new(source.ip().to_canonical(), source.port()));
        let stream = [&header[..], &rest].concat();
        prop_assert_eq!(read(&stream, piece), Ok(Some((header.len(), said))));
        for end in 0..header.len() {
            prop_assert_eq!(read(&header[..end], piece), Ok(None));
        }
    }

    #[test]
    fn any_bytes_read_the_same_in_one_piece_and_in_many(
        start in prop_oneof![Just(Vec::new()), Just(b"PROXY ".to_vec()), Just(SIGNATURE.to_vec())],
        bytes in prop::collection::vec(any::<u8>(), 1..300),
        piece in 1_usize..100,
    ) {
        let bytes = [start, bytes].concat();
        prop_assert_eq!(one(&bytes), read(&bytes, piece));
    }
}
