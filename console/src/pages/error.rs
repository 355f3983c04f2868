//! What a person sees when a page cannot be shown.

use askama::Template;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};

use crate::ops::OpsError;
use crate::session::WrongFormToken;
use crate::store::StoreError;

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PageError {
    /// Nothing is at this address.
    #[error("{0}")]
    NotFound(String),
    /// Not this person, or not this form.
    #[error("{0}")]
    Forbidden(String),
    /// What was asked for cannot be done; each sentence says why.
    #[error("{}", .0.join(" "))]
    Refused(Vec<String>),
    /// A form is longer than so many bytes.
    #[error(
        "This form is longer than {} that the console reads.",
        if *.0 >= 1 << 20 { format!("the {} MiB", .0 >> 20) } else { format!("the {} KiB", .0 >> 10) }
    )]
    TooLong(usize),
    /// A form that cannot be read.
    #[error("This form came cut off, or is not written as forms are.")]
    Unreadable,
    /// The console failed.
    #[error(transparent)]
    Ops(OpsError),
    /// The console failed before an operation began.
    #[error("{0}")]
    Failed(String),
    /// A template failed.
    #[error(transparent)]
    Template(#[from] askama::Error),
}

impl From<OpsError> for PageError {
    fn from(error: OpsError) -> Self {
        match error {
            OpsError::NotFound(what) => Self::NotFound(what),
            OpsError::Forbidden(why) => Self::Forbidden(why.to_owned()),
            OpsError::Problems(problems) => Self::Refused(problems.iter().map(ToString::to_string).collect()),
            OpsError::Store(_) | OpsError::Seal(_) | OpsError::Stopped => Self::Ops(error),
        }
    }
}

impl From<WrongFormToken> for PageError {
    fn from(error: WrongFormToken) -> Self {
        Self::Forbidden(error.to_string())
    }
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage<'a> {
    title: &'a str,
    sentences: Vec<String>,
    next: &'a str,
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let (status, title, next) = match &self {
            Self::NotFound(_) => (
                StatusCode::NOT_FOUND,
                "Not here",
                "It may have been removed or renamed; Changes shows by whom and when.",
            ),
            Self::Forbidden(_) => (StatusCode::FORBIDDEN, "Not allowed", "Nothing has been changed."),
            Self::Refused(_) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "That cannot be done", "Nothing has been changed.")
            }
            Self::TooLong(_) => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "That is too long",
                "Nothing has been changed. Go back and shorten it; what is long by nature can come as files, with sallyport apply.",
            ),
            Self::Unreadable => (
                StatusCode::BAD_REQUEST,
                "That cannot be read",
                "Nothing has been changed. Go back and send it again.",
            ),
            Self::Ops(OpsError::Store(StoreError::Full)) => (
                StatusCode::INSUFFICIENT_STORAGE,
                "The disk is full",
                "Traffic is not affected: nodes go on with what they have applied.",
            ),
            Self::Ops(_) | Self::Failed(_) | Self::Template(_) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "The console failed",
                "Traffic is not affected: nodes go on with what they have applied. The console's log has the details.",
            ),
        };
        if status.is_server_error() {
            let source = std::error::Error::source(&self).map(ToString::to_string);
            tracing::error!(error = %self, source, "page failed");
        }
        let said = self.to_string();
        let sentences = if let Self::Refused(sentences) = self { sentences } else { vec![said] };
        let body = ErrorPage { title, sentences, next }.render().unwrap_or_else(|_| title.to_owned());
        (status, Html(body)).into_response()
    }
}

/// Every address that no page has.
pub(crate) async fn not_found(uri: axum::http::Uri) -> PageError {
    PageError::NotFound(format!("There is no page at {}.", uri.path()))
}
