//! Logins: passwords, cookies, throttling, the two checks against forged requests.
//!
//! In: names, passwords, cookies. Out: [`SignedIn`]. The session itself lies in the store, as a hash of its cookie.

pub(crate) mod guard;
pub(crate) mod password;
mod throttle;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Redirect, Response};
use model::digest::Digest;
use time::Duration;

use crate::clock;
use crate::ops::{Actor, Connection, Ops, OpsError, Role};
use crate::secrets::random_text;
use throttle::Throttle;

/// The cookie's name: `__Host-` binds it to this host, path `/` and TLS.
const COOKIE: &str = "__Host-sallyport";
/// A session ends after this, used or not.
const LIFE: Duration = Duration::days(7);
/// A session ends when it was not used for this long.
const IDLE: Duration = Duration::hours(12);
/// How often "last used" is written.
const NOTED: Duration = Duration::minutes(5);
/// The setting that has the hash of the first administrator's link.
const SETUP: &str = "setup-token";

/// Logins; cheap to clone.
#[derive(Debug, Clone)]
pub struct Sessions {
    ops: Ops,
    throttle: Arc<Throttle>,
}

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
    session: Digest,
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
            None => Err(Redirect::to(&guard::login_url(&parts.uri, &parts.method)).into_response()),
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
    #[error(
        "this link is not valid (any more); run `sallyport user reset NAME` on the console's machine instead"
    )]
    SetupToken,
    /// The name is not a name, or the password is too short.
    #[error("{0}")]
    Weak(String),
    /// The console failed.
    #[error(transparent)]
    Ops(#[from] OpsError),
}

/// A session that has just begun: put `cookie` into `Set-Cookie`.
#[derive(Debug, Clone)]
pub struct Begun {
    /// The whole `Set-Cookie` value.
    pub cookie: String,
    session: Digest,
}

impl Sessions {
    /// Logins of these operations' users.
    pub fn new(ops: Ops) -> Self {
        Self { ops, throttle: Arc::default() }
    }

    /// Logs in.
    ///
    /// # Errors
    /// See [`LoginError`].
    pub async fn login(&self, name: &str, password: &str, from: IpAddr) -> Result<Begun, LoginError> {
        let now = Instant::now();
        let waits = |wait: std::time::Duration| LoginError::Throttled(wait.as_secs() + 1);
        self.throttle.attempt(name, from, now).map_err(waits)?;
        if password.len() > password::LONGEST {
            return Err(LoginError::Wrong);
        }
        let user = self.ops.store().user(name).await.map_err(OpsError::from)?;
        let phc = user.as_ref().map(|user| user.password.clone());
        let verified = phc.clone();
        let actor = |role| Actor { name: name.to_owned(), role, address: Some(from), connection: None };
        if !password::verify(password.to_owned(), phc).await? {
            tracing::info!(%from, "login refused");
            return Err(LoginError::Wrong);
        }
        self.throttle.succeeded(name, from);
        let actor = actor(user.map_or(Role::Viewer, |user| user.role));
        self.ops.store().audit(&actor, "logged in").await.map_err(OpsError::from)?;
        let begun = self.begin(name).await?;
        // A password that was changed meanwhile ended the sessions there were, and this was none of them yet.
        let user = self.ops.store().user(name).await.map_err(OpsError::from)?;
        if user.map(|user| user.password) != verified {
            self.ops.store().end_session(&begun.session).await.map_err(OpsError::from)?;
            return Err(LoginError::Wrong);
        }
        Ok(begun)
    }

    async fn begin(&self, user: &str) -> Result<Begun, LoginError> {
        let (secret, csrf) = (random_text().map_err(OpsError::from)?, random_text().map_err(OpsError::from)?);
        let ends = clock::to_ms(clock::now() + LIFE);
        let hash = Digest::of(secret.as_bytes());
        self.ops.store().add_session(&hash, user, &csrf, ends).await.map_err(OpsError::from)?;
        let age = LIFE.whole_seconds();
        Ok(Begun {
            session: hash,
            cookie: format!("{COOKIE}={secret}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={age}"),
        })
    }

    /// Ends a session; gives the `Set-Cookie` value that forgets it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn logout(&self, signed_in: &SignedIn) -> Result<String, OpsError> {
        self.ops.store().end_session(&signed_in.session).await?;
        Ok(format!("{COOKIE}=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0"))
    }

    /// Who a `Cookie` header belongs to.
    pub(crate) async fn find(
        &self,
        cookies: &str,
        from: Option<IpAddr>,
        over: Option<Connection>,
    ) -> Result<Option<SignedIn>, OpsError> {
        let Some(secret) = session_cookie(cookies) else { return Ok(None) };
        let hash = Digest::of(secret.as_bytes());
        let Some(row) = self.ops.store().session(&hash).await? else { return Ok(None) };
        let now = clock::now();
        let unused = now - clock::from_ms(row.seen_ms);
        if unused > IDLE {
            self.ops.store().end_session(&hash).await?;
            return Ok(None);
        }
        if unused > NOTED {
            self.ops.store().session_seen(&hash, clock::to_ms(now)).await?;
        }
        from.iter().for_each(|address| self.ops.saw(*address));
        let actor = Actor { name: row.user, role: row.role, address: from, connection: over };
        Ok(Some(SignedIn { actor, csrf: row.csrf, session: hash }))
    }

    /// Makes the link for the first administrator anew; nothing when there is a user already.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn setup_token(&self) -> Result<Option<String>, OpsError> {
        if !self.ops.users().await?.is_empty() {
            return Ok(None);
        }
        let token = random_text()?;
        let hash = Digest::of(token.as_bytes());
        self.ops.store().set_settings(&[(SETUP, hash.as_bytes())]).await?;
        Ok(Some(token))
    }

    /// Whether somebody has made the administrator.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn has_users(&self) -> Result<bool, OpsError> {
        Ok(!self.ops.users().await?.is_empty())
    }

    /// Whether `/setup?token=` would be let in.
    pub async fn setup_open(&self, token: &str) -> bool {
        self.setup_token_right(token).await.unwrap_or(false)
    }

    async fn setup_token_right(&self, token: &str) -> Result<bool, OpsError> {
        let Some(stored) = self.ops.store().setting(SETUP).await? else { return Ok(false) };
        let given = Digest::of(token.as_bytes());
        let same = aws_lc_rs::constant_time::verify_slices_are_equal(&stored, given.as_bytes()).is_ok();
        Ok(same && self.ops.users().await?.is_empty())
    }

    /// Makes the first administrator and logs in.
    ///
    /// # Errors
    /// See [`LoginError`].
    pub async fn setup(&self, token: &str, name: &str, password: &str) -> Result<Begun, LoginError> {
        if !self.setup_token_right(token).await? {
            return Err(LoginError::SetupToken);
        }
        let setting = (SETUP, Digest::of(token.as_bytes()));
        match self.ops.first_user(setting, name, password).await {
            Ok(true) => {}
            Ok(false) => return Err(LoginError::SetupToken),
            Err(OpsError::Problems(problems)) => {
                return Err(LoginError::Weak(
                    problems.into_iter().map(|p| p.message).collect::<Vec<_>>().join("; "),
                ));
            }
            Err(error) => return Err(error.into()),
        }
        self.begin(name).await
    }
}

/// The session's secret in a `Cookie` header (RFC 6265, 4.2.1).
fn session_cookie(header: &str) -> Option<&str> {
    header.split(';').find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

#[cfg(test)]
mod tests;
