//! What the operator decided on the command line.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use model::digest::Digest;
use model::link::EnrolmentToken;
use zeroize::Zeroizing;

/// Settings of `sallyport-node run`.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Below it is `node/`.
    pub state_dir: PathBuf,
    /// `keeper.sock`, `status.json`.
    pub run_dir: PathBuf,
    /// The enrolment token and its digest.
    pub token: Option<(EnrolmentToken, Digest)>,
    /// Where a token may be put while the node is not enrolled.
    pub token_file: Option<PathBuf>,
    /// Interfaces for XDP; empty means those of the default routes.
    pub interfaces: Vec<String>,
    /// Whether to use BPF at all.
    pub kernel: bool,
    /// Keeps several nodes' pins apart.
    pub instance: String,
    /// Metrics and health.
    pub metrics: SocketAddr,
    /// Whoever asks for `/metrics` must show it; needed where [`Self::metrics`] is not loopback.
    pub metrics_token: Option<MetricsToken>,
    /// Worker threads.
    pub threads: usize,
    /// What the node may have of the machine's memory, bytes.
    pub memory_limit: Option<u64>,
    /// Labels for node selectors.
    pub labels: BTreeMap<String, String>,
    /// As whom the worker runs, when the keeper is root.
    pub user: String,
    /// Where the access log goes instead of standard output.
    pub access_log: Option<PathBuf>,
    /// The process to end with: the one that started this and looks after it.
    pub parent: Option<u32>,
    /// A sealing key kept elsewhere (a systemd credential).
    pub sealing_key: Option<PathBuf>,
}

/// What a scraper shows (RFC 6750): 16 to 512 letters, digits and `-._~+/=`. Never printed.
#[derive(Clone)]
pub struct MetricsToken(Zeroizing<String>);

impl MetricsToken {
    /// Reads a token; white space around it is not part of it.
    ///
    /// # Errors
    /// See [`InvalidMetricsToken`].
    pub fn parse(text: &str) -> Result<Self, InvalidMetricsToken> {
        let token = text.trim();
        let right = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        if (16..=512).contains(&token.len()) && token.bytes().all(right) {
            Ok(Self(Zeroizing::new(token.to_owned())))
        } else {
            Err(InvalidMetricsToken)
        }
    }

    /// For the worker.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for MetricsToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MetricsToken")
    }
}

/// Not what [`MetricsToken`] says.
#[derive(Debug, thiserror::Error)]
#[error(
    "a metrics token is 16 to 512 letters, digits and -._~+/= on one line; make one with `openssl rand -hex 32`"
)]
pub struct InvalidMetricsToken;

/// The most worker threads.
pub const MAX_THREADS: usize = 64;

/// Why a text is no enrolment token.
#[derive(Debug, thiserror::Error)]
pub enum InvalidToken {
    /// The start is missing.
    #[error(
        "an enrolment token starts with {}; make one with `sallyport node enrol NAME`",
        model::link::TOKEN_PREFIX
    )]
    Prefix,
    /// It was cut off or changed.
    #[error("the enrolment token is damaged; was it cut off while copying?")]
    Damaged,
}

/// Reads an enrolment token.
///
/// # Errors
/// See [`InvalidToken`].
pub fn parse_token(text: &str) -> Result<(EnrolmentToken, Digest), InvalidToken> {
    use base64::Engine as _;
    let text = text.trim();
    let encoded = text.strip_prefix(model::link::TOKEN_PREFIX).ok_or(InvalidToken::Prefix)?;
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(encoded);
    let json = Zeroizing::new(json.map_err(|_not_base64| InvalidToken::Damaged)?);
    let token = serde_json::from_slice(&json).map_err(|_not_a_token| InvalidToken::Damaged)?;
    Ok((token, Digest::of(text.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metrics_token_is_long_enough_fits_a_header_and_is_not_printed() {
        let token = MetricsToken::parse(" 0123456789abcdef-._~+/=\n").unwrap();
        assert_eq!(token.secret(), "0123456789abcdef-._~+/=");
        assert!(!format!("{token:?}").contains("0123"));
        for wrong in
            ["", "short", "0123456789abcde", "0123456789 abcdef", "0123456789abcdef\nmore", &"a".repeat(513)]
        {
            assert!(MetricsToken::parse(wrong).is_err(), "{wrong}");
        }
    }
}
