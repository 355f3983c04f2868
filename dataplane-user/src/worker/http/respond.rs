//! Answers of the node's own: small, in the form the client prefers, and without inside details.

use bytes::{Bytes, BytesMut};
use model::error_page::{ErrorPage, Filling, PageForm};

use super::fields::Fields;
use super::grpc;
use super::negotiate::{self, Form};
use super::request::{Framing, Request, field};
use super::response::Response;
use crate::worker::refusal::Reason;

/// A refusal's answer: head and body. Nothing of it says more of the inside than the reason's name.
/// `pages` are the operator's, in the place of ours.
pub fn refusal(
    reason: Reason,
    request: Option<&Request>,
    request_id: &str,
    pages: &[ErrorPage],
) -> (Response, Bytes) {
    let status = reason.status();
    let form = match negotiate::form(request) {
        Form::Html => PageForm::Html,
        Form::Json => PageForm::Json,
        Form::Plain => PageForm::Plain,
        Form::Grpc => return trailers_only(reason, request, request_id),
    };
    let filling = Filling { status, title: phrase(status), reason: reason.name(), request_id };
    let fitting = pages.iter().filter(|page| page.form == form);
    let best =
        fitting.filter_map(|page| Some((page.statuses.precision(status)?, page))).max_by_key(|found| found.0);
    let body = match best {
        Some((_, page)) => page.body.fill(form, &filling),
        None => ours(form, &filling),
    };
    let kind = match form {
        PageForm::Html => "text/html; charset=utf-8",
        PageForm::Json => "application/problem+json",
        PageForm::Plain => PLAIN,
    };
    let body = Bytes::from(body);
    let mut list = vec![("Content-Type", kind), ("Cache-Control", "no-store")];
    let after = reason.retry_after().map(|seconds| seconds.to_string());
    list.extend(after.as_deref().map(|after| ("Retry-After", after)));
    (of_ours(status, fields(&list), &body), body)
}

fn ours(form: PageForm, filling: &Filling<'_>) -> String {
    let Filling { status, title: phrase, reason: name, request_id } = filling;
    match form {
        PageForm::Html => format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{status} {phrase}</title></head>\n\
             <body><h1>{status} {phrase}</h1><p>Reason: <code>{name}</code></p><p>Request: <code>{request_id}</code></p></body></html>\n"
        ),
        PageForm::Json => format!(
            "{{\"type\":\"about:blank\",\"title\":\"{phrase}\",\"status\":{status},\"reason\":\"{name}\",\"requestId\":\"{request_id}\"}}\n"
        ),
        PageForm::Plain => format!("{status} {phrase}\nreason: {name}\nrequest: {request_id}\n"),
    }
}

/// gRPC's Trailers-Only: one head with everything in it (gRPC over HTTP2, "Responses").
fn trailers_only(reason: Reason, request: Option<&Request>, request_id: &str) -> (Response, Bytes) {
    let code = reason.grpc().to_string();
    let message = grpc::message(reason, request_id);
    let mut list =
        vec![("Content-Type", "application/grpc"), ("Grpc-Status", &code), ("Grpc-Message", &message)];
    // gRFC A6, "Server pushback".
    let after = reason.retry_after().map(|seconds| format!("{seconds}000"));
    list.extend(after.as_deref().map(|after| ("Grpc-Retry-Pushback-Ms", after)));
    let mut response = of_ours(200, fields(&list), &Bytes::new());
    if negotiate::ends_with_head(request) {
        (response.framing, response.declared) = (Framing::None, None);
    }
    (response, Bytes::new())
}

/// The node's health, for those who choose among nodes.
pub fn health(serving: bool) -> (Response, Bytes) {
    let (status, body) = if serving { (200, "ok\n") } else { (503, "draining\n") };
    let body = Bytes::from_static(body.as_bytes());
    (of_ours(status, fields(&[("Content-Type", PLAIN), ("Cache-Control", "no-store")]), &body), body)
}

/// Another place for the request.
pub fn redirect(status: u16, location: &str) -> (Response, Bytes) {
    let phrase = phrase(status);
    let body = Bytes::from(format!("{status} {phrase}\n{location}\n"));
    let fields = fields(&[("Content-Type", PLAIN), ("Location", location)]);
    (of_ours(status, fields, &body), body)
}

/// An operator's own response.
pub fn fixed(status: u16, content_type: Option<&str>, body: Bytes) -> (Response, Bytes) {
    let fields = match content_type {
        Some(kind) => fields(&[("Content-Type", kind)]),
        None => Fields::default(),
    };
    (of_ours(status, fields, &body), body)
}

const PLAIN: &str = "text/plain; charset=utf-8";

fn phrase(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("")
}

fn of_ours(status: u16, fields: Fields, body: &Bytes) -> Response {
    // RFC 9110, 6.4.1: these have no content whatever their head says.
    let (framing, declared) = match status {
        204 | 304 => (Framing::None, None),
        _ => (Framing::Length(body.len() as u64), Some(body.len() as u64)),
    };
    Response { status, fields, framing, declared, keep_alive: true }
}

/// Fields of our own making.
pub fn fields(pairs: &[(&str, &str)]) -> Fields {
    let mut text = BytesMut::new();
    for (name, value) in pairs {
        text.extend_from_slice(name.as_bytes());
        text.extend_from_slice(value.as_bytes());
    }
    let (text, mut at) = (text.freeze(), 0);
    let part = |at: &mut usize, length: usize| {
        let from = *at;
        *at += length;
        text.get(from..*at).unwrap_or_default()
    };
    let list = pairs
        .iter()
        .map(|(name, value)| {
            let name = part(&mut at, name.len());
            field(&text, name, part(&mut at, value.len()))
        })
        .collect();
    Fields::new(text.clone(), list)
}
