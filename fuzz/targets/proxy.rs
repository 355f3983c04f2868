//! A balancer's first bytes: the same under every split, not a byte behind the header taken, and nothing but the header
//! decides what it says.
//!
//! The first byte says after how many bytes, again and again, the rest is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_node::worker::proxy::read::{BadHeader, Header, Said, Taken};

fn read(pieces: &mut dyn Iterator<Item = &[u8]>) -> Result<Option<(usize, Said)>, BadHeader> {
    let (mut header, mut taken) = (Header::default(), 0);
    for piece in pieces {
        match header.take(piece)? {
            Taken::All => taken += piece.len(),
            Taken::Last(length, said) => {
                assert!(length <= piece.len());
                return Ok(Some((taken + length, said)));
            }
        }
    }
    Ok(None)
}

fuzz_target!(|data: &[u8]| {
    let Some((cut, bytes)) = data.split_first() else { return };
    let whole = read(&mut [bytes].into_iter());
    let split = read(&mut bytes.chunks(usize::from(*cut).max(1)));
    assert_eq!(whole, split);
    if let Ok(Some((length, _))) = whole {
        assert!(length <= 16 + 4096);
        assert_eq!(read(&mut [&bytes[..length]].into_iter()), whole);
        assert_eq!(read(&mut [&bytes[..length - 1]].into_iter()), Ok(None));
    }
});
