//! Programs on the interfaces and on the network namespace.
//!
//! A link is pinned as soon as it is made, and replaced in place, so there is no moment without a program. An interface
//! that has another's XDP program is left alone.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use model::report::Feature;

use super::pins::{Pins, link_name};
use super::{KernelError, netlink, sys};

/// The link's name for the namespace.
pub(super) const STEER: &str = "sk_lookup";
/// This thread's namespace: `/proc/self` would be the process's first thread's.
const NAMESPACE: &str = "/proc/thread-self/ns/net";

/// What became of one interface.
#[derive(Debug)]
pub(super) struct Interface {
    /// As it was asked for.
    pub(super) name: String,
    pub(super) state: State,
    /// Receive queues in use, where the interface is there.
    pub(super) queues: Option<u32>,
    /// It has another name now.
    pub(super) renamed: bool,
}

/// What became of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// Runs, with how.
    On(String),
    /// Does not, with why.
    Off(String),
}

impl State {
    pub(super) fn feature(&self, name: String) -> Feature {
        let (on, detail) = match self {
            Self::On(how) => (true, how.clone()),
            Self::Off(why) => (false, why.clone()),
        };
        Feature { name, on, detail }
    }

    pub(super) fn is_on(&self) -> bool {
        matches!(self, Self::On(_))
    }
}

/// Puts the filter on an interface, or the new one in the old one's place.
pub(super) fn filter(pins: &Pins, name: &str, program: &OwnedFd) -> Interface {
    let here = sys::interface_index(name);
    let (index, state) = match here {
        Some(index) => (Some(index), filter_there(pins, name, index, program)),
        None => renamed(pins, name, program),
    };
    let queues = index.and_then(queues);
    Interface { name: name.to_owned(), state, queues, renamed: here.is_none() }
}

/// Receive queues in use, or as many as the driver made where it does not say.
pub(super) fn queues(index: u32) -> Option<u32> {
    let used = sys::interface_name(index).and_then(|name| sys::receive_queues(&name));
    used.or_else(|| netlink::interface(index).ok().map(|found| found.queues))
}

fn filter_there(pins: &Pins, name: &str, index: u32, program: &OwnedFd) -> State {
    match attach(pins, name, index, program) {
        Ok(native) => State::On(mode(index, native)),
        Err(Refusal::NoEthernet(link_type)) => State::Off(format!(
            "the frames of {name} have no Ethernet header (link type {link_type}, as WireGuard, tun and PPP have), and the filter judges Ethernet alone: nothing is filtered in the kernel there, and the node judges connections to its listeners when it accepts them; filter the interface that carries the tunnel"
        )),
        Err(Refusal::Foreign(program)) => State::Off(format!(
            "{name} already has the XDP program {program}, which is left alone, and nothing is filtered there: remove it with `ip link set dev {name} xdp off` (`bpftool link detach` where a link holds it) and the filter takes its place within a second, or leave {name} to it"
        )),
        Err(Refusal::Kernel { native, generic }) => State::Off(format!(
            "the kernel refuses XDP on {name}: native: {native}; generic: {generic}; deny and allow lists are not enforced there; it is tried again every second"
        )),
        Err(Refusal::Pin(error)) => State::Off(super::off::with_causes(&error)),
    }
}

/// The filter stays on an interface whose name was changed.
fn renamed(pins: &Pins, name: &str, program: &OwnedFd) -> (Option<u32>, State) {
    let link = sys::pinned(&pins.link(&link_name(name))).ok();
    let found = link.and_then(|link| {
        let index = sys::link_info(link.as_fd()).ok()?.target;
        let now = sys::interface_name(index)?;
        sys::link_update(link.as_fd(), program.as_fd()).ok()?;
        Some((index, now))
    });
    match found {
        Some((index, now)) => {
            let how = mode(index, None);
            let detail =
                format!("{how}; {name} is called {now} now and keeps the filter: say --interface {now}");
            (Some(index), State::On(detail))
        }
        None => {
            let why = format!(
                "there is no interface {name}: it gets the filter within a second after it is there; if that is not its name, name another with --interface; the rest goes on without it"
            );
            (None, State::Off(why))
        }
    }
}

enum Refusal {
    /// Of this link type.
    NoEthernet(u16),
    Foreign(String),
    Kernel {
        native: io::Error,
        generic: io::Error,
    },
    Pin(KernelError),
}

