//! A filter on trial that cuts a node off from its console: neither can tell the other anything, and both go back.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sallyport_tests::stage::{NODE4, NODE6};
use sallyport_tests::{eventually, objects};
use serde_json::Value;

use super::place::Place;

const TRIAL: Duration = Duration::from_secs(8);
/// What a node waits longer than the trial, and what it takes to look and to connect again.
const LATER: Duration = Duration::from_secs(15 + 20);
const SOON: Duration = Duration::from_secs(10);
/// Where nodes reach the console.
const PORT: u16 = 9444;

/// A node on another machine than its console: where the stage has its clients.
struct Remote<'a> {
    place: &'a Place,
    dir: PathBuf,
    keeper: Child,
}

impl<'a> Remote<'a> {
    fn new(place: &'a Place) -> Self {
        let dir = place.product.dir().join("remote");
        fs::create_dir(&dir).unwrap();
        let (enrolled, said, complaint) = place.product.cli(&["node", "enrol", "remote"]);
        let token = said.lines().find(|line| line.starts_with("sallyport1."));
        let token = token.unwrap_or_else(|| panic!("{enrolled} {said}{complaint}"));
        let file = dir.join("token");
        fs::write(&file, token).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let mut command = Command::new(place.product.program("sallyport-node"));
        command.arg("run").arg("--state-dir").arg(&dir).arg("--run-dir").arg(dir.join("run"));
        command.args(["--interface", "c0", "--threads", "1", "--instance"]);
        command.arg(format!("{}remote", place.product.instance())).arg("--token-file").arg(file);
        let log = fs::File::create(dir.join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let keeper = place.stage.clients.inside(|| command.spawn()).unwrap();
        Self { place, dir, keeper }
    }

    fn status(&self) -> Result<Value, String> {
        let text = fs::read_to_string(self.dir.join("run/status.json")).map_err(|error| error.to_string())?;
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Waits until the status is so.
    fn until(&self, what: &str, within: Duration, is_so: impl Fn(&Value) -> bool) -> Value {
        eventually(what, within, || {
            let status = self.status()?;
            if is_so(&status) { Ok(status) } else { Err(format!("{status}\n{}", self.log())) }
        })
    }

    /// Whether this machine reaches the console.
    fn reaches(&self) -> bool {
        let console = SocketAddr::from((NODE4, PORT));
        let wait = Duration::from_secs(1);
        self.place.stage.clients.inside(|| TcpStream::connect_timeout(&console, wait)).is_ok()
    }

    /// Publishes on trial that the console's address is denied; which revision that is.
    fn cut_off(&self) -> u64 {
        let addresses = [IpAddr::from(NODE4), NODE6.into()].map(|address| address.to_string());
        let file = self.dir.join("cut.yaml");
        fs::write(&file, objects::packet_filter("cut", "Deny", &addresses).to_string()).unwrap();
        let (file, seconds) = (file.to_str().unwrap(), TRIAL.as_secs().to_string());
        let apply = ["apply", "-f", file, "--yes", "--no-wait", "--rollback-after", &seconds];
        let (published, said, complaint) = self.place.product.cli(&apply);
        assert!(published, "{said}{complaint}");
        self.place.api.revisions()[0]
    }
}

impl Drop for Remote<'_> {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
        let instance = format!("{}remote", self.place.product.instance());
        let detach = ["detach", "--force", "--instance", &instance];
        let program = self.place.product.program("sallyport-node").display().to_string();
        let _ = self.place.stage.clients.try_run(&program, &detach);
    }
}

fn applied(status: &Value) -> Option<u64> {
    status["applied"]["revision"].as_u64()
}

#[test]
fn a_node_that_a_filter_on_trial_cuts_off_from_its_console_goes_back_by_itself() {
    let listen = format!("{NODE4}:{PORT}");
    let place = Place::new("filtertrial", &["--node-listen", &listen]);
    let remote = Remote::new(&place);
    let mut last = place.api.revisions()[0];
    // Once with a link that nobody has noticed the end of, once with a worker that has to find the console anew.
    for lose_link in [false, true] {
        remote.until("the node follows", SOON * 2, |status| {
            applied(status) == Some(last) && status["console"]["connected"] == true
        });
        let (begun, confirmed) = (Instant::now(), last);
        let tried = remote.cut_off();
        let status = remote.until("the trial begins", SOON, |status| applied(status) == Some(tried));
        assert_eq!(status["trial"]["back"]["revision"], confirmed, "{status}");
        assert!(!remote.reaches(), "the node's filter drops what the console sends");
        if lose_link {
            let worker = status["worker"].as_u64().unwrap().to_string();
            Command::new("kill").args(["-9", &worker]).status().unwrap();
            remote.until("the link is down", SOON * 2, |status| status["console"]["problem"].is_string());
        }
        eventually("the console goes back", TRIAL + SOON, || match place.api.revisions()[0] {
            newest if newest == tried + 1 => Ok(()),
            newest => Err(newest.to_string()),
        });
        assert!(begun.elapsed() >= TRIAL && applied(&remote.status().unwrap()) == Some(tried));
        last = tried + 1;

        let marker = format!("\"revision\":{tried},\"to\":{confirmed}");
        eventually("the node goes back", LATER, || {
            let log = remote.log();
            let line = log.lines().find(|line| line.contains("going back") && line.contains(&marker));
            line.map(|_| ()).ok_or(log)
        });
        println!("the node went back {:?} after publishing", begun.elapsed());
        assert!(begun.elapsed() < TRIAL + Duration::from_secs(20), "{:?}", begun.elapsed());
        remote.until("the node has heard of it", LATER, |status| applied(status) == Some(last));
        println!("and had what the console went back to {:?} after publishing", begun.elapsed());
        assert!(remote.reaches());
        let path = format!("/api/v1/revisions/{tried}");
        eventually("the console has heard of it", SOON, || {
            let nodes = place.api.get(&path)["nodes"].clone();
            let told = nodes.as_array().unwrap().iter().find(|node| node["node"] == "remote");
            let said = told.and_then(|node| node["refused"].as_str()).unwrap_or_default();
            if said.contains("went back to revision") { Ok(()) } else { Err(nodes.to_string()) }
        });
    }
}
