//! What the worker gives up before it meets the first hostile byte: new privileges, files, and the system calls that
//! a proxy does not make. Applied to the first thread before there is another; every thread inherits it.

use std::collections::BTreeMap;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, LandlockStatus, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use model::report::Feature;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// Files that a resolver may want to read again; nothing else is readable and nothing at all writable.
const READABLE: [&str; 5] =
    ["/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf"];

/// Shuts the sandbox; the answer says for each part whether it is on and why not.
pub fn enter() -> Vec<Feature> {
    // Needed by the other two, and worth having by itself: no child could gain privileges from a set-uid file.
    if let Err(error) = rustix::thread::set_no_new_privs(true) {
        let detail = format!("new privileges cannot be forbidden: {error}");
        return ["landlock", "seccomp"].iter().map(|name| feature(name, Err(detail.clone()))).collect();
    }
    vec![feature("landlock", restrict_files()), feature("seccomp", restrict_calls())]
}

fn feature(name: &str, outcome: Result<String, String>) -> Feature {
    let (on, detail) = match outcome {
        Ok(detail) => (true, detail),
        Err(detail) => (false, detail),
    };
    Feature { name: name.to_owned(), on, detail }
}

/// No file, no listening port that the keeper did not open, no signal to another process, in whatever way it would be sent.
fn restrict_files() -> Result<String, String> {
    let abi = ABI::V6;
    let restrict = || -> Result<landlock::RestrictionStatus, RulesetError> {
        let ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(abi))?
            .handle_access(AccessNet::BindTcp)?
            .scope(Scope::from_all(abi))?
            .create()?;
        let readable = READABLE.iter().filter_map(|path| PathFd::new(path).ok());
        let rules = readable.map(|path| Ok::<_, RulesetError>(PathBeneath::new(path, AccessFs::ReadFile)));
        ruleset.add_rules(rules)?.restrict_self()
    };
    let status = restrict().map_err(|error| error.to_string())?;
    match (status.ruleset, status.landlock) {
        (RulesetStatus::FullyEnforced, _) => Ok("no file can be written, no port opened".to_owned()),
        (RulesetStatus::PartiallyEnforced, LandlockStatus::Available { effective_abi, .. }) => {
            Ok(format!("no file can be written, but {}", beyond(effective_abi)))
        }
        (RulesetStatus::PartiallyEnforced, _) => Ok("as far as this kernel's landlock goes".to_owned()),
        (RulesetStatus::NotEnforced, LandlockStatus::NotEnabled) => {
            Err("this kernel has landlock switched off: add it to lsm= on the kernel's command line"
                .to_owned())
        }
        (RulesetStatus::NotEnforced, _) => {
            Err("this kernel has no landlock (CONFIG_SECURITY_LANDLOCK)".to_owned())
        }
    }
}

/// What this version of landlock cannot forbid, and the Linux that can (landlock(7)).
fn beyond(abi: ABI) -> String {
    let later = [
        (ABI::V3, "truncating files (6.2)"),
        (ABI::V4, "opening TCP ports (6.7)"),
        (ABI::V5, "commands to devices (6.10)"),
        (ABI::V6, "abstract Unix sockets and signals (6.12)"),
    ];
    let missing: Vec<&str> = later.iter().filter(|(since, _)| abi < *since).map(|(_, what)| *what).collect();
    format!("this kernel's landlock is too old to forbid {}", missing.join(", "))
}

/// Everything else answers EPERM, which the standard library and the runtime take as an ordinary error.
fn restrict_calls() -> Result<String, String> {
    // Both are judged for every call; the second forbids to add a third.
    for program in [clone3_program(), calls_program()] {
        let program = program.map_err(|error| error.to_string())?;
        seccompiler::apply_filter(&program).map_err(|error| error.to_string())?;
    }
    Ok(format!("{} system calls allowed", CALLS.len()))
}

fn calls_program() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = CALLS.iter().map(|call| (*call, Vec::new())).collect();
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    // Threads, but no namespaces: in one of its own a process has every capability, and all the kernel's code behind them.
    // No processes either: the keeper knows its workers by their process ids.
    let kinds = NAMESPACES | THREAD;
    let threads = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(kinds), THREAD)?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![threads])?]);
    let first_is = |value: u32| {
        let condition =
            SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, u64::from(value))?;
        SeccompRule::new(vec![condition])
    };
    let families =
        [libc::AF_INET, libc::AF_INET6, libc::AF_UNIX].map(|family| first_is(family.unsigned_abs()));
    rules.insert(libc::SYS_socket, families.into_iter().collect::<Result<_, _>>()?);
    // What has a process id as its first argument concerns this process alone: others of its user may be the keeper.
    rules.insert(libc::SYS_tgkill, vec![first_is(std::process::id())?]);
    for call in [libc::SYS_prlimit64, libc::SYS_sched_setaffinity] {
        rules.insert(call, vec![first_is(0)?]);
    }
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, refused, SeccompAction::Allow, architecture)?.try_into()
}

/// `clone3` keeps its flags in memory, where no filter sees them: with ENOSYS the C library takes `clone`.
fn clone3_program() -> Result<BpfProgram, seccompiler::BackendError> {
    let absent = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let rules = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    SeccompFilter::new(rules, SeccompAction::Allow, absent, architecture)?.try_into()
}

