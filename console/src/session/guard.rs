//! What every request to the console passes: who is it, and does it come from the console's own pages.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Sessions;
use crate::ops::Connection;

/// The client's address, as far as known (tests have no connection); the server puts it into the request's extensions.
pub(crate) fn address(extensions: &axum::http::Extensions) -> Option<IpAddr> {
    extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip().to_canonical())
}

/// The client's connection; the server puts it there too.
pub(crate) fn connection(extensions: &axum::http::Extensions) -> Option<Connection> {
    extensions.get::<Connection>().cloned()
}

/// Around all pages: refuses forged requests, finds out who is signed in.
pub(crate) async fn pages(State(sessions): State<Sessions>, mut request: Request, next: Next) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD)
        && !same_origin(request.headers(), request.uri())
    {
        let sentence = "This request does not come from the console's own pages, so it was refused. Open the console and try again there.\n";
        return (StatusCode::FORBIDDEN, sentence).into_response();
    }
    let (from, over) = (address(request.extensions()), connection(request.extensions()));
    let cookies =
        request.headers().get(header::COOKIE).and_then(|value| value.to_str().ok()).map(str::to_owned);
    if let Some(cookies) = cookies {
        match sessions.find(&cookies, from, over).await {
            Ok(Some(signed_in)) => {
                request.extensions_mut().insert(signed_in);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%error, "a session could not be looked up");
                return (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response();
            }
        }
    }
    next.run(request).await
}

/// Whether a browser says that the request comes from this very origin. Every browser that speaks TLS 1.3 sends at least
/// `Origin` with a POST.
fn same_origin(headers: &HeaderMap, uri: &Uri) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text(header::HeaderName::from_static("sec-fetch-site")) {
        return site == "same-origin";
    }
    let host = uri.authority().map(|authority| authority.as_str()).or_else(|| text(header::HOST));
    match (text(header::ORIGIN), host) {
        (Some(origin), Some(host)) => {
            origin.strip_prefix("https://").is_some_and(|from| from.eq_ignore_ascii_case(host))
        }
        _ => false,
    }
}

/// Where someone who is not signed in goes, and comes back from (pages only: what was posted cannot come back).
pub(super) fn login_url(uri: &Uri, method: &Method) -> String {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    if *method != Method::GET || path == "/" {
        return "/login".to_owned();
    }
    let encoded: String = path
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect();
    format!("/login?next={encoded}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn only_the_consoles_own_pages_may_post() {
        let uri = Uri::from_static("/routes/new");
        let judge = |pairs: &[(&'static str, &str)]| same_origin(&headers(pairs), &uri);
        assert!(judge(&[("sec-fetch-site", "same-origin")]));
        assert!(!judge(&[("sec-fetch-site", "same-site")]));
        assert!(!judge(&[
            ("sec-fetch-site", "cross-site"),
            ("origin", "https://c:9443"),
            ("host", "c:9443")
        ]));
        assert!(judge(&[("origin", "https://c:9443"), ("host", "c:9443")]));
        assert!(!judge(&[("origin", "https://evil"), ("host", "c:9443")]));
        assert!(!judge(&[("origin", "null"), ("host", "c:9443")]));
        assert!(!judge(&[("host", "c:9443")]));
    }

    #[test]
    fn whoever_must_log_in_comes_back() {
        assert_eq!(
            login_url(&"/routes?q=a&page=2".parse().unwrap(), &Method::GET),
            "/login?next=/routes%3Fq%3Da%26page%3D2"
        );
        assert_eq!(login_url(&"/routes".parse().unwrap(), &Method::POST), "/login");
    }
}
