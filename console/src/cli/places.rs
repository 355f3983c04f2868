//! Where things are unless somebody says otherwise.

use std::path::{Path, PathBuf};

use tokio::signal::unix::{SignalKind, signal};

use crate::client::ClientError;

/// Where people and tools reach the console.
pub(crate) const CONSOLE_PORT: u16 = 9443;
/// Where nodes do.
pub(crate) const NODE_PORT: u16 = 9444;
/// The state of a console or node that root started.
pub(crate) const SYSTEM_STATE: &str = "/var/lib/sallyport";

/// The state directory: what was said, `/var/lib/sallyport` for root, the user's own otherwise.
pub(crate) fn state_dir(said: Option<&Path>) -> Result<PathBuf, ClientError> {
    if let Some(said) = said {
        return Ok(said.to_owned());
    }
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from(SYSTEM_STATE));
    }
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = variable("XDG_STATE_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/state")));
    let missing = || ClientError::File {
        path: PathBuf::from("$HOME"),
        source: std::io::Error::other("neither XDG_STATE_HOME nor HOME is set; say --state-dir"),
    };
    Ok(base.ok_or_else(missing)?.join("sallyport"))
}

/// The command line's token: the own state's, else the system's when that console was started for this user.
pub(crate) fn cli_file(said: Option<&Path>) -> Result<PathBuf, ClientError> {
    let own = state_dir(said)?.join("console/cli.json");
    let system = Path::new(SYSTEM_STATE).join("console/cli.json");
    Ok(if said.is_none() && !own.exists() && system.exists() { system } else { own })
}

/// Ends when somebody asks the process to stop in an orderly way.
pub(crate) async fn stopped() {
    let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
}
