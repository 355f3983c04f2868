//! The origin: as little work as possible for each answer, so that core 1 is left to the load generator.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use crate::{Result, certs};

/// The body of every answer is a prefix of this.
pub(crate) fn body(length: usize) -> Vec<u8> {
    // No short period: an answer that is shifted by a record or a buffer does not pass.
    let mut state = 0x9e37_79b9_u32;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    })
    .take(length)
    .collect()
}

struct Answers {
    small: Vec<u8>,
    large: Vec<u8>,
}

/// Starts the origin on a thread of its own and says where it listens.
pub(crate) fn start(certs: &certs::Certs) -> Result<SocketAddr> {
    let (certificate, key) = (certs.origin.0.clone(), certs.origin.1.clone_key());
    let mut config = rustls::ServerConfig::builder_with_provider(certs::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let answers = Arc::new(Answers { small: answer(1 << 10), large: answer(1 << 20) });
    let acceptor = TlsAcceptor::from(Arc::new(config));
    std::thread::Builder::new().name("origin".to_owned()).spawn(move || -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            loop {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                // A connection's end is the peer's affair: what is missing shows in the load generator.
                tokio::spawn(serve(acceptor.clone(), stream, answers.clone()));
            }
        })
    })?;
    Ok(address)
}

fn answer(length: usize) -> Vec<u8> {
    let mut bytes = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n"
    )
    .into_bytes();
    bytes.extend(body(length));
    bytes
}

async fn serve(acceptor: TlsAcceptor, stream: tokio::net::TcpStream, answers: Arc<Answers>) -> Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    let mut head = Vec::with_capacity(4096);
    loop {
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut head).await? == 0 {
                return Ok(());
            }
        }
        let wanted = if head.starts_with(b"GET /1m ") { &answers.large } else { &answers.small };
        stream.write_all(wanted).await?;
        stream.flush().await?;
        head.clear();
    }
}