/// The flag of `clone` that makes a thread.
const THREAD: u64 = libc::CLONE_THREAD as u64;

/// The flags of `clone` that make a namespace.
const NAMESPACES: u64 = (libc::CLONE_NEWUSER
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWTIME) as u64;

/// What tokio, rustls, aws-lc and the allocator need. Deliberately absent: `execve`, `ptrace`, `bpf`, `mount`,
/// `setuid` and kin, `unlink`, `rename`, `kill` (`tgkill`, which is abort's, reaches this process only),
/// `ftruncate` (the access log's descriptor would allow it).
const CALLS: &[libc::c_long] = &[
    // Descriptors.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getdents64,
    libc::SYS_pipe2,
    libc::SYS_splice,
    libc::SYS_tee,
    libc::SYS_sendfile,
    libc::SYS_memfd_create,
    libc::SYS_flock,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    // Sockets.
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_connect,
    libc::SYS_accept4,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    // Waiting.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_restart_syscall,
    // Memory.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_mlock,
    libc::SYS_munlock,
    libc::SYS_membarrier,
    // Threads.
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getcpu,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_prctl,
    libc::SYS_prlimit64,
    libc::SYS_getrlimit,
    libc::SYS_getrandom,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    // Only x86-64 still has these beside their newer forms.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_dup2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_arch_prctl,
];

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

    use super::*;

    /// Whether the main thread of a process could be sent a signal; none is.
    #[expect(unsafe_code, reason = "tgkill has no safe name")]
    fn signalled(pid: u32) -> std::io::Result<()> {
        // SAFETY: it takes no pointer.
        let done = unsafe { libc::syscall(libc::SYS_tgkill, pid, pid, 0) };
        if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    }

    /// Whether another process's limits are to be had.
    #[expect(unsafe_code, reason = "prlimit has no safe name")]
    fn limit_read(pid: u32) -> std::io::Result<()> {
        let nothing = std::ptr::null_mut::<libc::rlimit64>();
        // SAFETY: neither pointer is to be used where it is null.
        let done = unsafe { libc::syscall(libc::SYS_prlimit64, pid, libc::RLIMIT_NOFILE, nothing, nothing) };
        if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    }

    #[test]
    fn a_thread_in_the_sandbox_opens_nothing_and_starts_nobody_but_still_talks() {
        let path = std::env::temp_dir().join(format!("sallyport-sandbox-{}", std::process::id()));
        std::fs::write(&path, b"before").unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let inside = path.clone();
        let existed: Vec<_> = READABLE.into_iter().filter(|path| std::fs::read(path).is_ok()).collect();
        // The filters are the thread's own: the rest of this test process stays outside.
        let features = std::thread::spawn(move || {
            let features = enter();
            let on = |name| features.iter().any(|feature: &Feature| feature.name == name && feature.on);
            if on("landlock") {
                assert!(std::fs::write(&inside, b"after").is_err());
                assert!(std::fs::read("/etc/passwd").is_err());
            }
            if on("seccomp") {
                assert!(std::process::Command::new("/bin/true").status().is_err());
                assert!(std::fs::remove_file(&inside).is_err());
                let family = |family| rustix::net::socket(family, rustix::net::SocketType::DGRAM, None);
                assert!(family(rustix::net::AddressFamily::NETLINK).is_err());
                assert!(family(rustix::net::AddressFamily::INET6).is_ok());
            }
            std::net::TcpStream::connect(address).unwrap();
            // What each thread's resolver reads at its start, behind the sandbox.
            for path in READABLE.iter().filter(|path| existed.contains(path)) {
                std::fs::read(path).unwrap();
            }
            std::thread::spawn(|| ()).join().unwrap();
            features
        });
        let features = features.join().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"before");
        std::fs::remove_file(&path).unwrap();
        assert!(features.iter().any(|feature| feature.name == "seccomp" && feature.on), "{features:?}");
    }

    #[test]
    fn other_processes_of_the_same_user_are_out_of_reach() {
        let mut other = std::process::Command::new("/bin/sleep").arg("100").spawn().unwrap();
        let (pid, own) = (other.id(), std::process::id());
        let name = SocketAddr::from_abstract_name(format!("sallyport-sandbox-{own}")).unwrap();
        let _listener = UnixListener::bind_addr(&name).unwrap();
        assert!(signalled(pid).is_ok() && limit_read(pid).is_ok());
        // Each for itself, because either would do.
        let calls = std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            restrict_calls().unwrap();
            assert!(signalled(pid).is_err() && limit_read(pid).is_err());
            assert!(signalled(own).is_ok() && limit_read(0).is_ok());
        });
        let files = std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            // Older kernels enforce a part, and no scopes.
            if restrict_files().is_ok_and(|detail| !detail.contains("as far as")) {
                assert!(signalled(pid).is_err() && signalled(own).is_ok());
                assert!(UnixStream::connect_addr(&name).is_err());
            }
        });
        let done = [calls, files].map(std::thread::JoinHandle::join);
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(done.iter().all(Result::is_ok));
    }
}
