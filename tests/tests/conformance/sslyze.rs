//! sslyze: what the TLS listener accepts, and old weaknesses, with an ECDSA and an RSA certificate.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use sallyport_tests::objects;
use sallyport_tests::space::command;
use sallyport_tests::stage::ORIGIN_NAME;
use serde_json::{Value, json};

use super::place::{Place, finish, tool};
use super::report::Report;

/// What sslyze is asked. Not asked for: HTTP's headers, which are the origin's.
const SCANS: [&str; 17] = [
    "--sslv2",
    "--sslv3",
    "--tlsv1",
    "--tlsv1_1",
    "--tlsv1_2",
    "--tlsv1_3",
    "--certinfo",
    "--heartbleed",
    "--openssl_ccs",
    "--robot",
    "--reneg",
    "--compression",
    "--early_data",
    "--fallback",
    "--elliptic_curves",
    "--ems",
    "--resum",
];

/// Cipher suites with forward secrecy and authenticated encryption; anything else is a finding.
const SUITES: [&str; 9] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];
/// Curves for the key exchange; anything else is a finding. sslyze knows no post-quantum groups.
const CURVES: [&str; 3] = ["X25519", "secp256r1", "secp384r1"];

/// What is a finding above informational when it differs: a scan, where in its result, and what is right.
/// Informational are sessions (resumed or not), stapling and transparency, and that public stores do not know a private CA.
const RIGHT: [(&str, &str, Value); 13] = [
    ("ssl_2_0_cipher_suites", "/is_tls_version_supported", Value::Bool(false)),
    ("ssl_3_0_cipher_suites", "/is_tls_version_supported", Value::Bool(false)),
    ("tls_1_0_cipher_suites", "/is_tls_version_supported", Value::Bool(false)),
    ("tls_1_1_cipher_suites", "/is_tls_version_supported", Value::Bool(false)),
    ("tls_1_2_cipher_suites", "/is_tls_version_supported", Value::Bool(true)),
    ("tls_1_3_cipher_suites", "/is_tls_version_supported", Value::Bool(true)),
    ("tls_compression", "/supports_compression", Value::Bool(false)),
    ("tls_1_3_early_data", "/supports_early_data", Value::Bool(false)),
    ("openssl_ccs_injection", "/is_vulnerable_to_ccs_injection", Value::Bool(false)),
    ("tls_fallback_scsv", "/supports_fallback_scsv", Value::Bool(true)),
    ("heartbleed", "/is_vulnerable_to_heartbleed", Value::Bool(false)),
    ("session_renegotiation", "/is_vulnerable_to_client_renegotiation_dos", Value::Bool(false)),
    ("tls_extended_master_secret", "/supports_ems_extension", Value::Bool(true)),
];

/// What came of each check of one server, by its name.
type Findings = BTreeMap<String, Result<(), String>>;

fn check(findings: &mut Findings, name: &str, right: bool, seen: impl std::fmt::Display) {
    findings.insert(name.to_owned(), if right { Ok(()) } else { Err(seen.to_string()) });
}

