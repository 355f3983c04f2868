//! A submitted form as ordered pairs: what is shown again, reviewed and posted on is what was typed.

use axum::body::Bytes;
use axum::extract::multipart::MultipartError;
use axum::extract::{DefaultBodyLimit, FromRequest, Multipart, Request};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::ops::Role;
use crate::pages::PageError;
use crate::session::SignedIn;

/// The longest form that is read from somebody who may change nothing, bytes: a name, a password and room to spare.
const MAX_SMALL: usize = 64 << 10;
/// The longest form that is read from somebody who may change objects, bytes: the 8 MiB of a prefix set, once in the box and once as
/// a file, each of their line ends two bytes long here; and what browsers put around fields.
const MAX_FORM: usize = 32 << 20;

/// The pairs of a form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fields(Vec<(String, String)>);

/// Why a body is no form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoForm {
    /// It is longer than so many bytes.
    TooLong(usize),
    /// It ends before its end, or is not written as forms are.
    Unreadable,
}

impl IntoResponse for NoForm {
    fn into_response(self) -> Response {
        match self {
            Self::TooLong(limit) => PageError::TooLong(limit),
            Self::Unreadable => PageError::Unreadable,
        }
        .into_response()
    }
}

impl Fields {
    /// The value of a field; empty when it was not sent.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str())
    }

    /// Whether the field was sent with this value; one that was not sent has none, not an empty one.
    pub(crate) fn is(&self, name: &str, value: &str) -> bool {
        self.0.iter().find(|(key, _)| key == name).is_some_and(|(_, sent)| sent == value)
    }

    /// The value without white space around it.
    pub(crate) fn trimmed(&self, name: &str) -> &str {
        self.get(name).trim()
    }

    /// The value, or nothing when it is blank.
    pub(crate) fn some(&self, name: &str) -> Option<String> {
        Some(self.trimmed(name)).filter(|value| !value.is_empty()).map(str::to_owned)
    }

    /// Whether a box is ticked.
    pub(crate) fn ticked(&self, name: &str) -> bool {
        self.get(name) == "on"
    }

    /// The words of a field that holds several, apart by white space or commas.
    pub(crate) fn words(&self, name: &str) -> Vec<String> {
        self.get(name)
            .split([',', ' ', '\t', '\r', '\n'])
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// Sets a field.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        match self.0.iter_mut().find(|(key, _)| key == name) {
            Some(pair) => pair.1 = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// Sets a field, for building a form from an object.
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.set(name, value);
        self
    }

    /// Takes a field out.
    pub(crate) fn remove(&mut self, name: &str) -> String {
        match self.0.iter().position(|(key, _)| key == name) {
            Some(at) => self.0.remove(at).1,
            None => String::new(),
        }
    }

    /// All pairs but those of the machinery, for hidden inputs that carry the form on.
    pub(crate) fn carried(&self) -> impl Iterator<Item = &(String, String)> {
        const MACHINERY: [&str; 5] = ["csrf", "step", "confirm", "message", "private_key"];
        self.0.iter().filter(|(key, value)| !MACHINERY.contains(&key.as_str()) && !value.is_empty())
    }

    /// The numbers `N` for which any `prefix.N.*` was sent, ascending.
    pub(crate) fn rows(&self, prefix: &str) -> Vec<usize> {
        let number = |key: &str| key.strip_prefix(prefix)?.strip_prefix('.')?.split('.').next()?.parse().ok();
        let mut rows: Vec<usize> = self.0.iter().filter_map(|(key, _)| number(key)).collect();
        rows.sort_unstable();
        rows.dedup();
        rows
    }
}

impl FromIterator<(String, String)> for Fields {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

/// Line ends as everywhere but in forms, which send CR LF (WHATWG HTML, 4.10.22).
fn lines(value: String) -> String {
    if value.contains('\r') { value.replace("\r\n", "\n") } else { value }
}

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = NoForm;

    async fn from_request(mut request: Request, state: &S) -> Result<Self, NoForm> {
        // The session's guard, around all pages, has found out who this is before any of the body is read.
        let user = request.extensions().get::<SignedIn>();
        let changes = user.is_some_and(|user| user.actor.role >= Role::Operator);
        let limit = if changes { MAX_FORM } else { MAX_SMALL };
        DefaultBodyLimit::max(limit).apply(&mut request);
        let kind = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .unwrap_or_default();
        if kind.starts_with("multipart/form-data") {
            let multipart =
                Multipart::from_request(request, state).await.map_err(|_no_boundary| NoForm::Unreadable)?;
            return from_multipart(multipart, limit).await;
        }
        let body = Bytes::from_request(request, state).await.map_err(|why| no_form(why.status(), limit))?;
        Ok(urlencoded(&body).map(|(key, value)| (key, lines(value))).collect())
    }
}

