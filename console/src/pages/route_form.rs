//! The one form: host, path, certificate and origin, put live together.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use model::draft::{Kind, Object, Spec};
use model::problem::Problem;
use serde::Deserialize;

use super::doors::Doors;
use super::routes::doors;
use super::shell::{Section, Shell};
use super::submit::{self, Next, Submission};
use super::{PageError, PageResult, page};
use crate::forms::{Fields, FormView, Opt, RouteForm};
use crate::ops::{Changes, Ops, OpsError};
use crate::session::SignedIn;
use crate::state::AppState;

#[derive(Template)]
#[template(path = "route_form.html")]
struct RoutePage {
    shell: Shell,
    form: FormView,
    /// The stored route's name; absent for a new one.
    stored: Option<String>,
    action: String,
    certificates: Vec<Opt>,
    groups: Vec<Opt>,
    bundles: Vec<Opt>,
    listeners: Vec<String>,
    doors: Option<Doors>,
}

/// What a link into the form may fill in.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Prefill {
    #[serde(default)]
    host: String,
    #[serde(default)]
    certificate: String,
    #[serde(default)]
    group: String,
}

/// `GET /routes/new`.
pub(crate) async fn new(State(state): State<AppState>, Query(fill): Query<Prefill>, user: SignedIn) -> PageResult {
    let mut fields = RouteForm::blank().with("host", fill.host);
    if !fill.certificate.is_empty() {
        fields = fields.with("source", "existing").with("certificate", fill.certificate);
    }
    if !fill.group.is_empty() {
        fields = fields.with("origin_source", "existing").with("origin_group", fill.group);
    }
    show(&state.ops, &user, None, FormView::new(fields)).await
}

/// `POST /routes/new`.
pub(crate) async fn create(State(state): State<AppState>, user: SignedIn, fields: Fields) -> PageResult {
    submitted(&state, &user, None, fields).await
}

/// `GET /routes/{name}`.
pub(crate) async fn edit(State(state): State<AppState>, Path(name): Path<String>, user: SignedIn) -> PageResult {
    let object = stored(&state.ops, &name).await?;
    let Spec::Route(spec) = &object.spec else { return Err(missing(&name)) };
    let fields = RouteForm::fields(&name, spec);
    show(&state.ops, &user, Some(&object), FormView::new(fields)).await
}

/// `POST /routes/{name}`.
pub(crate) async fn update(
    State(state): State<AppState>,
    Path(name): Path<String>,
    user: SignedIn,
    fields: Fields,
) -> PageResult {
    let object = stored(&state.ops, &name).await?;
    submitted(&state, &user, Some(object), fields.with("name", name)).await
}

async fn stored(ops: &Ops, name: &str) -> Result<Object, PageError> {
    ops.get(Kind::Route, name).await?.map(|stored| stored.object).ok_or_else(|| missing(name))
}

fn missing(name: &str) -> PageError {
    PageError::NotFound(format!("There is no route {name}."))
}

async fn submitted(state: &AppState, user: &SignedIn, base: Option<Object>, mut fields: Fields) -> PageResult {
    let refused = submit::take_key(state, user, &mut fields).await;
    let changes = match (refused, RouteForm::objects(&fields, base.as_ref())) {
        (None, Ok(put)) => Ok(Changes { put, ..Changes::default() }),
        (Some(problem), Ok(_)) => Err(vec![problem]),
        (problem, Err(mut problems)) => {
            problems.extend(problem);
            Err(problems)
        }
    };
    let section = Section::Routes;
    let submission = Submission { section, title: title(base.as_ref()), action: action(base.as_ref()), fields: fields.clone(), changes };
    let place = move |problem: &Problem| match problem.object.as_str() {
        "" if problem.field == "spec.privateKey" => Some(("private_key".to_owned(), "Private key".to_owned())),
        _ => RouteForm::place(&fields, problem),
    };
    match submit::run(state, user, submission, place).await? {
        Next::Answer(answer) => Ok(answer),
        Next::Form(form) => show(&state.ops, user, base.as_ref(), form).await,
    }
}

fn title(base: Option<&Object>) -> String {
    base.map_or("Add a route".to_owned(), |object| format!("Route {}", object.metadata.name))
}

fn action(base: Option<&Object>) -> String {
    base.map_or("/routes/new".to_owned(), |object| format!("/routes/{}", object.metadata.name))
}

async fn show(ops: &Ops, user: &SignedIn, base: Option<&Object>, form: FormView) -> PageResult {
    let (certificates, groups) = (ops.names(Kind::Certificate).await?, ops.names(Kind::OriginGroup).await?);
    let opts = |names: &[String]| names.iter().map(|name| Opt::same(name)).collect::<Vec<_>>();
    let drawn = match base {
        Some(object) => picture(ops, object).await?,
        None => None,
    };
    let wrong = form.any_wrong();
    let answer = page(&RoutePage {
        shell: Shell::load(ops, user, Section::Routes, &title(base)).await?,
        stored: base.map(|object| object.metadata.name.clone()),
        action: action(base),
        certificates: opts(&certificates),
        groups: opts(&groups),
        bundles: bundles(ops).await?,
        listeners: ops.names(Kind::Listener).await?,
        doors: drawn,
        form,
    })?;
    Ok(status(wrong, answer))
}

/// A form that was refused is shown again, and says so to programs too.
pub(crate) fn status(wrong: bool, answer: Response) -> Response {
    if wrong { (StatusCode::UNPROCESSABLE_ENTITY, answer).into_response() } else { answer }
}

/// The choices of whom to believe.
pub(crate) async fn bundles(ops: &Ops) -> Result<Vec<Opt>, OpsError> {
    let mut options = vec![
        Opt::new("system", "The node's system roots"),
        Opt::new("internal", "This console's internal CA"),
    ];
    options.extend(ops.names(Kind::TrustBundle).await?.iter().map(|name| Opt::new(name.as_str(), format!("{name} (bundle)"))));
    Ok(options)
}

async fn picture(ops: &Ops, object: &Object) -> Result<Option<Doors>, OpsError> {
    let Spec::Route(route) = &object.spec else { return Ok(None) };
    let name = object.metadata.name.clone();
    let traffic = ops.route_traffic(std::slice::from_ref(&name), std::time::Duration::from_secs(3_600)).await?.remove(&name);
    let group = ops.get(Kind::OriginGroup, &route.origin_group).await?.map(|stored| stored.object);
    Ok(doors(object, group.as_ref(), &traffic.unwrap_or_default()))
}
