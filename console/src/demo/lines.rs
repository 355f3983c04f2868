//! The demo's lines: what is done, what should come of it, what came.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use super::names::{CLIENT, IMPOSTOR, ORIGIN_NAME, OTHER, SHOP, UNKNOWN};
use super::probe::{Probe, Send};
use super::stage::Stage;
use super::{DemoError, Table};

/// TLS 1.2 and nothing else.
static TLS12: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];

/// All of them, in the order a newcomer would try them.
pub(super) async fn all(stage: &Stage, out: &mut Table) -> Result<(), DemoError> {
    configure(stage, out).await?;
    good_traffic(stage, out).await?;
    bad_requests(stage, out).await?;
    origins(stage, out).await?;
    bad_configuration(stage, out).await?;
    packet_filter(stage, out).await?;
    in_the_kernel(stage, out);
    Ok(())
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "sallyport.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec })
}

fn route(name: &str, host: &str, group: &str) -> Value {
    object("Route", name, json!({ "hostnames": [host], "certificate": name, "originGroup": group }))
}

fn certificate(name: &str, host: &str) -> Value {
    object("Certificate", name, json!({ "internalCa": { "hostnames": [host] } }))
}

fn group(name: &str, addresses: &[SocketAddr]) -> Value {
    let origins = addresses.iter().map(|a| json!({ "url": format!("https://{a}") })).collect::<Vec<_>>();
    object(
        "OriginGroup",
        name,
        json!({ "origins": origins, "tls": { "trustBundle": "demo-origins", "expectedName": ORIGIN_NAME } }),
    )
}

async fn apply(stage: &Stage, objects: Vec<Value>) -> Result<(u16, Value), DemoError> {
    let body = json!({ "objects": objects, "confirm": true, "message": "sallyport demo" });
    let (status, answer) = stage.api.call("POST", "/api/v1/apply", Some(&body)).await?;
    if let (200, Some(revision)) = (status, answer["revision"].as_u64()) {
        until_applied(stage, revision).await;
    }
    Ok((status, answer))
}