/// What is wrong with a body that axum would answer with `status`.
fn no_form(status: StatusCode, limit: usize) -> NoForm {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => NoForm::TooLong(limit),
        _ => NoForm::Unreadable,
    }
}

/// Reads a multipart body; a file is a field whose value is its text.
async fn from_multipart(mut multipart: Multipart, limit: usize) -> Result<Fields, NoForm> {
    let wrong = |why: MultipartError| no_form(why.status(), limit);
    let mut fields = Fields::default();
    while let Some(field) = multipart.next_field().await.map_err(wrong)? {
        let name = field.name().unwrap_or_default().to_owned();
        let bytes = field.bytes().await.map_err(wrong)?;
        // A file that is not text cannot be PEM; what is left of it says so in the chain's own words.
        fields.0.push((name, lines(String::from_utf8_lossy(&bytes).into_owned())));
    }
    Ok(fields)
}

/// `application/x-www-form-urlencoded` (WHATWG URL, 5.1).
fn urlencoded(body: &[u8]) -> impl Iterator<Item = (String, String)> {
    body.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
        let mut parts = pair.splitn(2, |byte| *byte == b'=');
        (decode(parts.next().unwrap_or_default()), decode(parts.next().unwrap_or_default()))
    })
}

fn decode(text: &[u8]) -> String {
    let hex = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut bytes = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match (byte, hex(text.get(at + 1)), hex(text.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                at += 3;
                continue;
            }
            (b'+', _, _) => bytes.push(b' '),
            (other, _, _) => bytes.push(*other),
        }
        at += 1;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    async fn read(kind: &str, body: impl Into<Body>) -> Result<Fields, NoForm> {
        let request = Request::post("/").header(header::CONTENT_TYPE, kind).body(body.into()).unwrap();
        Fields::from_request(request, &()).await
    }

    #[tokio::test]
    async fn urlencoded() {
        let fields = read("application/x-www-form-urlencoded", "host=a.b&path=%2Fx+y&t=1%0D%0A2&on=on&%zz=%")
            .await
            .unwrap();
        assert_eq!(
            (fields.get("host"), fields.get("path"), fields.get("t"), fields.get("%zz")),
            ("a.b", "/x y", "1\n2", "%")
        );
        assert!(fields.ticked("on") && !fields.ticked("off"));
        let long = read("application/x-www-form-urlencoded", vec![b'a'; MAX_SMALL + 1]).await;
        assert_eq!(long, Err(NoForm::TooLong(MAX_SMALL)));
    }

    #[tokio::test]
    async fn multipart() {
        let body = "--B\r\nContent-Disposition: form-data; name=\"chain_file\"; filename=\"a.pem\"\r\n\r\n-----BEGIN\r\nX\r\n--B--\r\n";
        let fields = read("multipart/form-data; boundary=B", body).await.unwrap();
        assert_eq!(fields.get("chain_file"), "-----BEGIN\nX");
        let cut = read("multipart/form-data; boundary=B", "--B\r\ncut off").await;
        assert_eq!(cut, Err(NoForm::Unreadable));
        let long = format!("{body}{}", "x".repeat(MAX_SMALL));
        let long = read("multipart/form-data; boundary=B", long).await;
        assert_eq!(long, Err(NoForm::TooLong(MAX_SMALL)));
    }

    #[test]
    fn a_private_key_is_not_carried() {
        let fields = Fields::default()
            .with("host", "a")
            .with("private_key", "secret")
            .with("csrf", "t")
            .with("step", "review");
        assert_eq!(fields.carried().count(), 1);
        assert!(!fields.carried().any(|(_, value)| value == "secret"));
    }

    #[test]
    fn rows_are_found_by_number() {
        let fields = Fields::default()
            .with("rule.10.name", "b")
            .with("rule.2.name", "a")
            .with("rule.2.action", "Deny")
            .with("rulex.3", "");
        assert_eq!(fields.rows("rule"), [2, 10]);
    }
}
