//! h2spec: HTTP/2 (RFC 9113's predecessor, 7540) and HPACK (RFC 7541), strict cases too.

use std::fs;
use std::path::Path;
use std::time::Duration;

use sallyport_tests::objects;
use sallyport_tests::stage::{CLIENT4, HOST};
use serde_json::json;

use super::place::{Place, finish, go_version, tool};
use super::report::Report;

/// Where HTTP/2 is spoken without TLS.
const CLEAR: u16 = 8080;

/// One case of h2spec's JUnit report.
#[derive(Debug, PartialEq, Eq)]
struct Case {
    name: String,
    /// What was expected and seen instead.
    wrong: Option<String>,
}

impl Case {
    /// No preface, on a port that speaks HTTP/1.1 too: the answer is HTTP/1.1's. h2spec wants GOAWAY, which may be left out
    /// (RFC 9113, 3.4).
    fn is_answered_by_http11(&self) -> bool {
        self.name == "http2/3.5 Sends invalid connection preface"
            && self.wrong.as_ref().is_some_and(|wrong| wrong.contains("looked like an HTTP/1.1 header"))
    }
}

/// Reads the report. h2spec writes a fixed form of it: no library is needed for the few escapes in there.
fn read(report: &str) -> Vec<Case> {
    let attribute = |text: &str, name: &str| {
        let (_, rest) = text.split_once(&format!(" {name}=\"")).unwrap_or_default();
        plain(rest.split('"').next().unwrap_or_default())
    };
    let mut cases = Vec::new();
    for piece in report.split("<testcase").skip(1) {
        let (head, rest) = piece.split_once('>').expect("the end of a tag");
        let name = format!("{} {}", attribute(head, "package"), attribute(head, "classname"));
        let body = rest.split("</testcase>").next().unwrap_or_default();
        // What is neither passed nor skipped counts as failed: a case that did not run did not pass.
        let wrong = ["<error", "<skipped"].iter().find_map(|tag| {
            let (_, rest) = body.split_once(tag)?;
            let (_, text) = rest.split_once('>')?;
            Some(format!("{} {}", &tag[1..], plain(text.split('<').next().unwrap_or_default())))
        });
        cases.push(Case { name, wrong });
    }
    cases
}

fn plain(text: &str) -> String {
    let named = [
        ("&#34;", "\""),
        ("&#39;", "'"),
        ("&#xA;", "\n"),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&amp;", "&"),
    ];
    named.into_iter().fold(text.to_owned(), |text, (name, letter)| text.replace(name, letter))
}

#[test]
fn h2spec_strict() {
    let place = Place::new("h2spec");
    let origin = place.stage.origin("one", 8443);
    place.stage.configure(&place.product, &place.api, &[origin.url()]);
    let http = json!({ "h2cPrefixes": [format!("{CLIENT4}/32")], "clearText": "allow" });
    let listener = json!({ "port": CLEAR, "protocol": "HTTP", "http": http });
    let mut route = objects::route("shop", &[HOST], "front", "group");
    route["spec"]["listeners"] = json!(["https", "clear"]);
    let objects = [objects::object("Listener", "clear", listener), route];
    place.product.applied(place.api.apply(&objects));
    let program = tool("bin/h2spec");
    // The certificate is verified: there is no --insecure.
    let mut cases = run(&place, &program, &["--port", "443", "--tls"]);
    let clear = run(&place, &program, &["--port", &CLEAR.to_string()]);
    let (other, clear): (Vec<_>, Vec<_>) = clear.into_iter().partition(Case::is_answered_by_http11);
    assert_eq!(other.len(), 1, "{other:?}");
    cases.extend(clear.into_iter().map(|case| Case { name: format!("{}, clear text", case.name), ..case }));
    let mut report = Report {
        suite: "h2spec, strict".to_owned(),
        version: go_version(&program),
        ran: "every case, over TLS, certificate verified, and all but one again in clear text".to_owned(),
        ..Report::default()
    };
    for case in cases {
        match case.wrong {
            None => report.passed += 1,
            Some(wrong) => report.failed.push(format!("{}: {wrong}", case.name)),
        }
    }
    report.end("h2spec", 146 + 145);
}

/// Every case, against a port.
fn run(place: &Place, program: &Path, at: &[&str]) -> Vec<Case> {
    let file = place.dir.join("h2spec.xml");
    let _ = fs::remove_file(&file);
    let mut h2spec = place.client(program, Duration::from_secs(280));
    h2spec.args(["--host", HOST, "--strict", "--timeout", "3", "--junit-report", "h2spec.xml"]).args(at);
    let (_, said) = finish(&place.stage.clients, h2spec);
    let junit = fs::read(file).unwrap_or_else(|error| panic!("h2spec wrote no report: {error}\n{said}"));
    read(&String::from_utf8_lossy(&junit))
}

#[test]
fn what_h2spec_reports_is_read() {
    let cases = read(concat!(
        "<testsuite><testcase package=\"generic/1\" classname=\"Sends &lt;a&gt;\" time=\"0.1\"></testcase>\n",
        "<testcase package=\"http2/5\" classname=\"b\" time=\"0.1\">\n<skipped></skipped>\n</testcase>\n",
        "<testcase package=\"hpack/2\" classname=\"c\" time=\"0.1\">\n<error>GOAWAY\nTimeout</error>\n</testcase>",
    ));
    let case =
        |name: &str, wrong: Option<&str>| Case { name: name.to_owned(), wrong: wrong.map(str::to_owned) };
    let right = [
        case("generic/1 Sends <a>", None),
        case("http2/5 b", Some("skipped ")),
        case("hpack/2 c", Some("error GOAWAY\nTimeout")),
    ];
    assert_eq!(cases, right);
}
