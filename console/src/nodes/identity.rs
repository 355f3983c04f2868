//! Who is at the other end of a node connection.

use std::net::SocketAddr;

use model::name::Name;
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;

use crate::ops::{Ops, OpsError};
use crate::store::NodeRow;

/// One connection's ends, and the certificate it showed (already verified to be the console CA's).
#[derive(Debug, Clone)]
pub struct Caller {
    /// The node's end.
    pub peer: SocketAddr,
    /// This end.
    pub local: SocketAddr,
    /// From the client certificate; absent without one.
    pub certificate: Option<Shown>,
}

/// What a client certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    name: Name,
    serial: String,
    ends: OffsetDateTime,
}

impl Shown {
    /// Reads a verified leaf; nothing when it is not one that this console made for a node.
    pub fn of(leaf: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(leaf).ok()?;
        let name = certificate.subject().iter_common_name().next()?.as_str().ok()?.parse().ok()?;
        let serial = certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
        Some(Self { name, serial, ends: certificate.validity().not_after.to_datetime() })
    }
}

/// Why a caller is no node.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stranger {
    #[error("this needs the node's certificate; enrol the node first: sallyport node enrol NAME")]
    NoCertificate,
    #[error("node {0} is revoked or was enrolled anew elsewhere; enrol it again: sallyport node enrol {0}")]
    Revoked(Name),
    #[error("node {0}'s certificate has ended; renew it first")]
    Ended(Name),
    #[error(transparent)]
    Ops(#[from] OpsError),
}

impl Caller {
    /// The serial number of the certificate it showed.
    pub(super) fn serial(&self) -> &str {
        self.certificate.as_ref().map_or("", |shown| &shown.serial)
    }

    /// The node, if it is one and may come in; `ended` lets in a certificate that has ended (to renew).
    pub(super) async fn node(
        &self,
        ops: &Ops,
        ended: bool,
        now: OffsetDateTime,
    ) -> Result<(Name, NodeRow), Stranger> {
        let shown = self.certificate.as_ref().ok_or(Stranger::NoCertificate)?;
        let row = ops.store().node(shown.name.as_str()).await.map_err(OpsError::from)?;
        let revoked = || Stranger::Revoked(shown.name.clone());
        let row = row.filter(|row| !row.revoked).ok_or_else(revoked)?;
        let ours = [&row.serial, &row.previous_serial];
        if !ours.iter().any(|serial| serial.as_deref() == Some(shown.serial.as_str())) {
            return Err(revoked());
        }
        if shown.ends <= now && !ended {
            return Err(Stranger::Ended(shown.name.clone()));
        }
        Ok((shown.name.clone(), row))
    }
}
