use proptest::prelude::*;

use super::*;

fn place(addresses: &str, port: &str) -> Place {
    Place::At(addresses.parse().unwrap(), port.parse().unwrap())
}

#[test]
fn addresses_are_parsed_and_written_as_people_write_them() {
    for text in ["192.0.2.1", "10.0.7.0/24", "2001:db8::1", "2001:db8::/64"] {
        assert_eq!(text.parse::<Addresses>().unwrap().to_string(), text);
    }
    assert_eq!("192.0.2.1/32".parse::<Addresses>().unwrap().to_string(), "192.0.2.1");
    for (text, message) in [
        (
            "10.0.7.1/24",
            "has bits set behind its /24; write 10.0.7.0/24 for the prefix, or 10.0.7.1 for the one address",
        ),
        (
            "2001:db8::1/64",
            "has bits set behind its /64; write 2001:db8::/64 for the prefix, or 2001:db8::1 for the one address",
        ),
        ("0.0.0.0", "means every address; leave the list empty for that"),
        ("::/0", "means every address; leave the list empty for that"),
        ("224.0.0.0/8", "is a multicast address; nothing can connect to it"),
        ("::ffff:10.0.7.0/120", "is IPv4; write 10.0.7.0/24"),
        ("::ffff:192.0.2.1", "is IPv4; write 192.0.2.1"),
        ("10.0.7.0/33", "has no length behind its / that there is; write a number from 1 to 32"),
        ("2001:db8::/129", "has no length behind its / that there is; write a number from 1 to 128"),
        (
            "10.0.7/24",
            "is no IPv4 or IPv6 address or prefix; write one such as 192.0.2.1, 2001:db8::1, 10.0.7.0/24 or 2001:db8:7::/64",
        ),
    ] {
        assert_eq!(text.parse::<Addresses>().unwrap_err().to_string(), message, "{text}");
    }
}

#[test]
fn ports_travel_as_numbers_or_any() {
    let read = |json: &str| serde_json::from_str::<Port>(json).map_err(|error| error.to_string());
    assert_eq!(read("443"), Ok("443".parse().unwrap()));
    assert_eq!(read("\"any\""), Ok(Port::Any));
    for wrong in ["0", "65536", "\"443\"", "\"ANY\"", "-1"] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
    for port in ["443", "\"any\""] {
        assert_eq!(serde_json::to_string(&read(port).unwrap()).unwrap(), port);
    }
}

#[test]
fn any_port_of_every_address_is_no_place() {
    assert_eq!(Place::all(&[], Port::Any).count(), 0);
    assert_eq!(
        Place::all(&[], "443".parse().unwrap()).next(),
        Some(Place::Everywhere(NonZeroU16::new(443).unwrap()))
    );
    assert_eq!(place("10.0.7.0/24", "443").bound(), None);
    assert_eq!(place("10.0.7.1", "any").bound(), None);
    assert_eq!(place("10.0.7.1", "443").bound(), Some((Some("10.0.7.1".parse().unwrap()), 443)));
}

#[test]
fn the_longer_prefix_wins_then_the_port() {
    let places = [
        Place::Everywhere(NonZeroU16::new(443).unwrap()),
        place("10.0.0.0/8", "443"),
        place("10.0.7.0/24", "any"),
        place("10.0.7.0/24", "443"),
        place("10.0.7.9", "any"),
        place("10.0.7.9", "8443"),
    ];
    let atlas: Atlas<Place> = places.iter().map(|place| (*place, *place)).collect();
    for (local, expected) in [
        ("192.0.2.1:443", Some(places[0])),
        ("[2001:db8::1]:443", Some(places[0])),
        ("192.0.2.1:444", None),
        ("10.1.0.1:443", Some(places[1])),
        ("10.0.7.1:444", Some(places[2])),
        ("10.0.7.1:443", Some(places[3])),
        ("[::ffff:10.0.7.1]:443", Some(places[3])),
        ("10.0.7.9:443", Some(places[4])),
        ("10.0.7.9:8443", Some(places[5])),
        ("10.0.7.9:0", None),
    ] {
        assert_eq!(atlas.get(local.parse().unwrap()), expected.as_ref(), "{local}");
    }
}

/// Few addresses and ports, so that places meet.
fn address() -> impl Strategy<Value = IpAddr> {
    (any::<bool>(), 0..4_u8, 0..4_u8).prop_map(|(six, high, low)| match six {
        false => IpAddr::from([10, 0, high, low << 6]),
        true => IpAddr::from([0x2001, 0xdb8, 0, high.into(), 0, 0, 0, u16::from(low) << 14]),
    })
}

fn places() -> impl Strategy<Value = Vec<Place>> {
    let length = prop::sample::select(vec![8_u8, 22, 23, 24, 25, 26, 32]);
    let port = prop_oneof![Just(None), (1..4_u16).prop_map(Some)];
    let place = (address(), length, port, 0..8_u8).prop_map(|(address, length, port, everywhere)| {
        let port = port.and_then(NonZeroU16::new);
        if let Some(port) = port.filter(|_| everywhere == 0) {
            return Place::Everywhere(port);
        }
        let length = if address.is_ipv4() { length } else { length * 4 };
        let net = IpNet::new(address, length).unwrap().trunc();
        Place::At(net.to_string().parse().unwrap(), port.map_or(Port::Any, Port::One))
    });
    prop::collection::vec(place, 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// The slow reference: of all places that hold it, the one of the highest rank.
    #[test]
    fn the_atlas_agrees_with_looking_at_every_place(places in places(), destinations in prop::collection::vec((address(), 0..5_u16), 1..20)) {
        let atlas: Atlas<Place> = places.iter().map(|place| (*place, *place)).collect();
        for (address, port) in destinations {
            let local = SocketAddr::new(address, port);
            let expected = places.iter().filter(|place| place.holds(local)).max_by_key(|place| place.rank());
            prop_assert_eq!(atlas.get(local), expected, "{}", local);
        }
    }
}
