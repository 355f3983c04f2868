//! `Certificate`.

use std::collections::BTreeSet;
use std::sync::Arc;

use time::OffsetDateTime;

use super::FactsCache;
use super::notes::{At, shown};
use crate::certificate::Facts;
use crate::digest::Digest;
use crate::draft::CertificateSpec;
use crate::name::Name;
use crate::problem::Code;
use crate::snapshot::Certificate;

/// A certificate with what its chain says.
#[derive(Debug, Clone)]
pub(super) struct Lowered {
    pub(super) certificate: Certificate,
    pub(super) facts: Arc<Facts>,
}

/// What a certificate is judged by.
pub(super) struct Judge<'a> {
    pub(super) keys: &'a BTreeSet<Digest>,
    pub(super) now: OffsetDateTime,
    /// In force already: its end is known and shown elsewhere.
    pub(super) tolerant: bool,
}

pub(super) fn lower(
    name: &Name,
    spec: &CertificateSpec,
    judge: &Judge<'_>,
    cache: &mut FactsCache,
    at: &mut At<'_>,
) -> Option<Lowered> {
    if spec.private_key.is_some() {
        let message = "a private key is sealed and replaced by privateKeyRef before an object is published; send it through the form, the API or the command line";
        at.problem("spec.privateKey", Code::Invalid, message);
    }
    if spec.internal_ca.is_some() {
        let message = "the internal CA issues a chain before an object is published; send this through the form, the API or the command line";
        at.problem("spec.internalCa", Code::Invalid, message);
        return None;
    }
    let Some(chain) = spec.chain.as_ref().filter(|chain| !chain.trim().is_empty()) else {
        at.problem(
            "spec.chain",
            Code::Missing,
            "is required; paste the certificate chain, leaf first, as PEM",
        );
        return None;
    };
    let facts = match cache.facts(chain) {
        Ok(facts) => facts,
        Err(why) => {
            at.problem("spec.chain", Code::Invalid, why.to_string());
            return None;
        }
    };
    if facts.not_after <= judge.now && !judge.tolerant {
        let message = format!("the chain ended on {}; replace it with a renewed one", facts.not_after.date());
        at.problem("spec.chain", Code::Expired, message);
    }
    check_key(spec, &facts, judge.keys, at);
    let certificate = Certificate {
        name: name.clone(),
        chain: chain.clone(),
        key: facts.key,
        hostnames: facts.hostnames.clone(),
    };
    Some(Lowered { certificate, facts })
}

fn check_key(spec: &CertificateSpec, facts: &Facts, keys: &BTreeSet<Digest>, at: &mut At<'_>) {
    const FIELD: &str = "spec.privateKeyRef";
    let stored = match spec.private_key_ref.as_deref().map(|text| (text, text.parse::<Digest>())) {
        // The leaf says which key it needs.
        None => facts.key,
        Some((_, Ok(digest))) => digest,
        Some((text, Err(why))) => {
            at.problem(FIELD, Code::Invalid, format!("{} is no reference to a key: {why}", shown(text)));
            return;
        }
    };
    if stored != facts.key {
        let message = "the private key does not belong to this certificate; upload the key it was issued for, or the certificate issued for this key";
        at.problem(FIELD, Code::KeyMismatch, message);
    } else if !keys.contains(&stored) {
        at.problem(
            FIELD,
            Code::KeyMissing,
            "its private key is not stored here; upload it together with the chain",
        );
    }
}
