//! Sallyport: the real programs, configured as an operator would. The console is not measured; it is not on the path.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::peers::{Guard, Peer, Place};
use crate::{Result, certs, cpu, free_port};

/// Starts a console and a node with one worker thread, applies listener, certificate, route and origin group.
///
/// The node runs on plain sockets: the load travels over loopback, where there is no interface to filter on.
pub(crate) fn start(place: &Place<'_>, bin_dir: &Path, listen: SocketAddr) -> Result<Peer> {
    let dir = place.dir("sallyport")?;
    let sallyport = bin_dir.join("sallyport");
    let state = dir.display().to_string();
    let node_link = free_port()?.to_string();
    let console = Command::new(&sallyport)
        .args(["console", "--state-dir", &state, "--first-listener", &free_port()?.port().to_string()])
        .args(["--console-listen", &free_port()?.to_string(), "--node-listen", &node_link])
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(dir.join("console.out"))?)
        .stderr(std::fs::File::create(dir.join("console.log"))?)
        .spawn()
        .map_err(|error| format!("{}: {error}", sallyport.display()))?;
    let console = Guard(console);
    await_file(&dir.join("console/cli.json"))?;

    let token = cli(&sallyport, &state, &["node", "enrol", "bench"])?;
    let token =
        token.split_whitespace().find(|word| word.starts_with("sallyport1.")).ok_or("no enrolment token")?;
    let token_file = dir.join("token");
    std::fs::write(&token_file, token)?;
    std::fs::set_permissions(&token_file, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let node = start_node(&bin_dir.join("sallyport-node"), &dir, &token_file)?;

    let objects = dir.join("objects.yaml");
    std::fs::write(&objects, objects_text(place, listen)?)?;
    cli(&sallyport, &state, &["apply", "--yes", "-f", &objects.display().to_string()])?;
    let version = super::version(Command::new(&sallyport).arg("--version"))?;
    Peer::ready("Sallyport", version, listen, node, vec![console])
}

fn start_node(program: &Path, dir: &Path, token_file: &Path) -> Result<Child> {
    let text = |name: &str| dir.join(name).display().to_string();
    Ok(cpu::pinned_command(program)
        .args(["run", "--no-kernel", "--threads", "1", "--instance", "bench"])
        .args(["--state-dir", &text(""), "--run-dir", &text("run"), "--access-log", &text("access.log")])
        .args(["--token-file", &token_file.display().to_string()])
        .args(["--metrics-listen", &free_port()?.to_string()])
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(dir.join("node.out"))?)
        .stderr(std::fs::File::create(dir.join("node.log"))?)
        .spawn()?)
}

fn objects_text(place: &Place<'_>, listen: SocketAddr) -> Result<String> {
    let object = |kind: &str, name: &str, spec: serde_json::Value| json!({ "apiVersion": "sallyport.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec });
    let read = |path: &Path| std::fs::read_to_string(path);
    let mut documents = vec![
        object("TrustBundle", "bench", json!({ "certificates": read(&place.certs.ca_file)? })),
        object(
            "Listener",
            "bench",
            json!({
                "addresses": [listen.ip().to_string()], "port": listen.port(),
                // Ten thousand idle connections and more come from one address.
                "limits": { "connectionsPerAddress": 20_000, "idleMs": 300_000 },
            }),
        ),
        object(
            "OriginGroup",
            "bench",
            json!({
                "origins": [{ "url": format!("https://{}", place.origin) }],
                "tls": { "trustBundle": "bench", "expectedName": certs::ORIGIN },
            }),
        ),
    ];
    for (at, host) in place.hosts.iter().enumerate() {
        let name = format!("h{at}");
        let pair = json!({ "chain": read(&host.chain_file)?, "privateKey": read(&host.key_file)? });
        documents.push(object("Certificate", &name, pair));
        documents.push(object(
            "Route",
            &name,
            json!({
                "listeners": ["bench"], "hostnames": [host.name], "certificate": name, "originGroup": "bench",
            }),
        ));
    }
    // What begins with a brace is taken as one JSON document.
    Ok(documents.iter().map(|document| format!("---\n{document}\n")).collect())
}

fn cli(program: &Path, state: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).args(["--state-dir", state]).output()?;
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout)?),
        false => {
            Err(format!("sallyport {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr))
                .into())
        }
    }
}

fn await_file(path: &Path) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(20);
    while !path.exists() {
        if Instant::now() > until {
            return Err(format!("{} is not there after 20 seconds", path.display()).into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
