//! The machine: its ports, its interfaces, its kernel.

use std::time::Duration;

use sallyport_tests::objects::{object, packet_filter};
use sallyport_tests::product::Product;
use serde_json::json;

use crate::place::Place;

#[test]
fn a_port_in_use_is_named_and_the_rest_goes_on() {
    let place = Place::new("inputport");
    let script = "import socket,time
s=socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(('0.0.0.0',8700)); s.listen(); time.sleep(60)";
    let mut holder = place
        .stage
        .node
        .inside(|| std::process::Command::new("/usr/bin/python3").args(["-c", script]).spawn().unwrap());
    std::thread::sleep(Duration::from_millis(500));
    let _ = place.api.try_apply(&[object(
        "Listener",
        "busy",
        json!({ "port": 8700, "certificates": ["front"] }),
    )]);
    let pid = format!("process {}", holder.id());
    place.told(&place.administrator(), &["port 8700 is in use by", &pid]);
    let _ = holder.kill();
    let _ = holder.wait();
    place.served();
}

#[test]
fn a_missing_interface_is_named_and_the_rest_goes_on() {
    let more = ["--interface", "nope0", "--interface", "c0"];
    let place = Place::with("inputif", |stage| Product::start(&stage.node, stage.name(), None, &more));
    place.told(
        &place.administrator(),
        &["xdp:nope0", "there is no interface nope0: it gets the filter within a second after it is there"],
    );
    let status = place.product.node_status().unwrap();
    let on = |name: &str| {
        let features = status["features"].as_array().cloned().unwrap_or_default();
        features.iter().any(|feature| feature["name"] == name && feature["on"] == true)
    };
    assert!(on("xdp:c0") && on("sk_lookup"), "{status}");
    place.served();
}

#[test]
fn a_kernel_that_refuses_bpf_is_said_and_plain_sockets_serve() {
    // Root without them is what a container or a locked-down kernel gives: bpf(2) answers EPERM.
    let without = ["setpriv", "--bounding-set=-bpf,-sys_admin,-perfmon"];
    let place = Place::with("inputbpf", |stage| Product::start_behind(&stage.node, stage.name(), &without));
    let words =
        ["sk_lookup", "xdp", "the kernel refuses BPF to this process: run it as root or give it CAP_BPF"];
    place.told(&place.administrator(), &words);
    let deny = place.api.apply(&[packet_filter("deny", "Deny", &["192.0.2.0/24".to_owned()])]);
    place.product.applied(deny);
    place.served();
}
