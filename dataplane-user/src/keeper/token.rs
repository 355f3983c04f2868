//! Files with a secret in them, and the enrolment token that an operator may put in its place at any time.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tokio::time::Instant;
use zeroize::Zeroizing;

use super::run::Keeper;
use super::settings::{InvalidToken, parse_token};
use super::state::StateError;
use crate::sentence;

/// No token is longer.
const LONGEST: u64 = 64 * 1024;

/// Why a token file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// What the file system said.
    #[error("the token file {} cannot be read", .0.display())]
    Io(PathBuf, #[source] io::Error),
    /// A secret that others may have read.
    #[error("the token file {} is readable by others (mode {mode:o}): chmod 600 it, and put a new token in", .path.display())]
    Shared {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    File(#[from] TokenFileError),
    #[error(transparent)]
    Token(#[from] InvalidToken),
    #[error(transparent)]
    State(#[from] StateError),
}

/// The text of a file that nobody but its owner may read.
///
/// # Errors
/// See [`TokenFileError`].
pub fn read_file(path: &Path) -> Result<Zeroizing<String>, TokenFileError> {
    let failed = |error| TokenFileError::Io(path.to_owned(), error);
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(TokenFileError::Shared { path: path.to_owned(), mode });
    }
    read(file).map_err(failed)
}

/// The text of an open file.
///
/// # Errors
/// What the file system said.
pub fn read(file: File) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    file.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

impl Keeper {
    /// A node that is not enrolled looks whether a token was put in its place; a new worker enrols with it.
    pub(super) fn look_for_token(&mut self) {
        if self.stop_at.is_some() || self.state.is_enrolled().unwrap_or(true) {
            return drop(self.shortcomings.remove("enrolment"));
        }
        let known = self.state.identity().is_some();
        let problem = match self.take_token() {
            Ok(true) => {
                tracing::info!("an enrolment token was found");
                self.start_at = Some(Instant::now());
                None
            }
            Ok(false) if known => None,
            Ok(false) => Some("this node is not enrolled: start it with --token-file".to_owned()),
            // Without a token yet, or with one whose place was the privileges' that the keeper has dropped.
            Err(Unusable::File(TokenFileError::Io(_, error)))
                if known
                    && matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) =>
            {
                None
            }
            Err(Unusable::File(TokenFileError::Io(path, error)))
                if error.kind() == io::ErrorKind::NotFound =>
            {
                Some(format!(
                    "this node is not enrolled: put a token from `sallyport node enrol NAME` into {} (mode 0600)",
                    path.display()
                ))
            }
            Err(error) => Some(sentence(&error)),
        };
        // Said once, not every time it is still so.
        if problem.as_ref() != self.shortcomings.get("enrolment") {
            self.note("enrolment", problem);
        }
    }

    fn take_token(&mut self) -> Result<bool, Unusable> {
        let Some(path) = &self.settings.token_file else { return Ok(false) };
        let (token, digest) = parse_token(&read_file(path)?)?;
        if self.state.identity().is_some_and(|identity| identity.token == digest) {
            return Ok(false);
        }
        self.state.adopt_token(token, digest)?;
        Ok(true)
    }
}
