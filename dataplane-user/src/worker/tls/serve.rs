//! The client leg: versions, certificates, tickets, ALPN; and the handshake.

use std::sync::Arc;

use model::snapshot::TlsVersion;
use rustls::ServerConfig;
use rustls::server::ProducesTickets;
use rustls::version::{TLS12, TLS13};

use super::certificates::Resolver;

/// A listener's server configuration.
///
/// # Errors
/// None in practice: the provider has suites for both versions.
pub fn config(
    lowest: TlsVersion,
    certificates: Resolver,
    tickets: Arc<dyn ProducesTickets>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let versions: &[_] = match lowest {
        TlsVersion::V12 => &[&TLS13, &TLS12],
        TlsVersion::V13 => &[&TLS13],
    };
    let mut config = ServerConfig::builder_with_provider(super::provider())
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificates));
    config.alpn_protocols = super::ALPN.iter().map(|protocol| protocol.to_vec()).collect();
    // Tickets alone: a session cache would be state that every thread shares.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.ticketer = tickets;
    Ok(Arc::new(config))
}