/// Judges sslyze's result for one server.
fn judge(scans: &Value) -> Findings {
    let mut findings = Findings::new();
    let names = scans.as_object().into_iter().flatten().filter(|(name, _)| *name != "http_headers");
    for (name, scan) in names {
        check(
            &mut findings,
            &format!("{name} was done"),
            scan["status"] == "COMPLETED",
            &scan["error_reason"],
        );
    }
    for (scan, place, right) in RIGHT {
        let seen = scans[scan]["result"].pointer(place).unwrap_or(&Value::Null);
        check(&mut findings, &format!("{scan}{place}"), *seen == right, seen);
    }
    let listed = |scan: &str, list: &str, name: &str| -> Vec<String> {
        let all = scans[scan]["result"][list].as_array().cloned().unwrap_or_default();
        all.iter().map(|one| one.pointer(name).and_then(Value::as_str).unwrap_or("?").to_owned()).collect()
    };
    for (scan, list, name, allowed) in [
        ("tls_1_2_cipher_suites", "accepted_cipher_suites", "/cipher_suite/name", &SUITES[..]),
        ("tls_1_3_cipher_suites", "accepted_cipher_suites", "/cipher_suite/name", &SUITES),
        ("elliptic_curves", "supported_curves", "/name", &CURVES),
    ] {
        let seen = listed(scan, list, name);
        let right = !seen.is_empty() && seen.iter().all(|one| allowed.contains(&one.as_str()));
        check(&mut findings, &format!("{scan}/{list}"), right, seen.join(" "));
    }
    let robot = &scans["robot"]["result"]["robot_result"];
    let safe = robot.as_str().is_some_and(|result| result.starts_with("NOT_VULNERABLE"));
    check(&mut findings, "robot", safe, robot);
    let renegotiation = &scans["session_renegotiation"]["result"]["supports_secure_renegotiation"];
    check(&mut findings, "secure renegotiation", *renegotiation == true, renegotiation);
    certificate(&mut findings, &scans["certificate_info"]["result"]);
    findings
}

/// sslyze writes an RSA key's modulus as a number, which is longer than serde_json takes; nothing here needs it.
fn short_numbers(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for piece in json.split_inclusive(|letter: char| !letter.is_ascii_digit()) {
        let digits = piece.trim_end_matches(|letter: char| !letter.is_ascii_digit());
        let rest = piece.strip_prefix(digits).unwrap_or_default();
        out += if digits.len() > 300 { "0" } else { digits };
        out += rest;
    }
    out
}

/// Every chain that the server shows.
fn certificate(findings: &mut Findings, result: &Value) {
    let chains = result["certificate_deployments"].as_array().cloned().unwrap_or_default();
    check(findings, "a certificate", !chains.is_empty(), "none");
    for (at, chain) in chains.iter().enumerate() {
        for (name, right) in [
            ("received_chain_has_valid_order", true),
            ("received_chain_contains_anchor_certificate", false),
            ("verified_chain_has_sha1_signature", false),
        ] {
            check(findings, &format!("chain {at}: {name}"), chain[name] == right, &chain[name]);
        }
        let paths = chain["path_validation_results"].as_array().cloned().unwrap_or_default();
        let ours = |path: &&Value| path["trust_store"]["name"] == "Supplied CA file";
        let trusted = paths.iter().find(ours).is_some_and(|path| path["was_validation_successful"] == true);
        check(findings, &format!("chain {at}: verified by its authority"), trusted, "not verified");
    }
}

