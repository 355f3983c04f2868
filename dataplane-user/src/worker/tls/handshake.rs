//! Drives rustls through a handshake on a socket, then takes the traffic over.

use std::io;
use std::time::Duration;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{CommonState, ConnectionTrafficSecrets, ExtractedSecrets, ProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::record::{HEADER, Opener, RecordError, Sealer, body_length};
use super::stream::{Leftovers, TlsStream};

/// What rustls keeps of a connection after its handshake: key updates, and tickets that come later.
pub(crate) enum Rest {
    Server(KernelConnection<ServerConnectionData>),
    Client(KernelConnection<ClientConnectionData>),
}

impl Rest {
    pub(crate) fn version(&self) -> ProtocolVersion {
        match self {
            Self::Server(rest) => rest.protocol_version(),
            Self::Client(rest) => rest.protocol_version(),
        }
    }

    pub(crate) fn next_tx(&mut self) -> Result<(u64, ConnectionTrafficSecrets), rustls::Error> {
        match self {
            Self::Server(rest) => rest.update_tx_secret(),
            Self::Client(rest) => rest.update_tx_secret(),
        }
    }

    pub(crate) fn next_rx(&mut self) -> Result<(u64, ConnectionTrafficSecrets), rustls::Error> {
        match self {
            Self::Server(rest) => rest.update_rx_secret(),
            Self::Client(rest) => rest.update_rx_secret(),
        }
    }
}

/// The two ends, as far as a handshake cares.
pub(crate) trait End: std::ops::DerefMut<Target: std::ops::Deref<Target = CommonState>> {
    type Data;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    fn finish(self) -> Result<(ExtractedSecrets, Rest), rustls::Error>;
}

impl End for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn finish(self) -> Result<(ExtractedSecrets, Rest), rustls::Error> {
        self.dangerous_into_kernel_connection().map(|(secrets, rest)| (secrets, Rest::Server(rest)))
    }
}

impl End for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn finish(self) -> Result<(ExtractedSecrets, Rest), rustls::Error> {
        self.dangerous_into_kernel_connection().map(|(secrets, rest)| (secrets, Rest::Client(rest)))
    }
}

