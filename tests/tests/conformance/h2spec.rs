//! h2spec: HTTP/2 (RFC 9113's predecessor, 7540) and HPACK (RFC 7541), strict cases too.

use std::fs;
use std::time::Duration;

use sallyport_tests::stage::HOST;

use super::place::{Place, finish, go_version, tool};
use super::report::Report;

/// One case of h2spec's JUnit report.
#[derive(Debug, PartialEq, Eq)]
struct Case {
    name: String,
    /// What was expected and seen instead.
    wrong: Option<String>,
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
    let program = tool("bin/h2spec");
    let mut h2spec = place.client(&program, Duration::from_secs(280));
    // The certificate is verified: there is no --insecure.
    h2spec.args(["--host", HOST, "--port", "443", "--tls", "--strict", "--timeout", "3"]);
    h2spec.args(["--junit-report", "h2spec.xml"]);
    let (_, said) = finish(&place.stage.clients, h2spec);
    let junit = fs::read(place.dir.join("h2spec.xml"));
    let junit = junit.unwrap_or_else(|error| panic!("h2spec wrote no report: {error}\n{said}"));
    let cases = read(&String::from_utf8_lossy(&junit));
    let mut report = Report {
        suite: "h2spec, strict".to_owned(),
        version: go_version(&program),
        ran: "every case, over TLS, certificate verified".to_owned(),
        ..Report::default()
    };
    for case in cases {
        match case.wrong {
            None => report.passed += 1,
            Some(wrong) => report.failed.push(format!("{}: {wrong}", case.name)),
        }
    }
    report.end("h2spec", 146);
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
