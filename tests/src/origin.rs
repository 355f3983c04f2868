//! An HTTPS origin that does what its path says, also what no origin should. Over HTTP/2 it is one for [`grpc`].

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::server::{Accepted, Acceptor};
use rustls::{ServerConnection, StreamOwned};

use crate::space::Space;
use crate::{grpc, websocket};

type Stream = StreamOwned<ServerConnection, TcpStream>;

/// An origin; it accepts until this value goes.
pub struct Origin {
    /// Its name, which every plain answer carries.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    tls: Arc<rustls::ServerConfig>,
    closed: AtomicBool,
    finish: AtomicBool,
    requests: AtomicU64,
    documents: Mutex<HashMap<String, Document>>,
}

/// What a path has at present.
#[derive(Debug, Clone, Default)]
struct Document {
    status: u16,
    etag: String,
    body: String,
    /// The `If-None-Match` of each request for it.
    asked: Vec<Option<String>>,
}

impl Origin {
    /// Starts one in `space`.
    pub fn start(space: &Space, address: SocketAddr, name: &str, tls: &Arc<rustls::ServerConfig>) -> Self {
        let listener = space.inside(|| TcpListener::bind(address)).expect("the origin's address");
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            tls: tls.clone(),
            closed: AtomicBool::new(false),
            finish: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            documents: Mutex::default(),
        });
        let address = listener.local_addr().expect("address");
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.closed.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let shared = accepting.clone();
                std::thread::spawn(move || shared.serve(stream));
            }
        });
        Self { name: name.to_owned(), address, shared }
    }

    /// `https://ADDRESS`.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Lets every `/endless` answer come to its orderly end.
    pub fn finish(&self) {
        self.shared.finish.store(true, Ordering::Relaxed);
    }

    /// How many requests it has read.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Answers requests for `path` with this from now on, and with 304 whoever has its entity tag (RFC 9110, 13.1.2).
    pub fn publish(&self, path: &str, status: u16, etag: &str, body: &str) {
        let mut documents = self.shared.documents.lock().expect("documents");
        let document = documents.entry(path.to_owned()).or_default();
        (document.status, document.etag, document.body) = (status, format!("\"{etag}\""), body.to_owned());
    }

    /// Which entity tag each request for a published `path` had, in the order they came.
    pub fn asked(&self, path: &str) -> Vec<Option<String>> {
        let documents = self.shared.documents.lock().expect("documents");
        documents.get(path).map(|document| document.asked.clone()).unwrap_or_default()
    }

    /// Stops listening: the next connection is refused.
    pub fn close(self, space: &Space) {
        self.shared.closed.store(true, Ordering::Relaxed);
        // The accept loop sees the flag with the next connection.
        let _ = space.inside(|| TcpStream::connect(self.address));
    }
}

/// One request.
struct Request {
    method: String,
    target: String,
    fields: Vec<(String, String)>,
}

