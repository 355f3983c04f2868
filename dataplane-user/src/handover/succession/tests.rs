use super::*;

pub(crate) fn succession() -> Succession {
    let info = SocketInfo { id: 7, thread: 1, v6: true, place: Some((None, 443)) };
    Succession {
        version: VERSION,
        release: "0.1.0".to_owned(),
        installed: "/usr/bin/sallyport-node".to_owned(),
        program: ("/usr/bin/sallyport-node".to_owned(), Fd(3)),
        state: (Fd(4), Fd(5)),
        run: (Fd(6), Fd(7)),
        rendezvous: Fd(8),
        control: Fd(9),
        access_log: None,
        metrics: Some(Fd(10)),
        sockets: Listening {
            steered: false,
            threads: 2,
            next: 8,
            held: vec![(info, Fd(11))],
            open: BTreeSet::from([(None, 443), (Some("::1".parse().unwrap()), 8443)]),
            ranges: BTreeSet::from([Place::At("10.0.7.0/24".parse().unwrap(), model::listen::Port::Any)]),
        },
        workers: vec![Working {
            number: 3,
            pid: 4711,
            process: Fd(12),
            channel: Fd(13),
            draining: false,
            protocol: 4,
            release: "0.1.0".to_owned(),
            connections: 5,
            left_ms: None,
            age_ms: 9000,
            features: Vec::new(),
        }],
        current: Some(3),
        next_worker: 4,
        in_force: true,
        drained: false,
        problems: BTreeMap::new(),
        refused: Some((Some(SnapshotId { epoch: 1, revision: 2 }), "no".to_owned())),
        console: ConsoleState::default(),
        drops: Vec::new(),
        proposal: None,
        operator: Some(Fd(14)),
        holder: Some((4712, Fd(15))),
        instance: Some(Fd(16)),
        secrets: Inheritance { sealing_key: vec![1; 32], enrolment: None, metrics: Some("m".repeat(16)) },
    }
}

fn file(json: &serde_json::Value) -> OwnedFd {
    super::super::channel::memory_file(&serde_json::to_vec(json).unwrap()).unwrap()
}

#[test]
fn what_was_written_is_read() {
    let read = Succession::read(&succession().write().unwrap()).unwrap();
    assert_eq!(read.sockets, succession().sockets);
    assert_eq!(read.workers, succession().workers);
    assert_eq!((read.state, read.operator, read.current), ((Fd(4), Fd(5)), Some(Fd(14)), Some(3)));
    assert_eq!(read.secrets.sealing_key, [1; 32]);
}

#[test]
fn the_version_before_is_read() {
    let mut before = serde_json::to_value(succession()).unwrap();
    before.as_object_mut().unwrap().remove("instance");
    before["version"] = 2.into();
    let read = Succession::read(&file(&before)).unwrap();
    assert_eq!((read.version, read.instance, read.operator), (2, None, Some(Fd(14))));
}

#[test]
fn another_version_an_unknown_field_and_a_missing_one_are_refused() {
    let good = serde_json::to_value(succession()).unwrap();
    assert!(Succession::read(&file(&good)).is_ok());
    for version in [OLDEST - 1, VERSION + 1] {
        let mut other = good.clone();
        other["version"] = version.into();
        other["somethingNew"] = true.into();
        assert!(matches!(Succession::read(&file(&other)), Err(Unreadable::Version(v)) if v == version));
    }
    let mut more = good.clone();
    more["somethingNew"] = true.into();
    assert!(matches!(Succession::read(&file(&more)), Err(Unreadable::Json(_))));
    let mut inner = good.clone();
    inner["workers"][0]["somethingNew"] = true.into();
    assert!(matches!(Succession::read(&file(&inner)), Err(Unreadable::Json(_))));
    for field in good.as_object().unwrap().keys() {
        let mut less = good.clone();
        less.as_object_mut().unwrap().remove(field);
        // What may be absent reads as absent; nothing else has a default.
        let optional =
            ["accessLog", "metrics", "current", "refused", "proposal", "operator", "holder", "instance"];
        assert_eq!(Succession::read(&file(&less)).is_ok(), optional.contains(&field.as_str()), "{field}");
    }
}

#[test]
fn only_a_sealed_memory_file_is_read() {
    let (one, _other) = rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    assert!(Succession::read(&one).is_err());
    let open = rustix::fs::memfd_create("t", rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
    assert!(Succession::read(&open).is_err());
}

#[test]
fn a_descriptor_is_taken_once_and_goes_no_further() {
    use std::os::fd::IntoRawFd as _;
    let fd = rustix::fs::memfd_create("t", rustix::fs::MemfdFlags::empty()).unwrap().into_raw_fd();
    let mut inherited = Inherited::default();
    let taken = inherited.take(Fd(fd)).unwrap();
    assert!(rustix::io::fcntl_getfd(&taken).unwrap().contains(FdFlags::CLOEXEC));
    for other in [fd, 0, 2, -1, 1 << 20] {
        assert!(inherited.take(Fd(other)).is_err(), "{other}");
    }
}
