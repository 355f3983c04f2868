//! The corpus's notation; `requests.txt` explains it.

/// What must happen to a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Want {
    /// Refused for this reason, the connection closed, no origin saw any of it.
    Refuse(String),
    /// Refused behind the head, for this reason; no origin took what it saw for a whole request.
    Cut(String),
    /// Every origin saw this one request: method, target, body. `close`: the connection ends behind the answer.
    One { method: String, target: String, body: Vec<u8>, close: bool },
    /// The client of a response case gets this status and body; behind it the connection may close.
    Get { status: u16, body: Vec<u8> },
}

/// One case.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// Its name: letters, digits, `.` and `-`.
    pub name: String,
    /// Where the rule is.
    pub section: String,
    /// What must happen.
    pub want: Want,
    /// The method that asks for a response case.
    pub method: String,
    /// The bytes; for responses in pieces, 100 ms apart.
    pub pieces: Vec<Vec<u8>>,
    /// What happens is not what the section says, and how it differs.
    pub known: Option<String>,
    /// HTTP/2: fields of the head, and those of the trailers.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// HTTP/2: trailers.
    pub trailers: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Case {
    /// Whether it must not get through.
    pub(crate) fn refused(&self) -> bool {
        matches!(self.want, Want::Refuse(_) | Want::Cut(_) | Want::Get { status: 502.., .. })
    }

    /// What the name says before its first dot.
    pub(crate) fn group(&self) -> &str {
        self.name.split('.').next().unwrap_or_default()
    }
}

/// Reads a corpus.
pub(crate) fn read(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        if word.is_empty() || word.starts_with('#') {
            continue;
        }
        if word == "case" {
            let (name, section) = rest.split_once(' ').expect("case NAME SECTION");
            assert!(cases.iter().all(|case| case.name != name), "line {number}: {name} is there twice");
            cases.push(Case {
                name: name.to_owned(),
                section: section.to_owned(),
                want: Want::Refuse(String::new()),
                method: "GET".to_owned(),
                pieces: vec![Vec::new()],
                known: None,
                fields: Vec::new(),
                trailers: Vec::new(),
            });
            continue;
        }
        let case = cases.last_mut().expect("case comes first");
        let name = case.name.clone();
        let pair = || {
            let (field, value) = rest.split_once(' ').unwrap_or((rest, ""));
            (bytes(field, &name), bytes(value, &name))
        };
        match word {
            "want" => case.want = want(rest, &name).unwrap_or_else(|| panic!("line {number}: {line}")),
            "known" => case.known = Some(rest.to_owned()),
            "ask" => case.method = rest.to_owned(),
            "send" => case.pieces.last_mut().expect("a piece").extend(bytes(rest, &name)),
            "pause" => case.pieces.push(Vec::new()),
            "field" => case.fields.push(pair()),
            "trailer" => case.trailers.push(pair()),
            other => panic!("line {number}: {other}"),
        }
    }
    cases
}

fn want(text: &str, name: &str) -> Option<Want> {
    let mut words = text.splitn(4, ' ');
    let (kind, first) = (words.next()?, words.next()?.to_owned());
    let second = words.next().unwrap_or_default();
    Some(match kind {
        "refuse" => Want::Refuse(first),
        "cut" => Want::Cut(first),
        "one" | "one-close" => Want::One {
            method: first,
            target: String::from_utf8(bytes(second, name)).ok()?,
            body: bytes(words.next().unwrap_or_default(), name),
            close: kind == "one-close",
        },
        "get" => Want::Get { status: first.parse().ok()?, body: bytes(second, name) },
        _ => return None,
    })
}

/// Takes the escapes away; `{host}` stays, because it differs from origin to origin.
fn bytes(text: &str, name: &str) -> Vec<u8> {
    let text = text.replace("{id}", name);
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, more)) = rest.split_first() {
        rest = more;
        match (first, more) {
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).expect("digits");
                out.push(u8::from_str_radix(digits, 16).expect("\\xHH"));
                rest = after;
            }
            (b'\\', [letter, after @ ..]) => {
                out.push(match letter {
                    b'r' => b'\r',
                    b'n' => b'\n',
                    b't' => b'\t',
                    b's' => b' ',
                    b'0' => 0,
                    b'\\' => b'\\',
                    _ => panic!("{name}: an unknown escape"),
                });
                rest = after;
            }
            // `{a*100}`: a hundred times.
            (b'{', [byte, b'*', after @ ..]) => {
                let end = after.iter().position(|byte| *byte == b'}').expect("}");
                let times = std::str::from_utf8(&after[..end]).ok().and_then(|text| text.parse().ok());
                out.extend(std::iter::repeat_n(*byte, times.expect("a number")));
                rest = &after[end + 1..];
            }
            _ => out.push(*first),
        }
    }
    out
}

/// With the origin's host in its places.
pub(crate) fn with_host(bytes: &[u8], host: &str) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::with_capacity(bytes.len()), bytes);
    while let Some(at) = rest.windows(6).position(|window| window == b"{host}") {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(host.as_bytes());
        rest = &rest[at + 6..];
    }
    out.extend_from_slice(rest);
    out
}
