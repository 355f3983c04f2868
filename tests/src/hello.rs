//! A ClientHello (RFC 8446, 4.1.2) with what a test wants in it, and records to carry it.

/// The handshake message: TLS 1.3 for a name, with more extensions behind the usual ones.
pub fn client_hello(name: &str, more: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let name = [&[0][..], &sized(2, name.as_bytes())].concat();
    let share = [&[0, 0x1d][..], &sized(2, &[9; 32])].concat();
    let mut extensions = Vec::new();
    for (kind, body) in [
        (0_u16, sized(2, &name)),
        // x25519; ECDSA and RSA-PSS; TLS 1.3; a key; tickets with a key exchange.
        (10, sized(2, &[0, 0x1d])),
        (13, sized(2, &[4, 3, 8, 4, 8, 5])),
        (43, sized(1, &[3, 4])),
        (51, sized(2, &share)),
        (45, sized(1, &[1])),
    ]
    .iter()
    .chain(more)
    {
        extensions.extend(kind.to_be_bytes());
        extensions.extend(sized(2, body));
    }
    let fixed = [&[3, 3][..], &[7; 32], &sized(1, &[8; 32]), &sized(2, &[0x13, 1, 0x13, 2]), &sized(1, &[0])];
    let body = [fixed.concat(), sized(2, &extensions)].concat();
    [vec![1], sized(3, &body)].concat()
}

/// `pre_shared_key` with so many tickets that nobody issued (RFC 8446, 4.2.11). It must be the last extension.
pub fn garbage_tickets(count: usize) -> (u16, Vec<u8>) {
    let ticket = |at: usize| {
        let mut ticket = [0x5a; 40];
        ticket[..8].copy_from_slice(&(at as u64).to_be_bytes());
        [sized(2, &ticket), vec![0; 4]].concat()
    };
    let tickets: Vec<u8> = (0..count).flat_map(ticket).collect();
    let binders: Vec<u8> = (0..count).flat_map(|_| sized(1, &[1; 32])).collect();
    (41, [sized(2, &tickets), sized(2, &binders)].concat())
}

/// A handshake message in records of so many bytes.
pub fn records(message: &[u8], each: usize) -> Vec<u8> {
    message.chunks(each).flat_map(|piece| [vec![22, 3, 1], sized(2, piece)].concat()).collect()
}

/// Bytes behind their length, which has so many bytes itself.
fn sized(length: usize, bytes: &[u8]) -> Vec<u8> {
    let size = (bytes.len() as u64).to_be_bytes();
    [&size[size.len() - length..], bytes].concat()
}
