//! The names of what a route form makes beside the route: found so that nothing that is stored is changed by them.

use model::certificate::Facts;
use model::draft::{Kind, Object, Spec};
use model::problem::{Code, Problem};

use crate::forms::{Fields, OriginForm, RouteForm, slug};
use crate::ops::{ListQuery, MAX_PER_PAGE, Ops, OpsError};

/// The longest name, less what a number behind it takes.
const STEM: usize = 58;

/// Names for what the form leaves unnamed, and problems with names that were typed and are taken.
///
/// A host is served with one certificate: where another route has one for it, and the form would issue one, that one is
/// named. An origin group that is stored as the form describes it is named; one that differs stays as it is.
pub(super) async fn resolve(
    ops: &Ops,
    mut fields: Fields,
    base: Option<&Object>,
) -> Result<(Fields, Vec<Problem>), OpsError> {
    let mut problems = Vec::new();
    let names = RouteForm::names(&fields);
    if base.is_none() && fields.some("name").is_none() {
        fields.set("name", free(ops, Kind::Route, &names.route).await?);
    }
    if let (Some(name), "upload" | "internal") = (&names.certificate, fields.get("source")) {
        certificate(ops, &mut fields, name, base).await?;
    }
    if RouteForm::makes_group(&fields) {
        problems.extend(group(ops, &mut fields, &names.group).await?);
    }
    Ok((fields, problems))
}

async fn certificate(
    ops: &Ops,
    fields: &mut Fields,
    name: &str,
    base: Option<&Object>,
) -> Result<(), OpsError> {
    let internal = fields.get("source") == "internal";
    let chosen = match internal {
        true => served(ops, &fields.words("host"), base).await?,
        false => None,
    };
    let stored = ops.get(Kind::Certificate, name).await?.map(|stored| stored.object);
    let same = internal && stored.is_some_and(|object| is_for(&object, &fields.words("host")));
    match chosen.or_else(|| same.then(|| name.to_owned())) {
        Some(certificate) => {
            fields.set("source", "existing");
            fields.set("certificate", certificate);
        }
        None => fields.set("certificate_name", free(ops, Kind::Certificate, name).await?),
    }
    Ok(())
}

/// The certificate that another route names for one of these hosts.
async fn served(ops: &Ops, hosts: &[String], base: Option<&Object>) -> Result<Option<String>, OpsError> {
    let own = base.map(|object| object.metadata.name.as_str());
    for host in hosts {
        let query = ListQuery {
            kind: Some(Kind::Route),
            search: host.clone(),
            per_page: MAX_PER_PAGE,
            ..ListQuery::default()
        };
        let found = ops.list(&query).await?.items.into_iter().find_map(|stored| {
            let Spec::Route(route) = stored.object.spec else { return None };
            let same = route.hostnames.iter().any(|name| name.eq_ignore_ascii_case(host));
            let other = own != Some(stored.object.metadata.name.as_str());
            route.certificate.filter(|_| same && other)
        });
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Whether the certificate is for exactly these hosts.
fn is_for(object: &Object, hosts: &[String]) -> bool {
    let Spec::Certificate(spec) = &object.spec else { return false };
    let Some(Ok(facts)) = spec.chain.as_deref().map(Facts::of_chain) else { return false };
    let mut wanted: Vec<String> = hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
    let mut found: Vec<String> = facts.hostnames.iter().map(ToString::to_string).collect();
    wanted.sort();
    found.sort();
    wanted == found
}

async fn group(ops: &Ops, fields: &mut Fields, name: &str) -> Result<Option<Problem>, OpsError> {
    let typed = fields.some("group_name").is_some();
    // What is no number is said when the objects are made.
    let Ok(described) = OriginForm::object(fields, name, None) else { return Ok(None) };
    for number in 1_u32.. {
        let candidate = numbered(name, number);
        match ops.get(Kind::OriginGroup, &candidate).await? {
            None => {
                fields.set("group_name", candidate);
                break;
            }
            Some(stored) if stored.object.spec == described.spec => {
                fields.set("origin_source", "existing");
                fields.set("origin_group", candidate);
                break;
            }
            Some(_) if typed => {
                let message = format!(
                    "there is an origin group {name} already, with other settings; choose it under \"An origin group that is stored here\", or another name"
                );
                return Ok(Some(Problem::new(
                    format!("OriginGroup/{name}"),
                    "metadata.name",
                    Code::Duplicate,
                    message,
                )));
            }
            Some(_) => {}
        }
    }
    Ok(None)
}

/// `name`, or the first of `name-2`, `name-3` and so on that no stored object has.
async fn free(ops: &Ops, kind: Kind, name: &str) -> Result<String, OpsError> {
    let mut number = 1;
    loop {
        let candidate = numbered(name, number);
        if ops.get(kind, &candidate).await?.is_none() {
            return Ok(candidate);
        }
        number += 1;
    }
}

fn numbered(name: &str, number: u32) -> String {
    match number {
        0 | 1 => name.to_owned(),
        _ => format!("{}-{number}", slug(&name.chars().take(STEM).collect::<String>())),
    }
}
