//! The part of the route form about what happens on the way: header and path changes, redirects, fixed responses.

use model::draft::{
    DirectResponseSpec, FieldSpec, FiltersSpec, HeaderModifierSpec, PathModifierSpec, RedirectSpec,
    RewriteSpec,
};
use model::problem::{Code, Problem};

use super::fields::Fields;
use super::parse::{Numbers, blank};

/// What marks a path that takes the place of the whole one.
const EXACT: &str = "exact:";

/// The controls of the folded part.
pub(crate) const CHANGES: [&str; 4] =
    ["request_headers", "response_headers", "rewrite_hostname", "rewrite_path"];

/// Reads the filters; `numbers` takes the problems.
pub(super) fn read(fields: &Fields, numbers: &mut Numbers<'_>) -> FiltersSpec {
    let request = headers(fields.get("request_headers"), "spec.filters.requestHeaderModifier", numbers);
    let response = headers(fields.get("response_headers"), "spec.filters.responseHeaderModifier", numbers);
    let rewrite =
        RewriteSpec { hostname: fields.some("rewrite_hostname"), path: path(fields, "rewrite_path") };
    let redirect = (fields.get("origin_source") == "redirect").then(|| RedirectSpec {
        scheme: fields.some("redirect_scheme"),
        hostname: fields.some("redirect_hostname"),
        port: numbers.read("redirect_port", "spec.filters.requestRedirect.port"),
        path: path(fields, "redirect_path"),
        status_code: numbers.read("redirect_status", "spec.filters.requestRedirect.statusCode"),
    });
    let fixed = (fields.get("origin_source") == "fixed").then(|| DirectResponseSpec {
        status_code: numbers
            .read("fixed_status", "spec.filters.directResponse.statusCode")
            .unwrap_or_default(),
        content_type: fields.some("fixed_type"),
        body: fields.get("fixed_body").to_owned(),
    });
    FiltersSpec {
        request_header_modifier: request,
        response_header_modifier: response,
        request_redirect: redirect,
        url_rewrite: (rewrite != RewriteSpec::default()).then_some(rewrite),
        direct_response: fixed,
    }
}

/// Puts stored filters into the form.
pub(super) fn show(spec: &FiltersSpec, mut fields: Fields) -> Fields {
    fields.set("request_headers", headers_text(&spec.request_header_modifier));
    fields.set("response_headers", headers_text(&spec.response_header_modifier));
    if let Some(rewrite) = &spec.url_rewrite {
        fields.set("rewrite_hostname", rewrite.hostname.as_deref().unwrap_or_default());
        fields.set("rewrite_path", path_text(rewrite.path.as_ref()));
    }
    if let Some(redirect) = &spec.request_redirect {
        fields.set("origin_source", "redirect");
        fields.set("redirect_scheme", redirect.scheme.as_deref().unwrap_or_default());
        fields.set("redirect_hostname", redirect.hostname.as_deref().unwrap_or_default());
        fields.set("redirect_port", blank(redirect.port));
        fields.set("redirect_path", path_text(redirect.path.as_ref()));
        fields.set("redirect_status", blank(redirect.status_code));
    }
    if let Some(fixed) = &spec.direct_response {
        fields.set("origin_source", "fixed");
        fields.set("fixed_status", fixed.status_code.to_string());
        fields.set("fixed_type", fixed.content_type.as_deref().unwrap_or_default());
        fields.set("fixed_body", fixed.body.as_str());
    }
    fields
}

/// The control beside which a problem of the filters belongs.
pub(super) fn control(field: &str) -> Option<(&'static str, &'static str)> {
    let field = field.strip_prefix("spec.filters.")?;
    let (filter, rest) = field.split_once('.').unwrap_or((field, ""));
    let rest = rest.split('.').next().unwrap_or_default();
    Some(match (filter, rest) {
        ("requestHeaderModifier", _) => ("request_headers", "Request header"),
        ("responseHeaderModifier", _) => ("response_headers", "Response header"),
        ("urlRewrite", "path") => ("rewrite_path", "Path at the origin"),
        ("urlRewrite", _) => ("rewrite_hostname", "Host at the origin"),
        ("requestRedirect", "scheme") => ("redirect_scheme", "Scheme"),
        ("requestRedirect", "port") => ("redirect_port", "Port"),
        ("requestRedirect", "path") => ("redirect_path", "Path"),
        ("requestRedirect", "statusCode") => ("redirect_status", "Status"),
        ("requestRedirect", _) => ("redirect_hostname", "Host"),
        ("directResponse", "contentType") => ("fixed_type", "Content type"),
        ("directResponse", "body") => ("fixed_body", "Body"),
        ("directResponse", _) => ("fixed_status", "Status"),
        _ => return None,
    })
}

