//! The origin leg: connects and shakes hands.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use model::report::Leg;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use super::handshake::{Handshake, HandshakeError};
use super::stream::TlsStream;
use super::verify::{Judge, Unjudged, Unverified};
use crate::worker::live::{OriginLive, SecurityLive};
use crate::worker::proxy::write::{Behalf, header};
use crate::worker::refusal::Reason;

/// Why an origin could not be connected. The caller bounds the time (`connectTimeoutMs`) and makes its own sentence then.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Refused, unreachable, no descriptor left, ...
    #[error("{address} cannot be connected: {source}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel gave up before `connectTimeoutMs`.
    #[error("{address} does not answer")]
    TimedOut {
        /// Where.
        address: SocketAddr,
    },
    /// The certificate was not believed.
    #[error("{address} was not believed: {source}")]
    Unverified {
        /// Where.
        address: SocketAddr,
        /// Expected and got.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The handshake broke off for another reason.
    #[error("{address} and this node could not agree on TLS: {source}")]
    Handshake {
        /// Where.
        address: SocketAddr,
        /// What rustls or the kernel said.
        source: HandshakeError,
    },
}

impl DialError {
    /// The refusal it leads to when no other origin can be tried.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Connect { .. } | Self::Handshake { .. } => Reason::OriginUnreachable,
            Self::TimedOut { .. } => Reason::OriginConnectTimeout,
            Self::Unverified { .. } => Reason::OriginUnverified,
        }
    }
}

/// Sessions remembered per configuration, for resumption: rustls keeps them by name.
const SESSIONS: usize = 4096;

/// Which versions of HTTP are offered to an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// `http/1.1`.
    Http1,
    /// `h2`.
    Http2,
    /// Both, `h2` preferred.
    Either,
}

/// What a few groups want beside whom to believe.
#[derive(Debug, Default)]
pub struct Extras {
    /// Whom to expect, where it is not the name that is sent as SNI.
    pub expected: Option<ServerName<'static>>,
    /// Shown to origins that ask for a certificate.
    pub certificate: Option<Arc<CertifiedKey>>,
}

/// One verifier and one memory of sessions, with each offer of versions.
#[derive(Debug)]
pub struct Clients {
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    either: Arc<ClientConfig>,
}

impl Clients {
    /// Believes what `roots` issued; `trust` names them in sentences.
    ///
    /// # Errors
    /// There are no roots.
    pub fn verified(roots: Arc<RootCertStore>, trust: String, extras: Extras) -> Result<Self, rustls::Error> {
        Self::new(Arc::new(Judge::new(roots, trust)?.expecting(extras.expected)), extras.certificate)
    }

    /// Believes every certificate.
    ///
    /// # Errors
    /// None in practice: the provider has suites for both versions.
    pub fn unverified(extras: Extras) -> Result<Self, rustls::Error> {
        Self::new(Arc::new(Unjudged::new()), extras.certificate)
    }

    fn new(
        verifier: Arc<dyn ServerCertVerifier>,
        certificate: Option<Arc<CertifiedKey>>,
    ) -> Result<Self, rustls::Error> {
        let builder = ClientConfig::builder_with_provider(super::provider())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match certificate {
            Some(certificate) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certificate)))
            }
            None => builder.with_no_client_auth(),
        };
        // The stream takes the traffic over from rustls.
        config.enable_secret_extraction = true;
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        let offering = |names: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = names.iter().map(|name| name.to_vec()).collect();
            Arc::new(config)
        };
        let [http2, http1] = super::ALPN;
        Ok(Self { http1: offering(&[http1]), http2: offering(&[http2]), either: offering(&[http2, http1]) })
    }

    fn config(&self, alpn: Alpn) -> &Arc<ClientConfig> {
        match alpn {
            Alpn::Http1 => &self.http1,
            Alpn::Http2 => &self.http2,
            Alpn::Either => &self.either,
        }
    }
}

