//! A listener's error pages.

use super::notes::At;
use crate::draft::ErrorPageSpec;
use crate::error_page::{ErrorPage, Filling, PageForm, Statuses, Template};
use crate::problem::Code;

/// Every one is in every snapshot of the listener.
const MOST: usize = 16;

pub(super) fn lower(specs: &[ErrorPageSpec], at: &mut At<'_>) -> Vec<ErrorPage> {
    if specs.len() > MOST {
        let message = format!("has {} pages; {MOST} are the most", specs.len());
        at.problem("spec.errorPages", Code::Invalid, message);
    }
    let mut pages: Vec<ErrorPage> = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        let field = format!("spec.errorPages[{index}]");
        let statuses: Option<Statuses> =
            at.parse(format!("{field}.status"), spec.status.as_deref().unwrap_or("all"));
        let form = at.word(
            format!("{field}.form"),
            spec.form.as_deref().unwrap_or("html"),
            &[("html", PageForm::Html), ("json", PageForm::Json), ("plain", PageForm::Plain)],
        );
        let body = body(&format!("{field}.body"), &spec.body, form, at);
        let (Some(statuses), Some(form), Some(body)) = (statuses, form, body) else { continue };
        if pages.iter().any(|other| (other.statuses, other.form) == (statuses, form)) {
            let message = "another page has this status and form; remove one";
            at.problem(format!("{field}.status"), Code::Duplicate, message);
        }
        pages.push(ErrorPage { statuses, form, body });
    }
    pages.sort_by_key(|page| (page.statuses, page.form));
    pages
}

fn body(field: &str, text: &str, form: Option<PageForm>, at: &mut At<'_>) -> Option<Template> {
    let body = match text.parse::<Template>() {
        Ok(body) => body,
        Err(why) => {
            // Not the text itself: it may be long.
            at.problem(field, Code::Invalid, why.to_string());
            return None;
        }
    };
    let filling =
        Filling { status: 404, title: "Not Found", reason: "no-route", request_id: "00000000000000af" };
    if form == Some(PageForm::Json)
        && let Err(why) = serde_json::from_str::<serde_json::Value>(&body.fill(PageForm::Json, &filling))
    {
        at.problem(field, Code::Invalid, format!("is no JSON once it is filled in: {why}"));
    }
    Some(body)
}