/// Why a handshake broke off.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The socket failed, or the peer closed it.
    #[error("the connection broke off during the handshake: {0}")]
    Io(#[from] io::Error),
    /// rustls refused what the peer sent; its alert has been sent.
    #[error("{0}")]
    Tls(#[from] rustls::Error),
    /// The peer has sent as much as it may, and is not done.
    #[error("the handshake is not over after {0} bytes")]
    TooLong(usize),
    /// The traffic could not be taken over, or what came is no TLS.
    #[error("{0}")]
    Record(#[from] RecordError),
}

/// How long a peer may take over what we say last.
const LAST_WORD: Duration = Duration::from_secs(1);
/// What a peer may send before we answered its last flight.
const MOST_EARLY: usize = 64 * 1024;

/// A handshake on its way.
pub(crate) struct Handshake<E> {
    end: E,
    /// What the peer may still send, checked before each read: what comes with its last flight is no more than one of them.
    allowed: usize,
    most: usize,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    /// Traffic that came in the peer's last flight.
    early: Vec<u8>,
    /// The peer's last flight ended with its close_notify (RFC 8446, 6.1): it sends no more, and may be answered.
    ended: bool,
}

/// What must happen before rustls can go on.
pub(crate) enum Step {
    Again,
    Read,
    Done,
}

impl<E: End> Handshake<E> {
    /// A handshake in which the peer may send `most` bytes.
    pub(crate) fn new(end: E, most: usize) -> Self {
        Self::behind(end, Vec::new(), most)
    }

    /// The same where somebody has received the peer's first bytes already; they count.
    pub(crate) fn behind(end: E, incoming: Vec<u8>, most: usize) -> Self {
        let allowed = most.saturating_sub(incoming.len());
        Self { end, allowed, most, incoming, outgoing: Vec::new(), early: Vec::new(), ended: false }
    }

    /// rustls's view of the connection.
    pub(crate) fn state(&self) -> &CommonState {
        &self.end
    }

    /// Shakes hands. In TLS 1.3 our last flight (the client's Finished, the server's tickets) is not sent on its own: it
    /// leaves with the first traffic, one write for both. In TLS 1.2 the peer waits for it.
    pub(crate) async fn run(&mut self, tcp: &mut TcpStream) -> Result<(), HandshakeError> {
        loop {
            let step = self.advance();
            if self.settle(step, tcp).await? {
                return Ok(());
            }
        }
    }

    /// Lets rustls work on what came, as far as it gets.
    pub(crate) fn advance(&mut self) -> Result<Step, HandshakeError> {
        loop {
            match self.step() {
                Ok(Step::Again) => {}
                Ok(step) => return Ok(step),
                Err(error) => {
                    self.collect_alert();
                    return Err(error);
                }
            }
        }
    }

    /// Does what a step asks of the socket; says whether the handshake is over.
    pub(crate) async fn settle(
        &mut self,
        step: Result<Step, HandshakeError>,
        tcp: &mut TcpStream,
    ) -> Result<bool, HandshakeError> {
        if let Step::Done = step? {
            if self.state().protocol_version() != Some(ProtocolVersion::TLSv1_3) {
                self.send(tcp).await?;
            }
            return Ok(true);
        }
        self.send(tcp).await?;
        if self.allowed == 0 {
            return Err(HandshakeError::TooLong(self.most));
        }
        self.incoming.reserve(4096);
        let read = tcp.read_buf(&mut self.incoming).await?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        self.allowed = self.allowed.saturating_sub(read);
        Ok(false)
    }

    /// Sends what is left to say. After an error this is rustls's alert, unless `instead` says another.
    pub(crate) async fn say_last(&mut self, tcp: &mut TcpStream, instead: Option<&[u8]>) {
        if let Some(instead) = instead {
            self.outgoing.clear();
            self.outgoing.extend_from_slice(instead);
        }
        // The peer may be gone, or take nothing; there is nobody else to tell.
        drop(tokio::time::timeout(LAST_WORD, self.send(tcp)).await);
        drop(tcp.shutdown().await);
    }

    /// The stream of the traffic that follows.
    pub(crate) fn into_stream(self, tcp: TcpStream) -> Result<TlsStream, HandshakeError> {
        let (secrets, rest) = self.end.finish()?;
        let sealer = Sealer::new(rest.version(), secrets.tx)?;
        let opener = Opener::new(rest.version(), secrets.rx)?;
        let left = Leftovers {
            received: self.incoming,
            opened: self.early,
            sealed: self.outgoing,
            ended: self.ended,
        };
        Ok(TlsStream::new(tcp, sealer, opener, rest, left))
    }

    fn step(&mut self) -> Result<Step, HandshakeError> {
        let UnbufferedStatus { discard, state } = self.end.process(&mut self.incoming);
        let state = match state {
            Ok(state) => state,
            Err(error) => {
                self.incoming.drain(..discard);
                return Err(error.into());
            }
        };
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "rustls's enum is open; a state we do not know ends the handshake"
        )]
        let step = match state {
            ConnectionState::EncodeTlsData(message) => {
                encode(message, &mut self.outgoing)?;
                Step::Again
            }
            ConnectionState::TransmitTlsData(flight) => {
                flight.done();
                Step::Again
            }
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    self.early.extend_from_slice(record?.payload);
                }
                if self.early.len() > MOST_EARLY {
                    return Err(RecordError::Malformed.into());
                }
                Step::Again
            }
            ConnectionState::WriteTraffic(_) => Step::Done,
            ConnectionState::PeerClosed => {
                self.ended = true;
                Step::Again
            }
            ConnectionState::BlockedHandshake => Step::Read,
            // Closed, or early data, which we never offer to take.
            _ => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        };
        self.incoming.drain(..discard);
        // rustls holds on to a record whose handshake message ends in the next one (a long ticket). Its sequence number is
        // used up, so the traffic can only be taken over behind that message.
        let done = matches!(step, Step::Done);
        Ok(if done && self.holds_record() { Step::Read } else { step })
    }

    fn holds_record(&self) -> bool {
        self.incoming.first_chunk::<HEADER>().is_some_and(|header| {
            body_length(*header).is_ok_and(|length| self.incoming.len() >= HEADER + length)
        })
    }

    /// After an error rustls has an alert to send, perhaps behind unencrypted messages of the flight that failed. It is asked
    /// with what it has not used up, where it may hold places; and not again behind its alert, because it would read on.
    fn collect_alert(&mut self) {
        while let UnbufferedStatus { discard, state: Ok(ConnectionState::EncodeTlsData(message)) } =
            self.end.process(&mut self.incoming)
        {
            let start = self.outgoing.len();
            if encode(message, &mut self.outgoing).is_err() {
                return;
            }
            self.incoming.drain(..discard);
            if !matches!(self.outgoing.get(start), Some(20 | 22)) {
                return;
            }
        }
    }

    async fn send(&mut self, tcp: &mut TcpStream) -> io::Result<()> {
        if !self.outgoing.is_empty() {
            tcp.write_all(&self.outgoing).await?;
            self.outgoing.clear();
        }
        Ok(())
    }
}

fn encode<D>(mut message: EncodeTlsData<'_, D>, out: &mut Vec<u8>) -> Result<(), HandshakeError> {
    let start = out.len();
    // The first call says how much room the message needs.
    let needed = match message.encode(&mut []) {
        Err(EncodeError::InsufficientSize(needed)) => needed.required_size,
        Err(EncodeError::AlreadyEncoded) | Ok(_) => return Ok(()),
    };
    out.resize(start + needed, 0);
    let written = message.encode(&mut out[start..]).map_err(|error| io::Error::other(error.to_string()))?;
    out.truncate(start + written);
    Ok(())
}
