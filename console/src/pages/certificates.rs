//! Certificates: what is served, by whom issued, what ends when, who uses it.

use std::cmp::Ordering;

use askama::Template;
use axum::extract::{Query, State};
use model::certificate::Facts;
use model::draft::{Kind, Object, Spec};
use model::problem::Problem;
use time::OffsetDateTime;

use super::editor::Editor;
use super::list::{List, ListQuery};
use super::shell::{Section, Shell};
use super::when::{self, When};
use super::{PageResult, page};
use crate::clock::now;
use crate::forms::{CertificateForm, Fields, FormView};
use crate::ops::Ops;
use crate::publish::users_of;
use crate::session::SignedIn;

/// How much of a lifetime is left. Colours follow the share, not the days: a certificate that lives six days is green on
/// its fourth.
#[derive(Debug, Clone, PartialEq, Eq, Template)]
#[template(path = "parts/life.html")]
pub(crate) struct Life {
    class: &'static str,
    words: String,
    /// Of 120.
    width: i64,
    percent: i64,
    ends: When,
}

impl Life {
    /// When it ends.
    pub(crate) fn ends(&self) -> &When {
        &self.ends
    }

    /// What is left at `now`.
    pub(crate) fn new(from: OffsetDateTime, to: OffsetDateTime, now: OffsetDateTime) -> Self {
        let (whole, left) = ((to - from).whole_seconds().max(1), (to - now).whole_seconds());
        let percent = (left.clamp(0, whole) * 100) / whole;
        // Below a third it should have been renewed (as automated issuers do); the last tenth is an alarm.
        let class = match percent {
            _ if left <= 0 => "bad",
            0..10 => "bad",
            10..34 => "warn",
            _ => "good",
        };
        let (count, unit) = when::unit(left.unsigned_abs());
        let plural = if count == 1 { "" } else { "s" };
        let words = match left {
            ..=0 => format!("ended {count} {unit}{plural} ago"),
            _ if class == "good" => format!("{count} {unit}{plural}"),
            _ => format!("{count} {unit}{plural} left"),
        };
        Self { class, words, width: percent * 120 / 100, percent, ends: When::date(to) }
    }
}

struct Row {
    name: String,
    hosts: String,
    issuer: String,
    life: Option<Life>,
    ends: OffsetDateTime,
    users: usize,
}

#[derive(Template)]
#[template(path = "certificates.html")]
struct CertificatesPage {
    shell: Shell,
    list: List,
    rows: Vec<Row>,
    urgent: usize,
}

/// A certificate's facts as they are shown.
struct Shown {
    hosts: Vec<String>,
    subject: String,
    issuer: String,
    from: When,
    life: Life,
    length: usize,
    self_signed: bool,
    fingerprint: String,
    key: String,
}

#[derive(Template)]
#[template(path = "certificate_form.html")]
struct CertificatePage {
    shell: Shell,
    form: FormView,
    stored: Option<String>,
    action: String,
    shown: Option<Shown>,
    /// Kind's path and name of each user.
    users: Vec<(String, String)>,
}

/// `GET /certificates`.
pub(crate) async fn list(
    State(ops): State<Ops>,
    Query(query): Query<ListQuery>,
    user: SignedIn,
) -> PageResult {
    let shell = Shell::load(&ops, &user, Section::Certificates, "Certificates").await?;
    let found = query.fetch(&ops, Kind::Certificate).await?;
    let (now, current) = (now(), ops.current());
    let users = users_of(&current.objects, Kind::Certificate);
    let used = |name: &str| users.get(name).map_or(0, Vec::len);
    let rows: Vec<Row> = found
        .items
        .iter()
        .map(|stored| row(&stored.object, used(&stored.object.metadata.name), now))
        .collect();
    let urgent = rows.iter().filter(|row| row.life.as_ref().is_some_and(|life| life.class != "good")).count();
    let (list, rows) = query.arrange("/certificates", rows, found.total, found.complete, order);
    page(&CertificatesPage { shell, list, rows, urgent })
}

fn order(key: &str, a: &Row, b: &Row) -> Ordering {
    match key {
        "ends" => a.ends.cmp(&b.ends),
        "issuer" => a.issuer.cmp(&b.issuer),
        "users" => a.users.cmp(&b.users),
        _ => a.name.cmp(&b.name),
    }
}

