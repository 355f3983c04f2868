//! The two doors: leg, doors, leg. Drawn from what nodes saw on traffic; configuration only says what a leg without
//! traffic would be.

use askama::Template;
use model::report::Leg;

/// What a leg's lock says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lock {
    /// Green: encrypted, seen on traffic (towards the origin also: verified).
    Seen,
    /// Grey: configured, no traffic yet.
    Configured,
    /// Red and open: clear text, or not verified.
    Open,
    /// Grey: there is no such leg.
    None,
}

impl Lock {
    fn class(self) -> &'static str {
        match self {
            Self::Seen => "seen",
            Self::Configured | Self::None => "configured",
            Self::Open => "open",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Seen => "encrypted, seen on traffic",
            Self::Configured => "configured, no traffic yet",
            Self::Open => "not safe",
            Self::None => "no origin",
        }
    }

    fn is_open(self) -> bool {
        self == Self::Open
    }
}

/// One leg, ready to be drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LegView {
    lock: Lock,
    words: String,
    title: String,
}

/// What configuration says of an origin leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Promise {
    /// TLS, verified.
    Verified,
    /// TLS, the operator turned verification off.
    Unverified,
    /// At least one origin is `http://`.
    ClearText,
    /// Nothing is sent to an origin: the gateway answers by itself.
    Answered,
    /// One leg, from client to origin: this gateway has no part in its TLS.
    Passthrough,
}

/// What configuration says of a client leg.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Front<'a> {
    /// The certificate.
    pub(crate) served: &'a str,
    /// Trusted peers may come in clear text.
    pub(crate) open: bool,
}

/// Both legs of a hop.
#[derive(Debug, Clone, PartialEq, Eq, Template)]
#[template(path = "parts/doors.html")]
pub(crate) struct Doors {
    client: LegView,
    origin: LegView,
}

impl Doors {
    /// Draws a hop from the legs last seen; `group` names the origin group.
    pub(crate) fn new(
        client: Option<&Leg>,
        front: Front<'_>,
        origin: Option<&Leg>,
        group: &str,
        promise: Promise,
    ) -> Self {
        Self { client: client_leg(client, front, promise), origin: origin_leg(origin, group, promise) }
    }
}

fn version(leg: &Leg) -> &str {
    match leg.version.as_str() {
        "TLSv1.3" => "TLS 1.3",
        "TLSv1.2" => "TLS 1.2",
        other => other,
    }
}

fn clear(leg: &Leg) -> bool {
    leg.version == "none"
}

fn details(leg: &Leg) -> String {
    let mut title = format!("{}, {}, {}", version(leg), leg.suite, leg.group);
    if !leg.sni.is_empty() {
        title.push_str(&format!("; SNI {}", leg.sni));
    }
    if !leg.verified.is_empty() {
        title.push_str(&format!("; verified as {}", leg.verified));
    }
    title
}

fn client_leg(seen: Option<&Leg>, front: Front<'_>, promise: Promise) -> LegView {
    match seen {
        _ if promise == Promise::Passthrough => LegView {
            lock: Lock::Configured,
            words: "passed through".to_owned(),
            title: "the client's TLS goes on to the origin as it is; nothing is decrypted here".to_owned(),
        },
        Some(leg) if clear(leg) => LegView {
            lock: Lock::Open,
            words: "clear text".to_owned(),
            title: "the client's leg is not encrypted".to_owned(),
        },
        // Whatever was seen last: the next client may come the other way.
        Some(_) | None if front.open => LegView {
            lock: Lock::Open,
            words: "clear text allowed".to_owned(),
            title: "a listener of this route lets trusted peers reach it unencrypted (h2cPrefixes)"
                .to_owned(),
        },
        Some(leg) => LegView {
            lock: Lock::Seen,
            words: format!("{} · {}", version(leg), leg.group),
            title: details(leg),
        },
        None => LegView {
            lock: Lock::Configured,
            words: if front.served.is_empty() {
                "TLS".to_owned()
            } else {
                format!("TLS · {}", front.served)
            },
            title: "no client has come this way yet".to_owned(),
        },
    }
}

