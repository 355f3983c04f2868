//! The origins: real servers, each of which writes a line for every request it saw:
//! `METHOD TARGET HOST LENGTH SHA1 STATE X-SMUGGLED`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use aws_lc_rs::digest;
use sallyport_tests::eventually;
use sallyport_tests::space::{Space, command};
use sallyport_tests::stage::ORIGINS4;

/// Their names, which are also the first labels of their hosts, and their ports.
pub(crate) const PEERS: [(&str, u16); 6] =
    [("nginx", 9001), ("haproxy", 9002), ("apache", 9003), ("node", 9004), ("go", 9005), ("python", 9006)];

/// Apache cannot write a body down by itself: it hands what it read to a recorder.
const BEHIND_APACHE: u16 = 9103;

/// A request as an origin saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub method: String,
    pub target: String,
    pub host: String,
    pub length: u64,
    pub sha1: String,
    pub whole: bool,
    pub smuggled: String,
}

/// One origin that runs.
pub(crate) struct Peer {
    pub name: &'static str,
    pub version: String,
    log: PathBuf,
    children: Vec<Child>,
}

impl Peer {
    /// Starts it, and waits until it takes connections.
    pub(crate) fn start(space: &Space, dir: &Path, name: &'static str, port: u16) -> Self {
        let dir = dir.join(name);
        fs::create_dir_all(&dir).expect("directory");
        let log = dir.join("requests");
        fs::write(&log, "").expect("log");
        let (mut start, version) = program(&dir, &log, name, port);
        start.current_dir(&dir).stdin(Stdio::null());
        if name == "haproxy" {
            start.stdout(fs::File::create(&log).expect("log"));
        }
        let mut children = Vec::new();
        if name == "apache" {
            children.push(spawn(space, name, &mut recorder("127.0.0.1", BEHIND_APACHE, &log)));
        }
        children.push(spawn(space, name, &mut start));
        eventually(name, Duration::from_secs(10), || {
            space
                .inside(|| std::net::TcpStream::connect((ORIGINS4, port)).map(drop))
                .map_err(|error| error.to_string())
        });
        Self { name, version, log, children }
    }

    /// All it has seen.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        let text = fs::read(&self.log).expect("log");
        String::from_utf8_lossy(&text).lines().filter_map(|line| seen(self.name, line)).collect()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = Command::new("kill").arg(child.id().to_string()).output();
            let _ = child.wait();
        }
    }
}

