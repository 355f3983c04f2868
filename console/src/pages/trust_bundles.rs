//! Trust bundles: whom we believe, for which origins.

use std::cmp::Ordering;

use askama::Template;
use axum::extract::{Query, State};
use model::certificate::{Authority, trust_bundle};
use model::draft::{Kind, Object, Spec};
use model::problem::Problem;
use time::OffsetDateTime;

use super::certificates::Life;
use super::editor::Editor;
use super::list::{List, ListQuery};
use super::shell::{Section, Shell};
use super::{PageResult, page};
use crate::clock::now;
use crate::forms::{BundleForm, Fields, FormView};
use crate::ops::Ops;
use crate::publish::users_of;
use crate::session::SignedIn;

struct Shown {
    subject: String,
    fingerprint: String,
    life: Life,
}

/// What is verified against a bundle: origin groups, and the origins of fetched prefix sets.
struct User {
    name: String,
    page: &'static str,
}

impl User {
    fn of((kind, name): (Kind, String)) -> Self {
        Self { name, page: if kind == Kind::PrefixSet { "prefix-sets" } else { "origins" } }
    }
}

struct Row {
    name: String,
    authorities: Vec<String>,
    /// The first to end.
    life: Option<Life>,
    ends: OffsetDateTime,
    users: Vec<User>,
}

#[derive(Template)]
#[template(path = "trust_bundles.html")]
struct BundlesPage {
    shell: Shell,
    list: List,
    rows: Vec<Row>,
}

#[derive(Template)]
#[template(path = "trust_bundle_form.html")]
struct BundlePage {
    shell: Shell,
    form: FormView,
    stored: Option<String>,
    action: String,
    authorities: Vec<Shown>,
    users: Vec<User>,
}

/// `GET /trust-bundles`.
pub(crate) async fn list(
    State(ops): State<Ops>,
    Query(query): Query<ListQuery>,
    user: SignedIn,
) -> PageResult {
    let shell = Shell::load(&ops, &user, Section::TrustBundles, "Trust bundles").await?;
    let found = query.fetch(&ops, Kind::TrustBundle).await?;
    let current = ops.current();
    let users = users_of(&current.objects, Kind::TrustBundle);
    let used = |name: &str| users.get(name).into_iter().flatten().cloned().map(User::of).collect();
    let rows =
        found.items.iter().map(|stored| row(&stored.object, used(&stored.object.metadata.name))).collect();
    let (list, rows) = query.arrange("/trust-bundles", rows, found.total, found.complete, order);
    page(&BundlesPage { shell, list, rows })
}

fn order(key: &str, a: &Row, b: &Row) -> Ordering {
    match key {
        "ends" => a.ends.cmp(&b.ends),
        "users" => a.users.len().cmp(&b.users.len()),
        _ => a.name.cmp(&b.name),
    }
}

fn authorities(object: &Object) -> Vec<Authority> {
    let Spec::TrustBundle(spec) = &object.spec else { return Vec::new() };
    trust_bundle(&spec.certificates).unwrap_or_default()
}

fn row(object: &Object, users: Vec<User>) -> Row {
    let authorities = authorities(object);
    let first = authorities.iter().min_by_key(|authority| authority.not_after);
    Row {
        name: object.metadata.name.clone(),
        life: first.map(|first| Life::new(first.not_before, first.not_after, now())),
        ends: first.map_or(OffsetDateTime::UNIX_EPOCH, |first| first.not_after),
        authorities: authorities.iter().map(|authority| authority.subject.clone()).collect(),
        users,
    }
}

/// Editing trust bundles.
pub(crate) struct TrustBundles;

impl Editor for TrustBundles {
    const KIND: Kind = Kind::TrustBundle;
    const SECTION: Section = Section::TrustBundles;
    const PATH: &'static str = "/trust-bundles";

    fn blank() -> Fields {
        Fields::default()
    }

    fn fields(object: &Object) -> Fields {
        let Spec::TrustBundle(spec) = &object.spec else { return Fields::default() };
        BundleForm::fields(&object.metadata.name, spec)
    }

    fn objects(fields: &Fields, base: Option<&Object>) -> Result<Vec<Object>, Vec<Problem>> {
        Ok(vec![BundleForm::object(fields, base)])
    }

    fn place(fields: &Fields, problem: &Problem) -> Option<(String, String)> {
        BundleForm::place(fields, problem)
    }

    async fn show(ops: &Ops, user: &SignedIn, base: Option<&Object>, form: FormView) -> PageResult {
        let users = match base {
            Some(object) => ops.used_by(Kind::TrustBundle, &object.metadata.name).await?,
            None => Vec::new(),
        };
        let shown = |authority: Authority| Shown {
            life: Life::new(authority.not_before, authority.not_after, now()),
            fingerprint: authority.fingerprint.to_string(),
            subject: authority.subject,
        };
        page(&BundlePage {
            shell: Shell::load(ops, user, Section::TrustBundles, &Self::title(base)).await?,
            stored: base.map(|object| object.metadata.name.clone()),
            action: Self::action(base),
            authorities: base.map(authorities).unwrap_or_default().into_iter().map(shown).collect(),
            users: users.into_iter().map(User::of).collect(),
            form,
        })
    }
}
