use std::net::IpAddr;

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

fn read(text: &str, key: Option<&str>) -> Result<Vec<String>, String> {
    let found = prefixes_in(text, key).map_err(|why| why.to_string())?;
    Ok(found.iter().map(ToString::to_string).collect())
}

#[test]
fn json_of_any_shape() {
    let text = r#"{"syncToken": "1", "prefixes": [{"ip_prefix": "192.0.2.0/24", "region": "GLOBAL"},
        {"ip_prefix": "192.0.2.0/24"}], "ipv6_prefixes": [{"ipv6_prefix": "2001:db8::/32"}], "origin": "10.0.0.0/8"}"#;
    assert_eq!(read(text, None).unwrap(), ["10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32"]);
    assert_eq!(read(text, Some("ip_prefix")).unwrap(), ["192.0.2.0/24"]);
    assert_eq!(read(text, Some("prefixes")).unwrap_err().split(':').next().unwrap(), "prefixes[0].region");
    assert_eq!(read(text, Some("x")).unwrap_err(), "there is no prefix in it under the key \"x\"");
    assert!(read("{\n\"a\": }", None).unwrap_err().starts_with("line 2, column"));
}

#[test]
fn tables_and_lists() {
    let table = "prefix,comment\n\"192.0.2.0/24\", one\n# nothing\n\n2001:db8::/32,two\n";
    for key in [None, Some("Prefix")] {
        assert_eq!(read(table, key).unwrap(), ["192.0.2.0/24", "2001:db8::/32"]);
    }
    assert!(read(table, Some("net")).unwrap_err().contains("no column \"net\""));
    assert_eq!(
        read("192.0.2.7\r\n198.51.100.0/24 ; SBL1\n", None).unwrap(),
        ["192.0.2.7/32", "198.51.100.0/24"]
    );
    assert_eq!(
        read("192.0.2.0/24\n192.0.2.9/24\n", None).unwrap_err(),
        "line 2: \"192.0.2.9/24\" is no prefix: the address has bits set behind its /length; write 192.0.2.0/24"
    );
    assert!(read("192.0.2.0/24\nexample.com\n", None).unwrap_err().starts_with("line 2: \"example.com\""));
    assert_eq!(read(" \n", None).unwrap_err(), "there is no prefix in it");
}

#[test]
fn too_much_is_refused() {
    let many =
        (0..=MOST_PREFIXES as u32).map(|n| std::net::Ipv4Addr::from_bits(n << 8).to_string() + "/24\n");
    assert_eq!(prefixes_in(&many.collect::<String>(), None), Err(InvalidList::Prefixes));
    let long = " ".repeat(MOST_BYTES + 1);
    assert_eq!(prefixes_in(&long, None), Err(InvalidList::Bytes(MOST_BYTES + 1)));
}

#[test]
fn a_mistyped_first_line_is_refused() {
    for first in [
        "l0.0.0.0/8",
        "lO.O.O.O/8",
        "lO.O.O.O",
        "1O/8",
        "10-0-0-0",
        "/8",
        "2001:db8:::/32",
        "fe80/10",
        "10.0.0.0/x",
        "10.0.0.0/",
        "10,0.0.0/8",
        "example.com",
        "10.0.0.0/33",
        "note,l0.0.0.0/8",
        "deny l0.0.0.0/8",
        "\u{ff11}0.0.0.0/8",
    ] {
        for rest in ["192.168.0.0/16", "2001:db9::/32"] {
            let why = read(&format!("# list\n{first}\n{rest}"), None).unwrap_err();
            assert!(why.starts_with("line 2: ") && why.contains("begin a heading with #"), "{why}");
        }
    }
    assert_eq!(
        read("192.0.2.9/24,note\n192.0.2.0/24", None).unwrap_err(),
        "line 1: \"192.0.2.9/24\" is neither a prefix nor a heading: the address has bits set behind its /length; \
         write 192.0.2.0/24; begin a heading with #, or name its column as the key"
    );
}

#[test]
fn a_heading_is_skipped() {
    for heading in [
        "cidr",
        "ip prefix",
        "network/mask",
        "IPv4/IPv6",
        "Start IP",
        "note,CIDR",
        "\"No.\",\"Prefix\"",
        "ip_prefix\tregion",
        "dst_ip;ASN (32 bit)",
    ] {
        assert_eq!(
            read(&format!("\n{heading}\n192.0.2.0/24\n"), None).unwrap(),
            ["192.0.2.0/24"],
            "{heading}"
        );
        assert!(read(&format!("192.0.2.0/24\n{heading}\n"), None).unwrap_err().starts_with("line 2: "));
    }
    // With a key the line that has it is the heading, whatever else is in it.
    assert_eq!(read("source.ip,10.0.0.0/8\n192.0.2.0/24,x", Some("Source.IP")).unwrap(), ["192.0.2.0/24"]);
    assert_eq!(read("ip prefix\n192.0.2.0/24", Some("ip prefix")).unwrap(), ["192.0.2.0/24"]);
    assert_eq!(
        read("# x\nl0.0.0.0/8\ncidr\n192.0.2.0/24", Some("cidr")).unwrap_err(),
        "line 2: there is no column \"cidr\"; name one that is there, or leave the key out"
    );
}

