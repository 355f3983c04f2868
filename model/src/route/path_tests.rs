use proptest::prelude::*;

use super::*;

fn normal(path: &str) -> String {
    let parsed = NormalPath::parse(path).unwrap();
    parsed.as_str().to_owned()
}

#[test]
fn escapes_have_one_spelling() {
    for (path, expected) in [
        ("/", "/"),
        ("/%7Euser/%41%2d%2E%5f", "/~user/A-._"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/%252e%252e/", "/%252e%252e/"),
        ("/a%2fb", "/a%2Fb"),
        ("/a%3fb%23c%20d", "/a%3Fb%23c%20d"),
        ("/;v=1,2:@!$&'()*+", "/;v=1,2:@!$&'()*+"),
        ("/a|b\"c<d>e^f`g{h}[i]", "/a%7Cb%22c%3Cd%3Ee%5Ef%60g%7Bh%7D%5Bi%5D"),
    ] {
        assert_eq!(normal(path), expected, "{path}");
    }
}

#[test]
fn dots_go_and_slashes_stay() {
    for (path, expected) in [
        ("/a/./b", "/a/b"),
        ("/a/b/../c", "/a/c"),
        ("/a/b/..", "/a/"),
        ("/a/.", "/a/"),
        ("/.", "/"),
        ("/a/..", "/"),
        ("/a/%2E%2e/b", "/b"),
        ("/a/%2e/b", "/a/b"),
        ("//a//b/", "//a//b/"),
        ("/a//../b", "/a/b"),
        ("//..", "/"),
        ("/.well-known/..x/...", "/.well-known/..x/..."),
    ] {
        assert_eq!(normal(path), expected, "{path}");
    }
}

#[test]
fn what_is_refused_says_why() {
    for (path, why) in [
        ("", InvalidPath::NotAbsolute),
        ("*", InvalidPath::NotAbsolute),
        ("a/b", InvalidPath::NotAbsolute),
        ("/%", InvalidPath::Escape),
        ("/%4", InvalidPath::Escape),
        ("/%4g", InvalidPath::Escape),
        ("/%+1", InvalidPath::Escape),
        ("/|%4", InvalidPath::Escape),
        ("/a%00", InvalidPath::Nul),
        ("/a\0", InvalidPath::Nul),
        ("/a\\b", InvalidPath::Backslash),
        ("/a%5cb", InvalidPath::Backslash),
        ("/a b", InvalidPath::Character),
        ("/a#b", InvalidPath::Character),
        ("/a?b", InvalidPath::Character),
        ("/a\tb", InvalidPath::Character),
        ("/a\x7f", InvalidPath::Character),
        ("/é", InvalidPath::Character),
        ("/..", InvalidPath::AboveRoot),
        ("/a/../../b", InvalidPath::AboveRoot),
        ("/%2e%2e/b", InvalidPath::AboveRoot),
        ("/a/..%2Fb", InvalidPath::EncodedSlash),
        ("/a%2f%2e%2e", InvalidPath::EncodedSlash),
        ("/a%2F./b", InvalidPath::EncodedSlash),
    ] {
        assert_eq!(NormalPath::parse(path), Err(why), "{path}");
    }
}

#[test]
fn an_encoded_slash_is_seen() {
    assert!(NormalPath::parse("/a%2fb").unwrap().has_encoded_slash());
    assert!(!NormalPath::parse("/a%252fb").unwrap().has_encoded_slash());
    assert!(!NormalPath::parse("/a/b").unwrap().has_encoded_slash());
}

#[test]
fn a_normal_path_is_borrowed() {
    assert!(matches!(normalise("/a//b/%2F/.c/d."), Ok(Cow::Borrowed(_))));
    assert!(matches!(normalise("/%41"), Ok(Cow::Owned(_))));
}

/// Pieces that matter, in any order, and now and then any character at all.
fn path() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        6 => Just("/".to_owned()),
        4 => prop::sample::select(vec![".", "..", "a", "b", "%2e", "%2E", "%2f", "%2F", "%5c", "%00", "%", "%4", "%41"])
            .prop_map(str::to_owned),
        2 => prop::sample::select(vec!["|", "^", "%7c", "%7C", "~", "%7e", "%25", "%252e", ";", "?", "#", "\\", " "])
            .prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
        1 => any::<u8>().prop_map(|byte| format!("%{byte:02x}")),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
}

/// The same in three plain passes over characters: split, decode, climb.
fn slow(path: &str) -> Option<String> {
    const KEPT: &str = "-._~!$&'()*+,;=:@";
    let mut stack: Vec<String> = Vec::new();
    let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    for (index, segment) in segments.iter().enumerate() {
        let mut name = String::new();
        let mut rest = segment.chars();
        while let Some(c) = rest.next() {
            if c == '%' {
                let digits: String = rest.by_ref().take(2).collect();
                let hexadecimal = digits.len() == 2 && digits.chars().all(|c| c.is_ascii_hexdigit());
                let value = u8::from_str_radix(&digits, 16).ok().filter(|_| hexadecimal)?;
                let c = char::from(value);
                match c {
                    '\0' | '\\' => return None,
                    _ if c.is_ascii_alphanumeric() || "-._~".contains(c) => name.push(c),
                    _ => name.push_str(&format!("%{value:02X}")),
                }
            } else if c.is_ascii_alphanumeric() || KEPT.contains(c) {
                name.push(c);
            } else if "\"<>[]^`{|}".contains(c) {
                name.push_str(&format!("%{:02X}", u32::from(c)));
            } else {
                return None;
            }
        }
        let parts: Vec<&str> = name.split("%2F").collect();
        if parts.len() > 1 && parts.iter().any(|part| *part == "." || *part == "..") {
            return None;
        }
        let last = index + 1 == segments.len();
        match name.as_str() {
            "." => {}
            ".." => {
                stack.pop()?;
            }
            _ => {
                stack.push(name);
                continue;
            }
        }
        if last {
            stack.push(String::new());
        }
    }
    Some(format!("/{}", stack.join("/")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn agrees_with_the_slow_reference(path in path()) {
        let fast = NormalPath::parse(&path).ok().map(|path| path.as_str().to_owned());
        prop_assert_eq!(fast, slow(&path));
    }

    #[test]
    fn is_idempotent_and_clean(path in path()) {
        if let Ok(once) = NormalPath::parse(&path) {
            let text = once.as_str();
            prop_assert!(matches!(normalise(text), Ok(Cow::Borrowed(_))), "{} is not normal", text);
            prop_assert!(text.starts_with('/'));
            prop_assert!(!text.split('/').any(|segment| segment == "." || segment == ".."));
            prop_assert!(text.bytes().all(|b| (0x21..0x7f).contains(&b) && !b"\\#?|^".contains(&b)));
        }
    }
}
