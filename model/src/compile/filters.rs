//! A route's filters (Gateway API's HTTPRoute filters).

use super::notes::{At, shown};
use super::route;
use crate::draft::{
    DirectResponseSpec, FieldSpec, FiltersSpec, HeaderModifierSpec, PathModifierSpec, RedirectSpec,
    RewriteSpec,
};
use crate::header::{FieldName, FieldValue};
use crate::name::HostName;
use crate::problem::Code;
use crate::route::NormalPath;
use crate::snapshot::PathMatch;
use crate::transform::{Answer, Field, FieldChange, Fixed, PathChange, Redirect, Scheme, Transform};

/// Gateway API's bound on each list of an `HTTPHeaderFilter`.
const MOST_FIELDS: usize = 16;

/// Every snapshot carries the body to every node.
const MOST_BODY: usize = 32_768;

/// What of the route decides about its filters.
pub(super) struct Around<'a> {
    /// The route's path matches.
    pub(super) paths: &'a [&'a PathMatch],
    pub(super) allow_encoded_slash: bool,
    pub(super) has_origin: bool,
}

pub(super) fn lower(spec: &FiltersSpec, around: &Around<'_>, at: &mut At<'_>) -> Option<Transform> {
    let before = at.count();
    exclusive(spec, around, at);
    let request_headers = fields("spec.filters.requestHeaderModifier", &spec.request_header_modifier, at);
    let response_headers = fields("spec.filters.responseHeaderModifier", &spec.response_header_modifier, at);
    let (hostname, path) = match &spec.url_rewrite {
        Some(rewrite) => self::rewrite(rewrite, around, at),
        None => (None, None),
    };
    let redirect = spec.request_redirect.as_ref().and_then(|spec| redirect(spec, around, at));
    let fixed = spec.direct_response.as_ref().and_then(|spec| fixed(spec, at));
    let answer = redirect.map(Answer::Redirect).or(fixed.map(Answer::Fixed));
    let transform = Transform { request_headers, response_headers, hostname, path, answer };
    (at.count() == before).then_some(transform)
}

/// What cannot stand together, each told at the field to take out.
fn exclusive(spec: &FiltersSpec, around: &Around<'_>, at: &mut At<'_>) {
    let (answer, name) = match (&spec.request_redirect, &spec.direct_response) {
        (Some(_), Some(_)) => {
            let message = "a request is either redirected or answered; remove this or requestRedirect";
            at.problem("spec.filters.directResponse", Code::Invalid, message);
            return;
        }
        (Some(_), None) => ("redirects every request", "requestRedirect"),
        (None, Some(_)) => ("answers every request itself", "directResponse"),
        (None, None) => return,
    };
    let mut useless = |field: &str| {
        let message = format!("has no use in a route that {answer}; remove it, or {name}");
        at.problem(field, Code::Invalid, message);
    };
    if around.has_origin {
        useless("spec.originGroup");
    }
    if spec.url_rewrite.is_some() {
        useless("spec.filters.urlRewrite");
    }
    if spec.request_header_modifier != HeaderModifierSpec::default() {
        useless("spec.filters.requestHeaderModifier");
    }
}

fn fields(field: &str, spec: &HeaderModifierSpec, at: &mut At<'_>) -> FieldChange {
    for (list, length) in [("set", spec.set.len()), ("add", spec.add.len()), ("remove", spec.remove.len())] {
        if length > MOST_FIELDS {
            let message = format!("has {length} entries; {MOST_FIELDS} are the most, as in Gateway API");
            at.problem(format!("{field}.{list}"), Code::Invalid, message);
        }
    }
    let set = list(&format!("{field}.set"), &spec.set, at);
    let add = list(&format!("{field}.add"), &spec.add, at);
    let mut remove: Vec<FieldName> = Vec::new();
    for (index, text) in spec.remove.iter().enumerate() {
        let place = format!("{field}.remove[{index}]");
        let Some(name) = name(&place, text, at) else { continue };
        let same = |other: &FieldName| other.is(name.as_str().as_bytes());
        if set.iter().chain(&add).any(|field| same(&field.name)) {
            let message = format!("{name} is both removed and written; set replaces what is there by itself");
            at.problem(place, Code::Invalid, message);
        } else if remove.iter().any(same) {
            at.problem(place, Code::Duplicate, format!("{name} is in this list twice; remove one"));
        } else {
            remove.push(name);
        }
    }
    FieldChange { set, add, remove }
}

fn list(field: &str, specs: &[FieldSpec], at: &mut At<'_>) -> Vec<Field> {
    let mut fields: Vec<Field> = Vec::with_capacity(specs.len());
    for (index, spec) in specs.iter().enumerate() {
        let name = name(&format!("{field}[{index}].name"), &spec.name, at);
        let value = at.parse::<FieldValue>(format!("{field}[{index}].value"), &spec.value);
        let (Some(name), Some(value)) = (name, value) else { continue };
        if fields.iter().any(|other| other.name.is(name.as_str().as_bytes())) {
            let message = format!("{name} is in this list twice; join the values with a comma");
            at.problem(format!("{field}[{index}].name"), Code::Duplicate, message);
        }
        fields.push(Field { name, value });
    }
    fields
}

fn name(field: &str, text: &str, at: &mut At<'_>) -> Option<FieldName> {
    let name = at.parse::<FieldName>(field, text)?;
    match name.reserved() {
        Some(why) => {
            at.problem(field, Code::Invalid, format!("{name} cannot be changed by a route: {why}"));
            None
        }
        None => Some(name),
    }
}

