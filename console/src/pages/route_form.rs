//! The one form: host, path, certificate and origin, put live together.

use askama::Template;
use model::draft::{Kind, Object, Spec};
use model::problem::Problem;

use super::doors::Doors;
use super::editor::Editor;
use super::route_names;
use super::routes::doors;
use super::shell::{Section, Shell};
use super::submit::opened;
use super::{PageResult, page};
use crate::forms::{CHANGES, Fields, FormView, Opt, RouteForm, match_words};
use crate::ops::{Ops, OpsError};
use crate::session::SignedIn;

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
    /// Matches that the form does not edit, in words.
    conditional: Vec<String>,
    schemes: Vec<Opt>,
    statuses: Vec<Opt>,
    doors: Option<Doors>,
}

/// Editing routes.
pub(crate) struct Routes;

impl Editor for Routes {
    const KIND: Kind = Kind::Route;
    const SECTION: Section = Section::Routes;
    const PATH: &'static str = "/routes";
    const HAS_KEY: bool = true;

    fn blank() -> Fields {
        RouteForm::blank()
    }

    fn fields(object: &Object) -> Fields {
        let Spec::Route(spec) = &object.spec else { return Fields::default() };
        RouteForm::fields(&object.metadata.name, spec)
    }

    fn objects(fields: &Fields, base: Option<&Object>) -> Result<Vec<Object>, Vec<Problem>> {
        RouteForm::objects(fields, base)
    }

    async fn resolve(
        ops: &Ops,
        fields: Fields,
        base: Option<&Object>,
    ) -> Result<(Fields, Vec<Problem>), OpsError> {
        route_names::resolve(ops, fields, base).await
    }

    fn place(fields: &Fields, problem: &Problem) -> Option<(String, String)> {
        RouteForm::place(fields, problem)
    }

    async fn show(ops: &Ops, user: &SignedIn, base: Option<&Object>, form: FormView) -> PageResult {
        let (certificates, groups) =
            (ops.names(Kind::Certificate).await?, ops.names(Kind::OriginGroup).await?);
        let opts = |names: &[String]| names.iter().map(|name| Opt::same(name)).collect::<Vec<_>>();
        let doors = match base {
            Some(object) => picture(ops, object).await?,
            None => None,
        };
        page(&RoutePage {
            shell: Shell::load(ops, user, Section::Routes, &Self::title(base)).await?,
            stored: base.map(|object| object.metadata.name.clone()),
            action: Self::action(base),
            certificates: opts(&certificates),
            groups: opts(&groups),
            bundles: bundles(ops, NODES_ROOTS).await?,
            listeners: carriers(ops),
            conditional: base.map(conditional).unwrap_or_default(),
            schemes: vec![
                Opt::new("", "The client's"),
                Opt::new("https", "https"),
                Opt::new("http", "http, readable by anyone on the way"),
            ],
            statuses: vec![
                Opt::new("", "302 Found, for now"),
                Opt::new("301", "301 Moved, for good"),
                Opt::new("303", "303 See other, with GET"),
                Opt::new("307", "307 For now, same method"),
                Opt::new("308", "308 For good, same method"),
            ],
            doors,
            form,
        })
    }
}

/// The listeners that carry routes.
fn carriers(ops: &Ops) -> Vec<String> {
    let current = ops.current();
    let listeners = current
        .objects
        .iter()
        .filter(|(_, object)| matches!(&object.spec, Spec::Listener(spec) if spec.carries_routes()));
    listeners.map(|((_, name), _)| name.clone()).collect()
}

fn conditional(object: &Object) -> Vec<String> {
    let Spec::Route(spec) = &object.spec else { return Vec::new() };
    spec.matches.iter().filter(|one| one.is_conditional()).map(match_words).collect()
}

/// What `system` stands for with origins.
pub(crate) const NODES_ROOTS: &str = "The node's system roots";

/// What certificates may be verified against; `system` says whose roots that word stands for.
pub(crate) async fn bundles(ops: &Ops, system: &str) -> Result<Vec<Opt>, OpsError> {
    let mut options = vec![Opt::new("system", system), Opt::new("internal", "This console's internal CA")];
    options.extend(
        ops.names(Kind::TrustBundle)
            .await?
            .iter()
            .map(|name| Opt::new(name.as_str(), format!("{name} (bundle)"))),
    );
    Ok(options)
}

async fn picture(ops: &Ops, object: &Object) -> Result<Option<Doors>, OpsError> {
    let Spec::Route(route) = &object.spec else { return Ok(None) };
    let name = object.metadata.name.clone();
    let traffic = ops
        .route_traffic(std::slice::from_ref(&name), std::time::Duration::from_secs(3_600))
        .await?
        .remove(&name);
    let group = ops.get(Kind::OriginGroup, &route.origin_group).await?.map(|stored| stored.object);
    let open = opened(route, &ops.current().objects);
    Ok(doors(object, group.as_ref(), open, &traffic.unwrap_or_default()))
}
