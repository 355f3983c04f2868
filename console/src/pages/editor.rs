//! Adding, changing and removing one kind of object: the same five handlers for each kind.

use std::collections::BTreeMap;
use std::future::Future;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use model::draft::{Kind, Object};
use model::problem::Problem;

use super::shell::Section;
use super::submit::{self, Next, Submission};
use super::{PageError, PageResult};
use crate::forms::{Fields, FormView};
use crate::ops::{Changes, Ops, OpsError};
use crate::session::SignedIn;
use crate::state::AppState;

/// What differs from kind to kind.
pub(crate) trait Editor: Send + Sync + 'static {
    /// The kind.
    const KIND: Kind;
    /// Where it stands in the menu.
    const SECTION: Section;
    /// Its pages' path.
    const PATH: &'static str;
    /// Whether a private key may come with the form.
    const HAS_KEY: bool = false;

    /// What a new form starts with.
    fn blank() -> Fields;
    /// The form of a stored object.
    fn fields(object: &Object) -> Fields;
    /// The objects behind a form.
    fn objects(fields: &Fields, base: Option<&Object>) -> Result<Vec<Object>, Vec<Problem>>;
    /// Fills in what depends on what is stored, for [`Self::objects`] and [`Self::place`] alone: the form is shown again as
    /// it was typed.
    fn resolve(
        _ops: &Ops,
        fields: Fields,
        _base: Option<&Object>,
    ) -> impl Future<Output = Result<(Fields, Vec<Problem>), OpsError>> + Send {
        std::future::ready(Ok((fields, Vec::new())))
    }
    /// The control (id and label) beside which a problem belongs.
    fn place(fields: &Fields, problem: &Problem) -> Option<(String, String)>;
    /// The page; `base` is the stored object, absent for a new one.
    fn show(
        ops: &Ops,
        user: &SignedIn,
        base: Option<&Object>,
        form: FormView,
    ) -> impl Future<Output = PageResult> + Send;

    /// The page's name.
    fn title(base: Option<&Object>) -> String {
        let words = Self::KIND.words();
        let article = if words.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
        match base {
            Some(object) => {
                let mut words = words.to_owned();
                if let Some(first) = words.get_mut(..1) {
                    first.make_ascii_uppercase();
                }
                format!("{words} {}", object.metadata.name)
            }
            None => format!("Add {article} {words}"),
        }
    }

    /// Where the form posts to.
    fn action(base: Option<&Object>) -> String {
        format!("{}/{}", Self::PATH, base.map_or("new", |object| &object.metadata.name))
    }
}

/// `GET .../new`; the query fills fields in.
pub(crate) async fn new<E: Editor>(
    State(state): State<AppState>,
    Query(fill): Query<BTreeMap<String, String>>,
    user: SignedIn,
) -> PageResult {
    let fields = fill.into_iter().fold(E::blank(), |fields, (name, value)| fields.with(&name, value));
    E::show(&state.ops, &user, None, FormView::new(fields)).await
}

/// `POST .../new`.
pub(crate) async fn create<E: Editor>(
    State(state): State<AppState>,
    user: SignedIn,
    fields: Fields,
) -> PageResult {
    let name = fields.trimmed("name");
    if !name.is_empty() && state.ops.get(E::KIND, name).await?.is_some() {
        let code = model::problem::Code::Duplicate;
        let words = E::KIND.words();
        let message = format!(
            "the name {name} is taken by another {words}; choose a different one, or change that {words}"
        );
        let problem = Problem::new(format!("{:?}/{name}", E::KIND), "metadata.name", code, message);
        user.check(fields.get("csrf"))?;
        let mut fields = fields;
        let _ = submit::take_key(&state, &user, &mut fields).await;
        let form = FormView::new(fields.clone()).refuse(&[problem], |problem| E::place(&fields, problem));
        return again::<E>(&state, &user, None, form).await;
    }
    submitted::<E>(&state, &user, None, fields).await
}

/// `GET .../{name}`.
pub(crate) async fn edit<E: Editor>(
    State(state): State<AppState>,
    Path(name): Path<String>,
    user: SignedIn,
) -> PageResult {
    let object = stored::<E>(&state.ops, &name).await?;
    E::show(&state.ops, &user, Some(&object), FormView::new(E::fields(&object))).await
}

/// `POST .../{name}`.
pub(crate) async fn update<E: Editor>(
    State(state): State<AppState>,
    Path(name): Path<String>,
    user: SignedIn,
    fields: Fields,
) -> PageResult {
    let object = stored::<E>(&state.ops, &name).await?;
    submitted::<E>(&state, &user, Some(object), fields.with("name", name)).await
}

