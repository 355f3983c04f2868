//! A SYN cookie's SYN-ACK, made of the SYN. Pure, so that its checksums and lengths are tested on the host.
//!
//! It has no option but the segment size: window scale, selective acknowledgements and timestamps of a cookie travel in the
//! kernel's own timestamps, which have a secret offset. The window is that of a peer that does not scale.

/// Without options but the segment size's.
pub const TCP_ANSWER: usize = 24;
/// An IPv4 header and [`TCP_ANSWER`].
pub const ANSWER4: usize = 20 + TCP_ANSWER;
/// An IPv6 header and [`TCP_ANSWER`].
pub const ANSWER6: usize = 40 + TCP_ANSWER;

const SYN_ACK: u8 = 0x12;
const HOPS: u8 = 64;
const TCP: u8 = 6;
/// What an Ethernet frame of 1500 bytes leaves.
const SEGMENT4: u16 = 1460;
const SEGMENT6: u16 = 1440;

/// The answer to an IPv4 SYN: its IP header and the first 20 bytes of its TCP header.
#[inline(always)]
pub fn answer4(ip: &[u8; 20], tcp: &[u8; 20], cookie: u32) -> [u8; ANSWER4] {
    let mut answer = [0; ANSWER4];
    answer[..20].copy_from_slice(&[
        0x45,
        0,
        0,
        ANSWER4 as u8,
        0,
        0,
        0x40,
        0,
        HOPS,
        TCP,
        0,
        0, // no fragments, checksum below
        ip[16],
        ip[17],
        ip[18],
        ip[19],
        ip[12],
        ip[13],
        ip[14],
        ip[15],
    ]);
    let mut sum = 0;
    for index in 0..10 {
        sum += word(answer[2 * index], answer[2 * index + 1]);
    }
    let checksum = folded(sum).to_be_bytes();
    answer[10] = checksum[0];
    answer[11] = checksum[1];
    let mut addresses = 0;
    for index in 6..10 {
        addresses += word(ip[2 * index], ip[2 * index + 1]);
    }
    answer[20..].copy_from_slice(&segment(tcp, cookie, SEGMENT4, addresses));
    answer
}

/// The answer to an IPv6 SYN: its IP header and the first 20 bytes of its TCP header.
#[inline(always)]
pub fn answer6(ip: &[u8; 40], tcp: &[u8; 20], cookie: u32) -> [u8; ANSWER6] {
    let mut answer = [0; ANSWER6];
    answer[0] = 0x60;
    answer[5] = TCP_ANSWER as u8;
    answer[6] = TCP;
    answer[7] = HOPS;
    let mut addresses = 0;
    answer[8..24].copy_from_slice(&ip[24..]);
    answer[24..40].copy_from_slice(&ip[8..24]);
    for index in 4..20 {
        addresses += word(ip[2 * index], ip[2 * index + 1]);
    }
    answer[40..].copy_from_slice(&segment(tcp, cookie, SEGMENT6, addresses));
    answer
}

/// The TCP header; `addresses` is the sum of both addresses' words.
#[inline(always)]
fn segment(tcp: &[u8; 20], cookie: u32, size: u16, addresses: u32) -> [u8; TCP_ANSWER] {
    let acknowledged = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]).wrapping_add(1).to_be_bytes();
    let (cookie, size) = (cookie.to_be_bytes(), size.to_be_bytes());
    let mut answer = [
        tcp[2],
        tcp[3],
        tcp[0],
        tcp[1], // ports
        cookie[0],
        cookie[1],
        cookie[2],
        cookie[3], //
        acknowledged[0],
        acknowledged[1],
        acknowledged[2],
        acknowledged[3], //
        (TCP_ANSWER as u8 / 4) << 4,
        SYN_ACK,
        0xff,
        0xff, // window
        0,
        0,
        0,
        0, // checksum, urgent pointer
        2,
        4,
        size[0],
        size[1], // maximum segment size
    ];
    let mut sum = addresses + TCP as u32 + TCP_ANSWER as u32;
    for index in 0..TCP_ANSWER / 2 {
        sum += word(answer[2 * index], answer[2 * index + 1]);
    }
    let checksum = folded(sum).to_be_bytes();
    answer[16] = checksum[0];
    answer[17] = checksum[1];
    answer
}

#[inline(always)]
const fn word(high: u8, low: u8) -> u32 {
    (high as u32) << 8 | low as u32
}

/// The Internet checksum of a sum of words (RFC 1071).
#[inline(always)]
const fn folded(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    !((once & 0xffff) + (once >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// RFC 1071, spelt another way: over all bytes, the sum of a right packet is all ones.
    fn is_right(bytes: &[u8]) -> bool {
        let mut sum = 0_u64;
        for pair in bytes.chunks(2) {
            sum += u64::from(pair[0]) * 256 + u64::from(*pair.get(1).unwrap_or(&0));
        }
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        sum == 0xffff
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 10 } else { 2_000 }))]

        #[test]
        fn an_answer_is_a_right_packet(ip4: [u8; 20], low: [u8; 20], high: [u8; 20], tcp: [u8; 20], cookie: u32) {
            let four = answer4(&ip4, &tcp, cookie);
            prop_assert!(is_right(&four[..20]));
            prop_assert_eq!((&four[12..16], &four[16..20]), (&ip4[16..20], &ip4[12..16]));
            let pseudo: Vec<u8> = [&four[12..20], &[0, 6, 0, 24][..], &four[20..]].concat();
            prop_assert!(is_right(&pseudo));

            let mut ip6 = [0; 40];
            ip6[..20].copy_from_slice(&low);
            ip6[20..].copy_from_slice(&high);
            let six = answer6(&ip6, &tcp, cookie);
            prop_assert_eq!((&six[8..24], &six[24..40]), (&ip6[24..40], &ip6[8..24]));
            let pseudo: Vec<u8> = [&six[8..40], &[0, 0, 0, 24, 0, 0, 0, 6][..], &six[40..]].concat();
            prop_assert!(is_right(&pseudo));

            for answer in [&four[20..], &six[40..]] {
                prop_assert_eq!((&answer[..2], &answer[2..4]), (&tcp[2..4], &tcp[..2]));
                prop_assert_eq!(&answer[4..8], &cookie.to_be_bytes()[..]);
                let acknowledged = u32::from_be_bytes(tcp[4..8].try_into().unwrap()).wrapping_add(1);
                prop_assert_eq!(&answer[8..12], &acknowledged.to_be_bytes()[..]);
                prop_assert_eq!(answer[13], SYN_ACK);
            }
        }
    }
}
