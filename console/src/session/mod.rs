//! Logins: passwords, cookies, throttling, the two checks against forged requests.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Redirect, Response};

use crate::ops::{Actor, OpsError};

/// Logins; cheap to clone.
#[derive(Debug, Clone)]
pub struct Sessions {}

/// A signed-in person; as an extractor it sends everyone else to `/login?next=...`.
///
/// Every request that is not GET or HEAD has already passed the Origin and Sec-Fetch-Site check (a layer around all of the
/// pages); forms still carry [`SignedIn::csrf`] in the field `csrf` and call [`SignedIn::check`].
#[derive(Debug, Clone)]
pub struct SignedIn {
    /// For `ops`.
    pub actor: Actor,
    /// The form token of this session.
    pub csrf: String,
}

/// The form's token is not this session's.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("this form belongs to another session or an old one; reload the page and send it again")]
pub struct WrongFormToken;

impl SignedIn {
    /// Compares a form's token with the session's, in constant time.
    ///
    /// # Errors
    /// When they differ.
    pub fn check(&self, token: &str) -> Result<(), WrongFormToken> {
        let same = aws_lc_rs::constant_time::verify_slices_are_equal(token.as_bytes(), self.csrf.as_bytes());
        same.map_err(|_unspecified| WrongFormToken)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for SignedIn {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        match parts.extensions.get::<Self>() {
            Some(signed_in) => Ok(signed_in.clone()),
            None => Err(Redirect::to("/login").into_response()),
        }
    }
}

/// Why a login failed.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// Name or password is wrong; which of them is not said.
    #[error("name or password is wrong")]
    Wrong,
    /// Too many attempts.
    #[error("too many attempts; try again in {0} seconds")]
    Throttled(u64),
    /// The link for the first administrator is wrong or was used.
    #[error("this link is not valid (any more); run `sallyport user reset NAME` on the console's machine instead")]
    SetupToken,
    /// The name is not a name, or the password is too short.
    #[error("{0}")]
    Weak(&'static str),
    /// The console failed.
    #[error(transparent)]
    Ops(#[from] OpsError),
}

/// A session that has just begun: put `cookie` into `Set-Cookie`.
#[derive(Debug, Clone)]
pub struct Begun {
    /// The whole `Set-Cookie` value.
    pub cookie: String,
}

const LATER: LoginError = LoginError::Weak("not built yet");

impl Sessions {
    /// Logs in.
    ///
    /// # Errors
    /// See [`LoginError`].
    pub async fn login(&self, name: &str, password: &str, from: std::net::IpAddr) -> Result<Begun, LoginError> {
        let _ = (name, password, from);
        Err(LATER)
    }

    /// Ends a session; gives the `Set-Cookie` value that forgets it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn logout(&self, signed_in: &SignedIn) -> Result<String, OpsError> {
        let _ = signed_in;
        Ok(String::new())
    }

    /// Whether `/setup?token=` would be let in.
    pub async fn setup_open(&self, token: &str) -> bool {
        let _ = token;
        false
    }

    /// Makes the first administrator and logs in.
    ///
    /// # Errors
    /// See [`LoginError`].
    pub async fn setup(&self, token: &str, name: &str, password: &str) -> Result<Begun, LoginError> {
        let _ = (token, name, password);
        Err(LATER)
    }
}
