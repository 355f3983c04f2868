//! grpc-go's interoperability cases: its client through the product to its server, in TLS and in clear text.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sallyport_tests::space::Space;
use sallyport_tests::stage::{ORIGIN_NAME, ORIGINS4};
use sallyport_tests::{eventually, objects};
use serde_json::json;

use super::place::{Place, finish, go_version, tool};
use super::report::Report;

/// All that need no cloud.
const CASES: [&str; 16] = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
    "orca_per_rpc",
    "orca_oob",
];
/// A route's host each, and the server's port: the first is reached over IPv4, the other over IPv6.
const SECURED: (&str, u16) = ("secured", 8451);
const CLEAR: (&str, u16) = ("clear", 8452);
/// What the two last cases want of a client.
const ORCA: &str = r#"{"loadBalancingConfig":[{"test_backend_metrics_load_balancer":{}}]}"#;

/// The server; it ends with this value.
struct Server(Child);

impl Server {
    fn start(space: &Space, program: &Path, port: u16, more: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(["-port", &port.to_string()]).args(more);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self(space.inside(|| command.spawn()).expect("the interop server"));
        eventually("the interop server listens", Duration::from_secs(20), || {
            let tried = space.inside(|| std::net::TcpStream::connect((ORIGINS4, port)));
            tried.map(drop).map_err(|error| error.to_string())
        });
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn grpc_interop() {
    let place = Place::new("grpc");
    let (client, server) = (tool("bin/client"), tool("bin/server"));
    let pair = place.stage.origin_ca.issue(&[ORIGIN_NAME]);
    let (chain, key) = (place.write("origin.pem", &pair.chain), place.write("origin.key", &pair.key));
    let tls = ["-use_tls", "-tls_cert_file", &chain, "-tls_key_file", &key];
    let space = &place.stage.origins;
    let _servers =
        [Server::start(space, &server, SECURED.1, &tls), Server::start(space, &server, CLEAR.1, &[])];

    let secured = objects::origin_group(
        "secured",
        &[format!("https://{ORIGINS4}:{}", SECURED.1)],
        "origins",
        ORIGIN_NAME,
    );
    let clear =
        json!({ "origins": [{ "url": format!("http://{ORIGINS4}:{}", CLEAR.1) }], "clearText": "allow" });
    place.configure(&[
        objects::trust_bundle("origins", &place.stage.origin_ca.pem),
        secured,
        objects::object("OriginGroup", "clear", clear),
        objects::route("secured", &["secured.walk.test"], "front", "secured"),
        objects::route("clear", &["clear.walk.test"], "front", "clear"),
    ]);
    place.hosts(&[SECURED.0], &[CLEAR.0]);

    let mut report = Report {
        suite: "grpc-go, interop".to_owned(),
        version: go_version(&client),
        ran: "every case that needs no cloud, over TLS to a server in TLS and one in clear text".to_owned(),
        ..Report::default()
    };
    for label in [SECURED.0, CLEAR.0] {
        for case in CASES {
            let mut run = place.client(&client, Duration::from_secs(60));
            run.args(["-use_tls", "-use_test_ca", "-ca_file", &place.ca()]);
            run.args([
                "-server_host",
                &format!("{label}.walk.test"),
                "-server_port",
                "443",
                "-test_case",
                case,
            ]);
            if case.starts_with("orca") {
                run.args(["-service_config_json", ORCA]);
            }
            match finish(&place.stage.clients, run) {
                (true, _) => report.passed += 1,
                (false, said) => report.failed.push(format!("{label}, {case}: {said}")),
            }
        }
    }
    report.end("grpc", 2 * CASES.len());
}
