//! The static files: part of the executable, named by their content, so that a browser may keep them for ever.

use std::fmt::Write as _;

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

/// One file.
#[derive(Debug)]
pub(crate) struct Asset {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
}

/// The style sheet.
pub(crate) const STYLE: Asset = Asset {
    name: "console.css",
    kind: "text/css; charset=utf-8",
    text: include_str!("../../static/console.css"),
};
/// The script.
pub(crate) const SCRIPT: Asset = Asset {
    name: "console.js",
    kind: "text/javascript; charset=utf-8",
    text: include_str!("../../static/console.js"),
};
/// The icon.
pub(crate) const ICON: Asset =
    Asset { name: "icon.svg", kind: "image/svg+xml", text: include_str!("../../static/icon.svg") };

const ALL: [&Asset; 3] = [&STYLE, &SCRIPT, &ICON];

impl Asset {
    /// `/static/<hash>/<name>`; another content is another URL.
    pub(crate) fn url(&self) -> String {
        format!("/static/{}/{}", self.hash(), self.name)
    }

    /// FNV-1a: it only has to change when the content does, nobody attacks his own style sheet.
    fn hash(&self) -> String {
        let hash = self.text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut text = String::with_capacity(16);
        let _ = write!(text, "{hash:016x}");
        text
    }
}

/// `GET /static/{hash}/{name}`. A page that was open across an upgrade asks for the former hash and gets the present file.
pub(crate) async fn serve(Path((hash, name)): Path<(String, String)>) -> Response {
    let Some(asset) = ALL.into_iter().find(|asset| asset.name == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let keep = if hash == asset.hash() { "public, max-age=31536000, immutable" } else { "no-store" };
    ([(header::CONTENT_TYPE, asset.kind), (header::CACHE_CONTROL, keep)], asset.text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_present_hash_may_be_kept() {
        let path = |hash: &str, name: &str| Path((hash.to_owned(), name.to_owned()));
        let fresh = serve(path(&STYLE.hash(), "console.css")).await;
        assert!(fresh.headers()[header::CACHE_CONTROL].to_str().unwrap().contains("immutable"));
        assert_eq!(fresh.headers()[header::CONTENT_TYPE], "text/css; charset=utf-8");
        let stale = serve(path("0", "console.css")).await;
        assert_eq!(stale.headers()[header::CACHE_CONTROL], "no-store");
        assert_eq!(serve(path("0", "other")).await.status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn nothing_is_fetched_from_elsewhere() {
        for asset in ALL {
            let text = asset.text.replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains("://") && !text.contains("@import"), "{}", asset.name);
        }
    }
}
