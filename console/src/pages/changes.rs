//! Changes: every revision, in words, with the nodes' answers; compare and roll back.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Redirect};
use serde::Deserialize;

use super::shell::{Section, Shell, plural};
use super::submit::{self, DiffLine, diff};
use super::when::When;
use super::{PageError, PageResult, page};
use crate::clock::now;
use crate::forms::Fields;
use crate::ops::{Action, ChangeLine, Ops, Revision, Status};
use crate::session::SignedIn;
use crate::state::AppState;

/// Rows on a page.
const PER_PAGE: u32 = 50;

struct Row {
    number: u64,
    at: When,
    actor: String,
    message: String,
    words: String,
    applied: usize,
    refused: Vec<String>,
}

#[derive(Template)]
#[template(path = "changes.html")]
struct ChangesPage {
    shell: Shell,
    rows: Vec<Row>,
    q: String,
    page: u32,
    pages: u32,
    total: u64,
}

/// A node and what it says to a revision.
struct Answer {
    node: String,
    class: &'static str,
    words: String,
}

#[derive(Template)]
#[template(path = "change.html")]
struct ChangePage {
    shell: Shell,
    number: u64,
    newest: bool,
    at: When,
    actor: String,
    message: String,
    lines: Vec<DiffLine>,
    answers: Vec<Answer>,
    arrived: usize,
    refused: bool,
    /// Some node has not answered yet: the page looks again.
    waiting: bool,
    rollback_at: Option<When>,
    /// The revision its button goes back to: where it would go by itself, the one before the newest, or this one.
    back_to: u64,
    compared: Option<(u64, Vec<DiffLine>)>,
    others: Vec<u64>,
}

impl ChangePage {
    /// How far the nodes are.
    fn arrival(&self) -> String {
        match self.answers.len() {
            0 => "none yet".to_owned(),
            answers => format!("{} of {answers} node{} applied it", self.arrived, plural(answers)),
        }
    }

    fn compared_with(&self, other: &u64) -> bool {
        self.compared.as_ref().is_some_and(|(with, _)| with == other)
    }
}

/// What the list's URL says.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ChangesQuery {
    #[serde(default)]
    page: String,
    #[serde(default)]
    q: String,
}

/// `GET /changes`.
pub(crate) async fn list(
    State(ops): State<Ops>,
    Query(query): Query<ChangesQuery>,
    user: SignedIn,
) -> PageResult {
    let shell = Shell::load(&ops, &user, Section::Changes, "Changes").await?;
    let number = query.page.parse().ok().filter(|page| *page > 0).unwrap_or(1);
    // A filter looks through the newest thousand: far enough for "who touched shop last week".
    let needle = query.q.trim().to_lowercase();
    let asked = if needle.is_empty() { (number, PER_PAGE) } else { (1, crate::ops::MAX_PER_PAGE) };
    let revisions = ops.revisions(asked.0, asked.1).await?;
    let (page_number, pages) = (revisions.page, revisions.pages());
    let found = revisions.items.iter().filter(|revision| matches(revision, &needle));
    page(&ChangesPage {
        shell,
        rows: found.map(row).collect(),
        q: query.q,
        page: page_number,
        pages,
        total: revisions.total,
    })
}

fn matches(revision: &Revision, needle: &str) -> bool {
    let text = || {
        let objects = revision.changes.iter().map(|change| format!("{} {}", change.object, change.words));
        let text = [format!("{} {} {}", revision.number, revision.actor, revision.message)];
        text.into_iter().chain(objects).collect::<String>().to_lowercase()
    };
    needle.is_empty() || {
        let text = text();
        needle.split_whitespace().all(|word| text.contains(word))
    }
}

fn row(revision: &Revision) -> Row {
    Row {
        number: revision.number,
        at: When::relative(revision.at, now()),
        actor: revision.actor.clone(),
        message: revision.message.clone(),
        words: summary(&revision.changes),
        applied: revision.nodes.iter().filter(|answer| answer.refused.is_none()).count(),
        refused: revision
            .nodes
            .iter()
            .filter(|answer| answer.refused.is_some())
            .map(|answer| answer.node.clone())
            .collect(),
    }
}

/// A few words for what changed.
fn summary(changes: &[ChangeLine]) -> String {
    const SHOWN: usize = 3;
    let verb = |action| match action {
        Action::Add => "added",
        Action::Change => "changed",
        Action::Remove => "removed",
    };
    let named = changes
        .iter()
        .take(SHOWN)
        .map(|change| format!("{} {}", verb(change.action), submit::noun(&change.object)));
    let mut words = named.collect::<Vec<_>>().join(", ");
    if changes.len() > SHOWN {
        words.push_str(&format!(" and {} more", changes.len() - SHOWN));
    }
    words
}

