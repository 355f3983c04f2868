//! The console's pages, as a browser without a window uses them: a cookie, forms, their token.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::client::{Answer, Dial};
use crate::space::Space;

const PASSWORD: &str = "a long enough password";

/// Somebody at the console's pages.
#[derive(Debug, Clone)]
pub struct Browser {
    space: Arc<Space>,
    address: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
    cookie: String,
}

impl Browser {
    /// Somebody who is not signed in.
    pub(crate) fn stranger(space: Arc<Space>, address: SocketAddr, tls: Arc<rustls::ClientConfig>) -> Self {
        Self { space, address, tls, cookie: String::new() }
    }

    /// Makes the first administrator with the link's token; the page's complaint when it is refused.
    ///
    /// # Errors
    /// Status and page.
    pub fn set_up(mut self, token: &str) -> Result<Self, (u16, String)> {
        let fields = [("token", token), ("name", "admin"), ("password", PASSWORD), ("again", PASSWORD)];
        let answer = self.post("/setup", &fields);
        match answer.field("set-cookie") {
            Some(cookie) if answer.status == 303 => {
                self.cookie = cookie.split(';').next().unwrap_or_default().to_owned();
                Ok(self)
            }
            _ => Err((answer.status, readable(&answer))),
        }
    }

    /// A page's text, without markup.
    pub fn read(&self, path: &str) -> String {
        let answer = self.send("GET", path, "");
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        readable(&answer)
    }

    /// Fills a form in and sends it with the session's token: status and what the page then says.
    pub fn submit(&self, path: &str, fields: &[(&str, &str)]) -> (u16, String) {
        let page = self.send("GET", "/changes", "").text();
        let (_, rest) = page.split_once("name=\"csrf\" value=\"").expect("a form's token");
        let token = rest.split('"').next().unwrap_or_default();
        let mut fields = fields.to_vec();
        fields.push(("csrf", token));
        let answer = self.post(path, &fields);
        (answer.status, readable(&answer))
    }

    fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let pairs: Vec<String> =
            fields.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
        self.send("POST", path, &pairs.join("&"))
    }

    fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nCookie: {}\r\nSec-Fetch-Site: same-origin\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.address,
            self.cookie,
            body.len()
        );
        let answer = self.space.inside(|| {
            let dial = Dial::new(self.address, &self.address.ip().to_string(), &self.tls);
            let mut connection = dial.patience(Duration::from_secs(60)).open()?;
            connection.send(request.as_bytes())?;
            connection.answer()
        });
        answer.unwrap_or_else(|error: std::io::Error| panic!("{method} {path}: {error}"))
    }
}

/// What stands between the tags, as it is read.
fn readable(answer: &Answer) -> String {
    let page = answer.text();
    let text: String =
        page.split('<').map(|piece| piece.split_once('>').map_or(piece, |(_, text)| text)).collect();
    let named = [("&#34;", "\""), ("&#38;", "&"), ("&#60;", "<"), ("&#62;", ">"), ("&#39;", "'")];
    named.into_iter().fold(text, |text, (name, letter)| text.replace(name, letter))
}

fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}
