//! Lists that the console fetches reach the node's kernel, and what cannot be fetched changes nothing there.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sallyport_tests::eventually;
use sallyport_tests::objects::object;
use sallyport_tests::origin::Origin;
use sallyport_tests::probe::Passed;
use sallyport_tests::stage::{ORIGINS4, ORIGINS6};
use serde_json::{Value, json};

use super::place::{Place, SENT, id_of};

/// One list is fetched when it is due, over IPv6; the other when somebody orders it, over IPv4.
const DUE: &str = "/due.json";
const ORDERED: &str = "/ordered.txt";
/// The shortest there is.
const INTERVAL: Duration = Duration::from_secs(60);
const MOST_BYTES: usize = 4096;
/// A scheduler that looks every second, a revision, the node.
const SOON: Duration = Duration::from_secs(15);

/// Sources in the lists at first, those that come into them later, and who is in none.
const DUE_FIRST: [&str; 2] = ["198.51.100.7", "2001:db8:1::7"];
const DUE_LATER: [&str; 2] = ["198.51.100.207", "2001:db8:11::7"];
const ORDERED_FIRST: [&str; 2] = ["203.0.113.7", "2001:db8:2::7"];
const ORDERED_LATER: [&str; 2] = ["203.0.113.207", "2001:db8:22::7"];
const NEVER: [&str; 2] = ["198.18.0.7", "2001:db8:3::7"];

struct Lists {
    due: Origin,
    ordered: Origin,
    place: Place,
}

