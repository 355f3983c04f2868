//! Tokens.

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::ApiError;
use crate::ops::{Actor, Ops};
use crate::session::guard::{address, connection};

/// Finds out whose token the request carries and adds the [`Actor`] to its extensions.
pub(super) async fn token(State(ops): State<Ops>, mut request: Request, next: Next) -> Response {
    let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = header.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    });
    let refused =
        |message| ApiError::sentence(StatusCode::UNAUTHORIZED, "unauthorized", message).into_response();
    let Some(token) = token else {
        return refused(
            "this needs a token: send Authorization: Bearer TOKEN (the command line's own is in cli.json)",
        );
    };
    let (name, role) = match ops.token(&token).await {
        Ok(Some(found)) => found,
        Ok(None) => {
            return refused("this token is not (or no longer) valid; use the one in the console's cli.json");
        }
        Err(error) => return ApiError::from(error).into_response(),
    };
    let extensions = request.extensions();
    let actor = Actor { name, role, address: address(extensions), connection: connection(extensions) };
    actor.address.iter().for_each(|address| ops.saw(*address));
    request.extensions_mut().insert(actor);
    next.run(request).await
}
