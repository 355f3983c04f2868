//! `OriginGroup`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use super::choice;
use super::notes::{At, Names, shown};
use crate::draft::{Kind, OriginGroupSpec};
use crate::name::Name;
use crate::net::{Host, InvalidOriginAddress, OriginAddress};
use crate::problem::Code;
use crate::snapshot::{
    ExpectedName, Http2, Origin, OriginGroup, OriginSecurity, Protocols, ProxyVersion, Share, Trust,
};

/// The trust bundle's name that stands for the node's own roots.
pub(super) const SYSTEM: &str = "system";
/// The trust bundle's name that stands for the console's CA.
pub(super) const INTERNAL: &str = "internal";

/// What holds for all origins of a group.
struct Group {
    trust: Option<Trust>,
    expected: Option<ExpectedName>,
    verified: bool,
    clear_text: bool,
}

pub(super) fn lower(
    name: &Name,
    spec: &OriginGroupSpec,
    names: &Names,
    internal_ca: &str,
    at: &mut At<'_>,
) -> Option<OriginGroup> {
    let group = Group {
        trust: trust(spec.tls.trust_bundle.as_deref().unwrap_or(SYSTEM), names, internal_ca, at),
        expected: spec.tls.expected_name.as_deref().and_then(|text| expected_name(text, at)),
        verified: spec
            .tls
            .verify
            .as_deref()
            .and_then(|text| at.word("spec.tls.verify", text, &[("none", ())]))
            .is_none(),
        clear_text: spec
            .clear_text
            .as_deref()
            .and_then(|text| at.word("spec.clearText", text, &[("allow", ())]))
            .is_some(),
    };
    at.not_empty("spec.origins", &spec.origins, "origin, such as url: https://origin.example.com");
    let mut seen = BTreeSet::new();
    let mut origins = Vec::with_capacity(spec.origins.len());
    for (index, origin) in spec.origins.iter().enumerate() {
        let field = format!("spec.origins[{index}].url");
        let Some((secured, address)) = url(&field, &origin.url, at) else {
            if !group.clear_text && origin.url.to_ascii_lowercase().starts_with("http://") {
                at.problem(&*field, Code::Invalid, clear_text(""));
            }
            continue;
        };
        if !seen.insert((secured, address.clone())) {
            at.problem(&*field, Code::Duplicate, format!("{address} is in this group twice; remove one"));
        }
        let share = choice::share(&format!("spec.origins[{index}]"), origin, at);
        origins.extend(self::origin(&field, secured, address, &group, share, at));
    }
    let connect_timeout_ms = at.number("spec.connectTimeoutMs", spec.connect_timeout_ms, 5_000, 1..=600_000);
    let usual = Http2::default();
    let http2 = Http2 {
        streams: at.number("spec.http2.streams", spec.http2.streams, usual.streams, 1..=10_000),
        ping_ms: at.number("spec.http2.pingMs", spec.http2.ping_ms, usual.ping_ms, 0..=86_400_000),
    };
    let protocols = protocols(&spec.protocols, at);
    let client_certificate = spec
        .tls
        .client_certificate
        .as_deref()
        .and_then(|text| at.reference("spec.tls.clientCertificate", Kind::Certificate, text, names));
    let proxy_protocol = spec.proxy_protocol.as_deref().and_then(|text| {
        at.word("spec.proxyProtocol", text, &[("v1", ProxyVersion::V1), ("v2", ProxyVersion::V2)])
    });
    let sni = spec.tls.sni.as_deref().and_then(|text| at.parse("spec.tls.sni", text));
    Some(OriginGroup {
        name: name.clone(),
        origins,
        connect_timeout_ms,
        protocols,
        http2,
        choice: choice::lower(spec, at),
        client_certificate,
        sni,
        proxy_protocol,
    })
}

fn protocols(texts: &[String], at: &mut At<'_>) -> Protocols {
    const WORDS: [(&str, Protocols); 2] = [("http/1.1", Protocols::Http1), ("h2", Protocols::Http2)];
    let mut chosen = Protocols::Auto;
    for (index, text) in texts.iter().enumerate() {
        let Some(one) = at.word(format!("spec.protocols[{index}]"), text, &WORDS) else { continue };
        chosen = match chosen {
            Protocols::Auto => one,
            before if before == one => before,
            Protocols::Http1 | Protocols::Http2 | Protocols::Either => Protocols::Either,
        };
    }
    chosen
}

