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

/// What a command line needs to say of this state directory: ` --state-dir DIR`, or nothing where it is found without.
pub(crate) fn to_say(state_dir: &Path) -> String {
    let own = state_dir == Path::new(SYSTEM_STATE) || self::state_dir(None).is_ok_and(|own| own == state_dir);
    if own { String::new() } else { format!(" --state-dir {}", state_dir.display()) }
}

/// The command line's token: the own state's, else the system's when that console was started for this user.
pub(crate) fn cli_file(said: Option<&Path>) -> Result<PathBuf, ClientError> {
    let own = state_dir(said)?.join("console/cli.json");
    let system = Path::new(SYSTEM_STATE).join("console/cli.json");
    Ok(if said.is_none() && !own.exists() && system.exists() { system } else { own })
}

/// Ends when somebody asks the process to stop in an orderly way, or its terminal goes away.
pub(crate) async fn stopped() {
    let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    let mut hang_up = (!ignores_hang_up()).then(|| signal(SignalKind::hangup()).ok()).flatten();
    let hung_up = async {
        match &mut hang_up {
            Some(hang_up) => hang_up.recv().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! { _ = int.recv() => {}, _ = term.recv() => {}, _ = hung_up => {} }
}

/// Whether this was started with nohup(1), so that it outlives its terminal.
fn ignores_hang_up() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 != 0)
}

/// Asks for SIGTERM when the parent dies, however it dies. False when it is gone already.
pub(crate) fn end_with_parent(parent: u32) -> bool {
    let asked = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
    // A kernel that cannot do this leaves the rest as it was.
    let now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    asked.is_err() || now.and_then(|pid| u32::try_from(pid).ok()) == Some(parent)
}
