//! Why there is no document.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use model::https_url::{HttpsUrl, InvalidHttpsUrl};
use model::net::OriginAddress;

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("the name of {0} cannot be resolved: {1}")]
    Name(OriginAddress, String),
    #[error(
        "{0} is {1}, which is no public address; if that is meant, the console needs --fetch-from with its network"
    )]
    Private(OriginAddress, IpAddr),
    #[error("no connection to {0}: {1}")]
    Connect(SocketAddr, std::io::Error),
    #[error("no connection to {address} within {} s", within.as_secs_f32())]
    ConnectSlow { address: SocketAddr, within: Duration },
    #[error("no TLS with {0}: {1}")]
    Tls(SocketAddr, String),
    #[error("there is nobody to verify its certificate against: the trust bundle has no usable certificate")]
    Certificates,
    #[error("not complete within {} s", .0.as_secs_f32())]
    Slow(Duration),
    #[error("the origin answered {0}")]
    Status(u16),
    #[error("{from} leads to a place that is not followed: {why}")]
    Redirect { from: HttpsUrl, why: InvalidHttpsUrl },
    #[error("the origin's redirect leads nowhere")]
    Nowhere,
    #[error("more than {0} redirects one after the other")]
    Redirects(usize),
    #[error("the origin sent it compressed ({0}) although it was asked not to; nothing is decompressed")]
    Encoded(String),
    #[error("it is longer than {0} bytes")]
    Large(u64),
    #[error("the request cannot be written: {0}")]
    Request(hyper::http::Error),
    #[error("the answer broke off or is no HTTP: {0}")]
    Http(hyper::Error),
}

impl FetchError {
    /// One word of a closed list, for metrics and programs.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Name(..) => "name",
            Self::Private(..) => "refused-address",
            Self::Connect(..) | Self::ConnectSlow { .. } => "connect",
            Self::Tls(..) | Self::Certificates => "tls",
            Self::Slow(_) => "timeout",
            Self::Status(_) => "status",
            Self::Redirect { .. } | Self::Nowhere | Self::Redirects(_) => "redirect",
            Self::Encoded(_) => "encoded",
            Self::Large(_) => "too-large",
            Self::Request(_) | Self::Http(_) => "http",
        }
    }

    /// A handshake that failed, in rustls' words without its wrapping.
    pub(super) fn of_handshake(address: SocketAddr, why: std::io::Error) -> Self {
        let text = why.get_ref().map_or_else(|| why.to_string(), |inner| inner.to_string());
        Self::Tls(address, text)
    }
}
