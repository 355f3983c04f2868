//! The tables of `docs/conformance.md`: each between two marks that carry its name.

use std::path::Path;

/// Puts a table between its marks where `SALLYPORT_CONFORMANCE` is set. For runs that passed.
pub fn publish(name: &str, table: &str) {
    if std::env::var_os("SALLYPORT_CONFORMANCE").is_none() {
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/conformance.md");
    let text = std::fs::read_to_string(&path).expect("docs/conformance.md");
    let (begin, end) = (format!("<!-- {name}: "), format!("<!-- {name} ends -->"));
    let at = text.find(&begin).unwrap_or_else(|| panic!("docs/conformance.md has no mark {begin}"));
    let start = at + text[at..].find('\n').expect("the mark's end");
    let length = text[start..].find(&end).unwrap_or_else(|| panic!("docs/conformance.md has no mark {end}"));
    let after = &text[start + length..];
    std::fs::write(&path, format!("{}\n\n{}\n\n{after}", &text[..start], table.trim_end()))
        .expect("docs/conformance.md");
}
