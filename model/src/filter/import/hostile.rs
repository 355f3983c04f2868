//! What nobody writes by hand: the same meaning as a tree has, and little time and room however it is made.

use std::sync::mpsc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// The slow reference. Of fields that have one name serde_json's tree keeps the last, and has them sorted.
fn in_tree(
    value: &Value,
    key: Option<&str>,
    counts: bool,
    path: &str,
    found: &mut BTreeSet<Prefix>,
) -> Result<(), InvalidList> {
    match value {
        Value::String(text) if counts => match strictly(text.trim()) {
            Ok(prefix) => put(found, prefix),
            Err(why) if key.is_none() && why.is_other_text() => Ok(()),
            Err(why) => Err(no_prefix(path.trim_start_matches('.').to_owned(), text, why)),
        },
        Value::Array(items) => items
            .iter()
            .enumerate()
            .try_for_each(|(index, item)| in_tree(item, key, counts, &format!("{path}[{index}]"), found)),
        Value::Object(fields) => fields.iter().try_for_each(|(name, item)| {
            in_tree(item, key, counts || key == Some(name), &format!("{path}.{name}"), found)
        }),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

fn by_tree(text: &str, key: Option<&str>) -> Result<Vec<Prefix>, InvalidList> {
    let tree: Value = serde_json::from_str(text)
        .map_err(|why| InvalidList::Json { line: why.line(), column: why.column() })?;
    let mut found = BTreeSet::new();
    in_tree(&tree, key, key.is_none(), "", &mut found)?;
    let under = key.map(|key| format!(" under the key {key:?}")).unwrap_or_default();
    if found.is_empty() { Err(InvalidList::Empty(under)) } else { Ok(found.into_iter().collect()) }
}

/// JSON in which names come again in an object and in no order.
fn json() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        4 => "\"[1-3]\\.0\\.0\\.0/8\"",
        1 => "\"(note|10\\.0\\.0\\.1/8|010\\.0\\.0\\.0/8|::/0| 192\\.0\\.2\\.7 )\"",
        1 => "(null|true|-7|1e9|0\\.5|\"\")",
    ];
    let name = "(a|b|c|\\\\u0061|\\\\u0062|)";
    text.prop_recursive(5, 60, 6, move |inner| {
        let object = vec((name, inner.clone()), 0..6).prop_map(|fields| {
            let fields: Vec<String> =
                fields.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
            format!("{{{}}}", fields.join(", "))
        });
        prop_oneof![vec(inner, 0..6).prop_map(|items| format!("[{}]", items.join(","))), object]
    })
    .prop_map(|value| format!("[{value}]"))
}

proptest! {
    #[test]
    fn json_means_what_its_tree_means(text in json(), key in option::of("[ab]")) {
        let (found, wanted) = (prefixes_in(&text, key.as_deref()), by_tree(&text, key.as_deref()));
        // Of several faults the tree's first is in the order of names, and not of the text.
        match (&found, &wanted) {
            (Err(InvalidList::NoPrefix { .. }), Err(InvalidList::NoPrefix { .. })) => {}
            _ => prop_assert_eq!(&found, &wanted, "{}", text),
        }
        // Written with names in order, each once, there is no difference at all.
        let tree: Value = serde_json::from_str(&text).unwrap();
        let sorted = tree.to_string();
        prop_assert_eq!(prefixes_in(&sorted, key.as_deref()), by_tree(&sorted, key.as_deref()), "{}", sorted);
    }
}

