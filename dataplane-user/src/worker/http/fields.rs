//! Header and trailer fields: one shared buffer and offsets into it, in the order they were sent.

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

/// A stretch of a message's buffer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    at: u32,
    len: u32,
}

impl Span {
    /// From `at`, `len` bytes.
    pub fn new(at: usize, len: usize) -> Self {
        // Heads are bounded far below 4 GiB by `headerBytes`; a span that did not fit would read as empty.
        match (u32::try_from(at), u32::try_from(len)) {
            (Ok(at), Ok(len)) => Self { at, len },
            (Err(_), _) | (_, Err(_)) => Self::default(),
        }
    }

    /// Where `part`, a subslice of `whole`, lies in it.
    pub fn within(whole: &[u8], part: &[u8]) -> Self {
        Self::new((part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize), part.len())
    }

    /// The bytes.
    pub fn of(self, text: &[u8]) -> &[u8] {
        text.get(self.at as usize..self.at as usize + self.len as usize).unwrap_or_default()
    }

    /// The bytes, sharing the buffer.
    pub fn share(self, text: &Bytes) -> Bytes {
        let range = self.at as usize..self.at as usize + self.len as usize;
        if range.end <= text.len() { text.slice(range) } else { Bytes::new() }
    }
}

macro_rules! known {
    ($($name:ident = $text:literal,)*) => {
        /// A field name that means something to a gateway; anything else is [`Known::Other`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[expect(missing_docs, reason = "each is the field of that name")]
        pub enum Known { $($name,)* Other }

        impl Known {
            /// Which field a name is, in any case.
            pub fn of(name: &[u8]) -> Self {
                $(if name.len() == $text.len() && name.eq_ignore_ascii_case($text) { return Self::$name; })*
                Self::Other
            }
        }
    };
}

known! {
    Host = b"host",
    ContentLength = b"content-length",
    TransferEncoding = b"transfer-encoding",
    Connection = b"connection",
    KeepAlive = b"keep-alive",
    ProxyConnection = b"proxy-connection",
    Te = b"te",
    Trailer = b"trailer",
    Upgrade = b"upgrade",
    Http2Settings = b"http2-settings",
    Expect = b"expect",
    Cookie = b"cookie",
    Accept = b"accept",
    ContentType = b"content-type",
    Via = b"via",
    Forwarded = b"forwarded",
    ForwardedFor = b"x-forwarded-for",
    ForwardedProto = b"x-forwarded-proto",
    ForwardedHost = b"x-forwarded-host",
    ForwardedPort = b"x-forwarded-port",
    RequestId = b"x-request-id",
    Date = b"date",
}

impl Known {
    /// Whether the field belongs to one connection and is never forwarded (RFC 9110, 7.6.1). `TE: trailers` is written
    /// anew; `Trailer` is not among them (RFC 9110, 6.6.2).
    pub fn hop_by_hop(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::KeepAlive
                | Self::ProxyConnection
                | Self::Te
                | Self::TransferEncoding
                | Self::Upgrade
                | Self::Http2Settings
        )
    }

    /// Whether we say the field ourselves, so that no one else may say it behind our back: not as a trailer, and not with
    /// `_` for `-`, which servers of CGI's kind read as the same name.
    pub fn ours(self) -> bool {
        matches!(
            self,
            Self::Forwarded
                | Self::ForwardedFor
                | Self::ForwardedProto
                | Self::ForwardedHost
                | Self::ForwardedPort
                | Self::RequestId
        )
    }

    /// Whether a name is one of ours, or decides the framing, but for `_` where `-` belongs.
    pub fn disguised(name: &[u8]) -> bool {
        const LONGEST: usize = 20;
        let mut plain = [0; LONGEST];
        let Some(plain) = plain.get_mut(..name.len()).filter(|_| name.contains(&b'_')) else { return false };
        for (to, from) in plain.iter_mut().zip(name) {
            *to = if *from == b'_' { b'-' } else { *from };
        }
        let known = Self::of(plain);
        known.ours() || known.hop_by_hop() || known == Self::ContentLength
    }

    /// Whether a name tells what a client did at an earlier hop, also with `_` for `-`: the many `X-Forwarded-` ones, and those
    /// that name its address. Origins believe them of whoever stands before them.
    pub fn of_earlier_hops(name: &[u8]) -> bool {
        const BEGINS: &[u8] = b"x-forwarded-";
        const ADDRESSES: [&[u8]; 7] = [
            b"x-real-ip",
            b"x-client-ip",
            b"x-cluster-client-ip",
            b"client-ip",
            b"true-client-ip",
            b"cf-connecting-ip",
            b"fastly-client-ip",
        ];
        let same = |(byte, expected): (&u8, &u8)| {
            byte.eq_ignore_ascii_case(expected) || (*byte, *expected) == (b'_', b'-')
        };
        let is = |known: &[u8]| name.len() == known.len() && name.iter().zip(known).all(same);
        (name.len() > BEGINS.len() && name.iter().zip(BEGINS).all(same)) || ADDRESSES.into_iter().any(is)
    }

    /// Whether the field may not stand in a trailer section: framing, routing and connection management
    /// (RFC 9110, 6.5.1).
    pub fn forbidden_in_trailers(self) -> bool {
        self.hop_by_hop()
            || matches!(self, Self::Host | Self::ContentLength | Self::Trailer | Self::Expect | Self::Cookie)
    }
}

