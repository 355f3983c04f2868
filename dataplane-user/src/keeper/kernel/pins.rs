//! Where everything is pinned, and whether what is pinned may be taken over.
//!
//! ```text
//! <root>/<instance>/links/xdp-<interface>, links/sk_lookup
//! <root>/<instance>/namespace/<number of the network namespace>
//!                  /current/maps/<NAME>             as dataplane_ebpf::wire::maps names them
//!                          /tables/<NAME>-<0|1>     the generations' inner maps
//!                          /programs/<name>         what the links run
//!                  /next/...                        only while a layout changes
//! ```
//!
//! aya takes a pinned map for its own whatever its sizes, and a program that writes 8 bytes into values of 4 corrupts the
//! kernel's memory; so the layout is compared here, before aya sees a path. Where it differs, `next` is made and filled
//! beside `current`, the links are moved, `current` goes and `next` takes its name. bpffs allows no dots in names.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use dataplane_ebpf::reason::SLOTS;
use dataplane_ebpf::wire::flow::{Head, RING_BYTES, ROOM, Seen, WATCHES_MAX, Watches};
use dataplane_ebpf::wire::here::Here;
use dataplane_ebpf::wire::sender::SENDERS_MAX;
use dataplane_ebpf::wire::shared::Shared;
use dataplane_ebpf::wire::table::CHUNK;
use dataplane_ebpf::wire::{CPUS_MAX, GENERATIONS, RULES_MAX, THREADS_MAX, maps};
use rustix::mount::MountFlags;

use dataplane_ebpf::wire::budget::{DOORS_MAX, SOURCES_MAX, place, pressure, tails};

use super::KernelError;
use super::sys::{self, Shape};

const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
/// Where the BPF file system is mounted on every distribution.
const BPFFS: &str = "/sys/fs/bpf";

/// A map that the object defines.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
}

const fn map(name: &'static str, kind: u32, key: u32, value: u32, entries: u32, flags: u32) -> Layout {
    Layout { name, shape: Shape { kind, key, value, entries, flags } }
}

/// The object's maps as this release makes them; a test compares this with what the object gives, but for [`SHARED`].
pub(super) const LAYOUT: &[Layout] = &[
    SHARED,
    map(maps::TABLES, sys::ARRAY_OF_MAPS, 4, 4, GENERATIONS, 0),
    map(maps::LISTENERS, sys::ARRAY_OF_MAPS, 4, 4, GENERATIONS, 0),
    map(maps::HERE, sys::PERCPU_ARRAY, 4, size_of::<Here>() as u32, 1, 0),
    map(maps::RULES, sys::PERCPU_ARRAY, 4, 8, RULES_MAX, 0),
    map(maps::SENDERS, sys::LRU_HASH, 40, 48, SENDERS_MAX, 0),
    map(maps::SAMPLED, sys::PERCPU_ARRAY, 4, 8, 1, 0),
    map(maps::ENTRY, sys::PERCPU_ARRAY, 4, 88, 1, 0),
    map(maps::JUDGED, sys::PERCPU_ARRAY, 4, 64, 1, 0),
    map(maps::WATCHES, sys::ARRAY, 4, size_of::<Watches>() as u32, 1, 0),
    map(maps::CAPTURED, sys::ARRAY, 4, 8 * WATCHES_MAX as u32, 1, 0),
    map(maps::SEEN, sys::PERCPU_ARRAY, 4, size_of::<Seen>() as u32, 1, 0),
    map(maps::FLOWS, sys::RINGBUF, 0, 0, RING_BYTES, 0),
    map(maps::RECORD, sys::PERCPU_ARRAY, 4, Head::SIZE as u32 + ROOM, 1, 0),
    map(maps::BUDGETS, sys::ARRAY, 4, 32, place::PLACES, 0),
    map(maps::BUDGET_PORTS, sys::ARRAY, 4, 4, 65_536, 0),
    map(maps::PORT_BUCKETS, sys::ARRAY, 4, 8, 65_536, 0),
    map(maps::SYN_BUCKETS, sys::LRU_HASH, 12, 8, SOURCES_MAX, 0),
    map(maps::UDP_BUCKETS, sys::LRU_HASH, 12, 8, SOURCES_MAX, 0),
    map(maps::CONNECTION_BUCKETS, sys::LRU_HASH, 12, 8, SOURCES_MAX, 0),
    map(maps::KNOWN, sys::LRU_HASH, 12, 8, SOURCES_MAX, 0),
    map(maps::DOORS, sys::ARRAY, 4, 8, DOORS_MAX, 0),
    map(maps::PRESSURE, sys::ARRAY, 4, 8, pressure::WORDS, 0),
    map(maps::TAIL, sys::PROGRAM_ARRAY, 4, 4, tails::TAILS, 0),
    map(maps::SOCKETS, sys::SOCKMAP, 4, 4, 2 * THREADS_MAX, 0),
    map(maps::THREADS, sys::ARRAY, 4, 4, CPUS_MAX, 0),
    map(maps::STEERING, sys::ARRAY, 4, 4, 1, 0),
    map(maps::RANGES, sys::ARRAY_OF_MAPS, 4, 4, 1, 0),
];