#[test]
fn the_last_of_fields_with_one_name_counts() {
    let read = |text: &str, key| prefixes_in(text, key).map_err(|why| why.to_string());
    let wanted: Vec<Prefix> = vec!["192.0.2.0/24".parse().unwrap()];
    for text in [
        r#"{"a": ["10.0.0.0/8"], "a": "192.0.2.0/24"}"#,
        r#"{"a": "10.0.0.0/8", "b": {"a": "192.0.2.0/24"}, "\u0061": 0}"#,
        // Fields inside of one that does not count are no others' neighbours.
        r#"{"a": {"a": "10.0.0.0/8", "b": {"a": "x"}}, "b": {"a": "192.0.2.0/24"}, "a": {"a": []}}"#,
        r#"{"a": "no prefix, and replaced", "a": {"b": "10.0.0.0/8", "b": "192.0.2.0/24"}}"#,
    ] {
        for key in [None, Some("a")] {
            assert_eq!(read(text, key), Ok(wanted.clone()), "{text}");
        }
    }
    assert!(read(r#"{"a": "192.0.2.0/24", "a": "x"}"#, Some("a")).unwrap_err().starts_with("a: \"x\" is no"));
}

#[test]
fn what_is_no_json_is_told_where_a_tree_would() {
    let deep = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    for text in [
        "{",
        "[1, 2",
        "[\"::/0\"] x",
        "[\"::/0\",]",
        "{\"a\": 1,\n}",
        "{1: 2}",
        "[1e999]",
        "[01]",
        "[-]",
        "[\"\\ud800\"]",
        "{\"\\ud800\": 1}",
        "[\"a\nb\"]",
        "[nul]",
        &deep(127),
        &deep(128),
        &deep(100_000),
        // It is told first, wherever it is.
        "[\"10.0.0.1/8\",\n\"]",
    ] {
        for key in [None, Some("a")] {
            assert_eq!(prefixes_in(text, key), by_tree(text, key), "{}", shown(text));
        }
    }
}

#[test]
fn words_are_short() {
    let long = "k".repeat(1 << 20);
    let begin = format!("{}...{}[1].x: \"10.0.0.1/8\" is no prefix", &long[..100], &long[..95]);
    let json = format!("{{\"{long}\": [0, {{\"x\": \"10.0.0.1/8\"}}]}}");
    let why = prefixes_in(&json, None).unwrap_err().to_string();
    assert!(why.starts_with(&begin), "{}", shown(&why));
    let exactly = format!("{{\"{}\": \"10.0.0.1/8\"}}", &long[..200]);
    assert!(prefixes_in(&exactly, None).unwrap_err().to_string().starts_with(&format!("{}: ", &long[..200])));
    for (text, key) in [
        (json.as_str(), Some(long.as_str())),
        ("[]", Some(&long)),
        ("cidr\n::/0", Some(&long)),
        (&long, None),
        (&format!("::/0\n{long}"), None),
        (&format!("{long}.1"), None),
        (&format!("cidr\n{long}"), Some("cidr")),
    ] {
        let why = prefixes_in(text, key).unwrap_err().to_string();
        assert!(why.len() < 600, "{}", why.len());
    }
}

#[test]
fn long_texts_are_judged_as_short_ones() {
    let zeros = "0".repeat(1 << 20);
    let of = |text: &str| strictly(text).unwrap_err();
    for text in [
        format!("{zeros}10.0.0.0/8"),
        format!("10.{zeros}.0.0/8"),
        format!("10.0.0.0/{zeros}8"),
        format!("::/{zeros}"),
    ] {
        assert_eq!(of(&text), NotPrefix::LeadingZero, "{}", shown(&text));
    }
    for (text, why) in [
        (format!("10.0.0.0/8{zeros}"), InvalidPrefix::Length(32)),
        (format!("::/x{zeros}"), InvalidPrefix::Length(128)),
        (format!("10.0.0.0/8/{zeros}"), InvalidPrefix::Length(32)),
        (format!("{zeros}x/8"), InvalidPrefix::Syntax),
        (format!("10.0.0.{zeros}1.{zeros}"), InvalidPrefix::Syntax),
        ("1.".repeat(1 << 20), InvalidPrefix::Syntax),
        (":".repeat(1 << 20), InvalidPrefix::Syntax),
        (format!("1.0.0.0.{}/8", ".".repeat(1 << 20)), InvalidPrefix::Syntax),
    ] {
        assert_eq!(of(&text), NotPrefix::Invalid(why), "{}", shown(&text));
    }
    let longest = "2001:db8:ffff:ffff:ffff:ffff:255.255.255.255/128";
    assert_eq!(strictly(longest).unwrap().to_string(), "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff/128");
}

/// As long as it says, of the same again and again.
fn filled(length: usize, begin: &str, again: &str, end: &str) -> String {
    format!("{begin}{}{end}", again.repeat((length - begin.len() - end.len()) / again.len()))
}

/// Each piece of a list once had the whole way to it copied: for these, terabytes.
#[test]
fn a_long_name_before_a_long_list_takes_no_longer() {
    const LENGTH: usize = MOST_BYTES / 2;
    let long = "k".repeat(LENGTH / 2);
    let (done, wait) = mpsc::channel();
    for (each, key) in [("0,", None), ("[],", None), ("\"::\",", Some("x"))] {
        let text = filled(LENGTH, &format!("{{\"{long}\":["), each, "0]}");
        let done = done.clone();
        let reading = std::thread::spawn(move || {
            let found = prefixes_in(&text, key);
            // The test is over where nobody listens.
            let _late = done.send(found.is_err());
        });
        // About a second unoptimised, on a machine that has nothing else to do.
        assert_eq!(wait.recv_timeout(Duration::from_secs(60)), Ok(true), "{each}");
        reading.join().unwrap();
    }
}

/// In a process of its own, for what is known of a process is what all of its threads took.
#[test]
fn no_document_takes_much_room() {
    const CHILD: &str = "SALLYPORT_TEST_ROOM";
    const LENGTH: usize = MOST_BYTES / 8;
    if std::env::var_os(CHILD).is_none() {
        let name = "filter::import::hostile::no_document_takes_much_room";
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let child = child.args([name, "--exact", "--nocapture"]).env(CHILD, "1").output().unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && said.contains("VmHWM"), "{said}");
        return;
    }
    for (begin, each, end, key) in [
        ("[", "{\"\":0},", "0]", None),
        ("[", "[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]],", "0]", None),
        ("[\"", "1.", "\"]", Some("x")),
        ("", ",", "", None),
        ("::", ",a", "", None),
        ("cidr", ",a", "\n::", Some("cidr")),
        ("x", " a", "", None),
        ("\"", "\"\"", "\",::", None),
        ("{", "\"\":0,", "\"\":0}", None),
    ] {
        let _any = prefixes_in(&filled(LENGTH, begin, each, end), key);
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let most = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        println!("{most} {each}");
        let kib: usize = most.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(kib < 24 << 10, "{kib} KiB for 1 MiB of {each}");
    }
}