/// One field.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// What it means to us.
    pub known: Known,
    /// Belongs to the connection it came on: by its nature or because `Connection` names it.
    pub hop: bool,
    /// The name as sent.
    pub name: Span,
    /// The value without surrounding white space.
    pub value: Span,
}

/// The fields of a message.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    text: Bytes,
    list: Vec<Field>,
}

impl Fields {
    /// Fields over a buffer.
    pub fn new(text: Bytes, list: Vec<Field>) -> Self {
        Self { text, list }
    }

    /// The fields of an HTTP/2 block, copied into one buffer and read by `read`; `None` where a name is no token.
    pub(crate) fn copied(map: &HeaderMap, read: impl Fn(&[u8], &[u8], &[u8]) -> Field) -> Option<Self> {
        let size = map.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        let mut text = BytesMut::with_capacity(size);
        for (name, value) in map {
            if !is_token(name) {
                return None;
            }
            text.put_slice(name.as_str().as_bytes());
            text.put_slice(value.as_bytes());
        }
        let (text, mut at) = (text.freeze(), 0);
        let mut part = |length: usize| {
            at += length;
            text.get(at - length..at).unwrap_or_default()
        };
        let one = |(name, value): (&HeaderName, &HeaderValue)| {
            let name = part(name.as_str().len());
            read(&text, name, part(value.len()))
        };
        let list = map.iter().map(one).collect();
        Some(Self::new(text, list))
    }

    /// The buffer, which holds the rest of the head too.
    pub fn text(&self) -> &Bytes {
        &self.text
    }

    /// All fields in order.
    pub fn iter(&self) -> impl Iterator<Item = (Field, &[u8], &[u8])> {
        self.list.iter().map(|field| (*field, field.name.of(&self.text), field.value.of(&self.text)))
    }

    /// Values of one known field, in order.
    pub fn values(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        self.list.iter().filter(move |field| field.known == known).map(|field| field.value.of(&self.text))
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// Whether a name is a token (RFC 9110, 5.1). Of the names the `http` crate takes from HTTP/2, those with a quotation mark
/// are not (http 1.4), and an HTTP/1.1 origin may refuse the whole request for one.
pub(crate) fn is_token(name: &HeaderName) -> bool {
    !name.as_str().as_bytes().contains(&b'"')
}

/// Members of all `Connection` fields of a head, empty ones too. Each is compared with every field, and nobody has a use for
/// more than a few.
const MOST_OPTIONS: usize = 64;

/// A head with more of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyOptions;

/// Marks what `Connection` names as belonging to the connection, and says which options it has.
///
/// # Errors
/// They are too many.
pub fn connection_options(text: &[u8], list: &mut [Field]) -> Result<Options, TooManyOptions> {
    let (mut options, mut count) = (Options::default(), 0);
    for at in 0..list.len() {
        let Some(field) = list.get(at).copied() else { break };
        if field.known != Known::Connection {
            continue;
        }
        for token in field.value.of(text).split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            count += 1;
            if count > MOST_OPTIONS {
                return Err(TooManyOptions);
            }
            match token {
                _ if token.eq_ignore_ascii_case(b"close") => options.close = true,
                _ if token.eq_ignore_ascii_case(b"keep-alive") => options.keep_alive = true,
                _ if token.eq_ignore_ascii_case(b"upgrade") => options.upgrade = true,
                _ => {
                    for other in list.iter_mut().filter(|f| f.name.of(text).eq_ignore_ascii_case(token)) {
                        other.hop = true;
                    }
                }
            }
        }
    }
    Ok(options)
}

/// Connection options that change what we do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// `close`.
    pub close: bool,
    /// `keep-alive`.
    pub keep_alive: bool,
    /// `upgrade`.
    pub upgrade: bool,
}
