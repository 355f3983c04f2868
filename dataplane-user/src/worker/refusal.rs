//! Why the worker refused a connection or a request, and whose fault it was. The closed list of userspace reasons.

/// Whose fault a refusal is: decides log level and counters' labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The client sent something it should not have.
    Client,
    /// The origin did not answer, or answered something it should not have.
    Origin,
    /// An operator's rule or limit.
    Policy,
    /// This node.
    Node,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $reason:ident = $name:literal, $fault:ident, $status:literal;)*) => {
        /// Every reason. A new one needs a test that provokes it (`tests/` enumerates [`Reason::ALL`]).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason { $($(#[$doc])* $reason,)* }

        impl Reason {
            /// All of them, in order.
            pub const ALL: &[Self] = &[$(Self::$reason,)*];

            /// The name in metrics, logs and error pages.
            pub fn name(self) -> &'static str {
                match self { $(Self::$reason => $name,)* }
            }

            /// Whose fault it was.
            pub fn fault(self) -> Fault {
                match self { $(Self::$reason => Fault::$fault,)* }
            }

            /// The HTTP status; 0 where the connection ends without an answer.
            pub fn status(self) -> u16 {
                match self { $(Self::$reason => $status,)* }
            }
        }
    };
}

reasons! {
    /// No listener of the snapshot in force has the socket's local address and port.
    NoListener = "no-listener", Policy, 0;
    /// The packet filter denies the client's address (userspace check, and live connections after a change).
    Denied = "denied", Policy, 0;
    /// `limits.connections`.
    TooManyConnections = "too-many-connections", Policy, 0;
    /// `limits.connections` is nearly reached: a connection that waits for its client's handshake or request makes room for
    /// one that comes.
    IdleEvicted = "idle-evicted", Policy, 0;
    /// `limits.connectionsPerAddress`.
    TooManyFromAddress = "too-many-from-address", Policy, 0;
    /// A connection from a prefix of `proxyProtocol` that did not begin with a whole PROXY header within `limits.handshakeMs`.
    BadProxyHeader = "bad-proxy-header", Client, 0;
    /// The node has more to do than it can, and refuses new connections first.
    OverloadedConnection = "overloaded-connection", Node, 0;
    /// `limits.handshakeMs`, here or, where TLS is passed through, with an origin that has answered.
    HandshakeTimeout = "handshake-timeout", Client, 0;
    /// The client's handshake is not TLS, or breaks the protocol, or shares no version, suite or group with us; or it is longer
    /// than `limits.handshakeBytes`.
    HandshakeFailed = "handshake-failed", Client, 0;
    /// SNI names no certificate and the listener has no default one.
    NoCertificate = "no-certificate", Client, 0;
    /// After the handshake: a renegotiation, key updates or empty records without end, records that do not decrypt.
    BrokenTls = "broken-tls", Client, 0;
    /// The client closed or reset while it owed us the rest of a head or body.
    ClientGone = "client-gone", Client, 0;
    /// `limits.headerMs`.
    HeaderTimeout = "header-timeout", Client, 408;
    /// `limits.headerBytes` or `limits.headerCount`, or a `Connection` that names more than anybody has a use for.
    HeaderTooLarge = "header-too-large", Client, 431;
    /// `limits.targetBytes`.
    TargetTooLong = "target-too-long", Client, 414;
    /// `limits.bodyBytes`.
    BodyTooLarge = "body-too-large", Client, 413;
    /// `limits.stallMs` or `limits.bodyBytesPerSecond`, the client's side.
    BodyTimeout = "body-timeout", Client, 408;
    /// The request breaks HTTP (RFC 9110, 9112, 9113).
    MalformedRequest = "malformed-request", Client, 400;
    /// Framing that two parsers could read differently: Content-Length beside Transfer-Encoding, repeated lengths, ...
    AmbiguousFraming = "ambiguous-framing", Client, 400;
    /// No Host, two Hosts, or Host and target disagree.
    BadHost = "bad-host", Client, 400;
    /// The path cannot be normalised.
    BadPath = "bad-path", Client, 400;
    /// HTTP/1.0 and before with something only 1.1 has, or a version we do not speak.
    UnsupportedVersion = "unsupported-version", Client, 505;
    /// A transfer coding other than chunked.
    UnsupportedCoding = "unsupported-coding", Client, 501;
    /// CONNECT to somewhere: this is no forward proxy.
    ConnectRefused = "connect-refused", Client, 501;
    /// A change to a protocol that the route does not list in `upgrades`.
    UpgradeRefused = "upgrade-refused", Policy, 403;
    /// `grpc-timeout` that is none, or two of them.
    BadGrpcTimeout = "bad-grpc-timeout", Client, 400;
    /// The time that the client gave its call in `grpc-timeout` is over. Nothing is known of the origin by that.
    GrpcDeadline = "grpc-deadline", Client, 504;
    /// Bytes behind an upgrade request, sent before its answer: an origin that declines would read them as a request.
    PrematureUpgrade = "premature-upgrade", Client, 400;
    /// An `Expect` other than `100-continue`.
    ExpectationFailed = "expectation-failed", Client, 417;
    /// Host and SNI lead to different certificates or listeners, or connections for Host are passed through.
    Misdirected = "misdirected", Client, 421;
    /// A request in clear text, where a listener says `answer: Refuse` to all but its own paths.
    ClearTextRefused = "clear-text-refused", Policy, 403;
    /// HTTP/2 in clear text from a peer that `http.h2cPrefixes` of the listener does not name.
    H2cRefused = "h2c-refused", Policy, 403;
    /// The path of an ACME challenge without a token, or asked with another method than GET or HEAD.
    ChallengeRefused = "challenge-refused", Client, 404;
    /// No route has this host and path.
    NoRoute = "no-route", Client, 404;
    /// The node has so much more to do than it can that it refuses new requests too.
    Overloaded = "overloaded", Node, 503;
    /// No origin of the group could be connected.
    OriginUnreachable = "origin-unreachable", Origin, 502;
    /// Every origin of the group is disabled.
    NoOrigin = "no-origin", Policy, 503;
    /// `limits.connections` of the origin: too many requests wait already, or none ended within `connectTimeoutMs`.
    OriginBusy = "origin-busy", Policy, 503;
    /// An origin failed, and the group's `retryPercent` leaves no attempt at another one.
    RetryBudget = "retry-budget", Origin, 503;
    /// The origin's name could not be resolved and never was.
    OriginUnresolved = "origin-unresolved", Origin, 502;
    /// The origin's certificate did not verify.
    OriginUnverified = "origin-unverified", Origin, 502;
    /// `connectTimeoutMs`.
    OriginConnectTimeout = "origin-connect-timeout", Origin, 504;
    /// `responseTimeoutMs`.
    OriginTimeout = "origin-timeout", Origin, 504;
    /// The origin closed or reset before its response was complete.
    OriginGone = "origin-gone", Origin, 502;
    /// The origin's response breaks HTTP, or is larger than our bounds.
    MalformedResponse = "malformed-response", Origin, 502;
    /// The origin's body made no progress.
    OriginStalled = "origin-stalled", Origin, 504;
    /// The origin's 101 is not the upgrade that was asked for, or lacks WebSocket's proof, or an origin answers success
    /// where HTTP/2 would take it for one.
    BadUpgrade = "bad-upgrade", Origin, 502;
    /// `limits.tunnelIdleMs`, of a tunnel or a gRPC stream.
    TunnelIdle = "tunnel-idle", Policy, 0;
    /// `limits.drainMs` of a removed listener or a stopping node.
    DrainExpired = "drain-expired", Policy, 0;
    /// HTTP/2: too many resets, settings, pings or empty frames.
    Http2Abuse = "http2-abuse", Client, 0;
}

