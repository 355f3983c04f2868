//! A route's filters at work: requests and responses made anew from those that came. Only routes with filters get here.

use bytes::{BufMut, BytesMut};
use model::net::Host;
use model::transform::{FieldChange, Transform};

use super::authority::Authority;
use super::fields::{Fields, Span};
use super::request::{Request, field};

/// The request as the origin is to see it.
pub fn request(request: &Request, transform: &Transform) -> Request {
    let mut changed = request.clone();
    if !transform.request_headers.is_empty() {
        changed.fields = fields(&request.fields, &transform.request_headers);
    }
    if let Some(host) = &transform.hostname {
        let authority = Authority { host: Host::Name(host.clone()), port: None };
        changed.asked = Some(std::mem::replace(&mut changed.authority, authority));
    }
    // `OPTIONS *` asks for no path.
    if let Some(path) = transform.path.as_ref().filter(|_| !request.asterisk) {
        changed.path = path.apply(&request.path);
    }
    changed
}

/// The fields after a change. What survives keeps its place in the buffer; what is new is written behind it.
pub fn fields(fields: &Fields, change: &FieldChange) -> Fields {
    let new: usize =
        change.new_fields().map(|field| field.name.as_str().len() + field.value.as_str().len()).sum();
    let mut text = BytesMut::with_capacity(fields.text().len() + new);
    text.put_slice(fields.text());
    let mut list: Vec<_> =
        fields.iter().filter(|(_, name, _)| !change.drops(name)).map(|(field, _, _)| field).collect();
    let mut put = |part: &str| {
        let span = Span::new(text.len(), part.len());
        text.put_slice(part.as_bytes());
        span
    };
    let spans: Vec<_> =
        change.new_fields().map(|field| (put(field.name.as_str()), put(field.value.as_str()))).collect();
    let text = text.freeze();
    list.extend(spans.iter().map(|(name, value)| field(&text, name.of(&text), value.of(&text))));
    Fields::new(text, list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::transform::Field;

    fn one(name: &str, value: &str) -> Field {
        Field { name: name.parse().unwrap(), value: value.parse().unwrap() }
    }

    #[test]
    fn set_replaces_add_appends_remove_takes_out() {
        let before = super::super::respond::fields(&[
            ("X-Set", "1"),
            ("x-add", "1"),
            ("x-set", "2"),
            ("X-Remove", "1"),
            ("X-Other", "1"),
            ("X-REMOVE", "2"),
            // To some readers these are the same.
            ("x_SET", "3"),
            ("X_Remove", "3"),
            ("X_Add", "3"),
        ]);
        let change = FieldChange {
            set: vec![one("X-SET", "new"), one("X-Absent", "here")],
            add: vec![one("X-Add", "2"), one("x-fresh", "1"), one("x-set", "too")],
            remove: vec!["x-remove".parse().unwrap(), "x-nothing".parse().unwrap()],
        };
        let after = fields(&before, &change);
        let text: Vec<_> = after
            .iter()
            .map(|(_, name, value)| {
                format!("{}: {}", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
            })
            .collect();
        assert_eq!(
            text,
            [
                "x-add: 1",
                "X-Other: 1",
                "X_Add: 3",
                "X-SET: new",
                "X-Absent: here",
                "X-Add: 2",
                "x-fresh: 1",
                "x-set: too"
            ]
        );
    }

    #[test]
    fn a_field_of_the_connection_is_never_written() {
        let change = FieldChange { set: vec![one("Transfer-Encoding", "chunked")], ..FieldChange::default() };
        assert!(fields(&Fields::default(), &change).iter().all(|(field, _, _)| field.hop));
    }
}