impl Request {
    fn field(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// Byte `at` of every endless body: no short period, so that a shifted or repeated piece is seen.
pub fn pattern(at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

impl Shared {
    fn serve(&self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        // A client that ends amid its handshake, or has none, is not an origin's trouble.
        let Ok((accepted, stream)) = hello(stream) else { return };
        if accepted.client_hello().alpn().is_some_and(|mut names| names.any(|name| name == b"h2")) {
            let mut tls = (*self.tls).clone();
            tls.alpn_protocols = vec![b"h2".to_vec()];
            let _ = grpc::serve(accepted, stream, Arc::new(tls));
            return;
        }
        let Ok(session) = accepted.into_connection(self.tls.clone()) else { return };
        let mut reader = BufReader::new(StreamOwned::new(session, stream));
        while let Ok(Some(request)) = read_head(&mut reader) {
            self.requests.fetch_add(1, Ordering::Relaxed);
            if self.answer(&request, &mut reader).is_err() {
                return;
            }
        }
    }

    fn answer(&self, request: &Request, stream: &mut BufReader<Stream>) -> io::Result<()> {
        let path = request.target.split('?').next().unwrap_or_default();
        match path {
            "/endless" | "/bulk" => self.endless(path == "/bulk", stream.get_mut()),
            "/upload" => {
                let (bytes, right) = read_body(request, stream)?;
                plain(stream.get_mut(), 200, &format!("{bytes} {right}\n"))
            }
            "/echo" => {
                let fields: Vec<String> =
                    request.fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
                read_body(request, stream)?;
                let text = format!("{} {}\n{}\n", request.method, request.target, fields.join("\n"));
                plain(stream.get_mut(), 200, &text)
            }
            "/late" => {
                std::thread::sleep(Duration::from_secs(30));
                Err(io::ErrorKind::TimedOut.into())
            }
            "/stalled" => {
                raw(stream.get_mut(), "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")?;
                std::thread::sleep(Duration::from_secs(30));
                Err(io::ErrorKind::TimedOut.into())
            }
            "/gone" => Err(io::ErrorKind::ConnectionAborted.into()),
            "/cut" => {
                raw(stream.get_mut(), "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")?;
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            "/garbage" => {
                raw(stream.get_mut(), "HELLO 200 this is not HTTP\r\n\r\n")?;
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            "/ws" => websocket(request, stream),
            "/tunnel" => {
                raw(
                    stream.get_mut(),
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
                )?;
                io::copy(stream, &mut io::sink())?;
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            "/tunnel/other" => {
                raw(
                    stream.get_mut(),
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n",
                )?;
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            "/ambiguous" => {
                raw(
                    stream.get_mut(),
                    "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                )?;
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            _ => {
                read_body(request, stream)?;
                self.document(path, request.field("if-none-match"), stream.get_mut())
            }
        }
    }

    /// What is published there, or a greeting.
    fn document(&self, path: &str, known: Option<&str>, stream: &mut Stream) -> io::Result<()> {
        let mut documents = self.documents.lock().expect("documents");
        let Some(document) = documents.get_mut(path) else {
            drop(documents);
            return plain(stream, 200, &format!("hello from {}\n", self.name));
        };
        document.asked.push(known.map(str::to_owned));
        let Document { status, etag, body, .. } = document.clone();
        drop(documents);
        let length = body.len();
        match known == Some(&etag) {
            true => raw(stream, &format!("HTTP/1.1 304 Not Modified\r\nETag: {etag}\r\n\r\n")),
            false => raw(
                stream,
                &format!("HTTP/1.1 {status} X\r\nETag: {etag}\r\nContent-Length: {length}\r\n\r\n{body}"),
            ),
        }
    }

    /// About 200 KiB a second, chunked, until [`Origin::finish`]; or in bulk.
    fn endless(&self, in_bulk: bool, stream: &mut Stream) -> io::Result<()> {
        if in_bulk {
            return bulk(stream);
        }
        raw(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        let mut at = 0;
        while !self.finish.load(Ordering::Relaxed) {
            let piece: Vec<u8> = (at..at + 4096).map(pattern).collect();
            at += 4096;
            stream.write_all(b"1000\r\n")?;
            stream.write_all(&piece)?;
            raw(stream, "\r\n")?;
            std::thread::sleep(Duration::from_millis(20));
        }
        raw(stream, "0\r\n\r\n")
    }
}

/// 64 GiB as fast as they are taken.
fn bulk(stream: &mut Stream) -> io::Result<()> {
    const PIECE: usize = 64 * 1024;
    const PIECES: usize = 1 << 20;
    raw(stream, &format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", PIECE * PIECES))?;
    let piece = vec![b'.'; PIECE];
    (0..PIECES).try_for_each(|_| stream.write_all(&piece))
}

/// A WebSocket that sends every message back (RFC 6455), and a Close for a Close.
fn websocket(request: &Request, stream: &mut BufReader<Stream>) -> io::Result<()> {
    let Some(key) = request.field("sec-websocket-key") else {
        return plain(stream.get_mut(), 400, "no key\n");
    };
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        websocket::accept(key)
    );
    raw(stream.get_mut(), &head)?;
    loop {
        let (kind, payload) = websocket::read(stream)?;
        websocket::write(stream.get_mut(), kind, &payload, None)?;
        if kind == websocket::CLOSE {
            stream.get_mut().conn.send_close_notify();
            stream.get_mut().flush()?;
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
    }
}

fn raw(stream: &mut Stream, text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes())?;
    stream.flush()
}

fn plain(stream: &mut Stream, status: u16, text: &str) -> io::Result<()> {
    let length = text.len();
    raw(
        stream,
        &format!(
            "HTTP/1.1 {status} OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{text}"
        ),
    )
}

/// Reads the ClientHello.
fn hello(mut stream: TcpStream) -> io::Result<(Accepted, TcpStream)> {
    let mut acceptor = Acceptor::default();
    loop {
        if acceptor.read_tls(&mut stream)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(accepted) = acceptor.accept().map_err(|(error, _alert)| io::Error::other(error))? {
            return Ok((accepted, stream));
        }
    }
}

fn read_head(stream: &mut BufReader<Stream>) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (method, target) =
        (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    let mut fields = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        if line.is_empty() {
            return Ok(Some(Request { method, target, fields }));
        }
        if let Some((name, value)) = line.split_once(':') {
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
    }
}

/// Reads a body and compares it with [`pattern`]: its length, and whether every byte was right.
fn read_body(request: &Request, stream: &mut BufReader<Stream>) -> io::Result<(u64, bool)> {
    let (mut at, mut right) = (0_u64, true);
    let mut take = |stream: &mut BufReader<Stream>, mut left: u64| -> io::Result<()> {
        let mut some = [0; 16 * 1024];
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(some.len()).min(some.len());
            let count = stream.read(&mut some[..wanted])?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            right &= some[..count].iter().zip(at..).all(|(byte, at)| *byte == pattern(at));
            (at, left) = (at + count as u64, left - count as u64);
        }
        Ok(())
    };
    if let Some(length) = request.field("content-length") {
        take(stream, length.parse().map_err(io::Error::other)?)?;
    } else if request.field("transfer-encoding").is_some() {
        loop {
            let mut line = String::new();
            stream.read_line(&mut line)?;
            let length = u64::from_str_radix(line.trim().split(';').next().unwrap_or_default(), 16);
            let length = length.map_err(io::Error::other)?;
            if length > 0 {
                take(stream, length)?;
            }
            let mut end = String::new();
            stream.read_line(&mut end)?;
            if length == 0 {
                while !end.trim().is_empty() {
                    end.clear();
                    stream.read_line(&mut end)?;
                }
                break;
            }
        }
    }
    Ok((at, right))
}
