//! Publishing in two steps: a form is reviewed, the review is published. What was typed travels along, except private
//! keys: they are sealed at the first step and travel as a digest.

use std::collections::BTreeMap;

use askama::Template;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use model::diff::target;
use model::draft::{Kind, Object, RouteSpec, Spec};
use model::problem::{Code, Problem};

use super::chart::figure;
use super::doors::{Doors, Front, Promise};
use super::shell::{Section, Shell};
use super::{PageError, page};
use crate::forms::{Fields, FormView, Pem};
use crate::ops::{Action, ChangeLine, Changes, FilterEffect, OpsError, PublishOptions, Review};
use crate::publish::HOW;
use crate::session::SignedIn;
use crate::state::AppState;

/// The field that a problem with a private key names.
pub(crate) const KEY_FIELD: &str = "spec.privateKey";

/// A form that came in.
pub(crate) struct Submission {
    pub(crate) section: Section,
    /// What the review is called, such as `Add a route`.
    pub(crate) title: String,
    /// Where the form posts to.
    pub(crate) action: String,
    pub(crate) fields: Fields,
    /// The objects behind the form, or why there are none.
    pub(crate) changes: Result<Changes, Vec<Problem>>,
}

/// What becomes of it.
pub(crate) enum Next {
    /// Show the form again: it was asked for, or something is wrong.
    Form(FormView),
    /// This is the answer.
    Answer(Response),
}

/// One line of a diff.
pub(crate) struct DiffLine {
    pub(crate) sign: &'static str,
    pub(crate) class: &'static str,
    pub(crate) head: String,
    pub(crate) details: Vec<String>,
}

#[derive(Template)]
#[template(path = "review.html")]
struct ReviewPage {
    shell: Shell,
    action: String,
    lines: Vec<DiffLine>,
    touches: Vec<String>,
    problems: Vec<Problem>,
    confirmations: Vec<String>,
    hops: Vec<Hop>,
    /// What the packet filter would have done in the last hour.
    effect: Option<FilterEffect>,
    carried: Vec<(String, String)>,
    base_revision: u64,
    next_revision: u64,
    nodes: usize,
    message: String,
    rollback_after: String,
    /// Whether there is a form to go back to.
    editable: bool,
}

struct Hop {
    name: String,
    doors: Doors,
}

/// A count as the review shows it.
pub(crate) fn count(of: &u64) -> String {
    figure(*of as f64)
}

/// Lines of a change as they are shown everywhere.
pub(crate) fn diff(changes: &[ChangeLine]) -> Vec<DiffLine> {
    let line = |change: &ChangeLine| {
        let (sign, class) = match change.action {
            Action::Add => ("+", "add"),
            Action::Change => ("~", "change"),
            Action::Remove => ("-", "remove"),
        };
        let details =
            change.words.split("; ").filter(|clause| !clause.is_empty()).map(str::to_owned).collect();
        DiffLine { sign, class, head: noun(&change.object), details }
    };
    changes.iter().map(line).collect()
}

/// `origin group shop` for `OriginGroup/shop`.
pub(crate) fn noun(object: &str) -> String {
    match object.split_once('/') {
        Some((kind, name)) => format!("{} {name}", Kind::parse(kind).map(Kind::words).unwrap_or(kind)),
        None => object.to_owned(),
    }
}

/// Seals a private key that came with a form and leaves its digest in it.
pub(crate) async fn take_key(state: &AppState, user: &SignedIn, fields: &mut Fields) -> Option<Problem> {
    let key = Pem::take(fields)?;
    match state.ops.stage_key(&key, &user.actor).await {
        Ok(digest) => {
            fields.set("key_ref", digest.to_string());
            None
        }
        Err(OpsError::Problems(problems)) => problems.into_iter().next().map(|problem| Problem {
            object: String::new(),
            field: KEY_FIELD.to_owned(),
            ..problem
        }),
        Err(error) => Some(Problem::new("", KEY_FIELD, Code::Invalid, error.to_string())),
    }
}