fn spawn(space: &Space, name: &str, start: &mut Command) -> Child {
    space.inside(|| start.spawn()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Python's http.server with a log.
fn recorder(address: &str, port: u16, log: &Path) -> Command {
    let mut start = Command::new("/usr/bin/python3");
    start.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/python.py"));
    start.args([address, &port.to_string()]).arg(log).stdin(Stdio::null());
    start
}

fn seen(name: &str, line: &str) -> Option<Seen> {
    let mut words = line.splitn(7, ' ');
    let mut next = || words.next().unwrap_or("-").to_owned();
    let (method, target, host) = (next(), next(), next());
    let (mut length, mut sha1, mut state, smuggled) = (next(), next(), next(), next());
    // nginx gives the body itself, behind the field, between bars.
    let (smuggled, body) = match smuggled.split_once('|') {
        Some((smuggled, body)) if name == "nginx" => (smuggled.to_owned(), body.to_owned()),
        _ => (smuggled, String::new()),
    };
    match name {
        "nginx" => {
            // Its log writes these two as JSON does, so that a body stays on its line.
            let body = body.replace("\\r", "\r").replace("\\n", "\n");
            let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, body.as_bytes());
            (length, sha1) = (body.len().to_string(), hex(hash.as_ref()));
            state = if state == "200" { "whole" } else { "broken" }.to_owned();
        }
        // How HAProxy says that it answered by itself and nothing went wrong.
        "haproxy" => state = if state == "LR" { "whole" } else { "broken" }.to_owned(),
        _ => {}
    }
    let (length, sha1) = (length.parse().unwrap_or(0), sha1.to_ascii_lowercase());
    Some(Seen { method, target, host, length, sha1, whole: state == "whole", smuggled })
}

/// SHA-1, as the origins write it.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[expect(clippy::too_many_lines, reason = "each origin's configuration, one after the other")]
fn program(dir: &Path, log: &Path, name: &str, port: u16) -> (Command, String) {
    let helpers = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
    let write = |file: &str, text: String| {
        fs::write(dir.join(file), text).expect("configuration");
    };
    let (port_text, log_text) = (port.to_string(), log.display());
    let first = |text: String| text.lines().next().unwrap_or_default().to_owned();
    match name {
        "nginx" => {
            write("nginx.conf", format!(
                "daemon off; worker_processes 1; pid nginx.pid; error_log error.log info; user root;
                 events {{ worker_connections 512; }}
                 http {{ client_body_buffer_size 64k; keepalive_requests 100000;
                   log_format seen escape=json '$request_method $request_uri $http_host 0 - $status $http_x_smuggled|$request_body';
                   server {{ listen {ORIGINS4}:{port}; access_log requests seen;
                     location / {{ proxy_pass http://127.0.0.1:9101; }} }}
                   server {{ listen 127.0.0.1:9101; access_log off; default_type text/plain;
                     location / {{ return 200 '$request_uri\\n'; }} }} }}"
            ));
            let nginx =
                std::env::var("SALLYPORT_NGINX").expect("SALLYPORT_NGINX names nginx; ./test sets it");
            let mut start = Command::new(&nginx);
            start.args(["-p", &dir.display().to_string(), "-c", "nginx.conf", "-e", "error.log"]);
            let said = Command::new(&nginx).arg("-v").output().expect("nginx -v").stderr;
            (start, first(String::from_utf8_lossy(&said).replace("nginx version: ", "")))
        }
        "haproxy" => {
            write(
                "haproxy.cfg",
                format!(
                    "global
  log stdout format raw local0
  maxconn 200
defaults
  mode http
  timeout client 60s
  timeout http-request 10s
  timeout http-keep-alive 60s
  option http-ignore-probes
frontend front
  bind {ORIGINS4}:{port}
  log global
  option http-buffer-request
  http-request set-var(txn.url) url
  http-request set-var(txn.host) req.hdr(host)
  http-request set-var(txn.len) req.body_len
  http-request set-var(txn.sha) req.body,sha1,hex
  http-request set-var(txn.smuggled) req.hdr(x-smuggled)
  log-format \"%HM %[var(txn.url)] %[var(txn.host)] %[var(txn.len)] %[var(txn.sha)] %ts %[var(txn.smuggled)]\"
  http-request return status 200 content-type text/plain lf-string \"%[var(txn.url)]\\n\"
"
                ),
            );
            let mut start = Command::new("haproxy");
            start.args(["-db", "-f", "haproxy.cfg"]);
            (start, first(command("haproxy", &["-v"])))
        }
        "apache" => {
            write(
                "apache.conf",
                format!(
                    "ServerRoot {dir}
ServerName origin.walk.test
Listen {ORIGINS4}:{port}
PidFile {dir}/pid
ErrorLog {dir}/error.log
DefaultRuntimeDir {dir}
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
User www-data
Group www-data
KeepAliveTimeout 60
MaxKeepAliveRequests 0
LogFormat \"%m %U%q %{{Host}}i 0 - refused -\" seen
CustomLog {log_text} seen \"expr=%{{REQUEST_STATUS}} -ne 200\"
ProxyPreserveHost On
ProxyPass / http://127.0.0.1:{BEHIND_APACHE}/ nocanon disablereuse=On
",
                    dir = dir.display(),
                ),
            );
            for path in [dir, log] {
                command("chmod", &["a+rwx", &path.display().to_string()]);
            }
            let mut start = Command::new("apache2");
            start.args(["-X", "-f", &dir.join("apache.conf").display().to_string()]);
            let version = first(command("apache2", &["-v"])).replace("Server version: ", "");
            (start, format!("{version}, mod_proxy to http.server"))
        }
        "node" => {
            let mut start = Command::new("node");
            start.arg(helpers.join("node.mjs")).args([&ORIGINS4.to_string(), &port_text]).arg(log);
            (start, format!("Node {}", first(command("node", &["--version"]))))
        }
        "go" => {
            let go = &std::env::var("SALLYPORT_GO").unwrap_or_else(|_| "go".to_owned());
            let (out, source) = (dir.join("origin"), helpers.join("origin.go"));
            let built = Command::new(go)
                .args(["build", "-o"])
                .args([&out, &source])
                .envs([
                    ("GOTOOLCHAIN", "local"),
                    ("CGO_ENABLED", "0"),
                    ("GOFLAGS", ""),
                    ("GO111MODULE", "off"),
                ])
                .env("GOCACHE", std::env::temp_dir().join("sallyport-go-cache"))
                .status();
            assert!(built.expect("go").success(), "the Go origin does not build");
            let mut start = Command::new(out);
            start.arg(format!("{ORIGINS4}:{port}")).arg(log);
            (start, first(command(go, &["version"])))
        }
        _ => {
            let start = recorder(&ORIGINS4.to_string(), port, log);
            (start, format!("{}, http.server", first(command("/usr/bin/python3", &["--version"]))))
        }
    }
}