impl Lists {
    fn new() -> Self {
        let flags = ["--fetch-from", "10.99.3.0/24", "--fetch-from", "fd99:3::/64"];
        let place = Place::new("filterlists", &flags);
        let tls = place.stage.origin_ca.issue(&[&ORIGINS4.to_string(), &ORIGINS6.to_string()]).server();
        let origin = |address: SocketAddr| Origin::start(&place.stage.origins, address, "lists", &tls);
        let (due, ordered) = (origin((ORIGINS6, 8450).into()), origin((ORIGINS4, 8450).into()));
        due.publish(DUE, 200, "1", r#"{"ranges": ["198.51.100.0/25", {"v6": "2001:db8:1::/48"}]}"#);
        ordered.publish(ORDERED, 200, "1", "# a list\n203.0.113.0/25\n2001:db8:2::/48\n");
        Self { due, ordered, place }
    }

    fn apply(&self) {
        let set = |name: &str, origin: &Origin, path: &str| {
            let source = json!({
                "url": format!("{}{path}", origin.url()), "trustBundle": "origins",
                "intervalSeconds": INTERVAL.as_secs(), "maxBytes": MOST_BYTES,
            });
            object("PrefixSet", name, json!({ "source": source }))
        };
        let rule = |set: &str| json!({ "name": set, "action": "Deny", "prefixSets": [set] });
        let filter = json!({ "rules": [rule("due"), rule("ordered")] });
        self.place.apply(&[
            set("due", &self.due, DUE),
            set("ordered", &self.ordered, ORDERED),
            object("PacketFilter", "lists", filter),
        ]);
    }

    fn source(&self, set: &str) -> Value {
        self.place.api.get(&format!("/api/v1/prefix-sets/{set}/source"))
    }

    /// Waits until a set has so many prefixes and the node has its newest revision.
    fn has(&self, set: &str, prefixes: u64, within: Duration) {
        eventually(&format!("{set} has {prefixes} prefixes"), within, || {
            let source = self.source(set);
            if source["prefixes"] == prefixes { Ok(()) } else { Err(source.to_string()) }
        });
        self.place.product.applied(self.place.api.revisions()[0]);
    }

    /// Sends [`SENT`] SYNs of each source and checks that the kernel drops exactly those of `denied`, by their rules, and none
    /// of the others.
    fn denies(&self, denied: &[(u64, &[&str])], others: &[&[&str]]) {
        let place = &self.place;
        let listed: Vec<&str> = denied.iter().flat_map(|(_, sources)| sources.iter().copied()).collect();
        let others = others.concat();
        let sources = [listed.clone(), others.clone()].concat();
        let passed = Passed::count_each(&place.stage.node, &sources);
        let before = place.drops("denied");
        place.syns(&sources, 443);
        let wanted: Vec<(u64, u64)> =
            denied.iter().map(|(rule, sources)| (*rule, SENT * sources.len() as u64)).collect();
        place.dropped("denied", &before, &wanted);
        let wanted = [vec![0; listed.len()], vec![SENT; others.len()]].concat();
        assert_eq!(passed.each(), wanted, "{sources:?}");
    }

    /// Orders the second list while its origin answers so: nothing changes, and it is said why.
    fn fails(&self, (status, body): (u16, &str), reason: &str, words: &str) {
        let revisions = self.place.api.revisions();
        self.ordered.publish(ORDERED, status, "bad", body);
        let (fine, said, complaint) = self.place.product.cli(&["fetch", "ordered"]);
        assert!(
            !fine && said.contains("stays as it is, with 2 prefixes") && said.contains(words),
            "{said}{complaint}"
        );
        let source = self.source("ordered");
        assert_eq!((&source["reason"], &source["prefixes"]), (&json!(reason), &json!(2)), "{source}");
        assert!(source["problem"].as_str().unwrap().contains(words), "{source}");
        let status = self.place.api.get("/api/v1/status");
        let sentence =
            status["needs"].as_array().unwrap().iter().find(|need| need["link"] == "/prefix-sets/ordered");
        let sentence = sentence.and_then(|need| need["message"].as_str()).unwrap_or_default();
        assert!(sentence.contains("stays as it is") && sentence.contains(words), "{status}");
        assert_eq!(self.place.api.revisions(), revisions);
    }
}

#[test]
fn a_list_that_changes_where_it_comes_from_changes_what_the_kernel_drops() {
    let lists = Lists::new();
    let place = &lists.place;
    lists.apply();
    let begin = Instant::now();
    lists.has("due", 2, SOON);
    lists.has("ordered", 2, SOON);
    let flows = place.flows(&["--verdict", "drop"], 4 * SENT, || {
        place.syns(&[DUE_FIRST, ORDERED_FIRST].concat(), 443);
    });
    let [due, ordered] = ["lists/due", "lists/ordered"].map(|label| id_of(&flows, "denied", label));
    place.dropped("denied", &BTreeMap::new(), &[(due, 2 * SENT), (ordered, 2 * SENT)]);
    let unlisted: [&[&str]; 3] = [&DUE_LATER, &ORDERED_LATER, &NEVER];
    lists.denies(&[(due, &DUE_FIRST), (ordered, &ORDERED_FIRST)], &unlisted);

    // The first one changes, and nobody does anything. Meanwhile the second one fails, in every way of an origin that is out of
    // order, and stays as it was.
    lists.due.publish(DUE, 200, "2", r#"["198.51.100.0/24", "2001:db8:1::/48", "2001:db8:11::/48"]"#);
    lists.fails((500, "out of order"), "status", "500");
    lists.fails((200, &"203.0.113.0/24\n".repeat(MOST_BYTES / 15 + 1)), "too-large", "4096");
    lists.fails((200, "<html>Sorry</html>"), "unreadable", "cannot be read");
    lists.denies(&[(ordered, &ORDERED_FIRST)], &[&ORDERED_LATER]);
    lists.ordered.publish(ORDERED, 200, "2", "203.0.113.0/24\n2001:db8:2::/48\n2001:db8:22::/48\n");
    let (fine, said, complaint) = place.product.cli(&["fetch", "ordered"]);
    assert!(fine && said.contains("3 prefixes"), "{said}{complaint}");
    lists.has("ordered", 3, SOON);
    assert_eq!(lists.source("ordered")["problem"], Value::Null);
    let all_ordered = [ORDERED_FIRST, ORDERED_LATER].concat();
    lists.denies(&[(ordered, &all_ordered)], &[&NEVER]);

    lists.has("due", 3, (begin + INTERVAL + SOON).saturating_duration_since(Instant::now()));
    println!("the new list was in force {:?} after the first one", begin.elapsed());
    let all_due = [DUE_FIRST, DUE_LATER].concat();
    lists.denies(&[(due, &all_due), (ordered, &all_ordered)], &[&NEVER]);
    // Asked with the tag of what was there, and by nobody's order.
    assert_eq!(lists.due.asked(DUE), [None, Some("\"1\"".to_owned())]);
    let newest = place.api.get(&format!("/api/v1/revisions/{}", place.api.revisions()[0]));
    assert_eq!(newest["actor"], "prefix set due from URL", "{newest}");
}