/// A certificate for `rsa.walk.test` as an operator brings it, made by OpenSSL; its authority is left in `rsa-ca.pem`.
fn rsa(place: &Place) -> Value {
    let file = |name: &str| place.dir.join(name).display().to_string();
    let (ca, ca_key, leaf, key) = (file("rsa-ca.pem"), file("rsa-ca.key"), file("rsa.pem"), file("rsa.key"));
    let make = |more: &[&str]| {
        let common = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "90", "-sha256"];
        command("openssl", &[&common, more].concat());
    };
    make(&[
        "-keyout",
        &ca_key,
        "-out",
        &ca,
        "-subj",
        "/CN=an authority",
        "-addext",
        "keyUsage=critical,keyCertSign",
    ]);
    let extensions = ["subjectAltName=DNS:rsa.walk.test", "basicConstraints=critical,CA:FALSE"];
    let issuer =
        ["-CA", &ca, "-CAkey", &ca_key, "-subj", "/CN=rsa.walk.test", "-keyout", &key, "-out", &leaf];
    make(&[&issuer[..], &["-addext", extensions[0], "-addext", extensions[1]]].concat());
    json!({ "chain": read(&leaf), "privateKey": read(&key) })
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn sslyze() {
    let place = Place::new("sslyze");
    let origin = place.stage.origin("one", 8443);
    place.hosts(&["shop", "rsa"], &[]);
    let rsa = rsa(&place);
    let all = [
        objects::trust_bundle("origins", &place.stage.origin_ca.pem),
        objects::origin_group("group", &[origin.url()], "origins", ORIGIN_NAME),
        objects::object("Certificate", "own", json!({ "internalCa": { "hostnames": ["shop.walk.test"] } })),
        objects::object("Certificate", "rsa", rsa),
        objects::route("shop", &["shop.walk.test"], "own", "group"),
        objects::route("rsa", &["rsa.walk.test"], "rsa", "group"),
    ];
    place.product.applied(place.api.apply(&all));
    let authority = place.product.dir().join("state/console/ca.pem").display().to_string();
    let rsa_authority = place.dir.join("rsa-ca.pem").display().to_string();
    let authorities = place.write("authorities.pem", &(read(&authority) + &read(&rsa_authority)));
    let targets = ["shop.walk.test:443", "rsa.walk.test:443"];
    let program = tool("suites/bin/sslyze");
    let mut sslyze = place.client(&program, Duration::from_secs(200));
    sslyze.args(SCANS).args(["--mozilla_config", "intermediate", "--json_out", "sslyze.json"]);
    sslyze.args(["--certinfo_ca_file", &authorities]).args(targets);
    let (_, said) = finish(&place.stage.clients, sslyze);
    let result = fs::read_to_string(place.dir.join("sslyze.json"));
    let result = result.unwrap_or_else(|error| panic!("sslyze wrote no report: {error}\n{said}"));
    let result: Value = serde_json::from_str(&short_numbers(&result)).expect("sslyze's report");
    let mut report = Report {
        suite: "sslyze".to_owned(),
        version: result["sslyze_version"].as_str().unwrap_or("?").to_owned(),
        ran: "all scans of TLS, ECDSA and RSA certificates; Mozilla's intermediate configuration".to_owned(),
        ..Report::default()
    };
    let servers = result["server_scan_results"].as_array().cloned().unwrap_or_default();
    for target in targets {
        let named =
            |server: &&Value| target.strip_suffix(":443") == server["server_location"]["hostname"].as_str();
        let server = servers.iter().find(named).unwrap_or(&Value::Null);
        let mut findings = judge(&server["scan_result"]);
        let compliant = said.lines().any(|line| line.trim() == format!("{target}: OK - Compliant."));
        check(&mut findings, "Mozilla's intermediate", compliant, &said);
        for (name, finding) in findings {
            match finding {
                Ok(()) => report.passed += 1,
                Err(seen) => report.failed.push(format!("{target} {name}: {seen}")),
            }
        }
    }
    report.end("sslyze", 2 * 41);
}

#[test]
fn a_weakness_is_a_finding() {
    let failed = |scans: &Value| -> Vec<String> {
        let findings = judge(scans).into_iter();
        findings.filter_map(|(name, finding)| finding.is_err().then_some(name)).collect()
    };
    let scan = |result: Value| json!({ "status": "COMPLETED", "error_reason": null, "result": result });
    let weak = scan(json!({ "is_tls_version_supported": true, "accepted_cipher_suites":
        [{ "cipher_suite": { "name": "TLS_RSA_WITH_AES_128_CBC_SHA" } }] }));
    let found = failed(&json!({
        "tls_1_2_cipher_suites": weak,
        "heartbleed": scan(json!({ "is_vulnerable_to_heartbleed": true })),
        "tls_compression": scan(json!({ "supports_compression": false })),
        "robot": { "status": "ERROR", "error_reason": "BUG_IN_SSLYZE", "result": null },
    }));
    for wrong in [
        "tls_1_2_cipher_suites/accepted_cipher_suites",
        "heartbleed/is_vulnerable_to_heartbleed",
        "robot was done",
        "a certificate",
    ] {
        assert!(found.iter().any(|name| name == wrong), "{wrong}: {found:?}");
    }
    assert!(!found.iter().any(|name| name.starts_with("tls_compression")), "{found:?}");
}