/// Waits until the node has acknowledged the revision or refused it; the line that follows shows which.
async fn until_applied(stage: &Stage, revision: u64) {
    for _ in 0..100 {
        if let Ok(nodes) = stage.api.must("GET", "/api/v1/nodes", None).await
            && let Some(node) = nodes["items"].as_array().and_then(|nodes| nodes.first())
            && (node["applied"]["revision"].as_u64() >= Some(revision)
                || node["refused"][0]["revision"].as_u64() >= Some(revision))
        {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

async fn configure(stage: &Stage, out: &mut Table) -> Result<(), DemoError> {
    out.say("\nConfiguration, through the REST API");
    let [v4, v6] = stage.doors;
    let mut shop = stage.first_addresses();
    shop.extend(&stage.second.addresses);
    let objects = vec![
        object("Listener", "https", json!({ "addresses": [v4.ip(), v6.ip()], "port": v4.port() })),
        object("TrustBundle", "demo-origins", json!({ "certificates": stage.origin_ca.pem() })),
        group("shop", &shop),
        group("other", &stage.second.addresses),
        group("impostor", &stage.impostor.addresses),
        certificate("shop", SHOP),
        certificate("other", OTHER),
        certificate("impostor", IMPOSTOR),
        route("shop", SHOP, "shop"),
        route("other", OTHER, "other"),
        route("impostor", IMPOSTOR, "impostor"),
    ];
    let (status, answer) = apply(stage, objects).await?;
    out.line(
        "a listener, three routes, certificates, origin groups, a trust bundle",
        "200",
        &status.to_string(),
    );
    if status != 200 {
        return Err(DemoError::Configuration { status, said: answer.to_string() });
    }
    Ok(())
}

/// Performs a probe from the clients' namespace.
async fn seen(stage: &Stage, probe: Probe) -> Result<String, DemoError> {
    probe.run(stage.client().as_deref(), &stage.api.ca).await
}

/// `200 from origin first` and `... second` are equally right for a group of both.
fn either(seen: String) -> String {
    seen.replace("origin first", "an origin").replace("origin second", "an origin")
}

async fn good_traffic(stage: &Stage, out: &mut Table) -> Result<(), DemoError> {
    out.say("\nGood traffic");
    for (door, family) in stage.doors.into_iter().zip(["IPv4", "IPv6"]) {
        let said = seen(stage, Probe::get(door, SHOP, "/")).await?;
        out.line(&format!("{family}: HTTP/1.1 over TLS 1.3"), "200 from an origin", &either(said));
        let mut tls12 = Probe::get(door, SHOP, "/a%20path?and=a+query");
        tls12.versions = TLS12;
        out.line(
            &format!("{family}: HTTP/1.1 over TLS 1.2"),
            "200 from an origin",
            &either(seen(stage, tls12).await?),
        );
        let mut h2 = Probe::get(door, SHOP, "/");
        h2.send = Send::Http2 { host: SHOP, path: "/" };
        out.line(&format!("{family}: HTTP/2"), "200 from an origin", &either(seen(stage, h2).await?));
    }
    Ok(())
}

async fn bad_requests(stage: &Stage, out: &mut Table) -> Result<(), DemoError> {
    out.say("\nBad requests");
    let door = stage.doors[0];
    let with = |text: String| Probe { send: Send::Bytes(text), ..Probe::get(door, SHOP, "/") };
    let request = |fields: &str| {
        with(format!("POST / HTTP/1.1\r\nhost: {SHOP}\r\naccept: application/json\r\n{fields}\r\n0\r\n\r\n"))
    };
    let lines = [
        ("a host that SNI names and nobody serves", "handshake refused", Probe::get(door, UNKNOWN, "/")),
        (
            "Content-Length beside Transfer-Encoding (request smuggling)",
            "400 ambiguous-framing",
            request("content-length: 5\r\ntransfer-encoding: chunked\r\n"),
        ),
        ("a space before a header's colon", "400 malformed-request", request("content-length : 5\r\n")),
        ("two Host fields", "400 bad-host", request(&format!("host: {OTHER}\r\ncontent-length: 5\r\n"))),
        ("a path that climbs above the root", "400 bad-path", Probe::get(door, SHOP, "/../etc/passwd")),
        ("an encoded slash", "400 bad-path", Probe::get(door, SHOP, "/a%2fb")),
        (
            "Host of another certificate than SNI chose",
            "421 misdirected",
            with(format!("GET / HTTP/1.1\r\nhost: {OTHER}\r\naccept: application/json\r\n\r\n")),
        ),
        (
            "CONNECT to somewhere else",
            "501 connect-refused",
            with("CONNECT elsewhere.example:443 HTTP/1.1\r\nhost: elsewhere.example:443\r\n\r\n".to_owned()),
        ),
    ];
    for (what, expected, probe) in lines {
        out.line(what, expected, &seen(stage, probe).await?);
    }
    let clear = Probe {
        send: Send::ClearText("GET / HTTP/1.1\r\nhost: shop.demo.example\r\n\r\n"),
        ..Probe::get(door, SHOP, "/")
    };
    out.line("clear text on the TLS port", "closed without an answer", &seen(stage, clear).await?);
    Ok(())
}

async fn origins(stage: &Stage, out: &mut Table) -> Result<(), DemoError> {
    out.say("\nOrigins");
    let door = stage.doors[0];
    let said = seen(stage, Probe::get(door, IMPOSTOR, "/")).await?;
    out.line("an origin with a certificate for another name", "502 origin-unverified", &said);
    stage.stop_first();
    for _ in 0..2 {
        let said = seen(stage, Probe::get(door, SHOP, "/")).await?;
        out.line("the first of two origins is down", "200 from origin second", &said);
    }
    Ok(())
}

async fn bad_configuration(stage: &Stage, out: &mut Table) -> Result<(), DemoError> {
    out.say("\nBad configuration");
    let clear = object("OriginGroup", "shop", json!({ "origins": [{ "url": "http://127.0.0.1:80" }] }));
    let filter = object(
        "PacketFilter",
        "demo",
        json!({ "rules": [{ "name": "typo", "action": "Deny", "prefixes": ["192.0.2.1/24"] }] }),
    );
    let unknown = object("Route", "typo", json!({ "hostnames": [SHOP], "orginGroup": "shop" }));
    let lines = [
        ("an origin in clear text that nobody allowed", clear),
        ("a prefix with host bits", filter),
        ("a misspelt field", unknown),
    ];
    for (what, bad) in lines {
        let (status, answer) = apply(stage, vec![bad]).await?;
        out.line(what, "422", &status.to_string());
        if let Some(message) = answer["problems"][0]["message"].as_str() {
            out.say(&format!("       \"{message}\""));
        }
    }
    let said = seen(stage, Probe::get(stage.doors[0], SHOP, "/")).await?;
    out.line("traffic after the refused changes", "200 from origin second", &said);
    Ok(())
}

async fn packet_filter(stage: &Stage, out: &mut Table) -> Result<(), DemoError> {
    out.say("\nPacket filter");
    let welcome = CLIENT.far_addresses();
    let unwelcome = CLIENT.unwelcome();
    let families = ["IPv4", "IPv6"];
    if !stage.privileged() {
        for family in families {
            out.needs_root(&format!("{family}: a denied source"), "no answer");
            out.needs_root(&format!("{family}: another source meanwhile"), "200 from origin second");
            out.needs_root(&format!("{family}: the deny rule taken away"), "200 from origin second");
        }
        return Ok(());
    }
    let from = |door: SocketAddr, source: IpAddr| Probe { from: Some(source), ..Probe::get(door, SHOP, "/") };
    let rule = json!({ "rules": [{ "name": "unwelcome", "action": "Deny", "prefixes": unwelcome }] });
    apply(stage, vec![object("PacketFilter", "demo", rule)]).await?;
    for (n, family) in families.into_iter().enumerate() {
        let said = seen(stage, from(stage.doors[n], unwelcome[n])).await?;
        out.line(&format!("{family}: a denied source"), "no answer", &said);
        let said = seen(stage, from(stage.doors[n], welcome[n])).await?;
        out.line(&format!("{family}: another source meanwhile"), "200 from origin second", &said);
    }
    apply(stage, vec![object("PacketFilter", "demo", json!({ "rules": [] }))]).await?;
    for (n, family) in families.into_iter().enumerate() {
        let said = seen(stage, from(stage.doors[n], unwelcome[n])).await?;
        out.line(&format!("{family}: the deny rule taken away"), "200 from origin second", &said);
    }
    Ok(())
}

/// What the node says of the kernel: that packets went this way is its counters' word, not ours.
fn in_the_kernel(stage: &Stage, out: &mut Table) {
    out.say("\nKernel");
    let names = [format!("xdp:{}", CLIENT.near), "sk_lookup".to_owned()];
    if !stage.privileged() {
        names.iter().for_each(|name| out.needs_root(&format!("{name} in use"), "on"));
        return;
    }
    let status = stage.node_status();
    let features = status["features"].as_array().cloned().unwrap_or_default();
    for name in names {
        let feature = features.iter().find(|feature| feature["name"] == name.as_str());
        let on = feature.is_some_and(|feature| feature["on"] == true);
        out.line(&format!("{name} in use"), "on", if on { "on" } else { "off" });
        if let Some(detail) = feature.and_then(|feature| feature["detail"].as_str()) {
            out.say(&format!("       {detail}"));
        }
    }
}
