//! Every reason to pass or to drop a packet.

/// Slots of counters ([`crate::wire::here`]): more than there are reasons, so that a new reason does not change the layout.
pub const SLOTS: u32 = 64;

/// The first number that is dropped.
pub const DROPS: u32 = 32;

/// Declares the closed list once, so that the enum, the names and the list of all cannot drift apart.
macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal;)+) => {
        /// Why a packet was passed or dropped. The numbers are stable: they index a pinned map that outlives releases.
        /// Below 32 the packet passes, from 32 on it is dropped.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum Reason {
            $($(#[$doc])* $variant = $number,)+
        }

        impl Reason {
            /// The whole list, ascending.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name in reports, metrics and the console.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

reasons! {
    /// Neither IP nor ARP: no list judges it.
    NotIp = 0, "not-ip";
    /// ARP always passes.
    Arp = 1, "arp";
    /// Neighbour discovery from the link itself (hop limit 255) always passes.
    NeighbourDiscovery = 2, "neighbour-discovery";
    /// ICMP "fragmentation needed" and ICMPv6 "packet too big" always pass.
    PathMtu = 3, "path-mtu";
    /// No rule decides, and none has to.
    NoRule = 4, "no-rule";
    /// An allow rule decides.
    Allowed = 5, "allowed";
    /// Steered to a worker thread's socket.
    Steered = 6, "steered";
    /// For no listener of ours: looked up as if we were not there.
    NotSteered = 7, "not-steered";
    /// Passes: a rule or protocol list would drop it, were it not only observed.
    Observed = 8, "observed";
    /// A SYN that was answered with a SYN cookie: the connection is made when the cookie comes back.
    SynCookie = 9, "syn-cookie";
    /// Multicast listener discovery from the link itself (hop limit 1, source in fe80::/10 or `::`) always passes: a switch that
    /// snoops on it takes a host that does not answer its queries out of the groups that neighbour discovery is sent to.
    MulticastListener = 10, "multicast-listener";

    /// A deny rule decides.
    Denied = 32, "denied";
    /// No allow rule decides although one has to.
    NotAllowed = 33, "not-allowed";
    /// A later fragment that may have to be dropped: its port cannot be seen. Or one that would overwrite the first one's TCP
    /// header.
    Fragment = 34, "fragment";
    /// Shorter than its Ethernet header and VLAN tags.
    MalformedFrame = 35, "malformed-frame";
    /// An IPv4 header that contradicts itself or is cut short.
    MalformedIpv4 = 36, "malformed-ipv4";
    /// An IPv6 header or extension header that contradicts itself or is cut short.
    MalformedIpv6 = 37, "malformed-ipv6";
    /// A TCP header that contradicts its packet, is cut short or names port 0.
    MalformedTcp = 38, "malformed-tcp";
    /// More IPv6 extension headers than we follow.
    ExtensionHeaders = 39, "extension-headers";
    /// More VLAN tags than we follow.
    VlanDepth = 40, "vlan-depth";
    /// An IPv6 source in `::ffff:0:0/96`: such a packet would carry an IPv4 source past the IPv4 lists.
    MappedAddress = 41, "mapped-address";
    /// For a listener, but no worker thread's socket is in the map.
    NoSocket = 42, "no-socket";
    /// For a listener, but the kernel refused the socket in the map.
    NotAssigned = 43, "not-assigned";
    /// A table is missing: the filter is closed, never open.
    NoTable = 44, "no-table";
    /// A source that is the destination, which no sender on a wire has (the "land" attack).
    Land = 45, "land";
    /// TCP flags that no connection has: none of SYN, ACK and RST, or two of SYN, FIN and RST.
    TcpFlags = 46, "tcp-flags";
    /// A UDP header that contradicts its packet or is cut short.
    MalformedUdp = 47, "malformed-udp";
    /// An ICMP message shorter than its header.
    MalformedIcmp = 48, "malformed-icmp";
    /// A source that cannot be on a wire: loopback, multicast, broadcast or none.
    Martian = 49, "martian";
    /// From one of this node's own addresses.
    OwnAddress = 50, "own-address";
    /// Of a protocol that the protocol lists do not have.
    Protocol = 51, "protocol";
    /// A SYN over a budget: of its source, of its port, or of all sources together where no cookie can be sent.
    SynBudget = 52, "syn-budget";
    /// A UDP packet over its source's budget.
    UdpBudget = 53, "udp-budget";
    /// A new connection over its source's budget.
    NewConnectionBudget = 54, "new-connection-budget";
}

impl Reason {
    /// Whether the packet is dropped.
    #[inline(always)]
    pub const fn is_drop(self) -> bool {
        self as u32 >= DROPS
    }

    /// The stable number.
    #[inline(always)]
    pub const fn number(self) -> u32 {
        self as u32
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn numbers_are_distinct_ascending_and_fit_the_map() {
        assert!(Reason::ALL.windows(2).all(|pair| pair[0].number() < pair[1].number()));
        assert!(Reason::ALL.iter().all(|reason| reason.number() < SLOTS));
    }

    #[test]
    fn names_are_distinct_and_kebab_case() {
        let names: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
        let kebab =
            |name: &&str| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        assert!(names.iter().all(kebab));
    }

    #[test]
    fn verdicts_follow_the_numbers() {
        assert!(!Reason::NotSteered.is_drop());
        assert!(Reason::Denied.is_drop());
    }
}