fn origin_leg(seen: Option<&Leg>, group: &str, promise: Promise) -> LegView {
    let open = |words: String, title: String| LegView { lock: Lock::Open, words, title };
    match (seen, promise) {
        (_, Promise::Answered) => LegView {
            lock: Lock::None,
            words: group.to_owned(),
            title: "the gateway answers by itself; nothing is sent to an origin".to_owned(),
        },
        (_, Promise::Passthrough) => LegView {
            lock: Lock::Configured,
            words: format!("the client's · {group}"),
            title: "whether this origin is the right one is for the client to judge".to_owned(),
        },
        (Some(leg), _) if clear(leg) => open(
            format!("clear text · {group}"),
            "requests travel to this origin readable by anyone on the way".to_owned(),
        ),
        (Some(leg), _) if leg.verified.is_empty() => {
            open(format!("{} unverified · {group}", version(leg)), details(leg))
        }
        (Some(leg), _) => LegView {
            lock: Lock::Seen,
            words: format!("{} · {}", version(leg), leg.verified),
            title: details(leg),
        },
        (None, Promise::ClearText) => open(
            format!("clear text · {group}"),
            "set to http:// in the origin group; no traffic yet".to_owned(),
        ),
        (None, Promise::Unverified) => open(
            format!("unverified · {group}"),
            "verification is off in the origin group; no traffic yet".to_owned(),
        ),
        (None, Promise::Verified) => LegView {
            lock: Lock::Configured,
            words: format!("TLS · {group}"),
            title: "nothing has been sent to this origin yet".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAFE: Front<'_> = Front { served: "c", open: false };

    fn leg(version: &str, verified: &str) -> Leg {
        Leg {
            version: version.to_owned(),
            suite: "TLS13_AES_256_GCM_SHA384".to_owned(),
            group: "X25519MLKEM768".to_owned(),
            sni: "shop.example.com".to_owned(),
            verified: verified.to_owned(),
        }
    }

    #[test]
    fn green_needs_traffic_and_verification() {
        let client = leg("TLSv1.3", "");
        let lock =
            |seen: Option<&Leg>, promise| Doors::new(Some(&client), SAFE, seen, "shop", promise).origin.lock;
        assert_eq!(lock(Some(&leg("TLSv1.3", "origin.internal")), Promise::Verified), Lock::Seen);
        assert_eq!(lock(Some(&leg("TLSv1.3", "")), Promise::Verified), Lock::Open);
        assert_eq!(lock(Some(&leg("none", "")), Promise::Verified), Lock::Open);
        assert_eq!(lock(None, Promise::Verified), Lock::Configured);
        assert_eq!(lock(None, Promise::Unverified), Lock::Open);
        assert_eq!(lock(None, Promise::ClearText), Lock::Open);
        assert_eq!(lock(Some(&leg("TLSv1.3", "")), Promise::Passthrough), Lock::Configured);
    }

    #[test]
    fn a_client_leg_that_may_be_in_clear_text_is_never_green() {
        let lock = |seen: Option<&Leg>, open| {
            Doors::new(seen, Front { open, ..SAFE }, None, "shop", Promise::Verified).client.lock
        };
        let (tls, clear) = (leg("TLSv1.3", ""), leg("none", ""));
        assert_eq!([lock(Some(&tls), false), lock(None, false)], [Lock::Seen, Lock::Configured]);
        for seen in [Some(&tls), Some(&clear), None] {
            assert_eq!(lock(seen, true), Lock::Open, "{seen:?}");
        }
        assert_eq!(lock(Some(&clear), false), Lock::Open, "as long as that is what was seen");
    }

    #[test]
    fn the_picture() {
        let client = leg("TLSv1.3", "");
        insta::assert_snapshot!(
            Doors::new(Some(&client), SAFE, Some(&leg("none", "")), "<billing>", Promise::ClearText)
                .render()
                .unwrap()
        );
    }
}