/// What the programs know by its address. The object has it as a section, of which aya would make a map that nobody can map;
/// `build-object` sees to it that nothing else is in there.
pub(super) const SHARED: Layout =
    map(maps::SHARED, sys::ARRAY, 4, size_of::<Shared>() as u32, 1, sys::MAPPABLE);

/// What was counted and already taken, and which counter is whose; userspace's own, so that a restart neither loses nor repeats
/// counts.
pub(super) const TAKEN: Layout = map("TAKEN", sys::HASH, 8, 16, RULES_MAX + SLOTS, sys::NO_PREALLOC);

/// The inner map of [`maps::RANGES`], with as many entries as it needs.
pub(super) const RANGES: Shape =
    Shape { kind: sys::LPM_TRIE, key: 24, value: 4, entries: 0, flags: sys::NO_PREALLOC };

/// The inner maps, each with as many entries as it needs.
pub(super) const INNER: [Layout; 2] = [
    map(maps::TABLES, sys::ARRAY, 4, 4 * CHUNK as u32, 0, sys::MAPPABLE | sys::INNER_MAP),
    map(maps::LISTENERS, sys::HASH, 20, 4, 0, 0),
];

/// One instance's directory.
#[derive(Debug, Clone)]
pub(super) struct Pins {
    dir: PathBuf,
}

/// One set of maps and programs.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    dir: PathBuf,
}

/// What a slot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SlotState {
    /// Nothing.
    Absent,
    /// Everything, as this release needs it.
    Usable,
    /// Something else: another layout, or half of one.
    Other,
}

impl Pins {
    /// The instance's directory; made, if `root` is on a BPF file system.
    pub(super) fn open(root: &Path, instance: &str) -> Result<Self, KernelError> {
        let pins = Self::at(root, instance)?;
        if !on_bpffs(root) {
            let parent = root.parent().unwrap_or(root);
            let no_bpffs = |why: String| KernelError::NoBpffs { root: parent.to_path_buf(), why };
            mount(parent).map_err(no_bpffs)?;
            if !on_bpffs(root) {
                return Err(no_bpffs("what was mounted there is not seen".to_owned()));
            }
        }
        pins.make()?;
        Ok(pins)
    }

    /// Makes the instance's directory, which may be there.
    pub(super) fn make(&self) -> Result<(), KernelError> {
        make(&self.dir.join("links"))
    }

