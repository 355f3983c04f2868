//! The console's REST API, as a script would use it.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::client::Dial;
use crate::pki;
use crate::space::Space;

/// Access to one console.
#[derive(Debug, Clone)]
pub struct Api {
    space: Arc<Space>,
    address: SocketAddr,
    token: String,
    tls: Arc<rustls::ClientConfig>,
}

impl Api {
    /// With what the console wrote for its command line.
    pub fn from_file(space: &Arc<Space>, cli_json: &Path) -> Result<Self, String> {
        let text =
            fs::read_to_string(cli_json).map_err(|error| format!("{}: {error}", cli_json.display()))?;
        let access: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let word = |name: &str| access[name].as_str().unwrap_or_default().to_owned();
        let address = word("url").trim_start_matches("https://").trim_end_matches('/').parse();
        let mut roots = rustls::RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(word("ca").as_bytes()).map_err(|error| error.to_string())?;
        roots.add(ca).map_err(|error| error.to_string())?;
        let tls = rustls::ClientConfig::builder_with_provider(pki::provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            space: space.clone(),
            address: address.map_err(|error: std::net::AddrParseError| format!("url in {text}: {error}"))?,
            token: word("token"),
            tls: Arc::new(tls),
        })
    }

    /// The same console's pages.
    pub fn browser(&self) -> Browser {
        Browser::stranger(self.space.clone(), self.address, self.tls.clone())
    }

    /// With another token.
    pub fn with_token(mut self, token: &str) -> Self {
        self.token = token.to_owned();
        self
    }

    /// One call: status and answer.
    ///
    /// # Errors
    /// Only when there is no answer at all.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> std::io::Result<(u16, Value)> {
        let body = body.map(Value::to_string);
        self.call_text(method, path, body.as_deref())
    }

    /// The same with a body that need not be JSON.
    ///
    /// # Errors
    /// Only when there is no answer at all.
    pub fn call_text(&self, method: &str, path: &str, body: Option<&str>) -> std::io::Result<(u16, Value)> {
        let body = body.unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.address,
            self.token,
            body.len()
        );
        let answer = self.space.inside(|| {
            let dial = Dial::new(self.address, &self.address.ip().to_string(), &self.tls);
            let mut connection = dial.patience(Duration::from_secs(60)).open()?;
            connection.send(request.as_bytes())?;
            connection.answer()
        })?;
        let value = serde_json::from_slice(&answer.body).unwrap_or_else(|_| Value::String(answer.text()));
        Ok((answer.status, value))
    }

    /// A call that must succeed.
    pub fn get(&self, path: &str) -> Value {
        let (status, value) =
            self.call("GET", path, None).unwrap_or_else(|error| panic!("GET {path}: {error}"));
        assert_eq!(status, 200, "GET {path}: {value}");
        value
    }

    /// Applies objects; the revision, or the problems.
    ///
    /// # Errors
    /// The answer, when the status is not 200.
    pub fn try_apply(&self, objects: &[Value]) -> Result<u64, (u16, Value)> {
        let body = json!({ "objects": objects, "confirm": true, "message": "test" });
        match self.call("POST", "/api/v1/apply", Some(&body)) {
            Ok((200, value)) => Ok(value["revision"].as_u64().expect("a revision")),
            Ok((status, value)) => Err((status, value)),
            Err(error) => Err((0, Value::String(error.to_string()))),
        }
    }

    /// Applies objects that must be accepted.
    pub fn apply(&self, objects: &[Value]) -> u64 {
        self.try_apply(objects).unwrap_or_else(|(status, problems)| panic!("apply: {status} {problems:#}"))
    }

    /// Deletes one object that must be there; the path is such as `routes/shop`.
    pub fn delete(&self, path: &str) {
        let (status, value) = self.call("DELETE", &format!("/api/v1/{path}"), None).expect("answer");
        assert!((200..300).contains(&status), "DELETE {path}: {status} {value}");
    }

    /// All revisions' numbers, newest first.
    pub fn revisions(&self) -> Vec<u64> {
        let mut numbers = Vec::new();
        for page in 1.. {
            let value = self.get(&format!("/api/v1/revisions?page={page}"));
            let items = value["items"].as_array().cloned().unwrap_or_default();
            numbers.extend(items.iter().filter_map(|item| item["number"].as_u64()));
            if items.is_empty() || numbers.len() as u64 >= value["total"].as_u64().expect("a total") {
                break;
            }
        }
        numbers
    }
}
