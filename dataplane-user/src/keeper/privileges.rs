//! What the keeper may do, and as whom the worker runs.

use caps::{CapSet, Capability, CapsHashSet};
use model::report::Feature;
use rustix::process::{Resource, Rlimit};

/// All a keeper of root's keeps, for itself alone: what it starts gets nothing.
const KEPT: [Capability; 10] = [
    Capability::CAP_BPF,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_NET_RAW,
    Capability::CAP_PERFMON,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_SETUID,
    Capability::CAP_SETGID,
    Capability::CAP_SETPCAP,
    Capability::CAP_KILL,
    Capability::CAP_SYS_PTRACE,
];

/// Descriptors a worker may have open; each proxied connection needs two.
const DESCRIPTORS: u64 = 1 << 20;

/// As whom the worker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Why there is no user for the worker.
#[derive(Debug, thiserror::Error)]
pub enum NoUser {
    /// Not in `/etc/passwd`.
    #[error("there is no user {0} on this machine; choose one with --user")]
    Unknown(String),
    /// The whole point is that it is another.
    #[error("the worker must not run as root; choose another user with --user")]
    Root,
}

/// The user the worker is to run as: `None` when this process cannot change users.
///
/// # Errors
/// See [`NoUser`].
pub fn worker_user(wanted: &str) -> Result<Option<User>, NoUser> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    match find_user(&passwd, wanted) {
        Some(User { uid: 0, .. }) => Err(NoUser::Root),
        Some(user) => Ok(Some(user)),
        None => Err(NoUser::Unknown(wanted.to_owned())),
    }
}

/// By name, or by number; a number that no line has is its own group.
fn find_user(passwd: &str, wanted: &str) -> Option<User> {
    let number: Option<u32> = wanted.parse().ok();
    let line = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, ..] = fields.as_slice() else { return None };
        let user = User { uid: uid.parse().ok()?, gid: gid.parse().ok()? };
        (*name == wanted || number == Some(user.uid)).then_some(user)
    });
    line.or(number.map(|uid| User { uid, gid: uid }))
}

/// Whether keeper and worker are kept apart.
pub fn isolation(user: Option<User>) -> Feature {
    let (on, detail) = match user {
        Some(user) => (true, format!("the worker runs as user {} without capabilities", user.uid)),
        None => {
            (false, "keeper and worker are not isolated: they run as the same user; start as root".to_owned())
        }
    };
    Feature { name: "isolation".to_owned(), on, detail }
}

/// Lets this process and its children have many descriptors. As many as are allowed is enough to go on.
pub fn raise_descriptor_limit() {
    let now = rustix::process::getrlimit(Resource::Nofile);
    let most = now.maximum.unwrap_or(DESCRIPTORS);
    for limit in [most.max(DESCRIPTORS), most] {
        if rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum: Some(limit) })
            .is_ok()
        {
            return;
        }
    }
}

/// Drops every capability but the named ones. A process without any is left as it is.
///
/// They also stay in the bounding set, which judges only what `execve` would give: the keeper that replaces itself by its
/// next release needs them. What it starts gets nothing: see [`leave_children_nothing`].
///
/// # Errors
/// What the kernel said.
pub fn drop_to_named() -> Result<(), caps::errors::CapsError> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = permitted.into_iter().filter(|capability| KEPT.contains(capability)).collect();
    caps::clear(None, CapSet::Ambient)?;
    bound_to(&kept)?;
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)
}

/// Lets `execve` keep what this process may do; [`leave_behind`] undoes it.
///
/// # Errors
/// What the kernel said.
pub fn take_along() -> Result<(), caps::errors::CapsError> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    caps::set(None, CapSet::Inheritable, &permitted)?;
    // Root's programs get what is inheritable; another user's only what is ambient too.
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    permitted.into_iter().try_for_each(|capability| caps::raise(None, CapSet::Ambient, capability))
}

/// Children of this process get nothing by inheritance, as before.
///
/// # Errors
/// What the kernel said.
pub fn leave_behind() -> Result<(), caps::errors::CapsError> {
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)
}

/// What the calling thread starts from now on has no capability and can get none back, as root neither.
///
/// # Errors
/// What the kernel said.
pub fn leave_children_nothing() -> Result<(), caps::errors::CapsError> {
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    bound_to(&CapsHashSet::new())
}

/// Only a thread with `CAP_SETPCAP` may; one without has none worth giving.
fn bound_to(kept: &CapsHashSet) -> Result<(), caps::errors::CapsError> {
    if !caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        return Ok(());
    }
    for capability in caps::read(None, CapSet::Bounding)?.difference(kept) {
        caps::drop(None, CapSet::Bounding, *capability)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_by_name_and_number() {
        let passwd =
            "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65533:nobody:/:/usr/sbin/nologin\nbroken\n";
        assert_eq!(find_user(passwd, "nobody"), Some(User { uid: 65534, gid: 65533 }));
        assert_eq!(find_user(passwd, "65534"), Some(User { uid: 65534, gid: 65533 }));
        assert_eq!(find_user(passwd, "1234"), Some(User { uid: 1234, gid: 1234 }));
        assert_eq!(find_user(passwd, "somebody"), None);
    }
}
