//! TLS on both legs: accepted bytes in, a secured stream and what is known of it out.
//!
//! rustls does every handshake. This room chooses certificates by SNI, judges origins' certificates, and moves records
//! between sockets and buffers. It knows nothing of HTTP.

pub mod certificates;
pub(super) mod control;
pub mod dial;
pub mod handshake;
pub mod hello;
pub mod record;
pub mod serve;
pub mod stream;
pub mod verify;

use std::sync::Arc;

use model::name::HostName;
use model::report::Leg;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{CommonState, NamedGroup, ProtocolVersion, SupportedCipherSuite};

/// The ALPN names, in the server's order of preference.
pub const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The crypto of this process: aws-lc, X25519MLKEM768 preferred, AES-128 before AES-256 (the shorter key is as far out
/// of reach and a third cheaper; a client's own order wins on its leg).
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| {
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites.sort_by_key(|suite| !iana_suite(*suite).contains("AES_128"));
        provider.cipher_suites.sort_by_key(|suite| suite.tls13().is_none());
        Arc::new(provider)
    }))
}

/// What a finished handshake says of a leg.
pub(crate) fn leg(state: &CommonState, sni: String, verified: String) -> Leg {
    let version = match state.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "",
    };
    Leg {
        version: version.to_owned(),
        suite: state.negotiated_cipher_suite().map(iana_suite).unwrap_or_default(),
        group: state
            .negotiated_key_exchange_group()
            .map(|group| iana_group(group.name()))
            .unwrap_or_default(),
        sni,
        verified,
    }
}

/// A leg without TLS.
pub(crate) fn clear_text_leg() -> Leg {
    unseen_leg("none", String::new())
}

/// A leg whose TLS is between others; all that is seen of it is the name the client sent.
pub(crate) fn passed_leg(sni: &HostName) -> Leg {
    unseen_leg("passthrough", sni.as_str().to_owned())
}

fn unseen_leg(version: &str, sni: String) -> Leg {
    let unknown = String::new;
    Leg { version: version.to_owned(), suite: unknown(), group: unknown(), sni, verified: unknown() }
}

/// rustls marks the suites of TLS 1.3 (`TLS13_...`), IANA does not.
fn iana_suite(suite: SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite()).replacen("TLS13_", "TLS_", 1)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "rustls's names of all others are IANA's")]
fn iana_group(group: NamedGroup) -> String {
    match group {
        NamedGroup::X25519 => "x25519".to_owned(),
        NamedGroup::X448 => "x448".to_owned(),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
pub(crate) mod tests;