/// Gives why the driver does not run it natively, where it was just asked.
fn attach(pins: &Pins, name: &str, index: u32, program: &OwnedFd) -> Result<Option<io::Error>, Refusal> {
    let path = pins.link(&link_name(name));
    // Another header there would be read as an Ethernet one: the filter would be on and judge nothing.
    if let Ok(found) = netlink::interface(index)
        && !found.has_ethernet()
    {
        unpin(&path).map_err(Refusal::Pin)?;
        return Err(Refusal::NoEthernet(found.link_type));
    }
    if let Some((pinned, link)) = ours(pins, index)
        && sys::link_update(link.as_fd(), program.as_fd()).is_ok()
    {
        return rename(pins, &pinned, &link_name(name)).map(|()| None).map_err(Refusal::Pin);
    }
    if let Some(foreign) = foreign(index).filter(|_| ours(pins, index).is_none()) {
        return Err(Refusal::Foreign(foreign));
    }
    // An interface made anew under the same name has another index, and the link of the old one stands on nothing.
    unpin(&path).map_err(Refusal::Pin)?;
    let create = |flags| sys::link_create(program.as_fd(), index, sys::ATTACH_XDP, flags);
    let (link, native) = match create(sys::XDP_NATIVE) {
        Ok(link) => (link, None),
        Err(native) => match create(sys::XDP_GENERIC) {
            Ok(link) => (link, Some(native)),
            Err(generic) => return Err(Refusal::Kernel { native, generic }),
        },
    };
    sys::pin(link.as_fd(), &path).map_err(|error| Refusal::Pin(KernelError::pin("pinning", &path)(error)))?;
    Ok(native)
}

/// The instance's link on an interface, whatever the interface was called when it was made.
fn ours(pins: &Pins, index: u32) -> Option<(String, OwnedFd)> {
    let on_it = |(name, link): &(String, OwnedFd)| {
        name != STEER && sys::link_info(link.as_fd()).is_ok_and(|info| info.target == index)
    };
    pins.links().into_iter().find(on_it)
}

/// Gives a pin another name. A link that stands under that name elsewhere is not lost: it gets a name that no interface
/// can have, until its own interface is looked at.
fn rename(pins: &Pins, from: &str, to: &str) -> Result<(), KernelError> {
    if from == to {
        return Ok(());
    }
    let (from, to) = (pins.link(from), pins.link(to));
    let there = sys::pinned(&to).and_then(|link| sys::link_info(link.as_fd()));
    if let Ok(link) = there.as_ref()
        && link.target != 0
    {
        let aside = pins.link(&format!("xdp-%{}", link.target));
        std::fs::rename(&to, &aside).map_err(KernelError::pin("renaming", &to))?;
    }
    std::fs::rename(&from, &to).map_err(KernelError::pin("renaming", &from))
}

/// The interfaces on which the instance has the filter, by the names they have now.
pub(super) fn filtered(pins: &Pins) -> Vec<String> {
    let name = |(pin, link): (String, OwnedFd)| {
        let target = sys::link_info(link.as_fd()).ok()?.target;
        (pin != STEER && target != 0).then(|| sys::interface_name(target)).flatten()
    };
    pins.links().into_iter().filter_map(name).collect()
}

/// Whether the filter stands where it was put, under the name it was asked for, over as many queues as then.
pub(super) fn stands(pins: &Pins, interface: &Interface) -> bool {
    let target = || {
        let link = sys::pinned(&pins.link(&link_name(&interface.name))).ok()?;
        Some(sys::link_info(link.as_fd()).ok()?.target)
    };
    let index = sys::interface_index(&interface.name);
    let same_queues = || index.and_then(queues) == interface.queues;
    interface.state.is_on() && !interface.renamed && index.is_some() && index == target() && same_queues()
}

/// The namespace that steering stands on.
fn steered(pins: &Pins) -> Option<u64> {
    let link = sys::pinned(&pins.link(STEER)).ok()?;
    let target = sys::link_info(link.as_fd()).ok()?.target;
    (target != 0).then(|| target.into())
}

/// Whether steering stands on the namespace.
pub(super) fn steers(pins: &Pins, namespace: &Namespace) -> bool {
    steered(pins) == Some(namespace.number)
}

/// Makes the instance the namespace's, by what stands: steering knows its namespace, and while it rests a note does, which counts
/// for as long as the filter is on an interface elsewhere.
///
/// # Errors
/// [`KernelError::OtherNamespace`] where it is in use in another one.
pub(super) fn claim(pins: &Pins, instance: &str, namespace: &Namespace) -> Result<(), KernelError> {
    let in_use = match steered(pins) {
        Some(number) => number != namespace.number,
        None => pins.noted().is_some_and(|number| number != namespace.number) && filters_elsewhere(pins),
    };
    if in_use {
        return Err(KernelError::OtherNamespace { instance: instance.to_owned() });
    }
    pins.note(namespace.number)
}

/// Whether the filter is on an interface that is not in this thread's namespace. An interface that came here with its filter is.
fn filters_elsewhere(pins: &Pins) -> bool {
    let elsewhere = |(name, link): &(String, OwnedFd)| {
        let Ok(info) = sys::link_info(link.as_fd()) else { return false };
        let here = || netlink::interface(info.target).is_ok_and(|found| found.program == info.program);
        name != STEER && info.target != 0 && !here()
    };
    pins.links().iter().any(elsewhere)
}

