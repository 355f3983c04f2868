//! Lists that are fetched: how, and which of them are kept back.

use std::fmt;

use ipnet::IpNet;

use super::MOST_BYTES;
use crate::draft::PrefixSourceSpec;
use crate::net::Prefix;

/// How a list is fetched; what [`PrefixSourceSpec`] leaves open has its default here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Between two fetches, seconds.
    pub interval_seconds: u64,
    /// The longest document that is read.
    pub max_bytes: u64,
    /// A list that has lost more than so many percent of its prefixes is kept back.
    pub max_shrink_percent: u64,
}

impl Default for Source {
    fn default() -> Self {
        Self { interval_seconds: 3_600, max_bytes: MOST_BYTES as u64, max_shrink_percent: 50 }
    }
}

impl Source {
    /// What a compiled spec says.
    pub fn of(spec: &PrefixSourceSpec) -> Self {
        let usual = Self::default();
        Self {
            interval_seconds: spec.interval_seconds.unwrap_or(usual.interval_seconds),
            max_bytes: spec.max_bytes.unwrap_or(usual.max_bytes),
            max_shrink_percent: spec.max_shrink_percent.unwrap_or(usual.max_shrink_percent),
        }
    }

    /// Whether a list of `after` prefixes has lost too many of `before`.
    pub fn is_too_short(&self, before: usize, after: usize) -> bool {
        let (before, lost) = (before as u64, before.saturating_sub(after) as u64);
        lost * 100 > before * self.max_shrink_percent
    }
}

/// Why a list is of so many that nobody publishes it on purpose, most likely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Everybody {
    /// This prefix is.
    Prefix(Prefix),
    /// All IPv4 prefixes together are so many percent of the unicast addresses.
    Percent(u8),
    /// It has all of this prefix, from which a regional registry gives out IPv6 addresses.
    Region(Prefix),
}

impl fmt::Display for Everybody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(prefix) if prefix.net().prefix_len() == 0 => write!(f, "{prefix} is everybody"),
            Self::Prefix(prefix) => write!(f, "{prefix} is an eighth of all IPv4 addresses or more"),
            Self::Percent(percent) => {
                write!(f, "its prefixes are {percent} % of the IPv4 addresses that hosts can have")
            }
            Self::Region(prefix) => {
                write!(
                    f,
                    "it has all of {prefix}, from which one of the five regional registries gives out IPv6 addresses"
                )
            }
        }
    }
}

/// IPv4 addresses behind these are nobody's: multicast, and reserved ones.
const UNICAST: u64 = 224 << 24;
/// An IPv4 prefix that is shorter is of more than any one country or network has in a row.
const SHORTEST: u8 = 4;
/// From where each regional registry gives out most IPv6 addresses. A list of what is given to nobody (full bogons) has 99 % of
/// 2000::/3 and more, and most of each of these, but never all of one: so amounts tell nothing in IPv6.
const REGIONS: [&str; 5] = ["2400::/12", "2600::/12", "2800::/12", "2a00::/12", "2c00::/12"];

