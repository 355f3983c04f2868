use std::collections::BTreeMap;

use dataplane_ebpf::decide::walk::{self, Words};
use dataplane_ebpf::wire::table::{PAIRS, STEPS_MAX};
use proptest::prelude::*;

use super::*;

/// Words as a table has them, and how often they were read.
#[derive(Default)]
struct Memory {
    words: Vec<u32>,
    reads: std::cell::Cell<u32>,
}

impl Words for Memory {
    type Line = [u32; LINE];

    fn line(&self, index: u32) -> Option<[u32; LINE]> {
        self.reads.set(self.reads.get() + 1);
        self.words.get(index as usize / LINE * LINE..)?.first_chunk().copied()
    }

    fn word(&self, index: u32) -> Option<u32> {
        self.reads.set(self.reads.get() + 1);
        self.words.get(index as usize).copied()
    }

    fn four(&self, index: u32) -> Option<[u32; 4]> {
        assert_eq!(index % 4, 0, "four words must lie in one line");
        self.reads.set(self.reads.get() + 1);
        self.words.get(index as usize..index as usize + 4)?.try_into().ok()
    }
}

type Map = BTreeMap<(u128, u32), u16>;

fn sorted(map: &Map) -> Vec<Prefix> {
    map.iter().map(|((bits, length), class)| Prefix { bits: *bits, length: *length, class: *class }).collect()
}

/// A trie whose first entry stands at word 0.
fn built(map: &Map) -> Memory {
    let mut nodes = Nodes::new(2 * LINE as u32);
    let mut words = vec![0; 2 * LINE];
    words[0] = nodes.trie(&sorted(map));
    words.iter_mut().skip(PAIRS as usize).zip(nodes.pairs()).for_each(|(word, pair)| *word = pair);
    words.append(&mut nodes.words);
    Memory { words, ..Memory::default() }
}

/// Every prefix looked at.
fn slow(map: &Map, address: u128) -> u16 {
    let holds = |bits: u128, length: u32| Block::around(address, length).bits == bits;
    let holding = map.iter().filter(|((bits, length), _)| holds(*bits, *length));
    holding.max_by_key(|((_, length), _)| *length).map_or(0, |(_, class)| *class)
}

fn fast(memory: &Memory, address: u128) -> u16 {
    memory.reads.set(0);
    let class = walk::class(memory, memory.words[0], [(address >> 64) as u64, address as u64]).unwrap();
    assert!(memory.reads.get() < STEPS_MAX);
    class as u16
}

/// Addresses that are often alike in their first bits.
fn address() -> impl Strategy<Value = u128> {
    (any::<u128>(), any::<u128>(), 0_u32..=128, 0_u8..4).prop_map(|(base, noise, same, kind)| match kind {
        0 => base,
        1 => (0x2001_0db8_u128 << 96) | noise.checked_shr(same).unwrap_or(0),
        2 => (0x2001_0db8_0001_u128 << 80) | (noise % 64),
        _ => ((noise % 16) << 124) | (noise.checked_shr(same).unwrap_or(0) % 256),
    })
}

fn prefix() -> impl Strategy<Value = ((u128, u32), u16)> {
    (address(), 0_u32..=128, 0_u16..6).prop_map(|(bits, length, class)| {
        let block = Block::around(bits, length);
        ((block.bits, block.length), class)
    })
}