/// Takes the filter off every interface but these, and forgets links that stand on nothing.
pub(super) fn keep_only(pins: &Pins, names: &[String]) -> Result<(), KernelError> {
    let wanted: Vec<String> = names.iter().map(|name| link_name(name)).collect();
    for (name, _) in pins.links().into_iter().filter(|(name, _)| name != STEER && !wanted.contains(name)) {
        unpin(&pins.link(&name))?;
        tracing::info!(link = name, "a link is removed: its interface is gone, or is to have no filter");
    }
    Ok(())
}

fn unpin(path: &Path) -> Result<(), KernelError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::pin("unpinning", path)(error))
        }
        _ => Ok(()),
    }
}

/// The program an interface has already, which is not ours.
fn foreign(index: u32) -> Option<String> {
    let found = netlink::interface(index).ok().filter(|found| found.attached != 0)?;
    let named = sys::program_by_id(found.program).and_then(|program| sys::program_info(program.as_fd()));
    Some(match named {
        Ok((id, name)) => format!("{name} (id {id})"),
        // Its name is for CAP_SYS_ADMIN, which a keeper has only while it starts.
        Err(_) => format!("with id {0} (`bpftool prog show id {0}` names it)", found.program),
    })
}

/// How the filter runs; `native` is why the driver refused to run it, where that is known.
fn mode(index: u32, native: Option<io::Error>) -> String {
    match (netlink::interface(index).map(|found| found.attached), native) {
        (Ok(1), _) => "native".to_owned(),
        (Ok(2), Some(error)) if error.raw_os_error() != Some(libc::EOPNOTSUPP) => format!(
            "generic, so dropping costs more: the driver refuses native XDP ({error}; too few queues or too large an MTU are the usual reasons); restart the node to have it tried again"
        ),
        (Ok(2), Some(_)) => "generic: the driver has no native XDP, so dropping costs more".to_owned(),
        (Ok(2), None) => "generic: the driver did not take native XDP, so dropping costs more".to_owned(),
        (Ok(3), _) => "offloaded".to_owned(),
        _ => "attached".to_owned(),
    }
}

/// A network namespace.
#[derive(Debug)]
pub(super) struct Namespace {
    file: File,
    /// What it is known by.
    pub(super) number: u64,
}

impl Namespace {
    /// This thread's.
    pub(super) fn here() -> Result<Self, KernelError> {
        let file = File::open(NAMESPACE).map_err(in_namespace("opening"))?;
        let number = file.metadata().map_err(in_namespace("reading"))?.ino();
        Ok(Self { file, number })
    }
}

fn in_namespace(doing: &'static str) -> impl Fn(io::Error) -> KernelError {
    move |source| KernelError::Link { doing, target: "the network namespace".to_owned(), source }
}

/// Puts steering on the network namespace, or the new program in the old one's place.
pub(super) fn steer(
    pins: &Pins,
    instance: &str,
    program: &OwnedFd,
    namespace: &Namespace,
) -> Result<(), KernelError> {
    let failed = in_namespace;
    let path = pins.link(STEER);
    if let Ok(link) = sys::pinned(&path) {
        let target = sys::link_info(link.as_fd()).map_err(failed("reading the link on"))?.target;
        if u64::from(target) == namespace.number {
            return sys::link_update(link.as_fd(), program.as_fd())
                .map_err(failed("replacing the program on"));
        }
        if target != 0 {
            return Err(KernelError::OtherNamespace { instance: instance.to_owned() });
        }
        std::fs::remove_file(&path).map_err(KernelError::pin("unpinning", &path))?;
    }
    let target = namespace.file.as_raw_fd().cast_unsigned();
    let link = sys::link_create(program.as_fd(), target, sys::ATTACH_SK_LOOKUP, 0)
        .map_err(failed("attaching to"))?;
    sys::pin(link.as_fd(), &path).map_err(KernelError::pin("pinning", &path))
}

/// Takes steering off the namespace, if it is there.
pub(super) fn rest(pins: &Pins, namespace: &Namespace) -> Result<(), KernelError> {
    if !steers(pins, namespace) {
        return Ok(());
    }
    let path = pins.link(STEER);
    let link = sys::pinned(&path).map_err(KernelError::pin("opening", &path))?;
    take_off(pins, STEER, &link)
}

/// Takes every link of the instance off.
pub(super) fn detach(pins: &Pins) -> Result<(), KernelError> {
    pins.links().iter().try_for_each(|(name, link)| take_off(pins, name, link))
}

/// Takes a link off, also where another process holds it.
fn take_off(pins: &Pins, name: &str, link: &OwnedFd) -> Result<(), KernelError> {
    let gone = |error: &io::Error| error.raw_os_error() == Some(libc::ENOLINK);
    match sys::link_detach(link.as_fd()) {
        Err(source) if !gone(&source) => {
            Err(KernelError::Link { doing: "detaching", target: name.to_owned(), source })
        }
        _ => unpin(&pins.link(name)),
    }
}
