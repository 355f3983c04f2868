//! A browser without a window: cookies, forms, redirects.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use tower::ServiceExt as _;

use crate::ops::{Actor, Connection, Ops};
use crate::session::{Sessions, guard};
use crate::state::AppState;

/// A state directory that goes with the test.
pub(super) struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("sallyport-pages-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Left behind in the temporary directory it would only be untidy.
        let _untidy = std::fs::remove_dir_all(&self.0);
    }
}

/// See the module.
pub(super) struct Browser {
    pub(super) state: AppState,
    app: Router,
    cookie: String,
    /// What its requests come over; a new connection each when absent.
    pub(super) over: Option<Connection>,
    _directory: Directory,
}

/// An answer, read.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) location: String,
    pub(super) policy: String,
    pub(super) cookie: String,
    pub(super) body: String,
}

impl Answer {
    /// The form token on the page.
    pub(super) fn csrf(&self) -> &str {
        let (_, rest) = self.body.split_once("name=\"csrf\" value=\"").unwrap_or_default();
        rest.split('"').next().unwrap_or_default()
    }

    /// All hidden inputs of the page's form with this id.
    pub(super) fn hidden(&self) -> Vec<(String, String)> {
        let unescape = |text: &str| {
            text.replace("&#34;", "\"")
                .replace("&#38;", "&")
                .replace("&#60;", "<")
                .replace("&#62;", ">")
                .replace("&#39;", "'")
        };
        let inputs = self.body.split("<input type=\"hidden\" name=\"").skip(1);
        let pair = |input: &str| {
            let (name, rest) = input.split_once("\" value=\"")?;
            Some((name.to_owned(), unescape(rest.split_once('"')?.0)))
        };
        inputs.filter_map(pair).collect()
    }
}

impl Browser {
    /// Somebody who is not signed in, at a console that has just begun.
    pub(super) async fn stranger() -> Self {
        let directory = Directory::new();
        let ops = Ops::open(&directory.0, "127.0.0.1:9444").await.unwrap();
        ops.begin(8443).await.unwrap();
        let state = AppState { sessions: Sessions::new(ops.clone()), ops };
        let guarded = axum::middleware::from_fn_with_state(state.sessions.clone(), guard::pages);
        let app = super::super::router().layer(guarded).with_state(state.clone());
        Self { state, app, cookie: String::new(), over: None, _directory: directory }
    }

    /// The first administrator.
    pub(super) async fn administrator() -> Self {
        let mut browser = Self::stranger().await;
        let token = browser.state.sessions.setup_token().await.unwrap().unwrap();
        let page = browser.get(&format!("/setup?token={token}")).await;
        assert_eq!(page.status, StatusCode::OK);
        let password = "a long enough password";
        let fields =
            [("token", token.as_str()), ("name", "admin"), ("password", password), ("again", password)];
        let answer = browser.post("/setup", &fields).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
        browser.cookie = answer.cookie.split(';').next().unwrap_or_default().to_owned();
        browser
    }

    /// The administrator of a console with a day's work in it.
    pub(super) async fn with_sample() -> Self {
        let browser = Self::administrator().await;
        super::sample::fill(&browser.state.ops, &Actor::console()).await;
        browser
    }

    /// For a look with a real browser.
    pub(super) fn app(&self) -> Router {
        self.app.clone()
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    /// Follows a link or sends a form on the page `before`.
    pub(super) async fn get_from(&self, before: &str, path: &str) -> Answer {
        let before = format!("https://console.test:8443{before}");
        self.send(Request::get(path).header(header::REFERER, before).body(Body::empty()).unwrap()).await
    }

    /// Posts a form as a browser on the console's own page does.
    pub(super) async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let escape = super::super::list::escape;
        let pairs: Vec<String> =
            fields.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect();
        let request = Request::post(path)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header("sec-fetch-site", "same-origin")
            .body(Body::from(pairs.join("&")));
        self.send(request.unwrap()).await
    }

    /// Posts a form as `multipart/form-data`.
    pub(super) async fn upload(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let part = |(name, value): &(&str, &str)| {
            format!("--B\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let body = fields.iter().map(part).collect::<String>() + "--B--\r\n";
        let request = Request::post(path)
            .header(header::CONTENT_TYPE, "multipart/form-data; boundary=B")
            .header("sec-fetch-site", "same-origin")
            .body(Body::from(body));
        self.send(request.unwrap()).await
    }

    /// Posts a form with the session's token.
    pub(super) async fn submit(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let csrf = self.get("/changes").await.csrf().to_owned();
        let mut fields = fields.to_vec();
        fields.push(("csrf", &csrf));
        self.post(path, &fields).await
    }

    async fn send(&self, mut request: Request<Body>) -> Answer {
        if !self.cookie.is_empty() {
            request.headers_mut().insert(header::COOKIE, self.cookie.parse().unwrap());
        }
        let over = self.over.clone().unwrap_or_else(Connection::accepted);
        request.extensions_mut().insert(over);
        let response = self.app.clone().oneshot(request).await.unwrap();
        let header = |name| {
            response.headers().get(&name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        let (location, policy) = (header(header::LOCATION), header(header::CONTENT_SECURITY_POLICY));
        let (status, cookie) = (response.status(), header(header::SET_COOKIE));
        let body = match status {
            StatusCode::OK
                if response
                    .headers()
                    .get(header::CONTENT_TYPE)
                    .is_some_and(|kind| kind == "text/event-stream") =>
            {
                String::new()
            }
            _ => {
                let bytes = axum::body::to_bytes(response.into_body(), 1 << 26).await.unwrap();
                String::from_utf8_lossy(&bytes).into_owned()
            }
        };
        Answer { status, location, policy, cookie, body }
    }
}
