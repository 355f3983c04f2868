//! What came of a suite, as a row of `docs/conformance.md`.

use std::fmt::Write as _;

use sallyport_tests::conformance;

/// What came of a suite.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// The suite's name in the table.
    pub(crate) suite: String,
    /// Its version.
    pub(crate) version: String,
    /// Which of it ran, and against what.
    pub(crate) ran: String,
    /// How many cases passed.
    pub(crate) passed: usize,
    /// Those that did not, each with what was wrong.
    pub(crate) failed: Vec<String>,
    /// What is worth saying below the row, in Markdown.
    pub(crate) more: String,
}

impl Report {
    fn table(&self) -> String {
        let Self { suite, version, ran, passed, failed, more } = self;
        let (cases, failed) = (passed + failed.len(), failed.len());
        let mut out = "| suite | version | cases | passed | failed | what ran |\n|---|---|---|---|---|---|\n"
            .to_owned();
        let _ = writeln!(out, "| {suite} | {version} | {cases} | {passed} | {failed} | {ran} |");
        if !more.is_empty() {
            let _ = write!(out, "\n{more}");
        }
        out
    }

    /// Says it, fails where a case failed or fewer than `least` cases ran, and puts it into the documentation between
    /// the marks of this name.
    pub(crate) fn end(&self, name: &str, least: usize) {
        println!("{}", self.table());
        let failed = &self.failed;
        assert!(failed.is_empty(), "{}: {} failed:\n{}", self.suite, failed.len(), failed.join("\n"));
        assert!(self.passed >= least, "{}: only {} cases ran, not {least}", self.suite, self.passed);
        conformance::publish(name, &self.table());
    }
}