/// A connection to an origin.
#[derive(Debug)]
pub enum OriginStream {
    /// Encrypted.
    Tls(Box<TlsStream>),
    /// Clear text, an operator's visible choice.
    Clear(TcpStream),
}

/// What dialling made.
#[derive(Debug)]
pub struct Dialled {
    /// The secured stream.
    pub stream: OriginStream,
    /// What the handshake agreed on.
    pub leg: Leg,
    /// The origin chose `h2`.
    pub http2: bool,
}

/// Connects to `address`, which the origin's host stands for, says on whose behalf where the origin is told, and secures the
/// connection as the origin asks.
///
/// # Errors
/// See [`DialError`].
pub async fn dial(
    origin: &OriginLive,
    address: SocketAddr,
    alpn: Alpn,
    behalf: &Behalf,
) -> Result<Dialled, DialError> {
    let mut tcp = connect(address).await?;
    if let Some(version) = origin.proxy {
        let said = tcp.write_all(&header(version, behalf)).await;
        said.map_err(|source| DialError::Connect { address, source })?;
    }
    match &origin.security {
        SecurityLive::ClearText => {
            let stream = OriginStream::Clear(tcp);
            Ok(Dialled { stream, leg: super::clear_text_leg(), http2: false })
        }
        SecurityLive::Tls { clients, name, verified } => {
            let config = clients.config(alpn);
            shake(tcp, config, name, verified.as_ref()).await.map_err(|error| failed(address, error))
        }
    }
}

/// What an origin may send before the end of the handshake: rustls takes messages of 64 KiB, and of these only the certificates
/// are long.
const MOST_RECEIVED: usize = 128 * 1024;

/// Connects to `address`, and no more.
///
/// # Errors
/// [`DialError::Connect`] and [`DialError::TimedOut`].
pub async fn connect(address: SocketAddr) -> Result<TcpStream, DialError> {
    let tcp = TcpStream::connect(address).await.map_err(|source| {
        let silent = source.kind() == io::ErrorKind::TimedOut;
        if silent { DialError::TimedOut { address } } else { DialError::Connect { address, source } }
    })?;
    tcp.set_nodelay(true).map_err(|source| DialError::Connect { address, source })?;
    Ok(tcp)
}

async fn shake(
    mut tcp: TcpStream,
    config: &Arc<ClientConfig>,
    name: &ServerName<'static>,
    verified: Option<&ServerName<'static>>,
) -> Result<Dialled, HandshakeError> {
    let connection = UnbufferedClientConnection::new(Arc::clone(config), name.clone())?;
    let mut handshake = Handshake::new(connection, MOST_RECEIVED);
    if let Err(error) = handshake.run(&mut tcp).await {
        handshake.say_last(&mut tcp, None).await;
        return Err(error);
    }
    let verified = verified.map(|name| name.to_str().into_owned()).unwrap_or_default();
    let leg = super::leg(handshake.state(), sni(name), verified);
    let http2 = handshake.state().alpn_protocol() == Some(b"h2");
    Ok(Dialled { stream: OriginStream::Tls(Box::new(handshake.into_stream(tcp)?)), leg, http2 })
}

/// The name that is sent; an address never is (RFC 6066, 3).
fn sni(name: &ServerName<'_>) -> String {
    if let ServerName::DnsName(name) = name { name.as_ref().to_owned() } else { String::new() }
}

fn failed(address: SocketAddr, error: HandshakeError) -> DialError {
    match error {
        HandshakeError::Tls(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)))
            if other.0.is::<Unverified>() =>
        {
            DialError::Unverified { address, source: other.0 }
        }
        HandshakeError::Tls(certificate @ rustls::Error::InvalidCertificate(_)) => {
            DialError::Unverified { address, source: Arc::new(certificate) }
        }
        source @ (HandshakeError::Io(_)
        | HandshakeError::Tls(_)
        | HandshakeError::TooLong(_)
        | HandshakeError::Record(_)) => DialError::Handshake { address, source },
    }
}

impl AsyncRead for OriginStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Clear(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for OriginStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Clear(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Clear(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Clear(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Clear(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
