//! `Listener`: protocol `HTTP`, and which fields belong to which protocol.

use super::notes::{At, Names, shown};
use super::route;
use crate::clear_text::{CHALLENGES, ClearText, OpenAnswer};
use crate::draft::{Kind, ListenerHttp, ListenerSpec, ListenerTls};
use crate::net::Prefix;
use crate::problem::Code;
use crate::route::NormalPath;

/// What a listener answers in clear text; nothing for one that speaks TLS.
pub(super) fn lower(spec: &ListenerSpec, names: &Names, at: &mut At<'_>) -> Option<ClearText> {
    let open = match &spec.protocol {
        // A word that means nothing is a problem already; what it was to be is not known.
        Some(text) => at.word("spec.protocol", text, &[("HTTPS", false), (ListenerSpec::HTTP, true)])?,
        None => false,
    };
    if !open {
        if spec.http != ListenerHttp::default() {
            let message = "only a listener of protocol HTTP has these; set protocol: HTTP, or leave them out";
            at.problem("spec.http", Code::Invalid, message);
        }
        return None;
    }
    of_tls(spec, at);
    let http = &spec.http;
    Some(ClearText {
        answer: answer(http, at),
        health_path: http.health_path.as_deref().and_then(|text| health_path(text, at)),
        acme_origin_group: http
            .acme_origin_group
            .as_deref()
            .and_then(|text| at.reference("spec.http.acmeOriginGroup", Kind::OriginGroup, text, names)),
        h2c_prefixes: h2c(http, at),
    })
}

/// Who reaches routes, where the operator has said that they may be reached without TLS.
fn h2c(http: &ListenerHttp, at: &mut At<'_>) -> Vec<Prefix> {
    const FIELD: &str = "spec.http.h2cPrefixes";
    const CONSENT: &str = "spec.http.clearText";
    let prefixes = at.prefixes(FIELD, &http.h2c_prefixes);
    for (index, text) in http.h2c_prefixes.iter().enumerate() {
        if text.parse::<Prefix>().is_ok_and(|prefix| prefix.net().prefix_len() == 0) {
            let message = format!(
                "{} is everybody, and h2c is for peers that you trust; write the networks they are in",
                shown(text)
            );
            at.problem(format!("{FIELD}[{index}]"), Code::Invalid, message);
        }
    }
    let consent = http.clear_text.as_deref().map(|text| at.word(CONSENT, text, &[("allow", ())]));
    match (consent, http.h2c_prefixes.is_empty()) {
        (None, false) => {
            let message = "lets these peers reach routes in clear text; say `clearText: allow` beside it, or leave it out";
            at.problem(FIELD, Code::Invalid, message);
        }
        (Some(Some(())), true) => {
            let message = "allows nothing without h2cPrefixes; name the peers that may reach routes in clear text, or leave it out";
            at.problem(CONSENT, Code::Invalid, message);
        }
        // A word that means nothing is a problem already.
        (Some(_), _) | (None, true) => {}
    }
    prefixes
}

/// What only TLS has a use for.
fn of_tls(spec: &ListenerSpec, at: &mut At<'_>) {
    for (field, absent) in [
        ("spec.defaultCertificate", spec.default_certificate.is_none()),
        ("spec.certificates", spec.certificates.is_empty()),
        ("spec.tls", spec.tls == ListenerTls::default()),
    ] {
        if !absent {
            let message = "a listener of protocol HTTP speaks no TLS; leave this out, or set protocol: HTTPS";
            at.problem(field, Code::Invalid, message);
        }
    }
}

fn answer(http: &ListenerHttp, at: &mut At<'_>) -> OpenAnswer {
    let words = [("Redirect", true), ("Refuse", false)];
    let redirect = http.answer.as_deref().and_then(|text| at.word("spec.http.answer", text, &words));
    let port = at.number("spec.http.httpsPort", http.https_port, 443, 1..=65_535);
    match redirect {
        Some(false) => {
            if http.https_port.is_some() {
                let message = "is where a redirect leads, and answer: Refuse redirects nothing; leave it out";
                at.problem("spec.http.httpsPort", Code::Invalid, message);
            }
            OpenAnswer::Refuse
        }
        Some(true) | None => OpenAnswer::Redirect { port },
    }
}

fn health_path(text: &str, at: &mut At<'_>) -> Option<NormalPath> {
    const FIELD: &str = "spec.http.healthPath";
    let path = route::path(FIELD, text, false, at)?;
    if path.as_str().starts_with(CHALLENGES) {
        let message =
            format!("{} belongs to ACME's challenges; choose another, such as /healthz", shown(text));
        at.problem(FIELD, Code::Invalid, message);
    }
    Some(path)
}
