//! Signing in and out.

use std::net::{IpAddr, SocketAddr};

use askama::Template;
use axum::extract::{ConnectInfo, Extension, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::{PageError, PageResult, page};
use crate::forms::Fields;
use crate::session::{Begun, LoginError, Sessions, SignedIn};

#[derive(Template)]
#[template(path = "login.html")]
pub(crate) struct LoginPage {
    name: String,
    next: String,
    wrong: Option<String>,
    /// What led here.
    note: Option<&'static str>,
}

impl LoginPage {
    /// For somebody who wanted something else.
    pub(crate) fn with_note(note: &'static str) -> Self {
        Self { name: String::new(), next: "/".to_owned(), wrong: None, note: Some(note) }
    }
}

/// Where to go after signing in.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct After {
    #[serde(default)]
    next: String,
}

/// `GET /login`.
pub(crate) async fn show(Query(after): Query<After>, user: Option<Extension<SignedIn>>) -> PageResult {
    match user {
        Some(_) => Ok(Redirect::to(inside(&after.next)).into_response()),
        None => {
            let next = inside(&after.next).to_owned();
            page(&LoginPage { name: String::new(), next, wrong: None, note: None })
        }
    }
}

/// `POST /login`.
pub(crate) async fn login(
    State(sessions): State<Sessions>,
    from: Option<Extension<ConnectInfo<SocketAddr>>>,
    fields: Fields,
) -> PageResult {
    let from = from
        .map_or(IpAddr::from([0, 0, 0, 0]), |Extension(ConnectInfo(address))| address.ip().to_canonical());
    let next = inside(fields.get("next")).to_owned();
    match sessions.login(fields.trimmed("name"), fields.get("password"), from).await {
        Ok(begun) => Ok(enter(&begun, &next)),
        Err(error) => {
            let status = status(&error)?;
            let (name, wrong) = (fields.trimmed("name").to_owned(), Some(error.to_string()));
            Ok((status, page(&LoginPage { name, next, wrong, note: None })?).into_response())
        }
    }
}

/// The status of a refused login; a fault of the console's own is a page of its own.
pub(crate) fn status(error: &LoginError) -> Result<StatusCode, PageError> {
    match error {
        LoginError::Throttled(_) => Ok(StatusCode::TOO_MANY_REQUESTS),
        LoginError::Wrong | LoginError::SetupToken => Ok(StatusCode::FORBIDDEN),
        LoginError::Weak(_) => Ok(StatusCode::UNPROCESSABLE_ENTITY),
        LoginError::Ops(error) => Err(PageError::Failed(error.to_string())),
    }
}

/// The session begins.
pub(crate) fn enter(begun: &Begun, next: &str) -> Response {
    ([(header::SET_COOKIE, begun.cookie.clone())], Redirect::to(next)).into_response()
}

/// `POST /logout`.
pub(crate) async fn logout(State(sessions): State<Sessions>, user: SignedIn, fields: Fields) -> PageResult {
    user.check(fields.get("csrf"))?;
    let cookie = sessions.logout(&user).await?;
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/login")).into_response())
}

/// A path of this console, or its front page: never another site.
fn inside(next: &str) -> &str {
    let odd = |c: char| c == '\\' || c.is_control();
    if next.starts_with('/') && !next.starts_with("//") && !next.contains(odd) { next } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_signing_in_nobody_is_sent_away() {
        for away in
            ["https://evil.test", "//evil.test", "/\\evil.test", "/\t/evil.test", "", "javascript:alert(1)"]
        {
            assert_eq!(inside(away), "/", "{away}");
        }
        assert_eq!(inside("/routes?q=a"), "/routes?q=a");
    }
}
