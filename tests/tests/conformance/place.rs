//! The product, and a place where a suite's programs find it by name and trust its certificate.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sallyport_tests::api::Api;
use sallyport_tests::objects;
use sallyport_tests::product::Product;
use sallyport_tests::space::Space;
use sallyport_tests::stage::{NODE4, NODE6, ORIGIN_NAME, ORIGINS4, Stage};
use serde_json::Value;

/// The product, not yet configured.
pub(crate) struct Place {
    pub(crate) stage: Stage,
    pub(crate) product: Product,
    pub(crate) api: Api,
    /// For files of the suite; goes with this value, unless the test failed.
    pub(crate) dir: PathBuf,
}

impl Place {
    /// `name` names namespaces, pins and directory: a short one of the suite's own.
    pub(crate) fn new(name: &str) -> Self {
        let stage = Stage::new(name);
        let dir = PathBuf::from(format!("/var/tmp/sallyport-test-{name}-suite"));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a directory");
        let mut product = stage.product();
        let api = product.ready();
        let place = Self { stage, product, api, dir };
        place.write("ca.pem", &place.stage.front_ca.pem);
        place.hosts(&["shop"], &[]);
        place
    }

    /// The names `LABEL.walk.test` that clients resolve to the node, by its address of each version.
    pub(crate) fn hosts(&self, over4: &[&str], over6: &[&str]) {
        let mut text = format!("127.0.0.1 localhost\n::1 localhost\n{ORIGINS4} {ORIGIN_NAME}\n");
        for label in over4 {
            let _ = writeln!(text, "{NODE4} {label}.walk.test");
        }
        for label in over6 {
            let _ = writeln!(text, "{NODE6} {label}.walk.test");
        }
        self.write("hosts", &text);
    }

    /// Applies a certificate for all names beside `objects`, and waits for the node.
    pub(crate) fn configure(&self, objects: &[Value]) {
        let mut all = vec![objects::certificate("front", &self.stage.front())];
        all.extend_from_slice(objects);
        self.product.applied(self.api.apply(&all));
    }

    /// Writes a file of the suite; its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.dir.join(name);
        fs::write(&path, text).expect("a file of the suite");
        path.display().to_string()
    }

    /// The authority that certified what the product shows.
    pub(crate) fn ca(&self) -> String {
        self.dir.join("ca.pem").display().to_string()
    }

    /// A program that resolves [`Place::hosts`], and believes in the product's authority where it goes by
    /// `SSL_CERT_FILE`. It is killed when it takes longer. For [`finish`], or to be spawned inside a namespace.
    pub(crate) fn client(&self, program: &Path, within: Duration) -> Command {
        let mut command = Command::new("unshare");
        // A mount namespace of its own, so that only this program sees these hosts.
        command.args(["--mount", "--propagation", "private", "sh", "-c"]);
        command.arg("mount --bind \"$0\" /etc/hosts && exec \"$@\"").arg(self.dir.join("hosts"));
        command.args(["timeout", "-k", "5", &within.as_secs().to_string()]).arg(program);
        command.env("SSL_CERT_FILE", self.ca()).current_dir(&self.dir);
        command
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Runs a [`Place::client`] to its end: success, and all that it said.
pub(crate) fn finish(space: &Space, mut client: Command) -> (bool, String) {
    let output = space.inside(|| client.output()).expect("unshare, of util-linux");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// Where `./test` installs what the suites need.
pub(crate) fn tools() -> PathBuf {
    let tools = std::env::var_os("SALLYPORT_TOOLS").map(PathBuf::from);
    tools.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools"))
}

/// A program there.
pub(crate) fn tool(path: &str) -> PathBuf {
    let tool = tools().join(path);
    assert!(tool.exists(), "{} is not there; ./test conformance installs it", tool.display());
    tool
}

/// A script of the peers.
pub(crate) fn peer(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(name)
}

/// The version of a program that Go built, as its module has it.
pub(crate) fn go_version(program: &Path) -> String {
    let go = std::env::var("SALLYPORT_GO").unwrap_or_else(|_| "go".to_owned());
    let output = Command::new(&go).args(["version", "-m"]).arg(program).output().expect("go version -m");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let of = |kind: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(kind));
        line.and_then(|line| line.split_whitespace().nth(1)).map(str::to_owned)
    };
    of("mod\t").unwrap_or_else(|| panic!("{}: {text}", program.display()))
}
