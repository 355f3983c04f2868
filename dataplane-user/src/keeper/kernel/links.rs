//! Programs on the interfaces and on the network namespace.
//!
//! A link is pinned as soon as it is made, and replaced in place, so there is no moment without a program. An interface
//! that has another's XDP program is left alone.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

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
    pub(super) name: String,
    pub(super) state: State,
    /// Receive queues, where the interface is there.
    pub(super) queues: Option<u32>,
}

/// What became of a link.
#[derive(Debug)]
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
    let Some(index) = sys::interface_index(name) else {
        let why = format!(
            "there is no interface {name}: name another with --interface; the rest goes on without it"
        );
        return Interface { name: name.to_owned(), state: State::Off(why), queues: None };
    };
    let state = match attach(pins, name, index, program) {
        Ok(()) => State::On(mode(index)),
        Err(Refusal::Foreign(program)) => State::Off(format!(
            "{name} already has the XDP program {program}: remove it with `ip link set dev {name} xdp off` or leave {name} to it"
        )),
        Err(Refusal::Kernel { native, generic }) => State::Off(format!(
            "the kernel refuses XDP on {name}: native: {native}; generic: {generic}; deny and allow lists are not enforced there"
        )),
        Err(Refusal::Pin(error)) => State::Off(super::off::with_causes(&error)),
    };
    Interface {
        name: name.to_owned(),
        state,
        queues: netlink::interface(index).ok().map(|found| found.queues),
    }
}

enum Refusal {
    Foreign(String),
    Kernel { native: io::Error, generic: io::Error },
    Pin(KernelError),
}

fn attach(pins: &Pins, name: &str, index: u32, program: &OwnedFd) -> Result<(), Refusal> {
    let path = pins.link(&link_name(name));
    if let Ok(link) = sys::pinned(&path) {
        // An interface made anew under the same name has another index, and the link of the old one stands on nothing.
        let stands = sys::link_info(link.as_fd()).is_ok_and(|info| info.target == index);
        if stands && sys::link_update(link.as_fd(), program.as_fd()).is_ok() {
            return Ok(());
        }
        std::fs::remove_file(&path)
            .map_err(|error| Refusal::Pin(KernelError::pin("unpinning", &path)(error)))?;
    }
    if let Some(foreign) = foreign(index) {
        return Err(Refusal::Foreign(foreign));
    }
    let create = |flags| sys::link_create(program.as_fd(), index, sys::ATTACH_XDP, flags);
    let link = create(sys::XDP_NATIVE)
        .or_else(|native| create(sys::XDP_GENERIC).map_err(|generic| Refusal::Kernel { native, generic }))?;
    sys::pin(link.as_fd(), &path).map_err(|error| Refusal::Pin(KernelError::pin("pinning", &path)(error)))
}

/// The program an interface has already, which is not ours.
fn foreign(index: u32) -> Option<String> {
    let found = netlink::interface(index).ok().filter(|found| found.attached != 0)?;
    let named = sys::program_by_id(found.program).and_then(|program| sys::program_info(program.as_fd()));
    Some(match named {
        Ok((id, name)) => format!("{name} (id {id})"),
        Err(_) => format!("with id {}", found.program),
    })
}

fn mode(index: u32) -> String {
    match netlink::interface(index).map(|found| found.attached) {
        Ok(1) => "native".to_owned(),
        Ok(2) => "generic: the driver has no native XDP, so dropping costs more".to_owned(),
        Ok(3) => "offloaded".to_owned(),
        _ => "attached".to_owned(),
    }
}

/// Puts steering on this thread's network namespace, or the new program in the old one's place.
pub(super) fn steer(pins: &Pins, instance: &str, program: &OwnedFd) -> Result<(), KernelError> {
    let failed =
        |doing| move |source| KernelError::Link { doing, target: "the network namespace".to_owned(), source };
    let namespace = File::open(NAMESPACE).map_err(failed("opening"))?;
    let inode = namespace.metadata().map_err(failed("reading"))?.ino();
    let path = pins.link(STEER);
    if let Ok(link) = sys::pinned(&path) {
        let target = sys::link_info(link.as_fd()).map_err(failed("reading the link on"))?.target;
        if u64::from(target) == inode {
            return sys::link_update(link.as_fd(), program.as_fd())
                .map_err(failed("replacing the program on"));
        }
        if target != 0 {
            return Err(KernelError::OtherNamespace { instance: instance.to_owned() });
        }
        std::fs::remove_file(&path).map_err(KernelError::pin("unpinning", &path))?;
    }
    let target = namespace.as_raw_fd().cast_unsigned();
    let link = sys::link_create(program.as_fd(), target, sys::ATTACH_SK_LOOKUP, 0)
        .map_err(failed("attaching to"))?;
    sys::pin(link.as_fd(), &path).map_err(KernelError::pin("pinning", &path))
}

/// Takes every link of the instance off, also where another process holds it.
pub(super) fn detach(pins: &Pins) -> Result<(), KernelError> {
    for (name, link) in pins.links() {
        let path = pins.link(&name);
        let gone = |error: &io::Error| error.raw_os_error() == Some(libc::ENOLINK);
        match sys::link_detach(link.as_fd()) {
            Err(error) if !gone(&error) => {
                return Err(KernelError::Link { doing: "detaching", target: name, source: error });
            }
            _ => std::fs::remove_file(&path).map_err(KernelError::pin("unpinning", &path))?,
        }
    }
    Ok(())
}
