//! `sallyport export`.

use model::draft::Kind;

use super::{CliError, say};
use crate::client::Client;

/// Prints objects, one YAML document each.
pub(crate) async fn run(client: &Client, what: Option<&str>) -> Result<(), CliError> {
    let (kind, name) =
        match what.map(|what| what.split_once('/').map_or((what, None), |(kind, name)| (kind, Some(name)))) {
            None => (None, None),
            Some((kind, name)) => {
                let known = || Kind::ALL.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", ");
                (Some(Kind::parse(kind).map_err(|_unknown| CliError::Kind(kind.to_owned(), known()))?), name)
            }
        };
    let objects = match (kind, name) {
        (Some(kind), Some(name)) => {
            vec![client.must("GET", &format!("/api/v1/{}/{name}", kind.segment()), None).await?]
        }
        (kind, _) => {
            let query = kind.map_or_else(String::new, |kind| format!("?kind={kind}"));
            let answer = client.must("GET", &format!("/api/v1/objects{query}"), None).await?;
            answer["items"].as_array().cloned().unwrap_or_default()
        }
    };
    for object in objects {
        say("---");
        say(serde_saphyr::to_string(&object)?.trim_end());
    }
    Ok(())
}
