//! The client leg: versions, certificates, tickets, ALPN; and the handshake.

use std::sync::Arc;

use model::name::HostName;
use model::report::Leg;
use model::snapshot::TlsVersion;
use rustls::ServerConfig;
use rustls::server::{ProducesTickets, UnbufferedServerConnection};
use rustls::version::{TLS12, TLS13};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::certificates::{Chosen, Resolver, take_chosen};
use super::handshake::{Handshake, HandshakeError};
use super::stream::TlsStream;
use crate::worker::overload::Line;
use crate::worker::refusal::Reason;

/// A fatal alert: no certificate for that name (RFC 6066, 3).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// A client connection behind its handshake.
#[derive(Debug)]
pub struct Served {
    /// The traffic.
    pub stream: TlsStream,
    /// The name the client sent, when it is one.
    pub sni: Option<HostName>,
    /// Whether HTTP/2 was agreed; HTTP/1.1 otherwise.
    pub h2: bool,
    /// What was agreed.
    pub leg: Leg,
    /// Whether a ticket spared the key's signature.
    pub resumed: bool,
}

/// Shakes hands with a client, until a deadline, or it has sent `most` bytes; `received` are those that were read already; its
/// work is done in turns of `line`.
///
/// # Errors
/// Why there is no connection, and a sentence for the log; the client has been told what TLS can tell.
pub async fn accept(
    (mut tcp, received): (TcpStream, Vec<u8>),
    config: &Arc<ServerConfig>,
    deadline: Instant,
    most: usize,
    line: &Line,
) -> Result<Served, (Reason, String)> {
    let failed = |error: HandshakeError| (Reason::HandshakeFailed, error.to_string());
    let connection =
        UnbufferedServerConnection::new(Arc::clone(config)).map_err(|error| failed(error.into()))?;
    // Before anything is heard there is nothing to work on.
    let mut heard = !received.is_empty();
    let mut handshake = Handshake::behind(connection, received, most);
    // What another connection left when its ClientHello was not the last thing the thread read.
    take_chosen();
    let mut chosen = Chosen::default();
    let shaken = tokio::time::timeout_at(deadline, async {
        loop {
            let turn = if heard { Some(line.turn().await) } else { None };
            let step = handshake.advance();
            // The resolver ran inside the step, if at all; other connections of this thread run between steps.
            if let Some(now) = take_chosen() {
                chosen = now;
            }
            if let Some(turn) = turn {
                turn.end().await;
            }
            heard = true;
            if handshake.settle(step, &mut tcp).await? {
                return Ok::<(), HandshakeError>(());
            }
        }
    })
    .await;
    match shaken {
        Err(_) => {
            return Err((Reason::HandshakeTimeout, "no TLS handshake within handshakeMs".to_owned()));
        }
        Ok(Err(error)) => {
            handshake.say_last(&mut tcp, chosen.refused.then_some(&UNRECOGNIZED_NAME)).await;
            return Err(match (chosen.refused, chosen.sni) {
                (true, Some(sni)) => {
                    (Reason::NoCertificate, format!("no certificate for {sni} and no default one"))
                }
                (true, None) => {
                    (Reason::NoCertificate, "no server name sent and no default certificate".to_owned())
                }
                (false, _) => failed(error),
            });
        }
        Ok(Ok(())) => {}
    }
    let state = handshake.state();
    let sni = chosen.sni;
    let h2 = state.alpn_protocol() == Some(b"h2");
    let resumed = state.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
    let leg =
        super::leg(state, sni.as_ref().map(|sni| sni.as_str().to_owned()).unwrap_or_default(), String::new());
    let stream = handshake.into_stream(tcp).map_err(failed)?;
    Ok(Served { stream, sni, h2, leg, resumed })
}

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
    // The stream takes the traffic over from rustls.
    config.enable_secret_extraction = true;
    Ok(Arc::new(config))
}
