//! The origins: real servers with the application of `tests/peers/apps`.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sallyport_tests::eventually;
use sallyport_tests::space::command;
use sallyport_tests::stage::ORIGINS4;

use super::go_build;
use crate::place::{Place, peer};

/// Their names, which are also the first labels of their hosts, and their ports.
pub(crate) const ORIGINS: [(&str, u16); 6] =
    [("python", 9106), ("nginx", 9101), ("haproxy", 9102), ("apache", 9103), ("node", 9104), ("go", 9105)];

/// One that runs; it ends with this value.
pub(crate) struct Origin {
    pub(crate) name: &'static str,
    pub(crate) version: String,
    child: Child,
}

impl Origin {
    /// Starts it on the files of `dir`, and waits until it takes connections.
    pub(crate) fn start(place: &Place, name: &'static str, port: u16) -> Self {
        let dir = place.dir.join(name);
        fs::create_dir_all(&dir).expect("a directory");
        let (mut start, version) = program(place, &dir, name, port);
        start.current_dir(&dir).stdin(Stdio::null());
        start.stderr(fs::File::create(dir.join("said")).expect("a file"));
        let child = place.stage.origins.inside(|| start.spawn());
        let child = child.unwrap_or_else(|error| panic!("{name}: {error} (./test installs it)"));
        let origin = Self { name, version, child };
        eventually(name, Duration::from_secs(10), || {
            let connected = || std::net::TcpStream::connect((ORIGINS4, port)).map(drop);
            place.stage.origins.inside(connected).map_err(|error| {
                format!("{error}; {}", fs::read_to_string(dir.join("said")).unwrap_or_default())
            })
        });
        origin
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).output();
        let _ = self.child.wait();
    }
}

fn program(place: &Place, dir: &Path, name: &str, port: u16) -> (Command, String) {
    let listen = [ORIGINS4.to_string(), port.to_string(), place.dir.display().to_string()];
    let first = |text: String| text.lines().next().unwrap_or_default().to_owned();
    let write = |file: &str, text: String| fs::write(dir.join(file), text).expect("configuration");
    let file = |name: &str| dir.join(name).display().to_string();
    match name {
        "nginx" => {
            write("nginx.conf", nginx(place, port));
            let nginx =
                std::env::var("SALLYPORT_NGINX").expect("SALLYPORT_NGINX names nginx; ./test sets it");
            let mut start = Command::new(&nginx);
            start.args(["-p", &dir.display().to_string(), "-c", "nginx.conf", "-e", "error.log"]);
            let said = Command::new(&nginx).arg("-v").output().expect("nginx -v").stderr;
            (start, first(String::from_utf8_lossy(&said).replace("nginx version: nginx/", "")))
        }
        "haproxy" => {
            write("haproxy.cfg", haproxy(port));
            let mut start = Command::new("haproxy");
            start.args(["-db", "-f", &file("haproxy.cfg")]);
            let version = first(command("haproxy", &["-v"])).replace("HAProxy version ", "");
            (start, version.split(' ').next().unwrap_or_default().to_owned())
        }
        "apache" => {
            write("apache.conf", apache(place, dir, port));
            let mut start = Command::new("apache2");
            start.args(["-X", "-f", &file("apache.conf")]);
            (start, first(command("apache2", &["-v"])).replace("Server version: Apache/", ""))
        }
        "node" => {
            let mut start = Command::new("node");
            start.arg(peer("apps/app.mjs")).args(listen);
            (start, first(command("node", &["--version"])))
        }
        "go" => {
            let mut start = Command::new(go_build(&peer("apps/app.go"), &dir.join("app")));
            start.args(listen);
            (start, super::go_version())
        }
        _ => {
            let mut start = Command::new("/usr/bin/python3");
            start.arg(peer("apps/app.py")).args(listen);
            (start, first(command("/usr/bin/python3", &["--version"])).replace("Python ", ""))
        }
    }
}

/// What the proxies among them do not serve by themselves.
fn behind() -> String {
    let port = ORIGINS.iter().find(|(name, _)| *name == "python").map_or(0, |(_, port)| *port);
    format!("{ORIGINS4}:{port}")
}

fn nginx(place: &Place, port: u16) -> String {
    let (dir, behind) = (place.dir.display(), behind());
    format!(
        "daemon off; worker_processes 1; pid nginx.pid; error_log error.log info; user root;
         events {{ worker_connections 512; }}
         http {{ access_log off; default_type text/plain; sendfile on; keepalive_requests 100000;
           server {{ listen {ORIGINS4}:{port}; root {dir}; client_max_body_size 0; add_header X-Origin nginx;
             location = /text {{ return 200 \"hello\\n\"; }}
             location = /download {{ }}
             location = /packed {{ add_header X-Origin nginx; add_header Content-Encoding gzip; }}
             location = /trailers {{ alias {dir}/body; add_header X-Origin nginx; add_trailer X-Trailer end; }}
             location / {{ proxy_pass http://{behind}; proxy_http_version 1.1; proxy_buffering off;
               proxy_request_buffering off; proxy_hide_header X-Origin; }} }} }}"
    )
}

fn haproxy(port: u16) -> String {
    let behind = behind();
    format!(
        "global\n  maxconn 1000\n\ndefaults\n  mode http\n  timeout client 60s\n  timeout server 60s\n  \
         timeout connect 5s\n  option http-no-delay\n\nlisten origin\n  bind {ORIGINS4}:{port}\n  \
         http-response set-header X-Origin haproxy\n  server app {behind}\n"
    )
}

fn apache(place: &Place, dir: &Path, port: u16) -> String {
    let (files, dir, behind) = (place.dir.display(), dir.display(), behind());
    let modules: String = ["mpm_event", "authz_core", "headers", "mime", "alias", "proxy", "proxy_http"]
        .iter()
        .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"))
        .collect();
    format!(
        "ServerRoot {dir}\nServerName origin.walk.test\nListen {ORIGINS4}:{port}\nPidFile {dir}/pid\n\
         ErrorLog {dir}/error.log\nDefaultRuntimeDir {dir}\n{modules}User www-data\nGroup www-data\n\
         TypesConfig /dev/null\nKeepAliveTimeout 60\nMaxKeepAliveRequests 0\nHeader always unset X-Origin\nHeader set X-Origin apache\n\
         DocumentRoot {files}/public\n<Directory {files}/public>\n  Require all granted\n</Directory>\n\
         <Location /packed>\n  Header set Content-Encoding gzip\n</Location>\n\
         ProxyPass /text !\nProxyPass /download !\nProxyPass /packed !\n\
         ProxyPass / http://{behind}/ flushpackets=on\n"
    )
}
