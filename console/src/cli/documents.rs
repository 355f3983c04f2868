//! Files of objects: YAML or JSON, several documents a file, a directory's files in order, `-` for standard input.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use model::problem::Problem;
use serde_json::Value;

/// Why files could not be read as objects.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DocumentsError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{}: not YAML or JSON: {said}", path.display())]
    Syntax { path: PathBuf, said: String },
    #[error("there is no object in {}", .0.display())]
    Empty(PathBuf),
    #[error("{}", join(.0))]
    Problems(Vec<(String, Problem)>),
}

fn join(problems: &[(String, Problem)]) -> String {
    let lines = problems.iter().map(|(place, problem)| format!("{place}: {problem}")).collect::<Vec<_>>();
    lines.join("\n")
}

/// The objects of all files, each checked for form, as the API takes them.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<Value>, DocumentsError> {
    let mut objects = Vec::new();
    let mut problems = Vec::new();
    for path in files(paths)? {
        let text = text(&path)?;
        let documents = parse(&path, &text)?;
        let count = objects.len();
        for (number, document) in
            documents.into_iter().enumerate().filter(|(_, document)| !document.is_null())
        {
            match model::draft::parse(&document) {
                Ok(_) => objects.push(document),
                Err(found) => {
                    let place = format!("{} document {}", path.display(), number + 1);
                    problems.extend(found.into_iter().map(|problem| (place.clone(), problem)));
                }
            }
        }
        if objects.len() == count && problems.is_empty() {
            return Err(DocumentsError::Empty(path));
        }
    }
    if problems.is_empty() { Ok(objects) } else { Err(DocumentsError::Problems(problems)) }
}

fn parse(path: &Path, text: &str) -> Result<Vec<Value>, DocumentsError> {
    // JSON is YAML, but a YAML parser's complaint about JSON helps nobody.
    if text.trim_start().starts_with('{') {
        let documents =
            serde_json::Deserializer::from_str(text).into_iter().collect::<Result<Vec<Value>, _>>();
        return documents
            .map_err(|error| DocumentsError::Syntax { path: path.to_owned(), said: error.to_string() });
    }
    // The bounds that grow with an honest file are raised past 10,000 objects; those on what expands (aliases) stay.
    let options = serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_events: 100_000_000,
            max_nodes: 50_000_000,
            max_documents: 1_000_000,
            max_total_scalar_bytes: 512 << 20,
            max_reader_input_bytes: None,
        },
    };
    serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| DocumentsError::Syntax { path: path.to_owned(), said: error.to_string() })
}

fn text(path: &Path) -> Result<String, DocumentsError> {
    let read = match path.to_str() {
        Some("-") => {
            let mut text = String::new();
            std::io::stdin().lock().read_to_string(&mut text).map(|_| text)
        }
        _ => std::fs::read_to_string(path),
    };
    read.map_err(|source| DocumentsError::Read { path: path.to_owned(), source })
}

/// Directories opened to the `.yaml`, `.yml` and `.json` files in them, by name.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, DocumentsError> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let entries = entries.map_err(|source| DocumentsError::Read { path: path.clone(), source })?;
        let mut found = entries.into_iter().map(|entry| entry.path()).collect::<Vec<_>>();
        found.retain(|file| {
            file.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json")
        });
        found.sort();
        files.append(&mut found);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_documents_and_both_syntaxes() {
        let yaml = "---\napiVersion: sallyport.dev/v1alpha1\nkind: TrustBundle\n---\nkind: Route\n";
        let documents = parse(Path::new("x"), yaml).unwrap();
        assert_eq!(documents.len(), 2);
        assert_eq!(documents[1]["kind"], "Route");
        assert_eq!(parse(Path::new("x"), r#"{"kind": "Route"} {"kind": "Listener"}"#).unwrap().len(), 2);
    }

    #[test]
    fn many_documents_are_read_and_a_bomb_is_not() {
        let many = "---\nkind: Route\n".repeat(3000);
        assert_eq!(parse(Path::new("x"), &many).unwrap().len(), 3000);
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..9 {
            let aliases = vec![format!("*a{}", n - 1); 10].join(", ");
            bomb.push_str(&format!("a{n}: &a{n} [{aliases}]\n"));
        }
        assert!(parse(Path::new("x"), &bomb).is_err());
    }

    #[test]
    fn a_syntax_error_names_file_and_line() {
        let error = parse(Path::new("shop.yaml"), "kind: [Route\nname: x\n").unwrap_err().to_string();
        assert!(error.starts_with("shop.yaml: not YAML or JSON"), "{error}");
        assert!(error.contains("line"), "{error}");
    }
}
