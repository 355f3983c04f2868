//! What the operator decided on the command line.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use model::digest::Digest;
use model::link::EnrolmentToken;

/// Settings of `sallyport-node run`.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Below it is `node/`.
    pub state_dir: PathBuf,
    /// `keeper.sock`, `status.json`.
    pub run_dir: PathBuf,
    /// The enrolment token and its digest.
    pub token: Option<(EnrolmentToken, Digest)>,
    /// Interfaces for XDP; empty means those of the default routes.
    pub interfaces: Vec<String>,
    /// Whether to use BPF at all.
    pub kernel: bool,
    /// Keeps several nodes' pins apart.
    pub instance: String,
    /// Metrics and health.
    pub metrics: SocketAddr,
    /// Worker threads.
    pub threads: usize,
    /// Labels for node selectors.
    pub labels: BTreeMap<String, String>,
    /// As whom the worker runs, when the keeper is root.
    pub user: String,
    /// Where the access log goes instead of standard output.
    pub access_log: Option<PathBuf>,
    /// A sealing key kept elsewhere (a systemd credential).
    pub sealing_key: Option<PathBuf>,
}

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
    let json = zeroize::Zeroizing::new(json.map_err(|_not_base64| InvalidToken::Damaged)?);
    let token = serde_json::from_slice(&json).map_err(|_not_a_token| InvalidToken::Damaged)?;
    Ok((token, Digest::of(text.as_bytes())))
}
