//! A route's filters, end to end.

use model::transform::{Answer, Field, FieldChange, Fixed, PathChange, Redirect, Transform};

use super::bench::{Bench, answering, local};

fn one(name: &str, value: &str) -> Field {
    Field { name: name.parse().unwrap(), value: value.parse().unwrap() }
}

fn path(text: &str) -> model::route::NormalPath {
    model::route::NormalPath::parse(text).unwrap()
}

fn answered(answer: Answer, responses: FieldChange) -> Bench {
    Bench::with(&["127.0.0.1:1".parse().unwrap()], |snapshot| {
        snapshot.routes[0].origin_group = None;
        snapshot.routes[0].transform =
            Transform { answer: Some(answer), response_headers: responses, ..Transform::default() };
    })
}

#[test]
fn requests_and_responses_change_on_the_way_and_trust_does_not() {
    local(|| async {
        let (address, seen) = answering(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nServer: secret/1.2\r\nX-Frame-Options: ALLOW\r\n\r\nhi",
        )
        .await;
        let bench = Bench::with(&[address], |snapshot| {
            snapshot.routes[0].transform = Transform {
                request_headers: FieldChange {
                    set: vec![one("X-Tenant", "shop")],
                    add: vec![one("Accept-Language", "en")],
                    remove: vec!["cookie".parse().unwrap()],
                },
                response_headers: FieldChange {
                    set: vec![one("X-Frame-Options", "DENY")],
                    add: vec![one("Set-Cookie", "a=1")],
                    remove: vec!["server".parse().unwrap()],
                },
                hostname: Some("inner.test".parse().unwrap()),
                path: Some(PathChange::Prefix { from: path("/x"), to: path("/v2/") }),
                answer: None,
            };
        });
        let request = |more: &str| {
            format!(
                "GET /x/y?q=1 HTTP/1.1\r\nHost: a.test\r\nx-tenant: evil\r\nX-TENANT: worse\r\nCookie: s=1\r\n\
                 Accept-Language: de\r\n{more}\r\n"
            )
        };
        let answer = bench.ask(&[request(""), request("Connection: close, X-Tenant\r\n")].concat()).await;
        for (field, count) in [
            ("Server", 0),
            ("X-Frame-Options: DENY\r\n", 2),
            ("ALLOW", 0),
            ("Set-Cookie: a=1\r\n", 2),
            ("hi", 2),
        ] {
            assert_eq!(answer.matches(field).count(), count, "{field} {answer}");
        }
        for request in seen.borrow().iter() {
            assert!(request.starts_with("GET /v2/y?q=1 HTTP/1.1\r\nHost: inner.test\r\n"), "{request}");
            for (field, there) in [
                ("X-Tenant: shop\r\n", true),
                ("evil", false),
                ("worse", false),
                ("Cookie", false),
                ("Accept-Language: de\r\n", true),
                ("Accept-Language: en\r\n", true),
                ("X-Forwarded-Host: a.test\r\n", true),
                (";host=\"a.test\";", true),
            ] {
                assert_eq!(request.contains(field), there, "{field} {request}");
            }
        }
        let told = bench.told(2).await;
        assert_eq!((told[0].status, told[0].path.as_str()), (200, "/x/y"));
    });
}

#[test]
fn redirects_need_no_origin_and_keep_the_query() {
    local(|| async {
        let redirect = Redirect {
            scheme: None,
            hostname: Some("new.test".parse().unwrap()),
            port: Some(8443),
            path: Some(PathChange::Prefix { from: path("/old"), to: path("/") }),
            status: 308,
        };
        let change = FieldChange { set: vec![one("Cache-Control", "max-age=60")], ..FieldChange::default() };
        let bench = answered(Answer::Redirect(redirect), change);
        let answer = bench
            .ask(
                "GET /old/a?b=%0d%0a HTTP/1.1\r\nHost: a.test\r\n\r\n\
                 HEAD /old HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n",
            )
            .await;
        let (first, second) = answer.split_once("https://new.test:8443/a?b=%0d%0a\n").unwrap();
        assert!(first.starts_with("HTTP/1.1 308 Permanent Redirect\r\n"), "{answer}");
        assert!(first.contains("Location: https://new.test:8443/a?b=%0d%0a\r\n"), "{answer}");
        assert!(first.contains("Cache-Control: max-age=60\r\n"), "{answer}");
        assert!(second.contains("Location: https://new.test:8443/\r\n"), "{answer}");
        assert!(second.ends_with("\r\n\r\n"), "a HEAD has no body: {answer}");
        let told = bench.told(2).await;
        assert_eq!((told[0].status, told[0].refusal), (308, None));
    });
}

#[test]
fn fixed_responses() {
    local(|| async {
        let fixed = |status, body: &str| Fixed {
            status,
            content_type: Some("application/json".parse().unwrap()),
            body: body.to_owned(),
        };
        let last = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc";
        let bench = answered(Answer::Fixed(fixed(451, "{}")), FieldChange::default());
        let answer = bench.ask(last).await;
        assert!(answer.starts_with("HTTP/1.1 451 "), "{answer}");
        assert!(answer.contains("Content-Type: application/json\r\n"), "{answer}");
        assert!(answer.contains("Content-Length: 2\r\n") && answer.ends_with("\r\n\r\n{}"), "{answer}");
        let bench =
            answered(Answer::Fixed(Fixed { content_type: None, ..fixed(204, "") }), FieldChange::default());
        let answer = bench.ask(last).await;
        assert!(answer.starts_with("HTTP/1.1 204 ") && !answer.contains("Content-"), "{answer}");
    });
}
