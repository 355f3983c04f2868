//! Objects from files: YAML or JSON, several documents in a file, directories, standard input.

use std::io::Read;
use std::path::{Path, PathBuf};

use model::draft::{Object, parse};
use serde_json::Value;

use super::out::Failure;

/// The longest input.
const AT_MOST: u64 = 256 << 20;

/// All objects of these paths (`-` is standard input), or every fault in them.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<Object>, Failure> {
    let mut faults = Vec::new();
    let mut objects = Vec::new();
    let mut sources = Vec::new();
    for path in paths {
        match source(path) {
            Ok(found) => sources.extend(found),
            Err(fault) => faults.push(fault),
        }
    }
    for (name, text) in &sources {
        match documents(text) {
            Ok(found) => {
                for (index, value) in found.iter().enumerate() {
                    match parse(value) {
                        Ok(object) => objects.push(object),
                        Err(problems) => faults
                            .extend(problems.iter().map(|problem| format!("{name}, document {}: {problem}", index + 1))),
                    }
                }
            }
            Err(fault) => faults.push(format!("{name}: {fault}")),
        }
    }
    if !faults.is_empty() {
        return Err(Failure::refused(faults));
    }
    Ok(objects)
}

/// The texts behind one path, with their names.
fn source(path: &Path) -> Result<Vec<(String, String)>, String> {
    if path == Path::new("-") {
        let mut text = String::new();
        let read = std::io::stdin().lock().take(AT_MOST).read_to_string(&mut text);
        read.map_err(|error| format!("standard input: {error}"))?;
        return Ok(vec![("standard input".to_owned(), text)]);
    }
    let fault = |error: std::io::Error| format!("{}: {error}", path.display());
    if !path.is_dir() {
        let length = std::fs::metadata(path).map_err(fault)?.len();
        if length > AT_MOST {
            return Err(format!("{} is longer than {} MiB; split it", path.display(), AT_MOST >> 20));
        }
        return Ok(vec![(path.display().to_string(), std::fs::read_to_string(path).map_err(fault)?)]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(fault)? {
        let path = entry.map_err(fault)?.path();
        let wanted = path.extension().is_some_and(|end| ["yaml", "yml", "json"].iter().any(|known| end == *known));
        if wanted && path.is_file() {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(format!("{} has no file that ends in .yaml, .yml or .json", path.display()));
    }
    files.sort();
    let texts = files.iter().map(|file| source(file)).collect::<Result<Vec<_>, _>>()?;
    Ok(texts.into_iter().flatten().collect())
}

/// The documents of a text. JSON may also be a list, or what the API gives: `{"items": [...]}`.
fn documents(text: &str) -> Result<Vec<Value>, String> {
    let trimmed = text.trim_start();
    let documents = if trimmed.starts_with(['{', '[']) {
        let values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        values.collect::<Result<Vec<_>, _>>().map_err(|error| format!("this is not JSON: {error}"))?
    } else {
        yaml(text)?
    };
    let flat = documents.into_iter().flat_map(|document| match document {
        Value::Array(items) => items,
        Value::Object(mut fields) if !fields.contains_key("kind") && fields.get("items").is_some_and(Value::is_array) => {
            match fields.remove("items") {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            }
        }
        other => vec![other],
    });
    Ok(flat.collect())
}

fn yaml(text: &str) -> Result<Vec<Value>, String> {
    // The text is already bounded: only what makes it grow (aliases) keeps the default bounds.
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
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| format!("this is not YAML: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_gives_the_same_documents() {
        let yaml = "kind: A\nn: 1\n---\nkind: B\n";
        let json = "{\"kind\":\"A\",\"n\":1}\n{\"kind\":\"B\"}";
        let list = "[{\"kind\":\"A\",\"n\":1},{\"kind\":\"B\"}]";
        let items = "{\"items\":[{\"kind\":\"A\",\"n\":1},{\"kind\":\"B\"}],\"total\":2}";
        let wanted = documents(yaml).unwrap();
        assert_eq!(wanted.len(), 2);
        for text in [json, list, items] {
            assert_eq!(documents(text).unwrap(), wanted, "{text}");
        }
        assert!(documents("a: [").unwrap_err().contains("not YAML"));
        assert!(documents("{\"a\":").unwrap_err().contains("not JSON"));
    }

    #[test]
    fn a_fault_names_file_document_and_field() {
        let path = std::env::temp_dir().join(format!("sallyport-files-{}.yaml", std::process::id()));
        let good = "apiVersion: sallyport.dev/v1alpha1\nkind: Listener\nmetadata: {name: a}\nspec: {port: 1}\n";
        std::fs::write(&path, format!("{good}---\n{}", good.replace("port", "prot"))).unwrap();
        let failure = read(std::slice::from_ref(&path)).unwrap_err();
        let text = failure.text();
        assert!(text.contains(".yaml, document 2: Listener/a spec.prot"), "{text}");
        assert!(text.contains("port"), "{text}");
        std::fs::remove_file(path).unwrap();
    }
}
