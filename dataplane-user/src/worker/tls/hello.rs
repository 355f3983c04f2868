//! Reads a ClientHello ahead of any handshake, where its server name decides who gets it.

use model::name::HostName;
use rustls::server::Acceptor;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::worker::refusal::Reason;

/// A client's first bytes.
#[derive(Debug)]
pub struct Hello {
    /// All that was received.
    pub received: Vec<u8>,
    /// The name the client sent; nothing where it sent none, or where this is no ClientHello.
    pub sni: Option<HostName>,
}

/// Receives until a ClientHello is whole, or until what comes cannot be one or is `most` bytes: then the handshake, which has
/// the same bound, says what is wrong.
///
/// # Errors
/// It did not come in time, or the client left before it was whole.
pub async fn read(tcp: &mut TcpStream, deadline: Instant, most: usize) -> Result<Hello, (Reason, String)> {
    let failed = |error: std::io::Error| {
        (Reason::HandshakeFailed, format!("the connection broke off during the ClientHello: {error}"))
    };
    let late = (Reason::HandshakeTimeout, "no whole ClientHello within handshakeMs".to_owned());
    timeout_at(deadline, async {
        let (mut acceptor, mut received) = (Acceptor::default(), Vec::new());
        loop {
            let before = received.len();
            received.reserve(2048);
            let mut bounded = (&mut *tcp).take((most - before) as u64);
            if bounded.read_buf(&mut received).await.map_err(failed)? == 0 {
                return Err(failed(std::io::ErrorKind::UnexpectedEof.into()));
            }
            match offer(&mut acceptor, received.get(before..).unwrap_or_default()) {
                Offered::Goes => {}
                Offered::Whole(sni) => return Ok(Hello { received, sni }),
                Offered::Other => return Ok(Hello { received, sni: None }),
            }
            if received.len() >= most {
                return Ok(Hello { received, sni: None });
            }
        }
    })
    .await
    .unwrap_or(Err(late))
}

enum Offered {
    /// More must come.
    Goes,
    /// That was all of it.
    Whole(Option<HostName>),
    /// It is no ClientHello; whoever shakes hands will say so.
    Other,
}

fn offer(acceptor: &mut Acceptor, mut bytes: &[u8]) -> Offered {
    while !bytes.is_empty() {
        if acceptor.read_tls(&mut bytes).is_err() {
            return Offered::Other;
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                return Offered::Whole(hello.server_name().and_then(|name| name.parse().ok()));
            }
            Err(_) => return Offered::Other,
        }
    }
    Offered::Goes
}
