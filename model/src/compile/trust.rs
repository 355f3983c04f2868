//! `TrustBundle`.

use time::OffsetDateTime;

use super::notes::At;
use super::origin::{INTERNAL, SYSTEM};
use crate::certificate::{Authority, trust_bundle};
use crate::draft::TrustBundleSpec;
use crate::name::Name;
use crate::problem::Code;
use crate::snapshot::TrustBundle;

/// A trust bundle with what its certificates say.
#[derive(Debug, Clone)]
pub(super) struct Lowered {
    pub(super) bundle: TrustBundle,
    pub(super) authorities: Vec<Authority>,
}

pub(super) fn lower(
    name: &Name,
    spec: &TrustBundleSpec,
    now: OffsetDateTime,
    tolerant: bool,
    at: &mut At<'_>,
) -> Option<Lowered> {
    if [SYSTEM, INTERNAL].contains(&name.as_str()) {
        let message = format!(
            "the name {name} is taken: it stands for {}; choose another",
            match name.as_str() {
                SYSTEM => "each node's own roots",
                _ => "this console's CA",
            }
        );
        at.problem("metadata.name", Code::Invalid, message);
    }
    let authorities = match trust_bundle(&spec.certificates) {
        Ok(authorities) => authorities,
        Err(why) => {
            at.problem("spec.certificates", Code::Invalid, why.to_string());
            return None;
        }
    };
    // Old bundles carry ended authorities beside good ones; only one without any good one verifies nothing.
    let latest = authorities.iter().map(|authority| authority.not_after).max();
    if let Some(end) = latest.filter(|end| *end <= now && !tolerant) {
        let message =
            format!("all its authorities have ended, the last on {}; add a current one", end.date());
        at.problem("spec.certificates", Code::Expired, message);
    }
    let bundle = TrustBundle { name: name.clone(), certificates: spec.certificates.clone() };
    Some(Lowered { bundle, authorities })
}
