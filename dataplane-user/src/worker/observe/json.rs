//! JSON by hand: the access log writes one object a request and nothing else of this process is as busy.

use std::net::{IpAddr, SocketAddr};

/// An object on its way into a buffer. Keys are our own and need no escaping.
pub(super) struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> Object<'a> {
    pub(super) fn open(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    pub(super) fn close(self) {
        self.out.push(b'}');
    }

    fn key(&mut self, key: &str) {
        if !std::mem::take(&mut self.empty) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    pub(super) fn text(&mut self, key: &str, text: &str) {
        self.key(key);
        self.out.push(b'"');
        escape(self.out, text);
        self.out.push(b'"');
    }

    /// Left out when empty.
    pub(super) fn some_text(&mut self, key: &str, text: &str) {
        if !text.is_empty() {
            self.text(key, text);
        }
    }

    pub(super) fn number(&mut self, key: &str, number: u64) {
        self.key(key);
        digits(self.out, number);
    }

    pub(super) fn flag(&mut self, key: &str, flag: bool) {
        self.key(key);
        self.out.extend_from_slice(if flag { b"true" } else { b"false" });
    }

    pub(super) fn address(&mut self, key: &str, address: SocketAddr) {
        self.key(key);
        self.out.push(b'"');
        match address.ip().to_canonical() {
            IpAddr::V4(v4) => {
                for (at, octet) in v4.octets().into_iter().enumerate() {
                    if at > 0 {
                        self.out.push(b'.');
                    }
                    digits(self.out, octet.into());
                }
            }
            IpAddr::V6(v6) => self.out.extend_from_slice(format!("[{v6}]").as_bytes()),
        }
        self.out.push(b':');
        digits(self.out, address.port().into());
        self.out.push(b'"');
    }

    pub(super) fn object(&mut self, key: &str) -> Object<'_> {
        self.key(key);
        Object::open(self.out)
    }
}

/// RFC 8259, 7. Also DEL and the C1 controls, which RFC 8259 lets through and terminals obey.
pub(super) fn escape(out: &mut Vec<u8>, text: &str) {
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_control() || c == '"' || c == '\\') {
        let (plain, tail) = rest.split_at(at);
        out.extend_from_slice(plain.as_bytes());
        let mut tail = tail.chars();
        match tail.next() {
            Some(c @ ('"' | '\\')) => out.extend_from_slice(&[b'\\', c as u8]),
            Some('\n') => out.extend_from_slice(b"\\n"),
            Some('\r') => out.extend_from_slice(b"\\r"),
            Some('\t') => out.extend_from_slice(b"\\t"),
            // Control characters lie below U+00A0.
            Some(c) => out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes()),
            None => {}
        }
        rest = tail.as_str();
    }
    out.extend_from_slice(rest.as_bytes());
}

/// A number in decimal.
pub(super) fn digits(out: &mut Vec<u8>, mut number: u64) {
    let mut text = [0; 20];
    let mut at = text.len();
    loop {
        at -= 1;
        text[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&text[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_client_sends_reads_back_as_it_was() {
        let nasty: String = (0..0x180).filter_map(char::from_u32).chain(['\u{2028}', '\u{10ffff}']).collect();
        for text in ["", "plain", "\"", "\\\"\n\r\t\u{7f}\u{9b}31m", "a\"b", &nasty] {
            let mut out = Vec::new();
            let mut object = Object::open(&mut out);
            object.text("x", text);
            object.number("n", u64::MAX);
            object.number("zero", 0);
            object.flag("yes", true);
            object.address("a", "[2001:db8::1]:443".parse().unwrap());
            object.address("m", "[::ffff:192.0.2.7]:80".parse().unwrap());
            object.object("inner").close();
            object.close();
            assert!(!out.iter().any(|byte| *byte < 0x20 || *byte == 0x7f), "{out:?}");
            let read: serde_json::Value = serde_json::from_slice(&out).unwrap();
            assert_eq!(read["x"], text);
            assert_eq!(read["n"], u64::MAX);
            assert_eq!(read["a"], "[2001:db8::1]:443");
            assert_eq!(read["m"], "192.0.2.7:80");
        }
    }
}
