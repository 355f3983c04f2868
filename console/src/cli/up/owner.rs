//! Whose console it is: as root, not root's.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;

use tokio::process::Command;

use super::super::out::Failure;

/// The console's user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    /// For people.
    pub(super) name: String,
    ids: Option<(u32, u32)>,
}

impl Owner {
    /// As root: who called sudo, else the system user `sallyport`, else `nobody`. Without root: the caller.
    pub(super) fn find() -> Self {
        if !rustix::process::geteuid().is_root() {
            return Self { name: "you".to_owned(), ids: None };
        }
        let variable = |name| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
        if let (Some(uid), Some(gid)) = (variable("SUDO_UID"), variable("SUDO_GID"))
            && uid != 0
        {
            return Self { name: std::env::var("SUDO_USER").unwrap_or_else(|_unset| uid.to_string()), ids: Some((uid, gid)) };
        }
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let known = ["sallyport", "nobody"].into_iter().find_map(|name| Some((name, in_passwd(&users, name)?)));
        // 65534 is nobody everywhere Debian's base-passwd is.
        let (name, ids) = known.unwrap_or(("nobody", (65534, 65534)));
        Self { name: name.to_owned(), ids: Some(ids) }
    }

    /// Whether this process is root.
    pub(super) fn is_root(&self) -> bool {
        self.ids.is_some()
    }

    /// Gives a directory and what is in it.
    pub(super) fn give(&self, directory: &Path) -> Result<(), Failure> {
        let Some((uid, gid)) = self.ids else { return Ok(()) };
        let failed = |error: std::io::Error| {
            Failure::config(format!("{} cannot be given to {}: {error}", directory.display(), self.name))
        };
        for entry in fs::read_dir(directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            // Only plain files: a link could lead elsewhere.
            if fs::symlink_metadata(&path).map_err(failed)?.is_file() {
                chown(&path, Some(uid), Some(gid)).map_err(failed)?;
            }
        }
        chown(directory, Some(uid), Some(gid)).map_err(failed)
    }

    /// Runs a command as this user, without root's groups.
    pub(super) fn run_as(&self, command: &mut Command) {
        if let Some((uid, gid)) = self.ids {
            // The standard library drops root's supplementary groups when a uid is set.
            command.gid(gid).uid(uid);
        }
    }
}

fn in_passwd(users: &str, name: &str) -> Option<(u32, u32)> {
    let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}
