//! Queries: every parameter known, and what is wrong said at the one it is about.

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::ApiError;

/// The parameters of a query.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        read(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

fn read<T: DeserializeOwned>(query: &str) -> Result<T, ApiError> {
    let parameters = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
    serde_path_to_error::deserialize(parameters).map_err(|error| {
        let (field, why) = (error.path().to_string(), error.inner());
        let message = format!("the query cannot be read: {why}");
        // Of a parameter that is given twice, or is missing, there is no path.
        let field = if field == "." { String::new() } else { field };
        ApiError::at(StatusCode::BAD_REQUEST, "invalid", field, message)
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Wanted {
        per_page: Option<u32>,
        #[serde(default)]
        search: String,
    }

    #[test]
    fn what_is_wrong_is_said_at_its_parameter() {
        let wanted = |query| read::<Wanted>(query);
        let found = Wanted { per_page: Some(20), search: "a b&c".to_owned() };
        assert_eq!(wanted("perPage=20&search=a+b%26c"), Ok(found));
        assert_eq!(wanted(""), Ok(Wanted { per_page: None, search: String::new() }));
        let refused = |query, field: &str, why| {
            let message = format!("the query cannot be read: {why}");
            let error = ApiError::at(StatusCode::BAD_REQUEST, "invalid", field.to_owned(), message);
            assert_eq!(wanted(query), Err(error), "{query}");
        };
        refused("perPage=-1", "perPage", "invalid digit found in string");
        refused("serach=x", "serach", "unknown field `serach`, expected `perPage` or `search`");
        refused("search=a&search=b", "", "duplicate field `search`");
    }
}
