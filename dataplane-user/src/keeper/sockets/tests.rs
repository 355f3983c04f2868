use std::net::TcpListener;

use model::snapshot::{Limits, TlsVersion};

use super::*;

fn listener(name: &str, addresses: &[&str], port: u16) -> Listener {
    Listener {
        name: name.parse().unwrap(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        port: u64::from(port).try_into().unwrap(),
        take_over: false,
        clear_text: None,
        min_version: TlsVersion::V12,
        default_certificate: None,
        certificates: Vec::new(),
        trusted_prefixes: Vec::new(),
        proxy_protocol: Vec::new(),
        limits: Limits::default(),
        error_pages: Vec::new(),
    }
}

fn snapshot(listeners: Vec<Listener>) -> Snapshot {
    let body = r#"{"format":1,"node":"edge","id":{"epoch":1,"revision":1},"listeners":[],"certificates":[],"routes":[],"originGroups":[],"trustBundles":[],"filter":[]}"#;
    Snapshot { listeners, ..Snapshot::from_verified_json(body).unwrap() }
}

fn all(snapshot: &Snapshot) -> Vec<&Listener> {
    snapshot.listeners.iter().collect()
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_bound_place_listens_only_when_activated_and_closes() {
    let mut sockets = Sockets::new(false, 2);
    let port = free_port();
    let wanted = snapshot(vec![listener("a", &["127.0.0.1"], port)]);
    let mut prepared = sockets.prepare(&all(&wanted), None).unwrap();
    assert_eq!(prepared.bound.len(), 2);
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    assert_eq!(sockets.activate(&mut prepared).unwrap().len(), 2);
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());

    let again = sockets.prepare(&all(&wanted), None).unwrap();
    assert!(again.opening.is_empty() && again.closing.is_empty() && again.bound.is_empty());

    let gone = sockets.prepare(&[], Some(&wanted)).unwrap();
    assert_eq!(gone.closing, [Place::of_bound((Some("127.0.0.1".parse().unwrap()), port)).unwrap()]);
    assert_eq!(sockets.close(&gone.closing).len(), 2);
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn every_address_is_both_families() {
    let mut sockets = Sockets::new(false, 1);
    let port = free_port();
    let mut prepared = sockets.prepare(&[&listener("a", &[], port)], None).unwrap();
    sockets.activate(&mut prepared).unwrap();
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    if TcpListener::bind("[::1]:0").is_ok() {
        assert!(std::net::TcpStream::connect(("::1", port)).is_ok());
    }
}

#[test]
fn a_busy_port_names_its_owner_and_refuses_only_what_is_new() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut sockets = Sockets::new(false, 1);
    let wanted = snapshot(vec![listener("a", &["127.0.0.1"], port)]);
    // This very process holds the port, which would count as ours; a socket it does not know is bind's to refuse.
    let error = sockets.prepare(&all(&wanted), None).unwrap_err();
    assert!(matches!(error.source, PlaceError::Busy { .. }), "{error:?}");
    assert!(error.source.to_string().contains(&port.to_string()));

    let prepared = sockets.prepare(&all(&wanted), Some(&wanted)).unwrap();
    assert!(prepared.opening.is_empty() && prepared.problems.len() == 1);
    drop(taken);
    assert_eq!(sockets.prepare(&all(&wanted), Some(&wanted)).unwrap().opening.len(), 1);
}

#[test]
fn an_address_that_is_not_local_says_the_command() {
    for steered in [false, true] {
        let mut sockets = Sockets::new(steered, 1);
        for (address, command) in [
            ("192.0.2.77", "`ip route add local 192.0.2.77 dev lo`"),
            ("2001:db8::77", "`ip -6 route add local 2001:db8::77 dev lo`"),
        ] {
            let error = sockets.prepare(&[&listener("a", &[address], free_port())], None).unwrap_err();
            if address.contains('.') || TcpListener::bind("[::1]:0").is_ok() {
                assert!(error.source.to_string().contains(command), "{}", error.source);
            }
        }
    }
}

/// Documentation's prefixes, which no machine has: both families are put right with one reading.
#[test]
fn prefixes_that_are_not_local_are_all_named_with_their_commands() {
    let mut sockets = Sockets::new(true, 1);
    let wanted = listener("a", &["127.0.0.1", "192.0.2.0/28", "127.0.0.0/8", "2001:db8:7::/64"], free_port());
    let error = sockets.prepare(&[&wanted], None).unwrap_err();
    assert_eq!(
        error.source.to_string(),
        "not every address of 192.0.2.0/28 and 2001:db8:7::/64 is one of this machine's: run `ip route add local 192.0.2.0/28 dev lo` and `ip -6 route add local 2001:db8:7::/64 dev lo`"
    );
    let one = sockets.prepare(&[&listener("a", &["2001:db8:7::/64"], free_port())], None).unwrap_err();
    assert!(!one.source.to_string().contains(" and "), "{}", one.source);
}

#[test]
fn steered_sockets_are_one_per_thread_and_family() {
    let mut sockets = Sockets::new(true, 3);
    sockets.open_steered().unwrap();
    let count = sockets.held().count();
    sockets.open_steered().unwrap();
    assert_eq!(sockets.held().count(), count);
    assert!((0..3).all(|thread| sockets.steered_of(thread).is_some()));
    assert!(sockets.steered_of(3).is_none());
    let port = free_port();
    let mut prepared = sockets.prepare(&[&listener("a", &[], port)], None).unwrap();
    assert!(prepared.bound.is_empty());
    assert!(sockets.activate(&mut prepared).unwrap().is_empty());
    assert_eq!(sockets.open().iter().collect::<Vec<_>>(), [&Place::of_bound((None, port)).unwrap()]);
}

#[test]
fn only_the_listening_socket_it_is_said_to_be_is_taken_back() {
    let mut sockets = Sockets::new(false, 1);
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let ip = Some("127.0.0.1".parse().unwrap());
    let info = |place, v6| SocketInfo { id: 7, thread: 0, v6, place };
    let copy = || OwnedFd::from(socket.try_clone().unwrap());
    assert!(sockets.take_back(info(Some((ip, port + 1)), false), copy()).is_err());
    assert!(sockets.take_back(info(Some((None, port)), false), copy()).is_err());
    assert!(sockets.take_back(info(Some((ip, port)), true), copy()).is_err());
    assert!(sockets.take_back(info(None, false), copy()).is_err());
    let bound = bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
    let place = (ip, bound.local_addr().unwrap().as_socket().unwrap().port());
    assert!(sockets.take_back(info(Some(place), false), bound.into()).is_err());
    sockets.take_back(info(Some((ip, port)), false), copy()).unwrap();
    assert_eq!(sockets.close(&[Place::of_bound((ip, port)).unwrap()]), [7]);
}
