//! Reads a balancer's PROXY header off a connection: exactly its bytes, so that whatever speaks next finds its own.

use std::io;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::worker::proxy::read::{BadHeader, Header, Said, Taken};

/// Looked at in one go: the recommended bound of a header, so mostly all of it.
const WINDOW: usize = 536;

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unread {
    /// What came is none.
    #[error(transparent)]
    Bad(#[from] BadHeader),
    /// It did not come, or not to its end.
    #[error("no whole PROXY header within handshakeMs")]
    Late,
    /// The balancer closed first.
    #[error("the connection ended before a whole PROXY header had come")]
    Ended,
    /// The socket failed.
    #[error("the connection broke off before a whole PROXY header had come: {0}")]
    Io(#[from] io::Error),
}

/// Reads the header that must come first.
pub(super) async fn header(tcp: &mut TcpStream, deadline: Instant) -> Result<Said, Unread> {
    timeout_at(deadline, async {
        let mut header = Header::default();
        let mut window = [0; WINDOW];
        loop {
            let seen = tcp.peek(&mut window).await?;
            if seen == 0 {
                return Err(Unread::Ended);
            }
            let (window, said) = match header.take(&window[..seen])? {
                Taken::All => (&mut window[..seen], None),
                Taken::Last(length, said) => (&mut window[..length], Some(said)),
            };
            // These bytes are here: this waits for nothing.
            tcp.read_exact(window).await?;
            if let Some(said) = said {
                return Ok(said);
            }
        }
    })
    .await
    .unwrap_or(Err(Unread::Late))
}
