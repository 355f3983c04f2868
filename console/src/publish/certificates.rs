//! What happens to a Certificate object on its way in: its key is sealed, the internal CA issues, a known key is found again.

use std::collections::BTreeMap;
use std::fmt::Display;

use model::certificate::{Facts, PrivateKey};
use model::digest::Digest;
use model::draft::CertificateSpec;
use model::name::HostPattern;
use model::problem::{Code, Problem};
use time::{Duration, OffsetDateTime};

use crate::ops::OpsError;
use crate::secrets::{Authority, MasterKey};

/// A key's digest and its sealed form.
pub(super) type Sealed = (Digest, Vec<u8>);

/// What a sealed key is for: another purpose does not open it.
pub(crate) fn purpose(digest: &Digest) -> String {
    format!("private key {digest}")
}

/// An internal certificate with less than this left is issued anew when it is applied again.
const RENEW_BEFORE: Duration = Duration::days(30);

pub(super) fn seal(master: &MasterKey, pem: &str, object: &str) -> Result<Sealed, OpsError> {
    let key = PrivateKey::parse(pem)
        .map_err(|why| OpsError::problem(object, "spec.privateKey", Code::Invalid, why.to_string()))?;
    let sealed = master.seal(&purpose(&key.digest()), key.pkcs8_der())?;
    Ok((key.digest(), sealed))
}

/// Where a certificate that is put comes from.
pub(super) enum Origin {
    /// It was given, or is the stored one.
    Given,
    /// The internal CA has just issued it for these hosts; a review shows one that is thrown away.
    Issued(Vec<String>),
}

/// Everything that resolving a certificate needs.
pub(super) struct Resolver<'a> {
    pub(super) master: &'a MasterKey,
    pub(super) authority: &'a Authority,
    pub(super) now: OffsetDateTime,
}

impl Resolver<'_> {
    /// Turns an incoming spec into one that can be stored; gives the keys it brought.
    pub(super) fn resolve(
        &self,
        object: &str,
        spec: &mut CertificateSpec,
        stored: Option<&CertificateSpec>,
        keys: &mut BTreeMap<Digest, Vec<u8>>,
    ) -> Result<Origin, Vec<Problem>> {
        let origin = match spec.internal_ca.take() {
            Some(wanted) => self.internal(object, spec, &wanted.hostnames, stored, keys)?,
            None => {
                self.given(object, spec, stored, keys)?;
                Origin::Given
            }
        };
        if spec.private_key_ref.is_none()
            && let Some(Ok(facts)) = spec.chain.as_deref().map(Facts::of_chain)
        {
            spec.private_key_ref = Some(facts.key.to_string());
        }
        Ok(origin)
    }

    fn given(
        &self,
        object: &str,
        spec: &mut CertificateSpec,
        stored: Option<&CertificateSpec>,
        keys: &mut BTreeMap<Digest, Vec<u8>>,
    ) -> Result<(), Vec<Problem>> {
        let Some(pem) = spec.private_key.take().filter(|pem| !pem.trim().is_empty()) else {
            // Only a reference, as after `export` and an edit: the stored chain stays.
            if spec.chain.is_none() {
                spec.chain = stored.and_then(|stored| stored.chain.clone());
            }
            return Ok(());
        };
        let (digest, sealed) = seal(self.master, &pem, object).map_err(|error| problems(object, error))?;
        if let Some(Ok(facts)) = spec.chain.as_deref().map(Facts::of_chain)
            && facts.key != digest
        {
            let message = "the private key does not belong to this certificate; upload the key it was issued for, or the certificate issued for this key";
            return Err(vec![Problem::new(object, "spec.privateKey", Code::KeyMismatch, message)]);
        }
        spec.private_key_ref = Some(digest.to_string());
        keys.insert(digest, sealed);
        Ok(())
    }

    fn internal(
        &self,
        object: &str,
        spec: &mut CertificateSpec,
        hosts: &[String],
        stored: Option<&CertificateSpec>,
        keys: &mut BTreeMap<Digest, Vec<u8>>,
    ) -> Result<Origin, Vec<Problem>> {
        let field = |problem| vec![problem];
        if spec.chain.is_some() || spec.private_key.is_some() {
            let message =
                "stands beside chain or privateKey; write either internalCa or the certificate itself";
            return Err(field(Problem::new(object, "spec.internalCa", Code::Invalid, message)));
        }
        let mut patterns = parsed(object, hosts)?;
        patterns.sort();
        patterns.dedup();
        if let Some(stored) = stored.filter(|stored| self.still_good(stored, &patterns)) {
            *spec = stored.clone();
            return Ok(Origin::Given);
        }
        let names: Vec<String> = patterns.iter().map(ToString::to_string).collect();
        let failed =
            |why: &dyn Display| vec![Problem::new(object, "spec.internalCa", Code::Invalid, why.to_string())];
        let (issued, der) = self.authority.server(&names, &[], self.now).map_err(|error| failed(&error))?;
        let key = PrivateKey::from_pkcs8_der(der).map_err(|error| failed(&error))?;
        let sealed =
            self.master.seal(&purpose(&key.digest()), key.pkcs8_der()).map_err(|error| failed(&error))?;
        spec.private_key_ref = Some(key.digest().to_string());
        spec.chain = Some(issued.pem);
        keys.insert(key.digest(), sealed);
        Ok(Origin::Issued(names))
    }

    /// Whether the stored certificate is what would be issued, so that applying a file twice changes nothing.
    fn still_good(&self, stored: &CertificateSpec, hosts: &[HostPattern]) -> bool {
        let Some(Ok(facts)) = stored.chain.as_deref().map(Facts::of_chain) else { return false };
        let Ok(ours) =
            Facts::of_chain(self.authority.pem()).map(|facts| facts.subject).or_else(|_| self.subject())
        else {
            return false;
        };
        facts.hostnames == hosts && facts.issuer == ours && facts.not_after - self.now > RENEW_BEFORE
    }

    /// The authority has no DNS name, so its own certificate is no chain to serve; its subject is still what issued ones name.
    fn subject(&self) -> Result<String, ()> {
        use rustls_pki_types::pem::PemObject;
        let der = rustls_pki_types::CertificateDer::from_pem_slice(self.authority.pem().as_bytes())
            .map_err(|_pem| ())?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).map_err(|_der| ())?;
        Ok(certificate.subject().to_string())
    }
}

fn parsed(object: &str, hosts: &[String]) -> Result<Vec<HostPattern>, Vec<Problem>> {
    if hosts.is_empty() {
        let message = "needs at least one host, such as shop.example.com or *.example.com";
        return Err(vec![Problem::new(object, "spec.internalCa.hostnames", Code::Missing, message)]);
    }
    let mut problems = Vec::new();
    let mut patterns = Vec::new();
    for (index, host) in hosts.iter().enumerate() {
        match host.parse() {
            Ok(pattern) => patterns.push(pattern),
            Err(why) => {
                let why: model::name::InvalidHost = why;
                let field = format!("spec.internalCa.hostnames[{index}]");
                // As the compiler says it of a route's host, beside which a form shows it once.
                let message = format!("{host:?} is not valid: {why}");
                problems.push(Problem::new(object, field, Code::Invalid, message));
            }
        }
    }
    if problems.is_empty() { Ok(patterns) } else { Err(problems) }
}

fn problems(object: &str, error: OpsError) -> Vec<Problem> {
    if let OpsError::Problems(problems) = error {
        return problems;
    }
    vec![Problem::new(object, "spec.privateKey", Code::Conflict, error.to_string())]
}
