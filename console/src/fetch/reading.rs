//! What an answer is, and its document, never more than is wanted.

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Response, StatusCode, header};

use super::{FetchError, Fetched, Validators, Wanted};

/// A validator longer than this is not kept.
const LONGEST_VALIDATOR: usize = 1024;

/// What an origin said.
pub(super) enum Answer {
    Fetched(Fetched),
    /// `Location`.
    Moved(String),
}

pub(super) async fn read(response: Response<Incoming>, wanted: &Wanted<'_>) -> Result<Answer, FetchError> {
    let text = |name: header::HeaderName| {
        response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_MODIFIED if !wanted.known.is_empty() => {
            return Ok(Answer::Fetched(Fetched::Unchanged));
        }
        StatusCode::MOVED_PERMANENTLY
        | StatusCode::FOUND
        | StatusCode::SEE_OTHER
        | StatusCode::TEMPORARY_REDIRECT
        | StatusCode::PERMANENT_REDIRECT => {
            return text(header::LOCATION).map(Answer::Moved).ok_or(FetchError::Nowhere);
        }
        other => return Err(FetchError::Status(other.as_u16())),
    }
    // Nothing is decompressed: a small document could be a large one then.
    if let Some(encoding) = text(header::CONTENT_ENCODING).filter(|encoding| encoding != "identity") {
        return Err(FetchError::Encoded(encoding.chars().take(40).collect()));
    }
    let short = |value: &String| value.len() <= LONGEST_VALIDATOR;
    let validators = Validators {
        etag: text(header::ETAG).filter(short),
        modified: text(header::LAST_MODIFIED).filter(short),
    };
    let bytes = document(response.into_body(), wanted.max_bytes).await?;
    Ok(Answer::Fetched(Fetched::Document { bytes, validators }))
}

async fn document(mut body: Incoming, most: u64) -> Result<Vec<u8>, FetchError> {
    use hyper::body::Body as _;
    if body.size_hint().lower() > most {
        return Err(FetchError::Large(most));
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(FetchError::Http)?.into_data() else { continue };
        if (bytes.len() + data.len()) as u64 > most {
            return Err(FetchError::Large(most));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}
