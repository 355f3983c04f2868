//! What an instance has in the kernel, for `status` and `detach`: without loading anything.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use super::lock::Lock;
use super::pins::{Pins, interface_of};
use super::{KernelError, links, sys};

/// One pin of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Where it is pinned.
    pub path: PathBuf,
    /// What it is.
    pub kind: PinKind,
    /// The kernel's id.
    pub id: u32,
}

/// What is pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinKind {
    /// A map.
    Map,
    /// A program, by its name.
    Program(String),
    /// The filter's link.
    Filter {
        /// The interface.
        interface: String,
        /// Whether it still stands on it.
        attached: bool,
    },
    /// Steering's link.
    Steering {
        /// Whether it still stands on the namespace.
        attached: bool,
    },
}

/// Everything an instance has pinned below `root`, sorted by path; empty when there is nothing.
///
/// # Errors
/// The instance's name is none.
pub fn pins(root: &Path, instance: &str) -> Result<Vec<Pin>, KernelError> {
    let pins = Pins::at(root, instance)?;
    let mut found = Vec::new();
    collect(pins.dir(), &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Keeps an instance from being a keeper's as long as the answer lives; there is nothing to keep where there is no such instance.
///
/// # Errors
/// [`KernelError::InUse`] where it is a keeper's, or no right to look.
pub fn lock_instance(root: &Path, instance: &str) -> Result<Option<Lock>, KernelError> {
    Lock::find(&Pins::at(root, instance)?, instance)
}

/// Removes every program, link and pin of an instance, whoever holds it, and gives what there was.
///
/// # Errors
/// What could not be removed.
pub fn detach_instance(root: &Path, instance: &str) -> Result<Vec<Pin>, KernelError> {
    let there = pins(root, instance)?;
    let pins = Pins::at(root, instance)?;
    links::detach(&pins)?;
    pins.remove()?;
    Ok(there)
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stood = |attached| if attached { "" } else { ", which stood on nothing" };
        match &self.kind {
            PinKind::Map => write!(f, "table ")?,
            PinKind::Program(name) => write!(f, "program {name} ")?,
            PinKind::Filter { interface, attached } => {
                write!(f, "packet filter on {interface}{} ", stood(*attached))?;
            }
            PinKind::Steering { attached } => {
                write!(f, "steering (sk_lookup) of the network namespace{} ", stood(*attached))?;
            }
        }
        write!(f, "(id {}, {})", self.id, self.path.display())
    }
}

fn collect(dir: &Path, found: &mut Vec<Pin>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            collect(&path, found);
        } else if let Some((kind, id)) = identify(&path) {
            found.push(Pin { path, kind, id });
        }
    }
}

/// Which kind of object it is follows from the directory, as `pins` lays them out.
fn identify(path: &Path) -> Option<(PinKind, u32)> {
    let object = sys::pinned(path).ok()?;
    let object = object.as_fd();
    let name = path.file_name()?.to_str()?;
    match path.parent()?.file_name()?.to_str()? {
        "links" => {
            let info = sys::link_info(object).ok()?;
            let attached = info.target != 0;
            let kind = match interface_of(name) {
                Some(interface) => PinKind::Filter { interface, attached },
                None => PinKind::Steering { attached },
            };
            Some((kind, info.id))
        }
        "programs" => sys::program_info(object).ok().map(|(id, name)| (PinKind::Program(name), id)),
        _ => sys::map_info(object).ok().map(|info| (PinKind::Map, info.id)),
    }
}
