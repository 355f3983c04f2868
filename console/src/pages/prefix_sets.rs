//! Prefix sets: prefixes with a name, and the rules that use them.

use std::cmp::Ordering;

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Redirect};
use model::draft::{Kind, Object, Spec};
use model::filter::{BOGONS, bogons};
use model::problem::Problem;

use super::editor::Editor;
use super::list::{List, ListQuery};
use super::route_form::bundles;
use super::shell::{Section, Shell};
use super::when::When;
use super::{PageResult, page};
use crate::clock::now;
use crate::forms::{Fields, FormView, Opt, SetForm};
use crate::ops::{Ops, SourceState};
use crate::publish::users_of;
use crate::session::SignedIn;
use crate::state::AppState;

struct Row {
    name: String,
    count: usize,
    /// The first few.
    shown: String,
    users: Vec<String>,
    /// What became of fetching it, where it is fetched.
    source: Option<Fetching>,
}

/// A source's state as it is shown.
struct Fetching {
    url: String,
    class: &'static str,
    words: String,
    current: Option<When>,
    tried: Option<When>,
    next: When,
    problem: Option<String>,
    confirmable: bool,
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
    bundles: Vec<Opt>,
    /// Prefixes in force, and the first few, where they are fetched.
    count: usize,
    shown: String,
    source: Option<Fetching>,
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
        source: ops.source_state(name).map(Fetching::of),
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

impl Fetching {
    fn of(state: SourceState) -> Self {
        let (class, words) = match (&state.problem, state.current_at, state.replaced) {
            _ if state.running => ("wait", "being fetched".to_owned()),
            (Some(_), ..) if state.confirmable => ("warn", "a list is kept back".to_owned()),
            (Some(_), None, _) => ("bad", "not fetched yet".to_owned()),
            (Some(_), Some(_), _) => ("warn", "not fetched lately".to_owned()),
            (None, None, _) => ("wait", "not fetched yet".to_owned()),
            (None, _, true) => ("warn", "replaced by hand".to_owned()),
            (None, Some(_), false) => ("good", "as the origin has it".to_owned()),
        };
        let when = |at| When::relative(at, now());
        Self {
            class,
            words,
            current: state.current_at.map(when),
            tried: state.tried_at.map(when),
            next: when(state.next_at),
            url: state.url,
            problem: state.problem,
            confirmable: state.confirmable,
        }
    }
}

/// `POST /prefix-sets/{name}/fetch`.
pub(crate) async fn fetch(
    State(state): State<AppState>,
    Path(name): Path<String>,
    user: SignedIn,
    fields: Fields,
) -> PageResult {
    user.check(fields.get("csrf"))?;
    state.ops.fetch_now(&name, fields.ticked("confirm"), &user.actor).await?;
    Ok(Redirect::to(&format!("/prefix-sets/{name}")).into_response())
}

/// Editing prefix sets.
pub(crate) struct PrefixSets;

impl Editor for PrefixSets {
    const KIND: Kind = Kind::PrefixSet;
    const SECTION: Section = Section::PrefixSets;
    const PATH: &'static str = "/prefix-sets";

    fn blank() -> Fields {
        Fields::default().with("trust_bundle", "system")
    }

    fn fields(object: &Object) -> Fields {
        let Spec::PrefixSet(spec) = &object.spec else { return Fields::default() };
        SetForm::fields(&object.metadata.name, spec)
    }

    fn objects(fields: &Fields, base: Option<&Object>) -> Result<Vec<Object>, Vec<Problem>> {
        SetForm::object(fields, base).map(|object| vec![object])
    }

    fn place(fields: &Fields, problem: &Problem) -> Option<(String, String)> {
        SetForm::place(fields, problem)
    }

    async fn show(ops: &Ops, user: &SignedIn, base: Option<&Object>, form: FormView) -> PageResult {
        let users = match base {
            Some(object) => ops.used_by(Kind::PrefixSet, &object.metadata.name).await?,
            None => Vec::new(),
        };
        let prefixes = match base.map(|object| &object.spec) {
            Some(Spec::PrefixSet(spec)) => spec.prefixes.as_slice(),
            _ => &[],
        };
        page(&SetPage {
            shell: Shell::load(ops, user, Section::PrefixSets, &Self::title(base)).await?,
            stored: base.map(|object| object.metadata.name.clone()),
            action: Self::action(base),
            users: users.into_iter().map(|(_, name)| name).collect(),
            bundles: bundles(ops, "This console's system roots").await?,
            count: prefixes.len(),
            shown: prefixes.iter().take(20).map(String::as_str).collect::<Vec<_>>().join(", "),
            source: base.and_then(|object| ops.source_state(object.name())).map(Fetching::of),
            form,
        })
    }
}
