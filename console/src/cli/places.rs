//! Where state lies.

use std::path::{Path, PathBuf};

/// The state directory: as asked, or the system's as root, or the user's.
pub(super) fn state_dir(asked: Option<&Path>) -> PathBuf {
    if let Some(asked) = asked {
        return asked.to_owned();
    }
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/sallyport");
    }
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    match (absolute("XDG_STATE_HOME"), absolute("HOME")) {
        (Some(state), _) => state.join("sallyport"),
        (None, Some(home)) => home.join(".local/state/sallyport"),
        (None, None) => PathBuf::from("sallyport-state"),
    }
}

/// The console's part of it.
pub(super) fn console_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("console")
}
