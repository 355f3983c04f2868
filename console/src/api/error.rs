//! Errors, always as a list of problems.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use model::problem::{Code, Problem};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ops::OpsError;
use crate::store::StoreError;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiProblem {
    /// The object, `Kind/name`; empty when the request itself is wrong.
    pub object: String,
    /// The field's path, such as `spec.origins[1].url`; empty for the object as a whole.
    pub field: String,
    /// For programs, stable: `unknown-field`, `invalid`, `needs-confirmation`, `conflict`, `unauthorized`...
    pub code: String,
    /// For people: what is wrong and what to do.
    pub message: String,
}

/// What every error answer has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(super) struct Problems {
    /// Never empty.
    pub problems: Vec<ApiProblem>,
}

/// An error answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    status: StatusCode,
    problems: Vec<ApiProblem>,
}

impl From<Problem> for ApiProblem {
    fn from(problem: Problem) -> Self {
        let code = serde_json::to_value(problem.code).ok().and_then(|code| code.as_str().map(str::to_owned));
        Self {
            object: problem.object,
            field: problem.field,
            code: code.unwrap_or_default(),
            message: problem.message,
        }
    }
}

impl ApiError {
    /// One sentence about the request itself.
    pub(super) fn sentence(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        let problem = ApiProblem {
            object: String::new(),
            field: String::new(),
            code: code.to_owned(),
            message: message.into(),
        };
        Self { status, problems: vec![problem] }
    }

    /// What is wrong with the parameters of a query.
    pub(super) fn query(problems: Vec<Problem>) -> Self {
        let problems = problems.into_iter().map(ApiProblem::from).collect();
        Self { status: StatusCode::BAD_REQUEST, problems }
    }

    /// What is wrong with objects.
    pub(super) fn problems(problems: Vec<Problem>) -> Self {
        let all = |code| problems.iter().all(|problem| problem.code == code);
        let status = match () {
            () if all(Code::NeedsConfirmation) || all(Code::Conflict) => StatusCode::CONFLICT,
            () if all(Code::Malformed) => StatusCode::BAD_REQUEST,
            () => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self { status, problems: problems.into_iter().map(ApiProblem::from).collect() }
    }
}

impl From<OpsError> for ApiError {
    fn from(error: OpsError) -> Self {
        match error {
            OpsError::Problems(problems) => Self::problems(problems),
            OpsError::NotFound(message) => Self::sentence(StatusCode::NOT_FOUND, "not-found", message),
            OpsError::Forbidden(message) => Self::sentence(StatusCode::FORBIDDEN, "forbidden", message),
            OpsError::Store(full @ StoreError::Full) => {
                tracing::error!(error = %full, "an API request failed");
                Self::sentence(StatusCode::INSUFFICIENT_STORAGE, "disk-full", full.to_string())
            }
            fault @ (OpsError::Store(_) | OpsError::Seal(_) | OpsError::Stopped) => {
                tracing::error!(error = %fault, "an API request failed");
                Self::sentence(StatusCode::INTERNAL_SERVER_ERROR, "fault", fault.to_string())
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Json(Problems { problems: self.problems });
        match self.status {
            // RFC 9110, 11.6.1 wants it said how.
            StatusCode::UNAUTHORIZED => {
                (self.status, [(header::WWW_AUTHENTICATE, "Bearer")], body).into_response()
            }
            status => (status, body).into_response(),
        }
    }
}

/// A URL below `/api` that nobody answers.
pub(super) async fn no_such_url() -> ApiError {
    let message = "there is nothing at this URL; GET /api/v1/openapi.json lists what there is";
    ApiError::sentence(StatusCode::NOT_FOUND, "not-found", message)
}

/// A URL that does not answer this method.
pub(super) async fn no_such_method() -> ApiError {
    let message = "this URL does not answer this method; GET /api/v1/openapi.json lists what it answers";
    ApiError::sentence(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", message)
}