fn rewrite(
    spec: &RewriteSpec,
    around: &Around<'_>,
    at: &mut At<'_>,
) -> (Option<HostName>, Option<PathChange>) {
    if spec.hostname.is_none() && spec.path.is_none() {
        let message = "changes nothing; give it a hostname or a path, or remove it";
        at.problem("spec.filters.urlRewrite", Code::Missing, message);
    }
    let hostname = spec.hostname.as_ref().and_then(|text| at.parse("spec.filters.urlRewrite.hostname", text));
    let path = spec.path.as_ref().and_then(|spec| path("spec.filters.urlRewrite.path", spec, around, at));
    (hostname, path)
}

fn redirect(spec: &RedirectSpec, around: &Around<'_>, at: &mut At<'_>) -> Option<Redirect> {
    const FIELD: &str = "spec.filters.requestRedirect";
    let scheme = spec.scheme.as_ref().and_then(|text| {
        at.word(format!("{FIELD}.scheme"), text, &[("https", Scheme::Https), ("http", Scheme::Http)])
    });
    let hostname = spec.hostname.as_ref().and_then(|text| at.parse(format!("{FIELD}.hostname"), text));
    let port = spec.port.map(|port| at.number(&format!("{FIELD}.port"), Some(port), 0_u16, 1..=65_535));
    let path = spec.path.as_ref().and_then(|spec| path(&format!("{FIELD}.path"), spec, around, at));
    let status = spec.status_code.unwrap_or(302);
    let status = match u16::try_from(status) {
        Ok(status @ (301 | 302 | 303 | 307 | 308)) => status,
        Ok(_) | Err(_) => {
            let message = format!("{status} is no redirect; write 301, 302, 303, 307 or 308");
            at.problem(format!("{FIELD}.statusCode"), Code::Invalid, message);
            return None;
        }
    };
    if (scheme, &hostname, port, &path) == (None, &None, None, &None) && spec == &only_status(spec) {
        let message = "leads back to where the request came from; give it a scheme, hostname, port or path that differs";
        at.problem(FIELD, Code::Missing, message);
    }
    Some(Redirect { scheme, hostname, port, path, status })
}

/// The spec as it would be without a place: told apart from one whose place is wrong, which has its problem already.
fn only_status(spec: &RedirectSpec) -> RedirectSpec {
    RedirectSpec { status_code: spec.status_code, ..RedirectSpec::default() }
}

fn path(field: &str, spec: &PathModifierSpec, around: &Around<'_>, at: &mut At<'_>) -> Option<PathChange> {
    let full = at.word(
        format!("{field}.type"),
        &spec.kind,
        &[("ReplaceFullPath", true), ("ReplacePrefixMatch", false)],
    )?;
    let (wanted, unwanted) = match full {
        true => {
            (("replaceFullPath", &spec.replace_full_path), ("replacePrefixMatch", &spec.replace_prefix_match))
        }
        false => {
            (("replacePrefixMatch", &spec.replace_prefix_match), ("replaceFullPath", &spec.replace_full_path))
        }
    };
    if unwanted.1.is_some() {
        let message = format!("does not go with the type {}; remove it, or change the type", spec.kind);
        at.problem(format!("{field}.{}", unwanted.0), Code::Invalid, message);
    }
    let (name, Some(text)) = wanted else {
        let message = format!("is required by the type {}; add it", spec.kind);
        at.problem(format!("{field}.{}", wanted.0), Code::Missing, message);
        return None;
    };
    let place = format!("{field}.{name}");
    let text = if !full && text.is_empty() { "/" } else { text };
    let to = route::path(&place, text, around.allow_encoded_slash, at)?;
    if full {
        return Some(PathChange::Full(to));
    }
    match around.paths {
        [PathMatch::Prefix(from)] => {
            let from = NormalPath::parse(from).ok()?;
            Some(PathChange::Prefix { from, to })
        }
        _ => {
            let message = "needs a route with exactly one match, of the type PathPrefix: which prefix to replace would be open otherwise";
            at.problem(place, Code::Invalid, message);
            None
        }
    }
}

fn fixed(spec: &DirectResponseSpec, at: &mut At<'_>) -> Option<Fixed> {
    const FIELD: &str = "spec.filters.directResponse";
    let status = at.number(&format!("{FIELD}.statusCode"), Some(spec.status_code), 0_u16, 200..=599);
    if spec.body.len() > MOST_BODY {
        let message = format!("has {} bytes; {MOST_BODY} are the most", spec.body.len());
        at.problem(format!("{FIELD}.body"), Code::Invalid, message);
    }
    let bodiless = matches!(status, 204 | 205 | 304);
    if bodiless && !spec.body.is_empty() {
        let message = format!("a response with status {status} has no body; remove it, or change the status");
        at.problem(format!("{FIELD}.body"), Code::Invalid, message);
    }
    let text = spec.content_type.as_deref().unwrap_or("text/plain; charset=utf-8");
    let content_type = at.parse::<FieldValue>(format!("{FIELD}.contentType"), text);
    if content_type.is_some() && !is_media_type(text) {
        let message = format!("{} is no media type; write one such as text/html; charset=utf-8", shown(text));
        at.problem(format!("{FIELD}.contentType"), Code::Invalid, message);
    }
    let content_type = content_type.filter(|_| !spec.body.is_empty());
    Some(Fixed { status, content_type, body: spec.body.clone() })
}

/// `type/subtype`, whatever its parameters (RFC 9110, 8.3.1).
fn is_media_type(text: &str) -> bool {
    let essence = text.split(';').next().unwrap_or_default().trim_end();
    essence
        .split_once('/')
        .is_some_and(|(kind, subtype)| [kind, subtype].iter().all(|part| part.parse::<FieldName>().is_ok()))
}
