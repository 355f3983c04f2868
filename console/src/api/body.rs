//! Request bodies: JSON, of bounded length, every field known.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use model::problem::{Code, Problem};
use serde_json::{Map, Value};

use super::ApiError;

/// A JSON body.
pub(super) struct JsonBody(pub(super) Value);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let kind = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if essence != "application/json" && !essence.is_empty() {
            let message =
                format!("the body must be JSON: send Content-Type: application/json instead of {essence}");
            return Err(ApiError::sentence(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-type", message));
        }
        let bytes = Bytes::from_request(request, state).await.map_err(|error| match error.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                let message =
                    format!("the body is longer than {} MiB; send fewer objects at once", super::BODY >> 20);
                ApiError::sentence(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message)
            }
            status => {
                ApiError::sentence(status, "malformed", "the body could not be received; send it again")
            }
        })?;
        if bytes.is_empty() && essence.is_empty() {
            return Ok(Self(Value::Object(Map::new())));
        }
        let value = serde_json::from_slice(&bytes).map_err(|error| {
            let message = format!("the body is not JSON: {error}");
            ApiError::problems(vec![Problem::new("", "", Code::Malformed, message)])
        })?;
        Ok(Self(value))
    }
}

/// The fields of a body that is an object with these fields and no others.
pub(super) struct Fields {
    fields: Map<String, Value>,
    problems: Vec<Problem>,
}

impl Fields {
    pub(super) fn of(body: Value, known: &[&'static str]) -> Self {
        let mut problems = Vec::new();
        let fields = if let Value::Object(fields) = body {
            fields
        } else {
            let message = format!("the body must be an object with the fields {}", known.join(", "));
            problems.push(Problem::new("", "", Code::Malformed, message));
            Map::new()
        };
        for name in fields.keys().filter(|name| !known.contains(&name.as_str())) {
            let hint = model::nearest::did_you_mean(name, known.iter().copied(), || {
                format!("the fields are {}", known.join(", "))
            });
            problems.push(Problem::new(
                "",
                name,
                Code::UnknownField,
                format!("nobody reads this field; {hint}"),
            ));
        }
        Self { fields, problems }
    }

    /// A field that is true or false.
    pub(super) fn flag(&mut self, name: &str) -> bool {
        match self.fields.get(name) {
            None | Some(Value::Null) => false,
            Some(Value::Bool(value)) => *value,
            Some(_) => self.wrong(name, "must be true or false"),
        }
    }

    /// A field that is text.
    pub(super) fn text(&mut self, name: &str) -> String {
        match self.fields.get(name) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(value)) if value.len() <= 1000 => value.clone(),
            Some(_) => self.wrong(name, "must be text of at most 1000 bytes"),
        }
    }

    /// A field that is a whole number.
    pub(super) fn number(&mut self, name: &str) -> Option<u64> {
        match self.fields.get(name) {
            None | Some(Value::Null) => None,
            Some(value) => match value.as_u64() {
                Some(number) => Some(number),
                None => self.wrong(name, "must be a whole number"),
            },
        }
    }

    /// A field that is an object of texts.
    pub(super) fn texts(&mut self, name: &str) -> Vec<(String, String)> {
        match self.fields.remove(name) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Object(pairs)) if pairs.values().all(Value::is_string) => {
                pairs.into_iter().filter_map(|(key, value)| Some((key, value.as_str()?.to_owned()))).collect()
            }
            Some(_) => self.wrong(name, "must be an object whose values are text"),
        }
    }

    /// A field that is a list.
    pub(super) fn list(&mut self, name: &str) -> Vec<Value> {
        match self.fields.remove(name) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(items)) => items,
            Some(_) => self.wrong(name, "must be a list"),
        }
    }

    fn wrong<T: Default>(&mut self, name: &str, message: &str) -> T {
        self.problems.push(Problem::new("", name, Code::Invalid, message));
        T::default()
    }

    /// Adds problems found elsewhere.
    pub(super) fn also(&mut self, problems: impl IntoIterator<Item = Problem>) {
        self.problems.extend(problems);
    }

    /// All problems together.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        if self.problems.is_empty() { Ok(()) } else { Err(ApiError::problems(self.problems)) }
    }
}
