//! Steering: address and port -> listener -> the worker thread of this CPU (or flow) -> its socket.
#![expect(unsafe_code, reason = "the context's fields are read through the pointer the kernel gave")]

use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use aya_ebpf::programs::SkLookupContext;
use dataplane_ebpf::reason::Reason;
use dataplane_ebpf::wire::{Address, socket_index, word::flow_hash};

use crate::budget;
use crate::here;
use crate::maps::{self, InForce, SOCKETS};

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const TCP: u32 = 6;
/// What `bpf_map_lookup_elem` says of an empty place, through aya's wrapper.
const NOTHING_THERE: i32 = -2;

/// What the lookup is for.
struct Lookup {
    local: Address,
    source: Address,
    port: u16,
    /// The client's address folded into a word, and its port.
    remote: (u32, u32),
}

/// Chooses the socket for what would open a connection, and counts it. UDP is left alone and not even counted: this program is asked
/// about every packet of it that no connected socket has.
#[inline(always)]
pub(crate) fn steer(context: &SkLookupContext) -> Reason {
    let Some(lookup) = Lookup::of(context) else { return Reason::NotSteered };
    let reason = assign(context, &lookup);
    here::count(reason);
    reason
}

#[inline(always)]
fn assign(context: &SkLookupContext, lookup: &Lookup) -> Reason {
    // A missing table steers nothing: other services on this host live on, and the filter drops what it must.
    let tables = InForce::read();
    if lookup.port == 0 || !tables.listens(&lookup.local, lookup.port) {
        return Reason::NotSteered;
    }
    if let Some((over, counter)) = budget::connection(&tables, &lookup.source) {
        maps::count_rule(counter);
        if over.is_drop() {
            return over;
        }
    }
    let index = socket_index(thread(lookup), lookup.local.is_v6());
    match SOCKETS.redirect_sk_lookup(context, index, 0) {
        Ok(()) => Reason::Steered,
        Err(NOTHING_THERE) => Reason::NoSocket,
        Err(_) => Reason::NotAssigned,
    }
}

#[inline(always)]
fn thread(lookup: &Lookup) -> u32 {
    let steering = maps::steering();
    if steering.by_flow() {
        return flow_hash(lookup.remote.0, lookup.remote.1) % steering.threads();
    }
    // SAFETY: the helper takes nothing and cannot fail.
    maps::thread_of(unsafe { bpf_get_smp_processor_id() })
}

impl Lookup {
    /// Nothing when it is not TCP over IP.
    ///
    /// Every other field is read before the next branch: left to itself the compiler joins the branches' reads into one
    /// through a computed pointer, which the verifier does not allow on a context.
    #[inline(always)]
    fn of(context: &SkLookupContext) -> Option<Self> {
        let fields = context.lookup;
        // SAFETY: the kernel gave the pointer for as long as the program runs; the verifier checks each field's read.
        macro_rules! field {
            ($($name:tt)+) => { unsafe { (&raw const (*fields).$($name)+).read_volatile() } };
        }
        // Of anything else nothing more is read.
        if field!(protocol) != TCP {
            return None;
        }
        let (family, port) = (field!(family), field!(local_port));
        let (local4, remote4, remote_port) = (field!(local_ip4), field!(remote_ip4), field!(remote_port));
        let local6 = [field!(local_ip6[0]), field!(local_ip6[1]), field!(local_ip6[2]), field!(local_ip6[3])];
        let remote6 =
            [field!(remote_ip6[0]), field!(remote_ip6[1]), field!(remote_ip6[2]), field!(remote_ip6[3])];
        let (local, source, folded) = match family {
            AF_INET => (Address::v4_as_it_lies(local4), Address::v4_as_it_lies(remote4), remote4),
            AF_INET6 => (
                Address::v6_as_it_lies(join(local6)),
                Address::v6_as_it_lies(join(remote6)),
                remote6[0] ^ remote6[1] ^ remote6[2] ^ remote6[3],
            ),
            _ => return None,
        };
        Some(Self { local, source, port: port as u16, remote: (folded, u32::from(remote_port)) })
    }
}

/// Four words that lie side by side as two.
#[inline(always)]
const fn join(words: [u32; 4]) -> [u64; 2] {
    let [[a, b, c, d], [e, f, g, h]] = [words[0].to_ne_bytes(), words[1].to_ne_bytes()];
    let [[i, j, k, l], [m, n, o, p]] = [words[2].to_ne_bytes(), words[3].to_ne_bytes()];
    [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p])]
}