/// `set NAME: VALUE`, `add NAME: VALUE` and `remove NAME`, one a line: the words of the review.
fn headers(text: &str, field: &str, numbers: &mut Numbers<'_>) -> HeaderModifierSpec {
    let mut spec = HeaderModifierSpec::default();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (verb, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let pair = rest
            .split_once(':')
            .map(|(name, value)| FieldSpec { name: name.trim().to_owned(), value: value.trim().to_owned() });
        match (verb, pair) {
            ("set", Some(pair)) => spec.set.push(pair),
            ("add", Some(pair)) => spec.add.push(pair),
            ("remove", None) if !rest.is_empty() => spec.remove.push(rest.trim().to_owned()),
            _ => {
                let message = format!(
                    "\"{line}\" is not understood; write set NAME: VALUE, add NAME: VALUE or remove NAME, one a line"
                );
                numbers.problem(field, message);
            }
        }
    }
    spec
}

fn headers_text(spec: &HeaderModifierSpec) -> String {
    let pair = |verb: &'static str| move |one: &FieldSpec| format!("{verb} {}: {}", one.name, one.value);
    let lines: Vec<String> = spec
        .set
        .iter()
        .map(pair("set"))
        .chain(spec.add.iter().map(pair("add")))
        .chain(spec.remove.iter().map(|name| format!("remove {name}")))
        .collect();
    lines.join("\n")
}

/// A path in the place of the one that matched; with `exact:`, of the whole.
fn path(fields: &Fields, name: &str) -> Option<PathModifierSpec> {
    let text = fields.some(name)?;
    Some(match text.strip_prefix(EXACT) {
        Some(full) => PathModifierSpec {
            kind: "ReplaceFullPath".to_owned(),
            replace_full_path: Some(full.to_owned()),
            replace_prefix_match: None,
        },
        None => PathModifierSpec {
            kind: "ReplacePrefixMatch".to_owned(),
            replace_full_path: None,
            replace_prefix_match: Some(text),
        },
    })
}

fn path_text(spec: Option<&PathModifierSpec>) -> String {
    match spec.map(|spec| (&spec.replace_full_path, &spec.replace_prefix_match)) {
        Some((Some(full), _)) => format!("{EXACT}{full}"),
        // An empty prefix and `/` mean the same, and a blank control means no change.
        Some((None, Some(prefix))) if prefix.is_empty() => "/".to_owned(),
        Some((None, Some(prefix))) => prefix.clone(),
        Some((None, None)) | None => String::new(),
    }
}

/// A problem at a field of the object under examination.
impl Numbers<'_> {
    fn problem(&mut self, field: &str, message: String) {
        let problem = Problem::new(self.object(), field, Code::Invalid, message);
        self.problems.push(problem);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::draft::Kind;

    fn again(fields: &Fields) -> (FiltersSpec, Vec<Problem>) {
        let mut numbers = Numbers::new(fields, Kind::Route, "r");
        let spec = read(fields, &mut numbers);
        (spec, numbers.problems)
    }

    #[test]
    fn there_and_back() {
        let typed = Fields::default()
            .with("request_headers", "set X-Tenant: shop:1\nadd Accept-Language: en\r\n\n remove cookie")
            .with("response_headers", "remove Server")
            .with("rewrite_hostname", "inner.test")
            .with("rewrite_path", "exact:/all");
        for typed in [
            typed,
            Fields::default()
                .with("origin_source", "redirect")
                .with("redirect_scheme", "https")
                .with("redirect_port", "8443")
                .with("redirect_path", "/new")
                .with("redirect_status", "308"),
            Fields::default()
                .with("origin_source", "fixed")
                .with("fixed_status", "404")
                .with("fixed_type", "text/html")
                .with("fixed_body", "<p>gone\n"),
        ] {
            let (spec, problems) = again(&typed);
            assert!(problems.is_empty() && spec != FiltersSpec::default(), "{problems:?}");
            assert_eq!(again(&show(&spec, Fields::default())).0, spec);
        }
        assert_eq!(again(&Fields::default()).0, FiltersSpec::default());
    }

    #[test]
    fn lines_without_a_verb_are_problems() {
        for line in ["X-Tenant: shop", "set X-Tenant", "remove", "remove X: y", "SET a: b"] {
            let (_, problems) = again(&Fields::default().with("request_headers", line));
            assert_eq!(problems.len(), 1, "{line}");
            assert_eq!(control(&problems[0].field).map(|(id, _)| id), Some("request_headers"));
        }
    }
}
