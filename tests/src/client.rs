//! A blocking HTTP/1.1 client that says exactly what happened, and sends exactly what it is told to.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConnection, StreamOwned};
use rustls_pki_types::{CertificateDer, ServerName};
use socket2::{Domain, Socket, Type};

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its fields, names in lower case.
    pub fields: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// A field's first value.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether the server ends the connection after it.
    pub fn closes(&self) -> bool {
        self.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// How to connect.
#[derive(Debug, Clone)]
pub struct Dial {
    /// Where.
    pub target: SocketAddr,
    /// From which address, when it matters.
    pub from: Option<IpAddr>,
    /// The name to send and verify; nothing is sent for an address.
    pub name: String,
    /// The TLS client.
    pub tls: Arc<rustls::ClientConfig>,
    /// For connecting and for each read.
    pub patience: Duration,
    /// What the kernel may hold for us unread, bytes (it doubles that), when it matters.
    pub unread: Option<usize>,
}

impl Dial {
    /// Ten seconds of patience, any source address.
    pub fn new(target: SocketAddr, name: &str, tls: &Arc<rustls::ClientConfig>) -> Self {
        Self {
            target,
            from: None,
            name: name.to_owned(),
            tls: tls.clone(),
            patience: Duration::from_secs(10),
            unread: None,
        }
    }

    /// From this source address.
    pub fn from(mut self, from: IpAddr) -> Self {
        self.from = Some(from);
        self
    }

    /// With this much patience.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// A TCP connection.
    ///
    /// # Errors
    /// What connecting says.
    pub fn tcp(&self) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(self.target), Type::STREAM, None)?;
        if let Some(from) = self.from {
            socket.bind(&SocketAddr::new(from, 0).into())?;
        }
        if let Some(unread) = self.unread {
            socket.set_recv_buffer_size(unread)?;
        }
        socket.connect_timeout(&self.target.into(), self.patience)?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.patience))?;
        stream.set_write_timeout(Some(self.patience))?;
        Ok(stream)
    }

    /// A TLS connection, its handshake complete.
    ///
    /// # Errors
    /// What connecting or the handshake says.
    pub fn open(&self) -> io::Result<Connection> {
        self.secure(self.tcp()?)
    }

    /// The handshake on a TCP connection of the caller's.
    ///
    /// # Errors
    /// What the handshake says.
    pub fn secure(&self, tcp: TcpStream) -> io::Result<Connection> {
        let name = ServerName::try_from(self.name.clone()).map_err(io::Error::other)?;
        let session = ClientConnection::new(self.tls.clone(), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(session, tcp);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Connection { stream, buffer: Vec::new() })
    }

    /// One request on a connection of its own.
    ///
    /// # Errors
    /// What connecting, sending or reading says.
    pub fn get(&self, host: &str, path: &str) -> io::Result<Answer> {
        self.open()?.get(host, path)
    }
}

/// A TLS connection for requests, one after the other.
#[derive(Debug)]
pub struct Connection {
    stream: StreamOwned<ClientConnection, TcpStream>,
    buffer: Vec<u8>,
}

impl Connection {
    /// The certificate that the server showed.
    pub fn certificate(&self) -> CertificateDer<'static> {
        let chain = self.stream.conn.peer_certificates().unwrap_or_default();
        chain.first().expect("a certificate").clone().into_owned()
    }

    /// The address on our side.
    pub fn local(&self) -> SocketAddr {
        self.stream.sock.local_addr().expect("address")
    }

    /// The bytes below, for another protocol than HTTP/1.1.
    pub fn stream(&mut self) -> &mut (impl Read + Write + use<>) {
        &mut self.stream
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// What writing says.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Changes the key we send with and tells the server, which is asked for nothing in return (RFC 8446, 4.6.3).
    ///
    /// # Errors
    /// What writing says.
    pub fn rekey(&mut self) -> io::Result<()> {
        self.stream.conn.refresh_traffic_keys().map_err(io::Error::other)?;
        self.stream.flush()
    }

    /// Ends our direction, in TLS and in TCP; the other one goes on.
    ///
    /// # Errors
    /// What writing says.
    pub fn end(&mut self) -> io::Result<()> {
        self.stream.conn.send_close_notify();
        self.stream.flush()?;
        self.stream.sock.shutdown(std::net::Shutdown::Write)
    }

    /// Asks with GET.
    ///
    /// # Errors
    /// What sending or reading says.
    pub fn get(&mut self, host: &str, path: &str) -> io::Result<Answer> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())?;
        self.answer()
    }

    /// Reads one answer with its body.
    ///
    /// # Errors
    /// What reading says; `UnexpectedEof` when the server closed first; `InvalidData` when it is no HTTP.
    pub fn answer(&mut self) -> io::Result<Answer> {
        let (status, fields) = self.head()?;
        let field =
            |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        let body = if status == 204 || status == 304 {
            Vec::new()
        } else if let Some(length) = field("content-length") {
            self.exactly(length.parse().map_err(invalid)?)?
        } else if field("transfer-encoding").is_some() {
            let mut body = Vec::new();
            while let Some(chunk) = self.chunk()? {
                body.extend(chunk);
            }
            body
        } else {
            self.stream.read_to_end(&mut self.buffer)?;
            std::mem::take(&mut self.buffer)
        };
        Ok(Answer { status, fields, body })
    }

    /// Reads a head, informational ones skipped.
    ///
    /// # Errors
    /// As [`Connection::answer`].
    pub fn head(&mut self) -> io::Result<(u16, Vec<(String, String)>)> {
        loop {
            let at = loop {
                if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                    break at + 4;
                }
                self.more()?;
            };
            let head: Vec<u8> = self.buffer.drain(..at).collect();
            let text = String::from_utf8(head).map_err(invalid)?;
            let mut lines = text.lines();
            let first = lines.next().unwrap_or_default();
            let status = first.split(' ').nth(1).and_then(|word| word.parse::<u16>().ok());
            let status = status.ok_or_else(|| invalid(format!("not an answer: {first}")))?;
            if status >= 200 || status == 101 {
                let fields = lines.filter_map(|line| line.split_once(':'));
                let fields = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
                return Ok((status, fields.collect()));
            }
        }
    }

    /// Reads one chunk of a chunked body; nothing after the last.
    ///
    /// # Errors
    /// As [`Connection::answer`].
    pub fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = self.line()?;
        let length =
            usize::from_str_radix(line.split(';').next().unwrap_or_default(), 16).map_err(invalid)?;
        if length == 0 {
            while !self.line()?.is_empty() {}
            return Ok(None);
        }
        let chunk = self.exactly(length)?;
        self.exactly(2)?;
        Ok(Some(chunk))
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).take(at).collect();
                return String::from_utf8(line).map_err(invalid);
            }
            self.more()?;
        }
    }

    fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            self.more()?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    fn more(&mut self) -> io::Result<()> {
        let mut some = [0; 16 * 1024];
        match self.stream.read(&mut some)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.buffer.extend_from_slice(some.get(..count).unwrap_or_default());
                Ok(())
            }
        }
    }
}

/// Whether reading or writing failed because the server ended the connection; a time-out says nothing of the kind.
pub fn ended(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
}

fn invalid(why: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_string())
}
