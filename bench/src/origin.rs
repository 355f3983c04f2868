//! The origin: as little work as possible for each answer, so that core 1 is left to the load generator.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::workload::WEBSOCKET_PATH;
use crate::{Result, certs};

type Stream = TlsStream<tokio::net::TcpStream>;

/// `Sec-WebSocket-Accept` for the key of RFC 6455, 1.3, which the load generator sends.
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

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
    medium: Vec<u8>,
    large: Vec<u8>,
    /// What an upload is.
    upload: Vec<u8>,
}

/// Starts the origin on a thread of its own and says where it listens.
pub(crate) fn start(certs: &certs::Certs) -> Result<SocketAddr> {
    let (certificate, key) = (certs.origin.0.clone(), certs.origin.1.clone_key());
    let mut config = rustls::ServerConfig::builder_with_provider(certs::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let answers = Arc::new(Answers {
        small: answer(1 << 10),
        medium: answer(1 << 14),
        large: answer(1 << 20),
        upload: body(1 << 20),
    });
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
    let stream = acceptor.accept(stream).await?;
    match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => http2(stream).await,
        _ => http1(stream, &answers).await,
    }
}

async fn http1(mut stream: Stream, answers: &Answers) -> Result<()> {
    let mut input = Vec::with_capacity(64 * 1024);
    loop {
        let head = loop {
            if let Some(at) = input.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
        };
        let is = |start: &str| input.starts_with(start.as_bytes());
        if is(&format!("GET {WEBSOCKET_PATH} ")) {
            return echo(stream).await;
        }
        let upload = is("POST /upload ");
        let wanted = match () {
            () if is("GET /1m ") => &answers.large,
            () if is("GET /16k ") => &answers.medium,
            () => &answers.small,
        };
        input.drain(..head);
        if upload && !same(&mut stream, &mut input, &answers.upload).await? {
            return Ok(());
        }
        stream.write_all(wanted).await?;
        stream.flush().await?;
    }
}

/// Reads a body and compares it as it comes; false where it ends before.
async fn same(stream: &mut Stream, input: &mut Vec<u8>, body: &[u8]) -> Result<bool> {
    let mut left = body;
    while !left.is_empty() {
        if input.is_empty() && stream.read_buf(input).await? == 0 {
            return Ok(false);
        }
        left = left.strip_prefix(&input[..]).ok_or("not the body that was sent")?;
        input.clear();
    }
    Ok(true)
}

/// Messages of one size, which fits a 16 bit length: unmasked and sent back.
async fn echo(mut stream: Stream) -> Result<()> {
    let switch = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    );
    stream.write_all(switch.as_bytes()).await?;
    let mut head = [0; 8];
    let mut message = Vec::new();
    loop {
        stream.read_exact(&mut head).await?;
        let [_, _, high, low, mask @ ..] = head;
        message.clear();
        message.extend([0x82, 126, high, low]);
        message.resize(4 + usize::from(u16::from_be_bytes([high, low])), 0);
        let payload = message.get_mut(4..).unwrap_or_default();
        stream.read_exact(payload).await?;
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        stream.write_all(&message).await?;
    }
}

/// gRPC: what came goes back, with status 0.
async fn http2(stream: Stream) -> Result<()> {
    let mut connection = h2::server::Builder::new().handshake::<_, Bytes>(stream).await?;
    while let Some(accepted) = connection.accept().await {
        let (request, mut respond) = accepted?;
        tokio::spawn(async move {
            let mut body = request.into_body();
            let response = Response::builder().header("content-type", "application/grpc").body(())?;
            let mut send = respond.send_response(response, false)?;
            while let Some(data) = body.data().await {
                let data = data?;
                body.flow_control().release_capacity(data.len())?;
                // A last, empty frame ends the request; sent back it would be one that says nothing, and the h2 crate
                // takes a hundred of those on a connection.
                if !data.is_empty() {
                    send.send_data(data, false)?;
                }
            }
            send.send_trailers(HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-status"),
                HeaderValue::from_static("0"),
            )]))?;
            Result::Ok(())
        });
    }
    Ok(())
}
