//! First start: the link printed on the terminal makes the first administrator.

use askama::Template;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::Deserialize;

use super::login::{LoginPage, enter, status};
use super::{PageResult, page};
use crate::forms::Fields;
use crate::session::Sessions;

/// What to do with a link that made the administrator, or was never one.
const USED: &str =
    "This link is not valid, or not any more: it works once, and there is an administrator already. Sign in.";
/// The same while nobody has made the administrator.
const FORMER: &str = "This link is not valid, or not any more: each start of the console prints another. Open the one that it printed last. \
     Or choose a name, and have the command below make the administrator.";

#[derive(Template)]
#[template(path = "setup.html")]
struct SetupPage {
    token: String,
    name: String,
    wrong: Option<String>,
}

/// The link's token.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct SetupQuery {
    #[serde(default)]
    token: String,
}

/// `GET /setup`.
pub(crate) async fn show(State(sessions): State<Sessions>, Query(query): Query<SetupQuery>) -> PageResult {
    match sessions.setup_open(&query.token).await {
        true => page(&SetupPage { token: query.token, name: "admin".to_owned(), wrong: None }),
        false => {
            let note = match sessions.has_users().await? {
                true => USED,
                false => FORMER,
            };
            Ok((StatusCode::FORBIDDEN, page(&LoginPage::with_note(note))?).into_response())
        }
    }
}

/// `POST /setup`.
pub(crate) async fn create(State(sessions): State<Sessions>, fields: Fields) -> PageResult {
    let (token, name) = (fields.get("token").to_owned(), fields.trimmed("name").to_owned());
    let again = |wrong: String| SetupPage { token: token.clone(), name: name.clone(), wrong: Some(wrong) };
    if fields.get("password") != fields.get("again") {
        let answer = page(&again("The two passwords differ.".to_owned()))?;
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, answer).into_response());
    }
    match sessions.setup(&token, &name, fields.get("password")).await {
        Ok(begun) => Ok(enter(&begun, "/")),
        Err(error) => Ok((status(&error)?, page(&again(error.to_string()))?).into_response()),
    }
}