fn interesting(map: &Map) -> Vec<u128> {
    map.keys()
        .flat_map(|(bits, length)| {
            let last = bits | u128::MAX.checked_shr(*length).unwrap_or(0);
            [*bits, last, last.wrapping_add(1), bits.wrapping_sub(1)]
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_trie_says_what_the_prefixes_say(
        map in proptest::collection::vec(prefix(), 0..60),
        classes in 1_u16..=6,
        addresses in proptest::collection::vec(address(), 50),
    ) {
        let map: Map = map.into_iter().map(|(key, class)| (key, class % classes)).collect();
        let memory = built(&map);
        for address in addresses.into_iter().chain(interesting(&map)) {
            prop_assert_eq!(fast(&memory, address), slow(&map, address), "{:x}", address);
        }
    }

    /// Before, during and after each change, every address has the class it had or the one it is to have.
    #[test]
    fn a_change_in_place_leads_from_the_one_to_the_other(
        start in proptest::collection::vec(prefix(), 0..40),
        changes in proptest::collection::vec(prefix(), 1..12),
        classes in 1_u16..=6,
        addresses in proptest::collection::vec(address(), 30),
    ) {
        let mut map: Map = start.into_iter().map(|(key, class)| (key, class % classes)).collect();
        let mut memory = built(&map);
        let mut anew = 0;
        for (key, class) in changes {
            let (before, class) = (map.clone(), class % classes);
            if map.get(&key) == Some(&class) { map.remove(&key); } else { map.insert(key, class); }
            let base = memory.words.len().next_multiple_of(LINE) as u32;
            let changed = Prefix { bits: key.0, length: key.1, class };
            let Some(patch) = patch(&memory, 0, &sorted(&map), changed, base) else {
                memory = built(&map);
                anew += 1;
                continue;
            };
            memory.words.resize(base as usize, 0);
            memory.words.extend(&patch.nodes.words);
            let mut asked = addresses.clone();
            asked.extend(interesting(&map));
            asked.extend(interesting(&before));
            for (place, entry) in patch.entries {
                memory.words[place as usize] = entry;
                for address in &asked {
                    let class = fast(&memory, *address);
                    prop_assert!(class == slow(&before, *address) || class == slow(&map, *address), "{:x}", address);
                }
            }
            for address in &asked {
                prop_assert_eq!(fast(&memory, *address), slow(&map, *address), "{:x}", address);
            }
        }
        prop_assert!(anew <= 1);
    }
}

/// Numbers without a pattern.
struct Random(u128);

impl Random {
    fn next(&mut self) -> u128 {
        let mut half = || {
            self.0 = self.0.wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645).wrapping_add(1);
            self.0 >> 64
        };
        half() << 64 | half()
    }

    fn below(&mut self, end: u128) -> u128 {
        (self.next() >> 64) % end
    }
}

/// Prefixes that have `bits` bits from `at` on, behind those of `base`. They gather in some places, or do not.
#[derive(Debug, Clone, Copy)]
struct List {
    at: u32,
    bits: u32,
    base: u128,
    gathers: bool,
}

/// A prefix of a list: of its class and about its length, or seldom not.
fn listed(random: &mut Random, List { at, bits, base, gathers }: List) -> ((u128, u32), u16) {
    let (length, class) = match random.below(80) {
        0 => (at + bits + random.below(9) as u32, 1),
        1 => (at + random.below(u128::from(bits)) as u32, 1 + random.below(2) as u16),
        2 => (at + bits, random.below(3) as u16),
        3 => ((at + bits + 40).min(128), 1),
        _ => (at + bits - random.below(2) as u32, 1),
    };
    let place = if gathers { random.next() | random.next() } else { random.next() };
    let block = Block::around(base | (place >> at), length.min(128));
    ((block.bits, block.length), class)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Lists that rows of lines are made of, of bits and of ends, and their changes in place.
    #[test]
    fn a_list_is_what_its_prefixes_say_and_changes_in_place(
        seed in any::<u128>(), count in 500_u32..1500, place in 0_usize..4, denser in -1_i32..12, gathers in any::<bool>(),
    ) {
        let mut random = Random(seed);
        let (at, base) = [(0, 0), (8, 11_u128 << 120), (32, 0x2001_0db8 << 96), (57, 0x2001_0db8 << 96)][place];
        let list = List { at, bits: (count.ilog2() as i32 + denser).clamp(4, 24) as u32, base, gathers };
        let mut map: Map = (0..count).map(|_| listed(&mut random, list)).collect();
        let mut memory = built(&map);
        for address in interesting(&map) {
            prop_assert_eq!(fast(&memory, address), slow_for(&map, address), "{:x}", address);
        }
        for _ in 0..30 {
            let before = map.clone();
            let ((bits, length), class) = listed(&mut random, list);
            let there = map.keys().nth(random.below(map.len() as u128) as usize).copied().unwrap();
            let (key, class) = if random.below(2) == 0 { (there, map[&there]) } else { ((bits, length), class) };
            if map.get(&key) == Some(&class) { map.remove(&key); } else { map.insert(key, class); }
            let base = memory.words.len().next_multiple_of(LINE) as u32;
            let changed = Prefix { bits: key.0, length: key.1, class };
            let Some(patch) = patch(&memory, 0, &sorted(&map), changed, base) else {
                prop_assert!(false, "too deep");
                continue;
            };
            memory.words.resize(base as usize, 0);
            memory.words.extend(&patch.nodes.words);
            let last = key.0 | u128::MAX.checked_shr(key.1).unwrap_or(0);
            let mut asked = vec![key.0, last, last.wrapping_add(1), key.0.wrapping_sub(1)];
            asked.extend((0..20).map(|_| key.0 | (random.next() >> key.1.min(127))));
            asked.extend((0..20).map(|_| listed(&mut random, list).0.0));
            for (at, word) in patch.entries {
                memory.words[at as usize] = word;
                for address in &asked {
                    let class = fast(&memory, *address);
                    prop_assert!([slow_for(&before, *address), slow_for(&map, *address)].contains(&class), "{:x}", address);
                }
            }
            for address in &asked {
                prop_assert_eq!(fast(&memory, *address), slow_for(&map, *address), "{:x}", address);
            }
        }
        for address in interesting(&map) {
            prop_assert_eq!(fast(&memory, address), slow_for(&map, address), "{:x}", address);
        }
    }
}

/// The shapes that tempt a trie to be deep or large.
#[test]
fn no_shape_of_prefixes_is_deep_or_large() {
    let nested: Map =
        (0..=128).map(|length| ((Block::around(u128::MAX, length).bits, length), length as u16)).collect();
    let turns = 0x5555_5555_5555_5555_5555_5555_5555_5555_u128;
    let stairs: Map = (1..=128)
        .map(|length| ((Block::around(turns ^ (1 << (128 - length)), length).bits, length), 1))
        .collect();
    let mut random = Random(1);
    let mut next = || random.next();
    let hosts: Map = (0..20_000).map(|_| (((0x2001_0db8_u128 << 96) | (next() >> 64), 128), 1)).collect();
    let nets: Map = (0..20_000).map(|_| ((Block::around(next(), 48).bits, 48), 1)).collect();
    let close: Map = (0..20_000_u128)
        .map(|number| (((0x2001_0db8_u128 << 96) | number, 128), (number % 3) as u16))
        .collect();
    let pairs: Map = (0..20_000_u128).map(|number| ((number << 100, 28 + (number % 2) as u32), 1)).collect();
    let list: Map = (0..20_000_u128).map(|number| (((11_u128 << 120) | number << 99, 30), 1)).collect();
    let uneven: Map = (0..20_000_u128)
        .map(|number| (((11_u128 << 120) | number << 98, 30 + (next() >> 127) as u32), 1))
        .collect();
    // More pairs of classes than a table has room for.
    let mixed: Map = (0..20_000_u128)
        .map(|number| (((11_u128 << 120) | number << 97, 32), 1 + (number / 256) as u16))
        .collect();
    let apart: Map = uneven.clone().into_iter().chain([((0, 32), 2), ((200 << 120, 32), 3)]).collect();
    let hosts_too: Map = (0..100_u128)
        .map(|number| (((11_u128 << 120) | (200 * number) << 105 | 5 << 96, 32), 2))
        .chain(
            (0..20_000_u128).map(|number| (((11_u128 << 120) | number << 105, 23 + (number % 2) as u32), 1)),
        )
        .collect();
    for (name, map, bytes, steps) in [
        ("hosts too", hosts_too, 28, 5),
        ("apart", apart, 1, 6),
        ("uneven", uneven, 1, 4),
        ("mixed", mixed, 1, 4),
        ("list", list, 1, 4),
        ("nested", nested, 64, 24),
        ("stairs", stairs, 64, 24),
        ("hosts", hosts, 56, 12),
        ("nets", nets, 48, 8),
        ("close", close, 8, 6),
        ("pairs", pairs, 1, 4),
    ] {
        assert_shape(name, &map, bytes, steps);
    }
}

/// Everything in it is found, in so many steps at most, and it takes so many bytes for each prefix at most.
fn assert_shape(name: &str, map: &Map, bytes: usize, steps: u32) {
    let memory = built(map);
    let each = memory.words.len() * 4 / map.len();
    let deepest = interesting(map).into_iter().map(|address| {
        assert_eq!(fast(&memory, address), slow_for(map, address), "{name} {address:x}");
        memory.reads.get()
    });
    let deepest = deepest.max().unwrap();
    println!("{name}: {each} bytes a prefix, {deepest} steps");
    assert!(each <= bytes && deepest <= steps, "{name}: {each} bytes a prefix, {deepest} steps");
}

/// Rows of lines are for lists that fill them.
#[test]
fn rows_are_made_where_they_are_worth_it() {
    // Seven beside each other, here and there: rows of lines would be empty but for a few.
    let clusters: Map = (0..20_000_u128)
        .map(|number| {
            let start = (number / 7).wrapping_mul(0x9e37_79b9_7f4a_7c15) % (1 << 25) / 64 * 64;
            (((start + 2 * (number % 7)) << 103, 25), 1)
        })
        .collect();
    let mut random = Random(1);
    // A list within what another rule has a class for.
    let covered: Map = (0..5_000)
        .map(|_| {
            let length = 20 + (random.next() >> 125) as u32;
            ((Block::around(random.next(), length).bits, length), 2)
        })
        .chain([((0, 1), 1), ((1 << 127, 1), 1)])
        .collect();
    assert_shape("clusters", &clusters, 16, 6);
    assert_shape("covered", &covered, 27, 6);
}

/// Few prefixes below each other are what makes a trie deep: at any distance it has room to spare.
#[test]
fn no_distance_makes_a_trie_too_deep() {
    let mut deepest = (0, 0, 0);
    for (distance, beside) in
        (1..=40_u32).flat_map(|distance| [1_u16, 2, 5, 17].map(|beside| (distance, beside)))
    {
        let mut map = Map::new();
        for length in (1..=128_u32).filter(|length| length % distance == 0) {
            for number in 0..beside {
                let turned = u128::MAX ^ u128::from(number) << (128 - length);
                map.insert((Block::around(turned, length).bits, length), 1 + number);
            }
        }
        let mut nodes = Nodes::new(2 * LINE as u32);
        nodes.trie(&sorted(&map));
        deepest = deepest.max((nodes.depth.1, distance, beside));
    }
    println!("deepest: {deepest:?}");
    assert!(deepest.0 + 4 <= STEPS_MAX, "{deepest:?}");
}

/// As [`slow`], by length.
fn slow_for(map: &Map, address: u128) -> u16 {
    let of = |length| map.get(&(Block::around(address, length).bits, length)).copied();
    (0..=128).rev().find_map(of).unwrap_or(0)
}

/// Many prefixes, one after the other, each beside the former: deeper and deeper, but never too deep.
#[test]
fn a_trie_that_changes_made_deep_is_built_anew() {
    let mut map = Map::new();
    let mut memory = built(&map);
    let mut anew = 0;
    for number in 0..300_u128 {
        let key = ((number * 0x9e37_79b9) << 96 & u128::MAX << 100, 28);
        map.insert(key, 1);
        let base = memory.words.len().next_multiple_of(LINE) as u32;
        let changed = Prefix { bits: key.0, length: key.1, class: 1 };
        match patch(&memory, 0, &sorted(&map), changed, base) {
            Some(patch) => {
                memory.words.resize(base as usize, 0);
                memory.words.extend(&patch.nodes.words);
                for (place, entry) in patch.entries {
                    memory.words[place as usize] = entry;
                }
            }
            None => {
                memory = built(&map);
                anew += 1;
            }
        }
        for address in interesting(&map) {
            assert_eq!(fast(&memory, address), slow(&map, address), "{number} {address:x}");
        }
    }
    println!("built anew {anew} times");
    assert!(anew < 20, "{anew}");
}