/// Which revision to compare with.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct CompareQuery {
    #[serde(default)]
    with: String,
}

/// `GET /changes/{number}`.
pub(crate) async fn show(
    State(ops): State<Ops>,
    Path(number): Path<String>,
    Query(query): Query<CompareQuery>,
    user: SignedIn,
) -> PageResult {
    let revision = find(&ops, &number).await?;
    let status = ops.status().await?;
    let compared = match query.with.parse::<u64>() {
        Ok(other) if other != revision.number => {
            Some((other, diff(&ops.compare(other, revision.number).await?)))
        }
        _ => None,
    };
    let others = ops
        .revisions(1, PER_PAGE)
        .await?
        .items
        .iter()
        .map(|other| other.number)
        .filter(|n| *n != revision.number)
        .collect();
    let shell =
        Shell::with(&ops, &user, Section::Changes, &format!("Revision {}", revision.number), &status).await?;
    page(&change(shell, &revision, &status, compared, others))
}

async fn find(ops: &Ops, number: &str) -> Result<Revision, PageError> {
    let missing = || PageError::NotFound(format!("There is no revision {number}."));
    let number = number.parse().map_err(|_not_a_number: std::num::ParseIntError| missing())?;
    ops.revision(number).await?.ok_or_else(missing)
}

fn change(
    shell: Shell,
    revision: &Revision,
    status: &Status,
    compared: Option<(u64, Vec<DiffLine>)>,
    others: Vec<u64>,
) -> ChangePage {
    let newest = revision.number == status.revision;
    let answers = answers(revision, status, newest);
    let count = |class: &str| answers.iter().filter(|answer| answer.class == class).count();
    ChangePage {
        number: revision.number,
        newest,
        at: When::relative(revision.at, now()),
        actor: revision.actor.clone(),
        message: revision.message.clone(),
        lines: diff(&revision.changes),
        arrived: count("good"),
        refused: count("bad") > 0,
        waiting: count("wait") > 0,
        rollback_at: revision.rollback_at.map(|at| When::relative(at, now())),
        back_to: match newest {
            true => revision.rollback_to.unwrap_or(revision.number.saturating_sub(1)),
            false => revision.number,
        },
        answers,
        compared,
        others,
        shell,
    }
}

/// What every node says; of the newest revision also those that have said nothing.
fn answers(revision: &Revision, status: &Status, newest: bool) -> Vec<Answer> {
    let said = revision.nodes.iter().map(|answer| match (&answer.refused, answer.took_ms) {
        (Some(why), _) => {
            Answer { node: answer.node.clone(), class: "bad", words: format!("refused: {why}") }
        }
        (None, Some(ms)) => {
            Answer { node: answer.node.clone(), class: "good", words: format!("applied in {ms} ms") }
        }
        (None, None) => Answer { node: answer.node.clone(), class: "good", words: "applied".to_owned() },
    });
    let silent = status.nodes.iter().filter(|node| {
        newest && !node.revoked && revision.nodes.iter().all(|answer| answer.node != node.name)
    });
    let silent = silent.map(|node| match node.connected {
        Some(_) => Answer { node: node.name.clone(), class: "wait", words: "on its way".to_owned() },
        None => Answer {
            node: node.name.clone(),
            class: "warn",
            words: "not connected; it will get it when it comes back".to_owned(),
        },
    });
    let mut answers: Vec<Answer> = said.chain(silent).collect();
    answers.sort_by(|a, b| a.node.cmp(&b.node));
    answers
}

/// `POST /changes/{number}/rollback`.
pub(crate) async fn rollback(
    State(state): State<AppState>,
    Path(number): Path<String>,
    user: SignedIn,
    fields: Fields,
) -> PageResult {
    let number = find(&state.ops, &number).await?.number;
    submit::rollback(&state, &user, number, fields).await
}

/// `POST /changes/{number}/confirm`.
pub(crate) async fn confirm(
    State(state): State<AppState>,
    Path(number): Path<String>,
    user: SignedIn,
    fields: Fields,
) -> PageResult {
    user.check(fields.get("csrf"))?;
    let number = find(&state.ops, &number).await?.number;
    state.ops.confirm(number, &user.actor).await?;
    Ok(Redirect::to(&format!("/changes/{number}")).into_response())
}
