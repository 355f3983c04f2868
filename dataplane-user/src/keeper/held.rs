//! What a keeper holds as long as it lives: directories, locks, the sockets where it is found.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use tokio::io::unix::AsyncFd;

use super::access_log::AccessLog;
use super::directory::{Directory, Holder};
use super::kernel::KernelError;
use super::privileges::{self, User};
use super::settings::Settings;
use super::state::{State, StateError};
use super::{operator, rendezvous};

/// Why a keeper cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// See [`StateError`].
    #[error(transparent)]
    State(#[from] StateError),
    /// See [`privileges::NoUser`].
    #[error(transparent)]
    User(#[from] privileges::NoUser),
    /// A second keeper.
    #[error("another sallyport-node{holder} already runs on {}; stop it first or give this one its own --run-dir", directory.display())]
    Held {
        /// What it holds.
        directory: PathBuf,
        /// Who it is.
        holder: Holder,
    },
    /// The run directory, the access log or a signal.
    #[error("{what} failed")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Another node's instance.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Capabilities.
    #[error("the keeper's privileges cannot be dropped")]
    Privileges(#[from] caps::errors::CapsError),
}

/// What a keeper holds from its first moment to its last.
pub(super) struct Held {
    pub(super) state: State,
    pub(super) run: Directory,
    pub(super) run_lock: OwnedFd,
    pub(super) rendezvous: AsyncFd<OwnedFd>,
    pub(super) control: AsyncFd<OwnedFd>,
    pub(super) access_log: Option<AccessLog>,
    /// The lock of the kernel's part, for [`super::kernel`] to go on with.
    pub(super) instance: Option<OwnedFd>,
}

impl Held {
    pub(super) fn open(settings: &Settings, user: Option<User>) -> Result<Self, StartError> {
        let failed = |what| move |source| StartError::Io { what, source };
        let credential = settings.sealing_key.as_deref();
        let state = State::open(&settings.state_dir.join("node"), settings.token.clone(), credential)?;
        let run = Directory::open(&settings.run_dir, 0o755).map_err(failed("opening the run directory"))?;
        let lock = run.lock_alone("keeper.lock").map_err(failed("locking the run directory"))?;
        let run_lock =
            lock.map_err(|holder| StartError::Held { directory: settings.run_dir.clone(), holder })?;
        let rendezvous = rendezvous::listen(&run, user).map_err(failed("making keeper.sock"))?;
        let control = operator::listen(&run).map_err(failed("making control.sock"))?;
        let access_log = settings.access_log.clone().map(AccessLog::open).transpose();
        let access_log = access_log.map_err(failed("opening the access log"))?;
        Ok(Self { state, run, run_lock, rendezvous, control, access_log, instance: None })
    }
}