/// `POST .../{name}/remove`.
pub(crate) async fn remove<E: Editor>(
    State(state): State<AppState>,
    Path(name): Path<String>,
    user: SignedIn,
    fields: Fields,
) -> PageResult {
    stored::<E>(&state.ops, &name).await?;
    let action = format!("{}/{name}/remove", E::PATH);
    submit::remove(&state, &user, fields, E::SECTION, (E::KIND, &name, action)).await
}

async fn stored<E: Editor>(ops: &Ops, name: &str) -> Result<Object, PageError> {
    let found = ops.get(E::KIND, name).await?.map(|stored| stored.object);
    found.ok_or_else(|| PageError::NotFound(format!("There is no {} {name}.", E::KIND.words())))
}

async fn submitted<E: Editor>(
    state: &AppState,
    user: &SignedIn,
    base: Option<Object>,
    mut fields: Fields,
) -> PageResult {
    user.check(fields.get("csrf"))?;
    let key_problem = if E::HAS_KEY { submit::take_key(state, user, &mut fields).await } else { None };
    let (resolved, mut problems) = E::resolve(&state.ops, fields.clone(), base.as_ref()).await?;
    problems.extend(key_problem);
    let (resolved, base, objects) = objects::<E>(resolved, base).await?;
    let changes = match objects {
        Ok(put) if problems.is_empty() => Ok(Changes { put, ..Changes::default() }),
        Ok(_) => Err(problems),
        Err(more) => Err(problems.into_iter().chain(more).collect()),
    };
    let place = move |problem: &Problem| match problem.object.as_str() {
        "" if problem.field == submit::KEY_FIELD => {
            Some(("private_key".to_owned(), "Private key".to_owned()))
        }
        _ => E::place(&resolved, problem),
    };
    let (title, action) = (E::title(base.as_ref()), E::action(base.as_ref()));
    let submission = Submission { section: E::SECTION, title, action, fields, changes };
    match submit::run(state, user, submission, place).await? {
        Next::Answer(answer) => Ok(answer),
        Next::Form(form) => again::<E>(state, user, base.as_ref(), form).await,
    }
}

/// What [`Editor::objects`] makes of a form, with what it was made of. A prefix set's 8 MiB take a while to read: not on the thread
/// that answers everybody else.
async fn objects<E: Editor>(
    fields: Fields,
    base: Option<Object>,
) -> Result<(Fields, Option<Object>, Result<Vec<Object>, Vec<Problem>>), OpsError> {
    let reading = tokio::task::spawn_blocking(move || {
        let objects = E::objects(&fields, base.as_ref());
        (fields, base, objects)
    });
    reading.await.map_err(|_panicked| OpsError::Stopped)
}

/// The form once more; one that was refused says so to programs too.
async fn again<E: Editor>(
    state: &AppState,
    user: &SignedIn,
    base: Option<&Object>,
    form: FormView,
) -> PageResult {
    let wrong = form.any_wrong();
    let answer: Response = E::show(&state.ops, user, base, form).await?;
    Ok(if wrong { (StatusCode::UNPROCESSABLE_ENTITY, answer).into_response() } else { answer })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads nothing, and says on which thread.
    struct Where;

    impl Editor for Where {
        const KIND: Kind = Kind::PrefixSet;
        const SECTION: Section = Section::PrefixSets;
        const PATH: &'static str = "/where";

        fn blank() -> Fields {
            Fields::default().with("asked", format!("{:?}", std::thread::current().id()))
        }

        fn fields(_object: &Object) -> Fields {
            Fields::default()
        }

        fn objects(fields: &Fields, _base: Option<&Object>) -> Result<Vec<Object>, Vec<Problem>> {
            assert_ne!(fields.get("asked"), format!("{:?}", std::thread::current().id()));
            Ok(Vec::new())
        }

        fn place(_fields: &Fields, _problem: &Problem) -> Option<(String, String)> {
            None
        }

        async fn show(_ops: &Ops, _user: &SignedIn, _base: Option<&Object>, _form: FormView) -> PageResult {
            Err(PageError::NotFound(String::new()))
        }
    }

    #[tokio::test]
    async fn a_form_is_read_on_a_thread_of_its_own() {
        let (fields, base, objects) = objects::<Where>(Where::blank(), None).await.unwrap();
        assert_eq!((fields, base, objects), (Where::blank(), None, Ok(Vec::new())));
    }
}
