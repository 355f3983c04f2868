//! Versioned objects.

use model::draft::{Kind, Object, Spec};

use super::{Store, StoreError, signed, unsigned};
use crate::clock;
use crate::ops::{ListQuery, Page, Sort, Stored};

/// An object's version as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectRow {
    /// The kind.
    pub kind: Kind,
    /// The name.
    pub name: String,
    /// JSON.
    pub body: String,
    /// What is searched, lower case.
    pub search: String,
}

/// How an object is found among others.
pub fn object_key(object: &Object) -> (Kind, String) {
    (object.kind(), object.metadata.name.clone())
}

impl ObjectRow {
    /// The row of an object.
    ///
    /// # Errors
    /// None in practice: every field serialises.
    pub fn of(object: &Object) -> Result<Self, StoreError> {
        let body = serde_json::to_string(object).map_err(|_json| StoreError::Row("object"))?;
        Ok(Self {
            kind: object.kind(),
            name: object.metadata.name.clone(),
            search: search_text(object),
            body,
        })
    }
}

/// Everything in the object but PEM, which nobody types into a search field.
fn search_text(object: &Object) -> String {
    let mut shown = object.clone();
    let hosts = match &mut shown.spec {
        Spec::Certificate(spec) => {
            let chain = spec.chain.take().unwrap_or_default();
            model::certificate::Facts::of_chain(&chain)
                .map(|facts| facts.hostnames.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
                .unwrap_or_default()
        }
        Spec::TrustBundle(spec) => {
            spec.certificates.clear();
            String::new()
        }
        Spec::Listener(_)
        | Spec::Route(_)
        | Spec::OriginGroup(_)
        | Spec::PrefixSet(_)
        | Spec::PacketFilter(_) => String::new(),
    };
    let mut text = format!("{} {hosts}", shown.metadata.name);
    leaves(&shown.to_value()["spec"], &mut text);
    for (key, value) in &shown.metadata.labels {
        text.push_str(&format!(" {key}={value}"));
    }
    text.to_ascii_lowercase()
}

fn leaves(value: &serde_json::Value, text: &mut String) {
    use serde_json::Value;
    match value {
        Value::Object(fields) => fields.values().for_each(|value| leaves(value, text)),
        Value::Array(items) => items.iter().for_each(|value| leaves(value, text)),
        Value::String(leaf) => {
            text.push(' ');
            text.push_str(leaf);
        }
        Value::Number(leaf) => text.push_str(&format!(" {leaf}")),
        Value::Null | Value::Bool(_) => {}
    }
}

pub(super) fn object(body: &str) -> Result<Object, StoreError> {
    serde_json::from_str(body).map_err(|_json| StoreError::Row("object"))
}

/// The words of a search as four patterns; further words are ignored, absent ones match everything.
fn words(search: &str) -> [String; 4] {
    let lower = search.to_ascii_lowercase();
    let mut found = lower.split_whitespace().map(str::to_owned);
    std::array::from_fn(|_| found.next().unwrap_or_default())
}

impl Store {
    /// One page of the newest revision's objects.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(&self, query: &ListQuery) -> Result<Page<Stored>, StoreError> {
        let per_page = match query.per_page {
            0 => crate::ops::DEFAULT_PER_PAGE,
            wanted => wanted.min(crate::ops::MAX_PER_PAGE),
        };
        let (page, limit) = (query.page.max(1), i64::from(per_page));
        let offset = i64::from(page - 1) * limit;
        let (kind, name) = (query.kind.map(Kind::as_str), query.name.as_deref());
        let [a, b, c, d] = words(&query.search);
        let sort = match query.sort {
            Sort::Name => 0_i64,
            Sort::NameDown => 1,
            Sort::Changed => 2,
        };
        let total = sqlx::query_scalar!(
            "SELECT COUNT(*) AS \"total!: i64\" FROM objects
             WHERE to_revision IS NULL AND (?1 IS NULL OR kind = ?1) AND (?6 IS NULL OR name = ?6)
               AND instr(search, ?2) AND instr(search, ?3) AND instr(search, ?4) AND instr(search, ?5)",
            kind,
            a,
            b,
            c,
            d,
            name
        )
        .fetch_one(&self.reader)
        .await?;
        let rows = sqlx::query!(
            "SELECT o.body, o.from_revision AS \"from_revision!\", r.at_ms AS \"at_ms!\" FROM objects o JOIN revisions r ON r.number = o.from_revision
             WHERE o.to_revision IS NULL AND (?1 IS NULL OR o.kind = ?1) AND (?9 IS NULL OR o.name = ?9)
               AND instr(o.search, ?2) AND instr(o.search, ?3) AND instr(o.search, ?4) AND instr(o.search, ?5)
             ORDER BY CASE WHEN ?6 = 2 THEN o.from_revision END DESC, CASE WHEN ?6 = 1 THEN o.name END DESC, o.name, o.kind
             LIMIT ?7 OFFSET ?8",
            kind,
            a,
            b,
            c,
            d,
            sort,
            limit,
            offset,
            name
        )
        .fetch_all(&self.reader)
        .await?;
        let items = rows.into_iter().map(|row| stored(&row.body, row.from_revision, row.at_ms));
        Ok(Page { items: items.collect::<Result<_, _>>()?, total: unsigned(total), page, per_page })
    }

    /// One object of the newest revision.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get(&self, kind: Kind, name: &str) -> Result<Option<Stored>, StoreError> {
        let kind = kind.as_str();
        let row = sqlx::query!(
            "SELECT o.body, o.from_revision AS \"from_revision!\", r.at_ms AS \"at_ms!\" FROM objects o JOIN revisions r ON r.number = o.from_revision
             WHERE o.kind = ? AND o.name = ? AND o.to_revision IS NULL",
            kind,
            name
        )
        .fetch_optional(&self.reader)
        .await?;
        row.map(|row| stored(&row.body, row.from_revision, row.at_ms)).transpose()
    }

    /// All objects of a revision, by kind and name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn objects_at(&self, revision: u64) -> Result<Vec<Object>, StoreError> {
        let revision = signed(revision);
        let rows = sqlx::query_scalar!(
            "SELECT body FROM objects WHERE from_revision <= ?1 AND (to_revision IS NULL OR to_revision > ?1)
             ORDER BY kind, name",
            revision
        )
        .fetch_all(&self.reader)
        .await?;
        rows.iter().map(|body| object(body)).collect()
    }
}

fn stored(body: &str, revision: i64, at_ms: i64) -> Result<Stored, StoreError> {
    Ok(Stored { object: object(body)?, revision: unsigned(revision), changed: clock::from_ms(at_ms) })
}