/// Runs one step of a form whose token has been checked. `place` names the control beside which a problem belongs.
pub(crate) async fn run(
    state: &AppState,
    user: &SignedIn,
    submission: Submission,
    place: impl Fn(&Problem) -> Option<(String, String)> + Send,
) -> Result<Next, PageError> {
    let form = |problems: &[Problem]| FormView::new(submission.fields.clone()).refuse(problems, &place);
    if submission.fields.get("step") == "edit" {
        return Ok(Next::Form(FormView::new(submission.fields)));
    }
    let changes = match &submission.changes {
        Ok(changes) => changes.clone(),
        Err(problems) => return Ok(Next::Form(form(problems))),
    };
    match submission.fields.get("step") {
        "yaml" => {
            let mut view = FormView::new(submission.fields);
            view.yaml = Some(yaml(&changes.put));
            Ok(Next::Form(view))
        }
        "publish" => match publish(state, user, &submission.fields, changes.clone()).await {
            Ok(revision) => Ok(Next::Answer(Redirect::to(&format!("/changes/{revision}")).into_response())),
            Err(error) if error.needs_confirmation() => {
                review(state, user, &submission, changes).await.map(Next::Answer)
            }
            Err(OpsError::Problems(problems)) => Ok(Next::Form(form(&problems))),
            Err(error) => Err(error.into()),
        },
        _ => {
            let plan = state.ops.plan(&changes, &user.actor).await?;
            match plan.problems.is_empty() {
                true => show(state, user, &submission, &changes, plan, true).await.map(Next::Answer),
                false => Ok(Next::Form(form(&plan.problems))),
            }
        }
    }
}

/// The two steps of taking an object away: there is no form to go back to, so problems stand on the review.
pub(crate) async fn remove(
    state: &AppState,
    user: &SignedIn,
    fields: Fields,
    section: Section,
    (kind, name, action): (Kind, &str, String),
) -> Result<Response, PageError> {
    user.check(fields.get("csrf"))?;
    let changes = Changes::remove(kind, name);
    let title = format!("Remove {}", noun(&format!("{kind:?}/{name}")));
    let publishing = fields.get("step") == "publish";
    let mut refused = None;
    let submission = Submission { section, title, action, fields, changes: Ok(changes.clone()) };
    if publishing {
        match publish(state, user, &submission.fields, changes.clone()).await {
            Ok(revision) => return Ok(Redirect::to(&format!("/changes/{revision}")).into_response()),
            Err(error) => refused = Some(error),
        }
    }
    let plan = with_refusal(state.ops.plan(&changes, &user.actor).await?, refused)?;
    show(state, user, &submission, &changes, plan, false).await
}

/// The review with what publishing it was refused for: some of that, such as a time or another revision that came first, only
/// publishing finds.
fn with_refusal(mut plan: Review, refused: Option<OpsError>) -> Result<Review, OpsError> {
    match refused {
        None => {}
        Some(error) if error.needs_confirmation() => {}
        Some(OpsError::Problems(problems)) => plan.problems = problems,
        Some(error) => return Err(error),
    }
    Ok(plan)
}

async fn review(
    state: &AppState,
    user: &SignedIn,
    submission: &Submission,
    changes: Changes,
) -> Result<Response, PageError> {
    let plan = state.ops.plan(&changes, &user.actor).await?;
    show(state, user, submission, &changes, plan, true).await
}

/// What the review asks besides the objects.
pub(crate) fn options(fields: &Fields) -> PublishOptions {
    let minutes: Option<u64> = fields.trimmed("rollback_after").parse().ok();
    PublishOptions {
        confirm: fields.ticked("confirm"),
        rollback_after: minutes.map(|minutes| std::time::Duration::from_secs(minutes * 60)),
        message: fields.trimmed("message").to_owned(),
        base_revision: fields.trimmed("base_revision").parse().ok(),
        ..PublishOptions::default()
    }
}

async fn publish(
    state: &AppState,
    user: &SignedIn,
    fields: &Fields,
    changes: Changes,
) -> Result<u64, OpsError> {
    Ok(state.ops.publish(changes, &user.actor, options(fields)).await?.revision)
}

async fn show(
    state: &AppState,
    user: &SignedIn,
    submission: &Submission,
    changes: &Changes,
    plan: Review,
    editable: bool,
) -> Result<Response, PageError> {
    let shell = Shell::load(&state.ops, user, submission.section, &submission.title).await?;
    let hops = hops(state, changes).await?;
    draw(shell, submission, plan, hops, editable)
}

/// Draws a review; `hops` are the routes that it touches.
fn draw(
    shell: Shell,
    submission: &Submission,
    plan: Review,
    hops: Vec<Hop>,
    editable: bool,
) -> Result<Response, PageError> {
    let fields = &submission.fields;
    let refused =
        !plan.problems.is_empty() || (fields.get("step") == "publish" && !plan.confirmations.is_empty());
    let review = [("base_revision", ()), ("rollback_after", ())];
    let answer = page(&ReviewPage {
        action: submission.action.clone(),
        lines: diff(&plan.changes),
        touches: plan.touches,
        problems: plan.problems,
        confirmations: plan.confirmations.iter().map(|problem| question(&problem.message)).collect(),
        hops,
        effect: plan.effect,
        carried: fields
            .carried()
            .filter(|(key, _)| !review.iter().any(|(mine, ())| mine == key))
            .cloned()
            .collect(),
        base_revision: plan.base_revision,
        next_revision: plan.base_revision + 1,
        nodes: shell.fleet.total,
        message: fields.get("message").to_owned(),
        rollback_after: fields.get("rollback_after").to_owned(),
        editable,
        shell,
    })?;
    Ok(if refused { (StatusCode::UNPROCESSABLE_ENTITY, answer).into_response() } else { answer })
}

