//! Answers of the node's own: small, in the form the client prefers, and without inside details.

use bytes::{Bytes, BytesMut};

use super::fields::{Fields, Known};
use super::request::{Framing, Request, field};
use super::response::Response;
use crate::worker::refusal::Reason;

/// A refusal's answer: head and body.
pub fn refusal(reason: Reason, request: Option<&Request>, request_id: &str) -> (Response, Bytes) {
    let status = reason.status();
    let phrase =
        http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("");
    let name = reason.name();
    let (kind, body) = match request.map_or(Form::Html, form) {
        Form::Html => (
            "text/html; charset=utf-8",
            format!(
                "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{status} {phrase}</title></head>\n\
                 <body><h1>{status} {phrase}</h1><p>Reason: <code>{name}</code></p><p>Request: <code>{request_id}</code></p></body></html>\n"
            ),
        ),
        Form::Json => (
            "application/json",
            format!("{{\"status\":{status},\"reason\":\"{name}\",\"request\":\"{request_id}\"}}\n"),
        ),
        Form::Plain => (
            "text/plain; charset=utf-8",
            format!("{status} {phrase}\nreason: {name}\nrequest: {request_id}\n"),
        ),
    };
    let body = Bytes::from(body);
    let fields = fields(&[("Content-Type", kind), ("Cache-Control", "no-store")]);
    let length = body.len() as u64;
    let framing = Framing::Length(length);
    (Response { status, fields, framing, declared: Some(length), keep_alive: true }, body)
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

#[derive(Clone, Copy)]
enum Form {
    Html,
    Json,
    Plain,
}

/// The first of the forms we have that `Accept` names; quality values are not worth their parser here.
fn form(request: &Request) -> Form {
    for value in request.fields.values(Known::Accept) {
        for range in value.split(|byte| *byte == b',') {
            let range = range.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
            match range {
                b"text/html" | b"application/xhtml+xml" => return Form::Html,
                b"application/json" | b"application/problem+json" => return Form::Json,
                b"text/plain" => return Form::Plain,
                _ => {}
            }
        }
    }
    Form::Plain
}