/// Whether a list is of about everybody, counted without what it says twice.
pub fn everybody(prefixes: &[Prefix]) -> Option<Everybody> {
    // Sorted, what holds a prefix stands before it, and what is within it behind it.
    let mut sorted = prefixes.to_vec();
    sorted.sort_unstable();
    let regions: Vec<Prefix> = REGIONS.iter().filter_map(|text| text.parse().ok()).collect();
    let (mut v4, mut v6) = (0_u64, vec![0_u128; regions.len()]);
    let mut before: Option<IpNet> = None;
    for prefix in sorted {
        let net = prefix.net();
        if before.is_some_and(|before| before.contains(&net)) {
            continue;
        }
        before = Some(net);
        match net {
            IpNet::V4(v4_net) if u64::from(v4_net.network().to_bits()) >= UNICAST => {}
            IpNet::V4(v4_net) if v4_net.prefix_len() < SHORTEST => return Some(Everybody::Prefix(prefix)),
            IpNet::V4(v4_net) => v4 += 1 << (32 - v4_net.prefix_len()),
            IpNet::V6(v6_net) if v6_net.prefix_len() == 0 => return Some(Everybody::Prefix(prefix)),
            IpNet::V6(v6_net) => {
                for (region, held) in regions.iter().zip(&mut v6) {
                    if net.contains(&region.net()) {
                        return Some(Everybody::Region(*region));
                    }
                    if region.net().contains(&net) {
                        *held += 1 << (128 - v6_net.prefix_len());
                    }
                }
            }
        }
    }
    if v4 >= UNICAST / 2 {
        return Some(Everybody::Percent(u8::try_from(v4 * 100 / UNICAST).unwrap_or(100)));
    }
    let whole = |(region, held): (&Prefix, u128)| held == 1 << (128 - region.net().prefix_len());
    regions
        .iter()
        .zip(v6)
        .find(|(region, held)| whole((region, *held)))
        .map(|(region, _)| Everybody::Region(*region))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_may_lose_so_much_and_no_more() {
        let half = Source::default();
        for (before, after, too_short) in
            [(0, 1, false), (4, 2, false), (4, 1, true), (100, 50, false), (100, 49, true), (5, 500, false)]
        {
            assert_eq!(half.is_too_short(before, after), too_short, "{before} → {after}");
        }
        let none = Source { max_shrink_percent: 0, ..Source::default() };
        assert!(none.is_too_short(1000, 999) && !none.is_too_short(10, 10));
        assert!(!Source { max_shrink_percent: 100, ..Source::default() }.is_too_short(1000, 1));
    }

    fn read(texts: &[&str]) -> Vec<Prefix> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// Every prefix of this length within another one.
    fn pieces(whole: &str, length: u8) -> Vec<Prefix> {
        let nets = whole.parse::<IpNet>().unwrap().subnets(length).unwrap();
        nets.map(|net| net.to_string().parse().unwrap()).collect()
    }

    #[test]
    fn everybody_is_found_in_either_family_and_in_pieces() {
        for (list, words) in [
            (read(&["192.0.2.0/24", "::/0"]), "::/0 is everybody"),
            (read(&["0.0.0.0/0"]), "0.0.0.0/0 is everybody"),
            (read(&["192.0.2.0/24", "0.0.0.0/1"]), "0.0.0.0/1 is an eighth"),
            (read(&["128.0.0.0/1", "0.0.0.0/1"]), "0.0.0.0/1 is an eighth"),
            (read(&["128.0.0.0/2"]), "128.0.0.0/2 is an eighth"),
            (read(&["32.0.0.0/3"]), "32.0.0.0/3 is an eighth"),
            (pieces("0.0.0.0/0", 16), "100 % of the IPv4 addresses"),
            ([pieces("0.0.0.0/1", 12), read(&["8.0.0.0/8"])].concat(), "57 % of the IPv4"),
            (read(&["::/1", "8000::/1"]), "all of 2400::/12"),
            (read(&["2000::/3"]), "all of 2400::/12"),
            (read(&["2800::/5"]), "all of 2800::/12"),
            ([pieces("2a00::/12", 24), read(&["2a01::/16"])].concat(), "all of 2a00::/12"),
        ] {
            let found = everybody(&list).unwrap_or_else(|| panic!("{words}"));
            assert!(found.to_string().contains(words), "{words}: {found}");
        }
    }

    #[test]
    fn lists_that_people_fetch_are_not_everybody() {
        // The half of it, but for one /16: said twice, it is no more.
        let mut nearly =
            [pieces("0.0.0.0/2", 16), pieces("64.0.0.0/3", 16), pieces("96.0.0.0/4", 16)].concat();
        nearly.pop();
        nearly.extend(read(&["1.2.3.0/24", "8.0.0.0/8", "224.0.0.0/3"]));
        assert_eq!(everybody(&nearly), None);
        nearly.extend(read(&["200.1.0.0/16"]));
        assert_eq!(everybody(&nearly), Some(Everybody::Percent(50)));
        // What is given to nobody is most of IPv6, also of a registry's own.
        let mut full = read(&[
            "0.0.0.0/8",
            "10.0.0.0/8",
            "127.0.0.0/8",
            "224.0.0.0/3",
            "::/3",
            "4000::/2",
            "8000::/1",
            "3000::/4",
        ]);
        full.extend(REGIONS.iter().flat_map(|region| pieces(region, 20).split_off(1)));
        assert_eq!(everybody(&full), None);
        assert_eq!(everybody(&crate::filter::bogons()), None);
        assert_eq!(everybody(&[]), None);
    }
}