/// What has to be confirmed, beside the box that does it.
fn question(message: &str) -> String {
    message.strip_suffix(HOW).unwrap_or(message).to_owned()
}

/// The review of going back to a revision.
pub(crate) async fn rollback(
    state: &AppState,
    user: &SignedIn,
    number: u64,
    fields: Fields,
) -> Result<Response, PageError> {
    user.check(fields.get("csrf"))?;
    let mut refused = None;
    if fields.get("step") == "publish" {
        match state.ops.rollback(number, &user.actor, options(&fields)).await {
            Ok(published) => {
                return Ok(Redirect::to(&format!("/changes/{}", published.revision)).into_response());
            }
            Err(error) => refused = Some(error),
        }
    }
    let plan = with_refusal(state.ops.plan_rollback(number, &user.actor).await?, refused)?;
    let title = format!("Roll back to revision {number}");
    let shell = Shell::load(&state.ops, user, Section::Changes, &title).await?;
    let action = format!("/changes/{number}/rollback");
    let changes = Ok(Changes::default());
    draw(
        shell,
        &Submission { section: Section::Changes, title, action, fields, changes },
        plan,
        Vec::new(),
        false,
    )
}

/// The doors of the routes that are about to be put.
async fn hops(state: &AppState, changes: &Changes) -> Result<Vec<Hop>, OpsError> {
    let mut hops = Vec::new();
    for object in &changes.put {
        let Spec::Route(route) = &object.spec else { continue };
        let stored = state.ops.get(Kind::OriginGroup, &route.origin_group).await?.map(|stored| stored.object);
        let group = changes.put.iter().find(|other| is_group(other, &route.origin_group)).or(stored.as_ref());
        let served = route.certificate.as_deref().unwrap_or_default();
        let promise = promise_of(route, group);
        let current = state.ops.current();
        let staged = changes.put.iter().any(|other| opens(route, other));
        let front = Front { served, open: staged || opened(route, &current.objects) };
        let doors = Doors::new(None, front, None, &target(route), promise);
        hops.push(Hop { name: route.hostnames.join(", "), doors });
    }
    Ok(hops)
}

fn is_group(object: &Object, name: &str) -> bool {
    matches!(object.spec, Spec::OriginGroup(_)) && object.metadata.name == name
}

/// Whether one of the listeners that a route is on lets clients reach it in clear text.
pub(crate) fn opened(route: &RouteSpec, objects: &BTreeMap<(Kind, String), Object>) -> bool {
    let named = |name: &String| objects.get(&(Kind::Listener, name.clone()));
    route.listeners.iter().filter_map(named).any(|listener| opens(route, listener))
}

fn opens(route: &RouteSpec, object: &Object) -> bool {
    // Only those that are named: a route that names none is behind TLS.
    matches!(&object.spec, Spec::Listener(spec) if spec.opens_routes() && route.listeners.contains(&object.metadata.name))
}

/// What a route promises about its origin's leg.
pub(crate) fn promise_of(route: &RouteSpec, group: Option<&Object>) -> Promise {
    match route.origin_group.is_empty() {
        _ if route.is_passthrough() => Promise::Passthrough,
        true => Promise::Answered,
        false => promise(group),
    }
}

/// What an origin group promises about its legs.
fn promise(group: Option<&Object>) -> Promise {
    let Some(Spec::OriginGroup(group)) = group.map(|object| &object.spec) else { return Promise::Verified };
    match group {
        group if group.origins.iter().any(|origin| origin.url.starts_with("http://")) => Promise::ClearText,
        group if group.tls.verify.as_deref() == Some("none") => Promise::Unverified,
        _ => Promise::Verified,
    }
}

/// The objects as files.
pub(crate) fn yaml(objects: &[Object]) -> String {
    let documents =
        objects.iter().map(|object| serde_saphyr::to_string(&redacted(object)).unwrap_or_default());
    documents.collect::<Vec<_>>().join("---\n")
}

/// Without a private key, should there be one.
fn redacted(object: &Object) -> Object {
    let mut object = object.clone();
    if let Spec::Certificate(spec) = &mut object.spec {
        spec.private_key = None;
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_kinds() {
        assert_eq!(noun("OriginGroup/shop"), "origin group shop");
        assert_eq!(noun("Route/a"), "route a");
        assert_eq!(question(&format!("would drop you{HOW}")), "would drop you");
    }
}