impl Reason {
    /// When another try makes sense, seconds (RFC 9110, 10.2.3), where that is known: overload is looked at ten times a second.
    pub fn retry_after(self) -> Option<u8> {
        (self == Self::Overloaded).then_some(2)
    }

    /// The status for gRPC clients: that of the HTTP status (gRPC, "HTTP to gRPC Status Code Mapping"), so that they see
    /// what a client library would have made of the answer; but for two that gRPC has words for. 0 is never among them.
    pub fn grpc(self) -> u8 {
        const UNKNOWN: u8 = 2;
        const DEADLINE_EXCEEDED: u8 = 4;
        const PERMISSION_DENIED: u8 = 7;
        const UNIMPLEMENTED: u8 = 12;
        const INTERNAL: u8 = 13;
        const UNAVAILABLE: u8 = 14;
        match self {
            // 400.
            Self::MalformedRequest
            | Self::AmbiguousFraming
            | Self::BadHost
            | Self::BadPath
            | Self::BadGrpcTimeout
            | Self::PrematureUpgrade => INTERNAL,
            // 403.
            Self::UpgradeRefused | Self::ClearTextRefused | Self::H2cRefused => PERMISSION_DENIED,
            // 404.
            Self::NoRoute | Self::ChallengeRefused => UNIMPLEMENTED,
            Self::GrpcDeadline => DEADLINE_EXCEEDED,
            // 502, 503, 504; and a stream that may be opened again at once.
            Self::Overloaded
            | Self::OriginUnreachable
            | Self::NoOrigin
            | Self::OriginBusy
            | Self::RetryBudget
            | Self::OriginUnresolved
            | Self::OriginUnverified
            | Self::OriginConnectTimeout
            | Self::OriginTimeout
            | Self::OriginGone
            | Self::MalformedResponse
            | Self::OriginStalled
            | Self::BadUpgrade
            | Self::TunnelIdle => UNAVAILABLE,
            // All others, and those that end the connection without an answer.
            Self::HeaderTimeout
            | Self::HeaderTooLarge
            | Self::TargetTooLong
            | Self::BodyTooLarge
            | Self::BodyTimeout
            | Self::UnsupportedVersion
            | Self::UnsupportedCoding
            | Self::ConnectRefused
            | Self::DrainExpired
            | Self::ExpectationFailed
            | Self::Misdirected
            | Self::NoListener
            | Self::Denied
            | Self::TooManyConnections
            | Self::TooManyFromAddress
            | Self::BadProxyHeader
            | Self::OverloadedConnection
            | Self::HandshakeTimeout
            | Self::HandshakeFailed
            | Self::NoCertificate
            | Self::BrokenTls
            | Self::IdleEvicted
            | Self::ClientGone
            | Self::Http2Abuse => UNKNOWN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_sees_what_the_http_status_means() {
        for reason in Reason::ALL {
            let expected = match reason.status() {
                _ if *reason == Reason::GrpcDeadline => 4,
                _ if *reason == Reason::TunnelIdle => 14,
                400 => 13,
                401 => 16,
                403 => 7,
                404 => 12,
                429 | 502..=504 => 14,
                _ => 2,
            };
            assert_eq!(reason.grpc(), expected, "{reason:?}");
        }
    }
}