fn facts(object: &Object) -> Option<Facts> {
    let Spec::Certificate(spec) = &object.spec else { return None };
    Facts::of_chain(spec.chain.as_deref()?).ok()
}

fn row(object: &Object, users: usize, now: OffsetDateTime) -> Row {
    let facts = facts(object);
    let hosts =
        |facts: &Facts| facts.hostnames.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    Row {
        name: object.metadata.name.clone(),
        hosts: facts.as_ref().map(hosts).unwrap_or_default(),
        issuer: facts.as_ref().map(short_issuer).unwrap_or_default(),
        ends: facts.as_ref().map_or(OffsetDateTime::UNIX_EPOCH, |facts| facts.not_after),
        life: facts.map(|facts| Life::new(facts.not_before, facts.not_after, now)),
        users,
    }
}

/// The issuer's common name, or all of it.
fn short_issuer(facts: &Facts) -> String {
    if facts.self_signed {
        return "itself".to_owned();
    }
    let name = facts.issuer.split([',', '+']).find_map(|part| part.trim().strip_prefix("CN="));
    name.unwrap_or(&facts.issuer).to_owned()
}

/// Editing certificates.
pub(crate) struct Certificates;

impl Editor for Certificates {
    const KIND: Kind = Kind::Certificate;
    const SECTION: Section = Section::Certificates;
    const PATH: &'static str = "/certificates";
    const HAS_KEY: bool = true;

    fn blank() -> Fields {
        Fields::default().with("source", "upload")
    }

    fn fields(object: &Object) -> Fields {
        CertificateForm::fields(object)
    }

    fn objects(fields: &Fields, base: Option<&Object>) -> Result<Vec<Object>, Vec<Problem>> {
        Ok(vec![CertificateForm::object(fields, base)])
    }

    fn place(fields: &Fields, problem: &Problem) -> Option<(String, String)> {
        CertificateForm::place(fields, problem)
    }

    async fn show(ops: &Ops, user: &SignedIn, base: Option<&Object>, form: FormView) -> PageResult {
        let users = match base {
            Some(object) => ops.used_by(Kind::Certificate, &object.metadata.name).await?,
            None => Vec::new(),
        };
        page(&CertificatePage {
            shell: Shell::load(ops, user, Section::Certificates, &Self::title(base)).await?,
            stored: base.map(|object| object.metadata.name.clone()),
            action: Self::action(base),
            shown: base.and_then(facts).map(|facts| shown(&facts, now())),
            users: users.into_iter().map(|(kind, name)| (path(kind).to_owned(), name)).collect(),
            form,
        })
    }
}

/// The page of a user: only listeners and routes name certificates.
fn path(kind: Kind) -> &'static str {
    if kind == Kind::Listener { "/listeners" } else { "/routes" }
}

fn shown(facts: &Facts, now: OffsetDateTime) -> Shown {
    Shown {
        hosts: facts.hostnames.iter().map(ToString::to_string).collect(),
        subject: facts.subject.clone(),
        issuer: facts.issuer.clone(),
        from: When::date(facts.not_before),
        life: Life::new(facts.not_before, facts.not_after, now),
        length: facts.length,
        self_signed: facts.self_signed,
        fingerprint: facts.fingerprint.to_string(),
        key: facts.key.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_follow_the_lifetime() {
        let start = when::from_ms(1_800_000_000_000);
        let life = |whole: i64, gone: i64| {
            let day = time::Duration::days(1);
            let life = Life::new(start, start + day * whole as i32, start + day * gone as i32);
            (life.class, life.words)
        };
        assert_eq!(life(6, 4), ("warn", "2 days left".to_owned()));
        assert_eq!(life(6, 3), ("good", "3 days".to_owned()));
        assert_eq!(life(90, 38), ("good", "52 days".to_owned()));
        assert_eq!(life(90, 84), ("bad", "6 days left".to_owned()));
        assert_eq!(life(90, 93), ("bad", "ended 3 days ago".to_owned()));
    }

    #[test]
    fn the_bar() {
        let start = when::from_ms(1_800_000_000_000);
        let life = Life::new(start, start + time::Duration::days(90), start + time::Duration::days(38));
        insta::assert_snapshot!(life.render().unwrap());
    }
}