#[test]
fn quotes_are_those_of_csv() {
    let table = "note,cidr\n\"was,10.99.0.0/16\",10.22.0.0/16\n\"Acme, Inc\",10.23.0.0/16\n\
         \"said \"\"10.98.0.0/16\"\", and so\" , \"10.24.0.0/16\"\n5\" pipe,10.25.0.0/16\n";
    for key in [None, Some("cidr")] {
        assert_eq!(
            read(table, key).unwrap(),
            ["10.22.0.0/16", "10.23.0.0/16", "10.24.0.0/16", "10.25.0.0/16"]
        );
        for broken in ["\"Acme\n Inc\",10.22.0.0/16", "\"Acme\" Inc,10.22.0.0/16", "x,\"10.22.0.0/16"] {
            let why = read(&format!("note,cidr\n{broken}\n"), key).unwrap_err();
            assert!(why.starts_with("line 2: a field that begins with \" must end with \""), "{why}");
        }
    }
    assert!(read("\"note,cidr\n10.22.0.0/16", Some("cidr")).unwrap_err().starts_with("line 1: a field"));
}

#[test]
fn the_heading_says_what_separates() {
    assert_eq!(
        read("note,cidr\nwas;10.99.0.0/16,10.22.0.0/16\n; nothing", Some("cidr")).unwrap(),
        ["10.22.0.0/16"]
    );
    assert_eq!(read("note;cidr\n;10.22.0.0/16\na,b;10.23.0.0/16", Some("cidr")).unwrap().len(), 2);
    assert_eq!(read("note\tcidr\n\t10.22.0.0/16", Some("cidr")).unwrap(), ["10.22.0.0/16"]);
    assert_eq!(read("note   cidr\nx  10.22.0.0/16  ", Some("cidr")).unwrap(), ["10.22.0.0/16"]);
    assert_eq!(
        read("note,cidr\nx", Some("cidr")).unwrap_err().split(':').nth(1).unwrap(),
        " \"\" is no prefix"
    );
}

#[test]
fn leading_zeros_are_refused() {
    let zeros =
        "is no prefix: a number in it begins with 0, which some tools read as octal; write it without";
    for text in ["010.7.0.0/16", "10.07.0.0/16", "10.0.0.00/8", "10.0.0.0/08", "10.0.0.010", "2001:db8::/032"]
    {
        assert_eq!(
            read(&format!("192.0.2.0/24\n{text}, x"), None).unwrap_err(),
            format!("line 2: {text:?} {zeros}")
        );
        assert_eq!(
            read(&format!("cidr,x\n{text},"), Some("cidr")).unwrap_err(),
            format!("line 2: {text:?} {zeros}")
        );
        for key in [None, Some("p")] {
            let json = format!("{{\"p\": [\"192.0.2.0/24\", \"{text}\"]}}");
            assert_eq!(read(&json, key).unwrap_err(), format!("p[1]: {text:?} {zeros}"));
        }
    }
    let plain = ["0.0.0.0/0", "10.0.0.0/10", "2001:0db8::/32", "::/0", "0000::1"];
    assert_eq!(read(&plain.join("\n"), None).unwrap().len(), plain.len());
}

fn prefix() -> impl Strategy<Value = Prefix> {
    let of = |address: IpAddr, length| ipnet::IpNet::new(address, length).unwrap().trunc().to_string();
    prop_oneof![
        (any::<u32>(), 0..=32u8).prop_map(move |(bits, length)| of(IpAddr::from(bits.to_be_bytes()), length)),
        // 2000::/3 has no mapped ones.
        (any::<u128>(), 3..=128u8)
            .prop_map(move |(bits, length)| of(IpAddr::from((bits >> 3 | 1 << 125).to_be_bytes()), length)),
    ]
    .prop_map(|text| text.parse().unwrap())
}

proptest! {
    /// What a table's other columns say never changes what is imported.
    #[test]
    fn a_table_gives_its_column(rows in vec(("[^\r\n]{0,20}", prefix(), prefix()), 1..20), separator in "[,;\t]") {
        let table: String = rows
            .iter()
            .map(|(note, other, prefix)| {
                let note = format!("{note}{separator}{other}").replace('"', "\"\"");
                format!("\"{note}\"{separator}{prefix}\r\n")
            })
            .collect();
        let wanted: BTreeSet<Prefix> = rows.iter().map(|(_, _, prefix)| *prefix).collect();
        let found = prefixes_in(&format!("note{separator}cidr\n{table}"), Some("cidr"));
        prop_assert_eq!(found, Ok(wanted.into_iter().collect()));
    }

    /// One wrong character in the first line: another prefix or a refusal, never one prefix less.
    #[test]
    fn one_wrong_character_is_seen(first in prefix(), at in any::<Index>(), wrong in "[a-zA-Z0-9./:_-]") {
        let mut text = first.to_string();
        let at = at.index(text.len());
        text.replace_range(at..=at, &wrong);
        if let Ok(found) = prefixes_in(&format!("{text}\nff02::/16\nff05::/16\n"), None) {
            prop_assert_eq!(found.len(), 3, "{}", text);
        }
    }

    #[test]
    fn whatever_is_written_is_read_again(prefixes in btree_set(prefix(), 1..20), text in any::<String>(), key in "[a-z]{0,3}") {
        let lines: Vec<String> = prefixes.iter().map(ToString::to_string).collect();
        prop_assert_eq!(prefixes_in(&lines.join("\n"), None), Ok(prefixes.into_iter().collect()));
        // Any text has an answer.
        let _list = prefixes_in(&text, None);
        let _table = prefixes_in(&text, Some(&key));
    }
}
