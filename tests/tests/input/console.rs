//! The console's disk and database.

use std::fs;
use std::time::Duration;

use sallyport_tests::eventually;
use sallyport_tests::objects::packet_filter;
use sallyport_tests::product::{Product, Role};

use crate::place::Place;

#[test]
fn a_corrupt_database_is_said_and_the_node_serves_on() {
    let mut place = Place::new("inputdb");
    let (database, revisions) =
        (place.product.dir().join("state/console/console.sqlite"), place.api.revisions());
    let console = place.product.pids(Role::Console)[0];
    place.product.signal(place.product.pids(Role::Up)[0], rustix::process::Signal::STOP);
    place.product.signal(console, rustix::process::Signal::KILL);
    let names = ["console.sqlite", "console.sqlite-wal", "console.sqlite-shm"];
    let good = names.map(|name| (name, fs::read(database.with_file_name(name)).ok()));
    for name in names {
        let _ = fs::remove_file(database.with_file_name(name));
    }
    fs::write(&database, vec![0x55; 8192]).unwrap();
    // What the console's user cannot write would be another fault.
    fs::set_permissions(&database, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    place.product.signal(place.product.pids(Role::Up)[0], rustix::process::Signal::CONT);
    eventually("the log says what is wrong with the database", Duration::from_secs(15), || {
        let log = place.product.log();
        let line = log.lines().rev().find(|line| line.contains("console.sqlite is damaged"));
        line.map(str::to_owned).ok_or_else(|| place.product.log_tail())
    });
    let (ok, _, err) = place.product.cli(&["status"]);
    assert!(!ok && err.contains("console"), "{err}");
    place.served();
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(database.parent().unwrap()).unwrap());
    for (name, bytes) in good {
        let path = database.with_file_name(name);
        let _ = fs::remove_file(&path);
        if let Some(bytes) = bytes {
            fs::write(&path, bytes).unwrap();
            std::os::unix::fs::chown(&path, Some(owner), None).unwrap();
        }
    }
    let api = place.product.ready();
    assert_eq!(api.revisions(), revisions, "the restored database has all revisions");
    place.served();
}

#[test]
fn a_full_disk_refuses_the_change_and_nothing_else() {
    let place = Place::with("inputdisk", |stage| Product::start_on_small_disk(&stage.node, stage.name()));
    let browser = place.administrator();
    let filler = place.product.dir().join("state/filler");
    let fill = || {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&filler).unwrap();
        let piece = [0; 4096];
        while std::io::Write::write_all(&mut file, &piece).is_ok() {}
    };
    // SQLite's log has room for a few changes more; what is refused must say so and change nothing.
    let refused = |attempt: &dyn Fn(&str) -> Option<String>| {
        (0..40).find_map(|number| {
            fill();
            let revisions = place.api.revisions();
            let said = attempt(&format!("large{number}"))?;
            assert_eq!(place.api.revisions(), revisions);
            Some(said)
        })
    };
    let many: Vec<String> =
        (0..8_000_u32).map(|number| std::net::Ipv4Addr::from(0x6440_0000 + number).to_string()).collect();
    let sentence = refused(&|name| {
        let (status, answer) = place.api.try_apply(&[packet_filter(name, "Deny", &many)]).err()?;
        assert_eq!(status, 507, "{answer}");
        answer["problems"][0]["message"].as_str().map(str::to_owned)
    });
    let sentence = sentence.expect("the API never finds the disk full");
    assert!(sentence.contains("full"), "{sentence}");
    // The command line reads its objects from another disk.
    let said = refused(&|name| {
        let (ok, said) = place.applied(&[packet_filter(name, "Deny", &many)]);
        (!ok).then_some(said)
    });
    assert!(said.as_ref().is_some_and(|said| said.contains(&sentence)), "{said:?}");
    let prefixes = many.join(" ");
    let said = refused(&|name| {
        let rule = [("rule.0.name", "rule"), ("rule.0.action", "Deny"), ("rule.0.prefixes", &prefixes)];
        let form = [&[("name", name), ("step", "publish"), ("confirm", "on")], &rule[..]].concat();
        let (status, page) = browser.submit("/packet-filter/new", &form);
        assert!(status == 303 || status == 507, "{status} {page}");
        (status == 507).then_some(page)
    });
    assert!(said.as_ref().is_some_and(|said| said.contains(&sentence)), "{said:?}");
    // The same disk holds the node's state: what it cannot store it refuses, and what is in force stays.
    // (Its status file is on that disk too; the log is not.)
    let log = place.product.log();
    assert!(log.contains("/state/node is full: nothing was changed; make room"), "the node's sentence");
    place.served();
    fs::remove_file(&filler).unwrap();
    place.product.applied(place.api.apply(&[packet_filter("after", "Deny", &many)]));
    place.served();
}
