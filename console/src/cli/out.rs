//! What the command line prints, and how it ends.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

/// A command that did not do what was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    sentences: Vec<String>,
}

/// sysexits.h: a configuration error, which a restart does not mend.
pub(crate) const EX_CONFIG: u8 = 78;

impl Failure {
    /// What was asked is wrong, or was refused.
    pub(crate) fn refused(sentences: Vec<String>) -> Self {
        Self { code: 1, sentences }
    }

    /// One sentence of the same.
    pub(crate) fn because(sentence: impl Into<String>) -> Self {
        Self::refused(vec![sentence.into()])
    }

    /// The console cannot be reached.
    pub(crate) fn unreachable(sentence: impl Into<String>) -> Self {
        Self { code: 3, sentences: vec![sentence.into()] }
    }

    /// It cannot start, and trying again will not help.
    pub(crate) fn config(sentence: impl Into<String>) -> Self {
        Self { code: EX_CONFIG, sentences: vec![sentence.into()] }
    }

    /// This program's own fault, or the machine's.
    pub(crate) fn fault(sentence: impl Into<String>) -> Self {
        Self::refused(vec![sentence.into()])
    }

    /// Whether the console could not be reached.
    pub(crate) fn is_unreachable(&self) -> bool {
        self.code == 3
    }

    /// The sentences, for one line.
    pub(crate) fn text(&self) -> String {
        self.sentences.join("; ")
    }

    /// Prints the sentences and gives the exit status.
    pub(crate) fn exit(self) -> ExitCode {
        let mut stderr = std::io::stderr().lock();
        for sentence in &self.sentences {
            // Nobody is left to tell when stderr is gone.
            let _gone = writeln!(stderr, "sallyport: {sentence}");
        }
        ExitCode::from(self.code)
    }
}

/// Prints a line for the person at the terminal.
pub(crate) fn say(line: impl std::fmt::Display) {
    // A reader that went away (`| head`) is no reason to stop.
    let _gone = writeln!(std::io::stdout().lock(), "{line}");
}

/// The log goes to stderr: for people on a terminal, as JSON lines elsewhere. `SALLYPORT_LOG` chooses what is logged.
pub(super) fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("SALLYPORT_LOG").unwrap_or_else(|_unset| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Only the first subscriber counts; tests may have set one.
    let _second = match std::io::stderr().is_terminal() {
        true => builder.compact().try_init(),
        false => builder.json().flatten_event(true).try_init(),
    };
}
