//! aya: the ELF object, its maps and its programs.

use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};

use aya::programs::ProgramError;
use aya::{Ebpf, EbpfError, EbpfLoader};
use dataplane_ebpf::{object::OBJECT, wire::maps};

use super::off::with_causes;
use super::pins::{LAYOUT, SHARED, Slot, pin_over};
use super::{KernelError, sys};

/// The programs, each loaded or with the kernel's reason.
pub(super) struct Programs {
    pub(super) filter: Result<OwnedFd, String>,
    pub(super) steer: Result<OwnedFd, String>,
    pub(super) budgets: Result<OwnedFd, String>,
    pub(super) cookies: Cookies,
}

/// The programs that answer with SYN cookies and look for those that come back, or why there are none.
pub(super) type Cookies = Result<(OwnedFd, OwnedFd), String>;

/// Loads the programs over the maps pinned in the slot; makes and pins those that are not there.
pub(super) fn load(slot: &Slot) -> Result<Programs, KernelError> {
    let shared = shared(slot)?;
    let mut loader = EbpfLoader::new();
    for map in LAYOUT {
        let name = if map.name == maps::SHARED { maps::SHARED_SECTION } else { map.name };
        loader.map_pin_path(name, slot.map(map.name));
    }
    // aya writes a section's first content even into a map that was there: so it writes what stands there.
    loader.override_global(maps::SHARED, &*shared, true);
    let mut object = loader.load(OBJECT).map_err(refused)?;
    let mut xdp = |name| {
        program(&mut object, name, |program| {
            let program: &mut aya::programs::Xdp = program.try_into()?;
            program.load()?;
            clone(program.fd()?.as_fd())
        })
    };
    let mut cookies = || Ok((xdp(maps::ANSWER)?, xdp(maps::LEARN)?));
    Ok(Programs {
        cookies: cookies(),
        budgets: xdp(maps::SPEND),
        filter: xdp(maps::FILTER),
        steer: program(&mut object, maps::STEER, |program| {
            let program: &mut aya::programs::SkLookup = program.try_into()?;
            program.load()?;
            clone(program.fd()?.as_fd())
        }),
    })
}

/// What all packets meet, which is made where it is missing. Nobody else writes to it meanwhile: only who has the instance's lock does,
/// which one keeper hands to the next.
fn shared(slot: &Slot) -> Result<Vec<u8>, KernelError> {
    let path = slot.map(SHARED.name);
    let map = match sys::pinned(&path) {
        Ok(map) => map,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let made = sys::map_create(SHARED.name, SHARED.shape)
                .map_err(KernelError::table("making", SHARED.name))?;
            pin_over(&made, &path)?;
            made
        }
        Err(error) => return Err(KernelError::table("opening", SHARED.name)(error)),
    };
    let mut content = vec![0; SHARED.shape.value as usize];
    match sys::map_lookup(map.as_fd(), &0_u32.to_ne_bytes(), &mut content) {
        Ok(true) => Ok(content),
        // As no array says.
        Ok(false) => Err(KernelError::table("reading", SHARED.name)(ErrorKind::NotFound.into())),
        Err(error) => Err(KernelError::table("reading", SHARED.name)(error)),
    }
}

fn clone(fd: std::os::fd::BorrowedFd<'_>) -> Result<OwnedFd, ProgramError> {
    fd.try_clone_to_owned().map_err(ProgramError::IOError)
}

fn program(
    object: &mut Ebpf,
    name: &str,
    load: impl FnOnce(&mut aya::programs::Program) -> Result<OwnedFd, ProgramError>,
) -> Result<OwnedFd, String> {
    let program = object.program_mut(name).ok_or_else(|| format!("the object has no program {name}"))?;
    load(program).map_err(|error| with_causes(&error))
}

/// Says what the process or the kernel lacks, where that is the reason.
fn refused(error: EbpfError) -> KernelError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(current) = cause {
        match current.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error) {
            Some(libc::EPERM | libc::EACCES) => return KernelError::NotPermitted,
            Some(libc::ENOSYS) => return KernelError::NoBpf,
            _ => cause = current.source(),
        }
    }
    KernelError::Object(Box::new(error))
}
