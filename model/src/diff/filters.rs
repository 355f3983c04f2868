//! A route's filters in words.

use serde_json::Value;

use crate::draft::{
    DirectResponseSpec, FiltersSpec, HeaderModifierSpec, PathModifierSpec, RedirectSpec, RouteSpec,
};

/// Where a route leads: its origin group, or what it answers.
pub(super) fn target(spec: &RouteSpec) -> String {
    match (&spec.filters.request_redirect, &spec.filters.direct_response) {
        (Some(spec), _) => redirect(spec),
        (None, Some(spec)) => fixed(spec),
        (None, None) => spec.origin_group.clone(),
    }
}

/// The filters as fields of their own, each in the words that a person would compare.
pub(super) fn shown(spec: &FiltersSpec) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    let mut tell = |name: &str, value: Value| found.push((name.to_owned(), value));
    for (name, spec) in [
        ("request header", &spec.request_header_modifier),
        ("response header", &spec.response_header_modifier),
    ] {
        if *spec != HeaderModifierSpec::default() {
            tell(name, headers(spec));
        }
    }
    if let Some(spec) = &spec.request_redirect {
        tell("answer", redirect(spec).into());
    }
    if let Some(spec) = &spec.url_rewrite {
        let host = spec.hostname.as_ref().map(|host| format!("host {host}"));
        let path = spec.path.as_ref().map(path);
        tell("rewrite", [host, path].into_iter().flatten().collect::<Vec<_>>().join(", ").into());
    }
    if let Some(spec) = &spec.direct_response {
        let words = match spec.content_type.as_deref() {
            Some(kind) => format!("{} ({kind})", fixed(spec)),
            None => fixed(spec),
        };
        tell("answer", words.into());
        tell("body", spec.body.clone().into());
    }
    found
}

/// Entries, so that each is told by itself.
fn headers(spec: &HeaderModifierSpec) -> Value {
    let written = |verb: &'static str| {
        move |field: &crate::draft::FieldSpec| Value::from(format!("{verb} {}: {}", field.name, field.value))
    };
    spec.set
        .iter()
        .map(written("set"))
        .chain(spec.add.iter().map(written("add")))
        .chain(spec.remove.iter().map(|name| Value::from(format!("remove {name}"))))
        .collect()
}

/// `redirect 301 to https://new.example.com:8443, path prefix → /new`.
fn redirect(spec: &RedirectSpec) -> String {
    let scheme = spec.scheme.as_ref().map(|scheme| format!("{scheme}://")).unwrap_or_default();
    let host = spec.hostname.as_deref().unwrap_or(if scheme.is_empty() { "" } else { "(same host)" });
    let port = spec.port.map(|port| format!(":{port}")).unwrap_or_default();
    let place = Some(format!("{scheme}{host}{port}")).filter(|place| !place.is_empty());
    let parts: Vec<String> = place.into_iter().chain(spec.path.as_ref().map(path)).collect();
    format!("redirect {} to {}", spec.status_code.unwrap_or(302), parts.join(", "))
}

fn path(spec: &PathModifierSpec) -> String {
    match (&spec.replace_full_path, &spec.replace_prefix_match) {
        (Some(path), _) => format!("path → {path}"),
        (None, Some(prefix)) if prefix.is_empty() => "path prefix → /".to_owned(),
        (None, Some(prefix)) => format!("path prefix → {prefix}"),
        (None, None) => "path".to_owned(),
    }
}

fn fixed(spec: &DirectResponseSpec) -> String {
    format!("fixed response {}", spec.status_code)
}
