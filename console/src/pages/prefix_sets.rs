//! Prefix sets: prefixes with a name, and the rules that use them.

use std::cmp::Ordering;

use askama::Template;
use axum::extract::{Query, State};
use model::draft::{Kind, Object, Spec};
use model::filter::{BOGONS, bogons};
use model::problem::Problem;

use super::editor::Editor;
use super::list::{List, ListQuery};
use super::shell::{Section, Shell};
use super::{PageResult, page};
use crate::forms::{Fields, FormView, SetForm};
use crate::ops::Ops;
use crate::publish::users_of;
use crate::session::SignedIn;

struct Row {
    name: String,
    count: usize,
    /// The first few.
    shown: String,
    users: Vec<String>,
}

#[derive(Template)]
#[template(path = "prefix_sets.html")]
struct SetsPage {
    shell: Shell,
    list: List,
    rows: Vec<Row>,
    /// The set that every console has.
    bogons: Row,
}

#[derive(Template)]
#[template(path = "prefix_set_form.html")]
struct SetPage {
    shell: Shell,
    form: FormView,
    stored: Option<String>,
    action: String,
    users: Vec<String>,
}

/// `GET /prefix-sets`.
pub(crate) async fn list(
    State(ops): State<Ops>,
    Query(query): Query<ListQuery>,
    user: SignedIn,
) -> PageResult {
    let shell = Shell::load(&ops, &user, Section::PrefixSets, "Prefix sets").await?;
    let found = query.fetch(&ops, Kind::PrefixSet).await?;
    let current = ops.current();
    let users = users_of(&current.objects, Kind::PrefixSet);
    let used = |name: &str| users.get(name).into_iter().flatten().map(|(_, name)| name.clone()).collect();
    let row = |name: &str, prefixes: Vec<String>| Row {
        name: name.to_owned(),
        count: prefixes.len(),
        shown: prefixes.iter().take(6).map(String::as_str).collect::<Vec<_>>().join(", "),
        users: used(name),
    };
    let rows = found.items.iter().filter_map(|stored| {
        let Spec::PrefixSet(spec) = &stored.object.spec else { return None };
        Some(row(&stored.object.metadata.name, spec.prefixes.clone()))
    });
    let bogons = row(BOGONS, bogons().iter().map(ToString::to_string).collect());
    let (list, rows) = query.arrange("/prefix-sets", rows.collect(), found.total, found.complete, order);
    page(&SetsPage { shell, list, rows, bogons })
}

fn order(key: &str, a: &Row, b: &Row) -> Ordering {
    match key {
        "count" => a.count.cmp(&b.count),
        "users" => a.users.len().cmp(&b.users.len()),
        _ => a.name.cmp(&b.name),
    }
}

/// Editing prefix sets.
pub(crate) struct PrefixSets;

impl Editor for PrefixSets {
    const KIND: Kind = Kind::PrefixSet;
    const SECTION: Section = Section::PrefixSets;
    const PATH: &'static str = "/prefix-sets";

    fn blank() -> Fields {
        Fields::default()
    }

    fn fields(object: &Object) -> Fields {
        let Spec::PrefixSet(spec) = &object.spec else { return Fields::default() };
        SetForm::fields(&object.metadata.name, spec)
    }

    fn objects(fields: &Fields, base: Option<&Object>) -> Result<Vec<Object>, Vec<Problem>> {
        SetForm::object(fields, base).map(|object| vec![object]).map_err(|problem| vec![problem])
    }

    fn place(fields: &Fields, problem: &Problem) -> Option<(String, String)> {
        SetForm::place(fields, problem)
    }

    async fn show(ops: &Ops, user: &SignedIn, base: Option<&Object>, form: FormView) -> PageResult {
        let users = match base {
            Some(object) => ops.used_by(Kind::PrefixSet, &object.metadata.name).await?,
            None => Vec::new(),
        };
        page(&SetPage {
            shell: Shell::load(ops, user, Section::PrefixSets, &Self::title(base)).await?,
            stored: base.map(|object| object.metadata.name.clone()),
            action: Self::action(base),
            users: users.into_iter().map(|(_, name)| name).collect(),
            form,
        })
    }
}