    /// The instance's directory, which may not exist.
    pub(super) fn at(root: &Path, instance: &str) -> Result<Self, KernelError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if instance.is_empty() || instance.len() > 32 || !instance.chars().all(allowed) {
            return Err(KernelError::InstanceName { name: instance.to_owned() });
        }
        Ok(Self { dir: root.join(instance) })
    }

    /// The network namespace that was noted, by its number.
    pub(super) fn noted(&self) -> Option<u64> {
        let notes = fs::read_dir(self.notes()).ok()?;
        notes.flatten().find_map(|note| note.file_name().to_str()?.parse().ok())
    }

    /// Notes which network namespace the instance is for. A BPF file system holds no files, but a directory's name.
    pub(super) fn note(&self, namespace: u64) -> Result<(), KernelError> {
        remove(&self.notes())?;
        make(&self.notes().join(namespace.to_string()))
    }

    fn notes(&self) -> PathBuf {
        self.dir.join("namespace")
    }

    pub(super) fn current(&self) -> Slot {
        Slot { dir: self.dir.join("current") }
    }

    pub(super) fn next(&self) -> Slot {
        Slot { dir: self.dir.join("next") }
    }

    /// `name` is `sk_lookup` or an interface's, escaped as bpffs wants it.
    pub(super) fn link(&self, name: &str) -> PathBuf {
        self.dir.join("links").join(name)
    }

    /// The links pinned: name and descriptor.
    pub(super) fn links(&self) -> Vec<(String, OwnedFd)> {
        let Ok(entries) = fs::read_dir(self.dir.join("links")) else { return Vec::new() };
        let named = |entry: fs::DirEntry| {
            Some((entry.file_name().into_string().ok()?, sys::pinned(&entry.path()).ok()?))
        };
        entries.flatten().filter_map(named).collect()
    }

    /// Ends a layout change that was interrupted: forward once a link runs the new programs, back before that.
    pub(super) fn recover(&self) -> Result<(), KernelError> {
        let (current, next) = (self.current(), self.next());
        if !next.dir.exists() {
            return Ok(());
        }
        let new: Vec<u32> = next.programs();
        let moved = self
            .links()
            .iter()
            .filter_map(|(_, link)| sys::link_info(link.as_fd()).ok())
            .any(|link| new.contains(&link.program));
        if moved || !current.dir.exists() { self.promote() } else { next.remove() }
    }

    /// Makes `next` the `current` one.
    pub(super) fn promote(&self) -> Result<(), KernelError> {
        let (current, next) = (self.current(), self.next());
        current.remove()?;
        fs::rename(&next.dir, &current.dir).map_err(KernelError::pin("renaming", &next.dir))
    }

    /// Whether a link still stands on an interface or a namespace.
    pub(super) fn has_live_links(&self) -> bool {
        self.links().iter().any(|(_, link)| sys::link_info(link.as_fd()).is_ok_and(|info| info.target != 0))
    }

    /// Everything goes.
    pub(super) fn remove(&self) -> Result<(), KernelError> {
        remove(&self.dir)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Slot {
    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.dir.join("maps").join(name)
    }

    pub(super) fn table(&self, name: &str, generation: u32) -> PathBuf {
        self.dir.join("tables").join(format!("{name}-{generation}"))
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.dir.join("programs").join(name)
    }

    pub(super) fn make(&self) -> Result<(), KernelError> {
        ["maps", "tables", "programs"].iter().try_for_each(|part| make(&self.dir.join(part)))
    }

    pub(super) fn remove(&self) -> Result<(), KernelError> {
        remove(&self.dir)
    }

    /// A map of the slot.
    pub(super) fn open(&self, name: &'static str) -> Result<OwnedFd, KernelError> {
        sys::pinned(&self.map(name)).map_err(KernelError::table("opening", name))
    }

    /// Compares everything with this release's layout.
    pub(super) fn state(&self) -> SlotState {
        if !self.dir.exists() {
            return SlotState::Absent;
        }
        let fits = |path: &Path, wanted: Shape| {
            let found = sys::pinned(path).and_then(|map| sys::map_info(map.as_fd()));
            found.is_ok_and(|found| {
                let entries = if wanted.entries == 0 { found.shape.entries } else { wanted.entries };
                found.shape == Shape { entries, ..wanted }
            })
        };
        let maps = LAYOUT.iter().chain([&TAKEN]).all(|map| fits(&self.map(map.name), map.shape));
        let tables = INNER
            .iter()
            .flat_map(|table| (0..GENERATIONS).map(move |generation| (table, generation)))
            .all(|(table, generation)| fits(&self.table(table.name, generation), table.shape));
        if maps && tables { SlotState::Usable } else { SlotState::Other }
    }

    /// The ids of the programs pinned.
    fn programs(&self) -> Vec<u32> {
        [maps::FILTER, maps::STEER]
            .iter()
            .filter_map(|name| sys::pinned(&self.program(name)).ok())
            .filter_map(|program| sys::program_info(program.as_fd()).ok())
            .map(|(id, _)| id)
            .collect()
    }
}

/// Pins over whatever was pinned there.
pub(super) fn pin_over(object: &OwnedFd, path: &Path) -> Result<(), KernelError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::pin("unpinning", path)(error))
        }
        _ => sys::pin(object.as_fd(), path).map_err(KernelError::pin("pinning", path)),
    }
}

/// A link's name for an interface: dots mean something to bpffs, so they are written as `%2e`.
pub(super) fn link_name(interface: &str) -> String {
    format!("xdp-{}", interface.replace('%', "%25").replace('.', "%2e"))
}

/// The interface of a link's name.
pub(super) fn interface_of(link: &str) -> Option<String> {
    Some(link.strip_prefix("xdp-")?.replace("%2e", ".").replace("%25", "%"))
}

fn on_bpffs(root: &Path) -> bool {
    let existing = root.ancestors().find(|ancestor| ancestor.exists());
    let file_system = existing.and_then(|existing| rustix::fs::statfs(existing).ok());
    file_system.is_some_and(|stat| stat.f_type == BPF_FS_MAGIC)
}

/// A BPF file system in the place where everybody expects it, as systemd and the unit mount it: for root alone. It stays when the
/// node ends, as the pins do. Needs CAP_SYS_ADMIN, which the keeper gives up after this.
fn mount(root: &Path) -> Result<(), String> {
    if root != Path::new(BPFFS) {
        return Err(format!("it mounts {BPFFS} alone"));
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    match rustix::mount::mount("bpf", root, "bpf", flags, c"mode=0700") {
        Ok(()) => {
            tracing::info!(root = BPFFS, "mounted the BPF file system");
            Ok(())
        }
        Err(rustix::io::Errno::PERM) => Err("it may not: that needs CAP_SYS_ADMIN".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn make(dir: &Path) -> Result<(), KernelError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(KernelError::pin("making the directory", dir))
}

fn remove(dir: &Path) -> Result<(), KernelError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::pin("removing", dir)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_survive_bpffs() {
        for name in ["eth0", "eth0.5", "a%b", "%2e"] {
            assert!(!link_name(name).contains('.'));
            assert_eq!(interface_of(&link_name(name)).as_deref(), Some(name));
        }
    }

    #[test]
    fn instances_are_plain_names() {
        assert!(Pins::at(Path::new("/x"), "default-1_a").is_ok());
        for bad in ["", "..", "a/b", "a.b", "ä"] {
            assert!(Pins::at(Path::new("/x"), bad).is_err(), "{bad}");
        }
    }
}
