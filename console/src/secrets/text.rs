//! Random bytes and texts.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::SealError;

/// `N` random bytes.
///
/// # Errors
/// When the system has no randomness.
pub fn random<const N: usize>() -> Result<[u8; N], SealError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_unspecified| SealError::Random)?;
    Ok(bytes)
}

/// 32 random bytes as base64url: a session, token or enrolment secret.
///
/// # Errors
/// When the system has no randomness.
pub fn random_text() -> Result<String, SealError> {
    Ok(URL_SAFE_NO_PAD.encode(random::<32>()?))
}
