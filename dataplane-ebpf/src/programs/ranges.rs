//! Listeners on prefixes and any port. The table stands outside of generations: what it says is whole in itself, and userspace
//! replaces it at once.
#![expect(unsafe_code, reason = "a function of the object's own has an exported name")]

use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{ArrayOfMaps, LpmTrie};
use aya_ebpf::macros::btf_map;
use dataplane_ebpf::wire::Address;
use dataplane_ebpf::wire::range::{ANY_PORT, WHOLE, is_steered, range_words};

/// Userspace makes each as large as it has to be. Nothing is in the place where no listener has a range, so nobody else pays.
#[btf_map]
static RANGES: ArrayOfMaps<LpmTrie<[u32; 5], u32, 1>, 1> = ArrayOfMaps::new();

/// Whether what is for an address and port is steered; nothing where no range is about it.
#[inline(always)]
pub(crate) fn steered(address: Address, port: u16) -> Option<bool> {
    let [high, low] = address.words();
    match sallyport_ranges(high, low, address.is_v6().into(), port.into()) {
        STEERED => Some(true),
        LEFT_OUT => Some(false),
        _ => None,
    }
}

const NOTHING: u32 = 0;
const STEERED: u32 = 1;
const LEFT_OUT: u32 = 2;

/// A function of its own in the object too: where it is in line, the compiler moves what follows it in ways that the verifier
/// does not follow.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn sallyport_ranges(high: u64, low: u64, is_v6: u32, port: u32) -> u32 {
    let Some(ranges) = RANGES.get(0) else { return NOTHING };
    let address = Address::from_words([high, low], is_v6 != 0);
    let at_port = ranges.get(&Key::new(WHOLE, range_words(address, port as u16))).copied();
    let at_any = ranges.get(&Key::new(WHOLE, range_words(address, ANY_PORT))).copied();
    match is_steered(at_port, at_any) {
        Some(true) => STEERED,
        Some(false) => LEFT_OUT,
        None => NOTHING,
    }
}
