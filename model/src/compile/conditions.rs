//! What a route's match asks for beside the path.

use super::notes::At;
use crate::draft::{MatchSpec, ValueMatchSpec};
use crate::header::FieldName;
use crate::problem::Code;
use crate::route::{Conditions, HeaderIs, QueryIs, Verb};

/// Gateway API's bound on each list of an `HTTPRouteMatch`.
const MOST: usize = 16;

pub(super) fn lower(field: &str, spec: &MatchSpec, at: &mut At<'_>) -> Option<Conditions> {
    let before = at.count();
    let method = spec.method.as_ref().and_then(|text| at.word(format!("{field}.method"), text, &Verb::ALL));
    let mut headers: Vec<HeaderIs> = Vec::new();
    for (place, one) in entries(&format!("{field}.headers"), &spec.headers, at) {
        let Some(name) = at.parse::<FieldName>(format!("{place}.name"), &one.name.to_ascii_lowercase())
        else {
            continue;
        };
        if let Some(why) = why_not(&name) {
            at.problem(
                format!("{place}.name"),
                Code::Invalid,
                format!("{name} does not choose a route: {why}"),
            );
        } else if headers.iter().any(|other| other.name == name) {
            at.problem(
                format!("{place}.name"),
                Code::Duplicate,
                format!("{name} is in this list twice; remove one"),
            );
        } else if let Some(value) =
            at.parse::<crate::header::FieldValue>(format!("{place}.value"), &one.value)
        {
            headers.push(HeaderIs { name, value: value.into() });
        }
    }
    let mut query: Vec<QueryIs> = Vec::new();
    for (place, one) in entries(&format!("{field}.queryParams"), &spec.query_params, at) {
        if one.name.is_empty() {
            at.problem(format!("{place}.name"), Code::Missing, "is empty; name the parameter");
        } else if query.iter().any(|other| other.name == one.name) {
            let message = format!("{} is in this list twice; remove one", one.name);
            at.problem(format!("{place}.name"), Code::Duplicate, message);
        } else {
            query.push(QueryIs { name: one.name.clone(), value: one.value.clone() });
        }
    }
    headers.sort();
    query.sort();
    (at.count() == before).then_some(Conditions { method, headers, query })
}

/// The entries with their places; too many, or of another type than `Exact`, are problems.
fn entries<'s>(
    field: &str,
    specs: &'s [ValueMatchSpec],
    at: &mut At<'_>,
) -> Vec<(String, &'s ValueMatchSpec)> {
    if specs.len() > MOST {
        let message = format!("has {} entries; {MOST} are the most, as in Gateway API", specs.len());
        at.problem(field, Code::Invalid, message);
    }
    let placed = specs.iter().enumerate().map(|(index, spec)| (format!("{field}[{index}]"), spec));
    placed
        .inspect(|(place, spec)| {
            if let Some(kind) = &spec.kind {
                at.word(format!("{place}.type"), kind, &[("Exact", ())]);
            }
        })
        .collect()
}

/// Fields that say nothing of the request, or that are read before routes are looked for.
fn why_not(name: &FieldName) -> Option<&'static str> {
    match name.as_str() {
        "host" => Some("use hostnames"),
        "connection" | "keep-alive" | "proxy-connection" | "te" | "transfer-encoding" | "upgrade"
        | "http2-settings" | "content-length" | "trailer" | "expect" => {
            Some("it belongs to the connection or the framing, and differs between versions of HTTP")
        }
        _ => None,
    }
}
