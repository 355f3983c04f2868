//! A process becomes another program without ending: `execve`, and signals that wait until the other is ready for them.

use std::ffi::{CString, c_char};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt as _;

use rustix::io::FdFlags;

/// SIGTERM, SIGINT and SIGHUP: between two programs there is nobody to hear them, and they would end the process.
const WAIT: [libc::c_int; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

/// Makes this process run an open program with these arguments, this environment and `left` open. Comes back only to say why
/// it is still the old one, with everything as it was.
pub fn replace(program: BorrowedFd<'_>, arguments: Vec<CString>, left: &[BorrowedFd<'_>]) -> io::Error {
    let environment: Vec<CString> = std::env::vars_os()
        .filter_map(|(name, value)| CString::new([name.into_vec(), value.into_vec()].join(&b'=')).ok())
        .collect();
    let flags = |flags| left.iter().try_for_each(|descriptor| rustix::io::fcntl_setfd(descriptor, flags));
    if let Err(error) = flags(FdFlags::empty()) {
        return error.into();
    }
    mask(libc::SIG_BLOCK);
    let error = execute(program, &arguments, &environment);
    hear_signals();
    match flags(FdFlags::CLOEXEC) {
        Ok(()) => error,
        Err(error) => error.into(),
    }
}

/// Signals are heard from now on, those that came meanwhile first.
pub fn hear_signals() {
    mask(libc::SIG_UNBLOCK);
}

#[expect(unsafe_code, reason = "execve is not in rustix's stable part")]
fn execute(program: BorrowedFd<'_>, arguments: &[CString], environment: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: both lists end with a null pointer, and their strings live until after the call.
    unsafe { libc::fexecve(program.as_raw_fd(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

#[expect(unsafe_code, reason = "a thread's signal mask is not in rustix's stable part")]
fn mask(how: libc::c_int) {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: it writes a whole set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for signal in WAIT {
        // SAFETY: the set is written, and these are signals.
        unsafe { libc::sigaddset(set.as_mut_ptr(), signal) };
    }
    // SAFETY: the set is written; the former mask is not asked for. It fails only for another `how`.
    unsafe { libc::pthread_sigmask(how, set.as_ptr(), std::ptr::null_mut()) };
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_cannot_run_leaves_everything_as_it_was() {
        let text = std::fs::File::open("/etc/passwd").unwrap();
        let held = rustix::fs::memfd_create("held", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let error = replace(text.as_fd(), vec![c"none".to_owned()], &[held.as_fd()]);
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(rustix::io::fcntl_getfd(&held).unwrap().contains(FdFlags::CLOEXEC));
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap().trim();
        let blocked = u64::from_str_radix(blocked, 16).unwrap();
        assert!(WAIT.iter().all(|signal| blocked & 1 << (signal - 1) == 0), "{blocked:x}");
    }
}