fn trust(text: &str, names: &Names, internal_ca: &str, at: &mut At<'_>) -> Option<Trust> {
    const FIELD: &str = "spec.tls.trustBundle";
    match text {
        SYSTEM => Some(Trust::System),
        INTERNAL if internal_ca.is_empty() => {
            at.problem(
                FIELD,
                Code::UnknownReference,
                "this console has no CA of its own; name a trust bundle",
            );
            None
        }
        INTERNAL => Name::try_from(INTERNAL.to_owned()).ok().map(Trust::Bundle),
        _ => at.reference_or(FIELD, Kind::TrustBundle, text, names, &[SYSTEM, INTERNAL]).map(Trust::Bundle),
    }
}

fn expected_name(text: &str, at: &mut At<'_>) -> Option<ExpectedName> {
    match text.parse::<IpAddr>() {
        Ok(address) => Some(ExpectedName::Ip(address)),
        Err(_) => at.parse("spec.tls.expectedName", text).map(ExpectedName::Dns),
    }
}

fn origin(
    field: &str,
    secured: bool,
    address: OriginAddress,
    group: &Group,
    share: Share,
    at: &mut At<'_>,
) -> Option<Origin> {
    if !secured {
        if !group.clear_text {
            at.problem(field, Code::Invalid, clear_text(&format!(" to {address}")));
            return None;
        }
        return Some(Origin { address, security: OriginSecurity::ClearText, share });
    }
    let expected = group.expected.clone().unwrap_or_else(|| match &address.host {
        Host::Name(name) => ExpectedName::Dns(name.clone()),
        Host::Address(address) => ExpectedName::Ip(*address),
    });
    let security = match group.verified {
        true => OriginSecurity::Verified { trust: group.trust.clone()?, expected },
        false => OriginSecurity::Unverified { sni: expected },
    };
    Some(Origin { address, security, share })
}

fn clear_text(whereto: &str) -> String {
    format!(
        "http:// sends everything{whereto} in clear text; write https://, or say `clearText: allow` for this group"
    )
}

/// `https://host[:port]` or `http://host[:port]`; whether it is TLS, and where. What could be a password is not repeated.
fn url(field: &str, text: &str, at: &mut At<'_>) -> Option<(bool, OriginAddress)> {
    const HOW: &str = "write https://host or https://host:port";
    let Some((scheme, rest)) = text.split_once("://") else {
        at.problem(field, Code::Invalid, format!("{} is no origin; {HOW}", shown(text)));
        return None;
    };
    let secured = scheme.eq_ignore_ascii_case("https");
    if !secured && !scheme.eq_ignore_ascii_case("http") {
        at.problem(field, Code::Invalid, format!("the scheme {} is not known; {HOW}", shown(scheme)));
        return None;
    }
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let wrong = if authority.contains('@') {
        Some("a user name or password has no place in an origin; remove what stands before the @")
    } else if authority.contains(['?', '#']) {
        Some("an origin has no query or fragment; remove what follows the host and port")
    } else if authority.contains('/') {
        Some("an origin has no path, requests keep their own; remove what follows the host and port")
    } else if authority.parse::<Ipv6Addr>().is_ok() {
        Some(
            "an IPv6 address stands in brackets, such as https://[2001:db8::1] or https://[2001:db8::1]:8443",
        )
    } else {
        None
    };
    if let Some(wrong) = wrong {
        at.problem(field, Code::Invalid, wrong);
        return None;
    }
    match address(authority, if secured { 443 } else { 80 }) {
        Ok(address) => Some((secured, address)),
        Err(why) => {
            at.problem(field, Code::Invalid, format!("{} is no origin: {why}; {HOW}", shown(text)));
            None
        }
    }
}

fn address(authority: &str, default_port: u16) -> Result<OriginAddress, InvalidOriginAddress> {
    // The colons of an IPv6 address stand in brackets; a name or IPv4 address has none.
    let has_port = authority.rsplit(']').next().unwrap_or(authority).contains(':');
    let address: OriginAddress =
        if has_port { authority.parse()? } else { format!("{authority}:{default_port}").parse()? };
    match address.host {
        Host::Address(host) => {
            Ok(OriginAddress { host: Host::Address(host.to_canonical()), port: address.port })
        }
        Host::Name(_) => Ok(address),
    }
}
