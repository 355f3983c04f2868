//! PEM text, block by block.

use rustls_pki_types::pem::{self, PemObject, SectionKind};

/// One block that is not a private key in plain sight: callers that meet a key refuse the text or take it over.
pub(super) struct Block {
    pub(super) kind: SectionKind,
    pub(super) der: Vec<u8>,
}

impl PemObject for Block {
    fn from_pem(kind: SectionKind, der: Vec<u8>) -> Option<Self> {
        Some(Self { kind, der })
    }
}

/// The blocks of a text in order; what stands between blocks is a comment (RFC 7468, 2).
pub(super) fn blocks(text: &str) -> impl Iterator<Item = Result<Block, Broken>> {
    Block::pem_slice_iter(text.as_bytes()).map(|block| block.map_err(Broken::from))
}

/// A block is cut off or is not base64. (The library's error can quote the text, which may be a key: dropped.)
pub(super) struct Broken;

impl From<pem::Error> for Broken {
    fn from(_: pem::Error) -> Self {
        Self
    }
}

/// The DER of every certificate in a text, or the place (from 1) of the first broken one.
pub(super) fn certificates(text: &str) -> Result<Vec<Vec<u8>>, InvalidText> {
    if text.contains("PRIVATE KEY-----") {
        return Err(InvalidText::PrivateKey);
    }
    let mut found = Vec::new();
    for block in blocks(text) {
        match block {
            Ok(block) if block.kind == SectionKind::Certificate => found.push(block.der),
            Ok(_) => {}
            Err(Broken) => return Err(InvalidText::Broken(found.len() + 1)),
        }
    }
    if found.is_empty() { Err(InvalidText::NoCertificate) } else { Ok(found) }
}

/// Why a text has no certificates to read.
pub(super) enum InvalidText {
    NoCertificate,
    PrivateKey,
    Broken(usize),
}
